"""Checkpoints of a run, in its artifact: each registered by a file that is created exclusively.

    checkpoints/CLAIM/step-NNNNNNNN.json                      which files, of how many ranks
    checkpoints/CLAIM/epoch-NNNNNN/step-NNNNNNNN-ATTEMPT/...  what the ranks wrote

Every attempt writes under a name of its own, so nobody overwrites or mixes with what another one
wrote; what is not registered does not count. A run is restored from the newest registered one.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from e2eft.artifacts import FileEntry, Writer
from e2eft.artifacts.manifest import read_json
from e2eft.config import TrainConfig
from e2eft.errors import DamagedError, E2eftError, MissingError
from e2eft.storage import Store, inside
from e2eft.walk import walk_files

CHECKPOINTS = "checkpoints"
SNAPSHOT = f"{CHECKPOINTS}/checkpoint_manager_snapshot.json"
"""Where version 1, by way of Ray Train, kept its list of checkpoints."""
_REGISTERED = re.compile(r"step-(\d{8})\.json")


@dataclass(frozen=True)
class Checkpoint:
    """A registered one. folder: of its files in the artifact. files: their paths below that, with
    sizes and digests, or empty if none were recorded (version 1); so are ranks, stage and
    precision."""

    step: int
    epoch: int
    folder: str
    files: tuple[FileEntry, ...] = ()
    world_size: int = 0
    zero_stage: int = -1
    precision: str = ""

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    @staticmethod
    def decode(content: bytes, where: str) -> "Checkpoint":
        tree = read_json(content, where)
        try:
            tree["files"] = tuple(FileEntry(**entry) for entry in tree["files"])
            return Checkpoint(**tree)
        except (KeyError, TypeError) as error:
            raise DamagedError(f"{where} is no checkpoint's registration ({error})") from None


def registration_path(claim_id: str, step: int) -> str:
    """The file that makes a checkpoint count."""
    return f"{CHECKPOINTS}/{claim_id}/step-{step:08d}.json"


def export_path(claim_id: str) -> str:
    """The file that says that the trained model is written, and which files it has."""
    return f"{CHECKPOINTS}/{claim_id}/export.json"


def attempt_folder(writer: Writer, step: int, attempt: str) -> str:
    """Where an attempt's ranks write a checkpoint."""
    epoch = f"epoch-{writer.epoch:06d}"
    return f"{CHECKPOINTS}/{writer.claim_id}/{epoch}/step-{step:08d}-{attempt}"


def registered_steps(store: Store, claim_id: str) -> list[int]:
    """Steps of the checkpoints that count, in order."""
    names = store.names(f"{CHECKPOINTS}/{claim_id}")
    return sorted(int(found[1]) for name in names if (found := _REGISTERED.fullmatch(name)))


def newest(store: Store, claim_id: str, *, version_1: bool = False) -> Checkpoint | None:
    """What a run goes on from; None at its beginning.

    Args:
        version_1: whether the run was begun by a program that left checkpoints to Ray Train.
    """
    steps = registered_steps(store, claim_id)
    if steps:
        path = registration_path(claim_id, steps[-1])
        return Checkpoint.decode(store.read(path), f"{store.uri}/{path}")
    return _newest_of_version_1(store) if version_1 else None


def _newest_of_version_1(store: Store) -> Checkpoint | None:
    try:
        snapshot = read_json(store.read(SNAPSHOT), f"{store.uri}/{SNAPSHOT}")
    except MissingError:
        return None
    latest = snapshot.get("latest_checkpoint_result")
    if not latest:
        return None
    name = str(latest["checkpoint_dir_name"])
    return Checkpoint(int(name.rpartition("-")[2]), 0, f"{CHECKPOINTS}/{name}")


def upload(store: Store, folder: Path, target: str) -> list[FileEntry]:
    """Copies one rank's files; their entries below `target`."""
    entries: list[FileEntry] = []
    for file in sorted(walk_files(folder), key=lambda file: file.name):
        stored = store.upload(file.path, f"{target}/{file.name}")
        entries.append(FileEntry(file.name, stored.size, stored.sha256))
    return entries


def download(store: Store, checkpoint: Checkpoint, folder: Path) -> None:
    """Copies a checkpoint to a local folder.

    Raises:
        DamagedError: if a file is not what was registered.
    """
    names = [entry.path for entry in checkpoint.files]
    if not names:
        base = f"{checkpoint.folder}/"
        names = [path.removeprefix(base) for path, _ in store.list(base)]
    expected = {entry.path: (entry.size, entry.sha256) for entry in checkpoint.files}
    for name in names:
        stored = store.download(f"{checkpoint.folder}/{name}", inside(folder, name))
        if expected.get(name, (stored.size, stored.sha256)) != (stored.size, stored.sha256):
            raise DamagedError(
                f"{store.uri}/{checkpoint.folder}/{name} is not what was written; delete "
                f"its registration (step-{checkpoint.step:08d}.json) to go on from an earlier "
                "checkpoint"
            )


def register(writer: Writer, checkpoint: Checkpoint, keep: int) -> None:
    """Makes a checkpoint count, and removes what is older than the `keep` newest ones.

    A step that is registered already stays as it is. Nothing of a later epoch is removed.
    """
    store = writer.store
    writer.create(registration_path(writer.claim_id, checkpoint.step), checkpoint.encode())
    steps = registered_steps(store, writer.claim_id)
    kept = set(steps[-keep:])
    for step in steps:
        path = registration_path(writer.claim_id, step)
        if step in kept or _read(store, path).epoch > writer.epoch:
            continue
        store.delete(path)
    _sweep(store, writer, steps[-1])


def _read(store: Store, path: str) -> Checkpoint:
    return Checkpoint.decode(store.read(path), f"{store.uri}/{path}")


def _sweep(store: Store, writer: Writer, newest_step: int) -> None:
    """Removes files of this and earlier epochs that no registered checkpoint needs: of pruned ones,
    and of attempts that came to nothing."""
    folder = f"{CHECKPOINTS}/{writer.claim_id}"
    registered = (
        _read(store, registration_path(writer.claim_id, step))
        for step in registered_steps(store, writer.claim_id)
    )
    needed = {checkpoint.folder for checkpoint in registered}
    for epoch in list(store.names(folder)):
        number = epoch.removeprefix("epoch-")
        if not epoch.startswith("epoch-") or int(number) > writer.epoch:
            continue
        for attempt in list(store.names(f"{folder}/{epoch}")):
            place = f"{folder}/{epoch}/{attempt}"
            if place not in needed and int(attempt.split("-")[1]) <= newest_step:
                store.delete_many([path for path, _ in store.list(f"{place}/")])


def require_restorable(checkpoint: Checkpoint, config: TrainConfig) -> None:
    """Raises E2eftError if DeepSpeed could not load the checkpoint with these settings: its ranks'
    shares cannot be cut anew."""
    if not checkpoint.world_size:
        return
    then: dict[str, Any] = {
        "--num-workers": checkpoint.world_size,
        "--zero-stage": checkpoint.zero_stage,
        "--precision": checkpoint.precision,
    }
    now = (config.scaling.num_workers, config.zero.stage, config.zero.precision)
    if tuple(then.values()) != now:
        flags = " ".join(f"{name} {value}" for name, value in then.items())
        raise E2eftError(
            f"the run's checkpoint of step {checkpoint.step} can only be continued with {flags}"
        )
