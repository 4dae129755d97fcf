"""Who works in a folder: epochs, their owners, and the heartbeat that shows that one is alive.

An epoch is a file, created exclusively; the newest one's owner is the owner. It beats every BEAT_S
seconds. A newcomer who sees the beat move is refused; after STANDS_STILL_S seconds without, by his
own clock, the next epoch is his. An owner that ends says so, and one whose process is known to be
gone (the same machine, no such process) is not waited for.
"""

import contextlib
import getpass
import json
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from e2eft.artifacts.manifest import ArtifactError, read_json
from e2eft.errors import DamagedError, MissingError, StorageError
from e2eft.storage import Store

log = logging.getLogger(__name__)

EPOCHS = "_epochs"
DOING, WORKING, DELETING = "doing", "working", "deleting"
"""What an owner says with every beat that he does."""
BEAT_S = 5.0
BEATS_OF_PATIENCE = 8
"""A patience that is set short makes the heart beat this often in it."""
STANDS_STILL_S = 120.0
STANDS_STILL_VARIABLE = "E2EFT_OWNER_PATIENCE_S"
LOOK_EVERY_S = 1.0


class OccupiedError(ArtifactError):
    """A folder in which another, living job works."""


class DisplacedError(ArtifactError):
    """This job's folder has been taken over by another one: it must not write there any more."""


@dataclass(frozen=True)
class Owner:
    """A driver: where it runs and since when. machine: tells this boot of this machine (and
    container) from all others; started: its process from later ones of the same number."""

    host: str
    pid: int
    user: str
    job: str
    since: str
    machine: str = ""
    started: str = ""

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"{self.user}@{self.host}, process {self.pid}{job}, since {self.since}"

    @staticmethod
    def decode(content: bytes, where: str) -> "Owner":
        """Of an epoch's file; what a newer program adds is left out.

        Raises:
            DamagedError: if that is none.
        """
        said: Any = read_json(content, where).get("owner")
        known = {field.name for field in fields(Owner)}
        try:
            return Owner(**{name: value for name, value in said.items() if name in known})
        except (AttributeError, TypeError) as error:
            raise DamagedError(f"{where} names no owner ({error})") from None

    def is_known_dead(self) -> bool:
        """Whether this very machine would have to run that process, and does not."""
        mine = _machine()
        return bool(mine) and self.machine == mine and _started(self.pid) != self.started


def this_owner() -> Owner:
    """The process that asks."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Owner(
        host=socket.gethostname(),
        pid=os.getpid(),
        user=user,
        job=os.environ.get("RAY_JOB_SUBMISSION_ID", ""),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=_machine(),
        started=_started(os.getpid()),
    )


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str:
    """When a process began, in ticks since boot; "" if there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _stands_still_s() -> float:
    said = os.environ.get(STANDS_STILL_VARIABLE, "")
    try:
        seconds = float(said) if said else STANDS_STILL_S
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ArtifactError(f"{STANDS_STILL_VARIABLE}={said!r} is no number of seconds above 0")
    return seconds


@dataclass(frozen=True)
class Epochs:
    """The epochs of one claim."""

    store: Store
    claim_id: str

    def path(self, epoch: int, ending: str = "json") -> str:
        return f"{EPOCHS}/{self.claim_id}/{epoch:06d}.{ending}"

    def newest(self) -> int:
        """Its number; 0 if there is none."""
        names = self.store.names(f"{EPOCHS}/{self.claim_id}")
        numbers = [name.partition(".")[0] for name in names if name.endswith(".json")]
        return max((int(number) for number in numbers if number.isdigit()), default=0)

    def owner(self, epoch: int) -> Owner:
        path = self.path(epoch)
        return Owner.decode(self.store.read(path), f"{self.store.uri}/{path}")

    def beat(self, epoch: int) -> bytes:
        """What the owner said last; no two beats are alike."""
        try:
            return self.store.read(self.path(epoch, "beat"))
        except MissingError:
            return b""

    def is_over(self, epoch: int) -> bool:
        """Whether its owner certainly does nothing any more."""
        try:
            return bool(_said(self.beat(epoch)).get("ended")) or self.owner(epoch).is_known_dead()
        except MissingError:
            return True

    def delete(self, epoch: int) -> None:
        """Removes its files."""
        for ending in ("json", "beat"):
            self.store.delete(self.path(epoch, ending))

    def is_condemned(self, before: int) -> bool:
        """Whether what the claim holds has perhaps begun to be deleted, so that nobody may go on
        with it: the last owner before this epoch who came to do anything was deleting."""
        doings = (_said(self.beat(epoch)).get(DOING) for epoch in range(before - 1, 0, -1))
        return next(filter(None, doings), "") == DELETING

    def may_still_be_deleted(self, before: int) -> bool:
        """Whether one of the earlier owners was deleting and is not known to be gone."""
        return any(
            is_deleting(self.beat(epoch)) and not self.is_over(epoch) for epoch in range(1, before)
        )

    def vacate(self, take_over: bool) -> int:
        """Returns the number of the epoch to be taken, once nobody is in the way.

        Raises:
            OccupiedError: if the owner is alive.
            MissingError: if the epochs are being deleted.
        """
        newest = self.newest()
        if newest and not take_over and not self.is_over(newest):
            self._wait(newest)
        return newest + 1

    def _wait(self, newest: int) -> None:
        """Until its owner is known to be gone, or has not been heard from for long enough."""
        first, owner, patience = self.beat(newest), self.owner(newest), _stands_still_s()
        print(
            f"{self.store.uri} belongs to {owner}; waiting up to {patience:.0f} s to see whether "
            "that is alive (--take-over does not wait)",
            flush=True,
        )
        began = time.monotonic()
        while time.monotonic() - began < patience:
            time.sleep(min(LOOK_EVERY_S, patience))
            now = self.beat(newest)
            if _said(now).get("ended") or owner.is_known_dead():
                return
            if now != first:
                raise OccupiedError(
                    f"{self.store.uri} is being written by {owner}: its heartbeat moves; wait for "
                    "it, use another --out, or --take-over to replace it"
                )


def _said(beat: bytes) -> dict[str, Any]:
    """Nothing, if it cannot be read: that a heart moves is seen all the same."""
    try:
        return read_json(beat, "beat")
    except DamagedError:
        return {}


def is_deleting(beat: bytes) -> bool:
    """Whether this is a beat of an owner who deletes what his claim holds."""
    return _said(beat).get(DOING) == DELETING


class Heart:
    """Beats while a job works, and notices when another one has taken its place."""

    def __init__(self, epochs: Epochs, epoch: int) -> None:
        self.epochs, self.epoch = epochs, epoch
        self.doing = ""
        self.displaced_by = ""
        self._count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self, doing: str) -> None:
        """Returns when it is known what this owner does: `WORKING` or `DELETING`."""
        self.doing = doing
        self._beat()
        self._thread.start()

    def _run(self) -> None:
        every = min(BEAT_S, _stands_still_s() / BEATS_OF_PATIENCE)
        while not self._stop.wait(every):
            try:
                self.look()
                if self.displaced_by:
                    return
                self._beat()
            except StorageError as error:
                log.warning("heartbeat: %s", error)

    def _beat(self, **more: Any) -> None:
        self._count += 1
        said = {"count": self._count, "at": datetime.now(UTC).isoformat(), DOING: self.doing}
        said |= more
        self.epochs.store.write(self.epochs.path(self.epoch, "beat"), json.dumps(said).encode())

    def look(self) -> None:
        """Whether there is a newer epoch, or this one's claim is gone; remembered."""
        newest = self.epochs.newest()
        if newest > self.epoch:
            self.displaced_by = "another job"
            with contextlib.suppress(StorageError):
                self.displaced_by = str(self.epochs.owner(newest))
        elif newest < self.epoch:
            self.displaced_by = "a job that deleted what was there"

    def require_owner(self, *, fresh: bool = False) -> None:
        """Raises DisplacedError if another job has taken over, as far as the last beat saw, or (if
        `fresh`) now."""
        if fresh:
            self.look()
        if self.displaced_by:
            raise DisplacedError(self.displacement)

    @property
    def displacement(self) -> str:
        """What a person is told of it."""
        return (
            f"{self.epochs.store.uri} has been taken over by {self.displaced_by}; this job ends, "
            "the other one finishes the work"
        )

    def stop(self, ended: str) -> None:
        """The last beat. Says how it ended, so that nobody waits."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * BEAT_S)
        with contextlib.suppress(StorageError):
            self.look()
            if not self.displaced_by:
                self._beat(ended=ended)


def epoch_content(claim_id: str, epoch: int, owner: Owner) -> bytes:
    """The file that makes an epoch its owner's."""
    # Random, so that of two threads one can tell that the file is not its own.
    content = {"claim": claim_id, "epoch": epoch, "owner": asdict(owner)}
    content["nonce"] = secrets.token_hex(8)
    return json.dumps(content, indent=1).encode()
