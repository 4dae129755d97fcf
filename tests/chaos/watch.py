"""Hears of every change of an artifact before it is made, and lets attacks happen meanwhile."""

import json
import os
import re
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.chaos.hook.sitecustomize import MARK

Phase = Literal["claim", "part", "upload", "register", "prune", "export", "commit", "after"]
_PHASES: dict[Phase, str] = {
    "claim": r"_claim\.json|_epochs/[0-9a-f]+/\d+\.json",
    "register": r"checkpoints/[0-9a-f]+/step-\d+\.json",
    "upload": r"checkpoints/[0-9a-f]+/epoch-\d+/.+",
    "export": r"checkpoints/[0-9a-f]+/export\.json|model[^/]*/.+",
    "commit": r"manifest\.json",
    "part": r"(?!_epochs|checkpoints).+",
}


@dataclass(frozen=True)
class Change:
    """What a process is about to do. operation: "after" if the manifest has just been written.

    path: below the artifact's folder.
    """

    pid: int
    operation: str
    path: str

    @property
    def phase(self) -> Phase | None:
        """None for what is no step of a job, such as a heartbeat."""
        if self.operation == "after":
            return "after"
        if self.operation in ("remove", "DELETE"):
            return "prune" if self.path.startswith("checkpoints/") else None
        for phase, pattern in _PHASES.items():
            if re.fullmatch(pattern, self.path):
                return phase
        return None


Strike = Callable[[Change], str]
"""An attack. Returns what the process is told: "go", or "full"."""


@dataclass
class _Armed:
    phase: Phase
    left: int
    strike: Strike
    since: float


@dataclass
class Watch:
    """A Unix socket on which processes ask. is_committed: whether the manifest is there by now."""

    place: Path
    heard: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: _Armed | None = None
        self._artifact, self.is_committed = "", lambda: True
        watch = self

        class Asked(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    said = json.loads(self.rfile.readline())
                    self.wfile.write(watch._answer(**said).encode() + b"\n")

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True
            request_queue_size = 128

        self._server = Server(str(self.place), Asked)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def follow(self, artifact: str, is_committed: Callable[[], bool]) -> None:
        """From now on only changes of this artifact (its name) are steps of a job."""
        with self._lock:
            self._artifact, self.is_committed = f"{MARK}{artifact}/", is_committed
            self._armed, self.heard = None, {}

    def arm(self, phase: Phase, number: int, strike: Strike, since: float) -> None:
        """The strike falls before the `number`-th change (from 1) of this phase by a process that
        has started since (see `moment`)."""
        with self._lock:
            self._armed = _Armed(phase, number, strike, since)

    def disarm(self) -> bool:
        """Whether the strike has not fallen."""
        with self._lock:
            before, self._armed = self._armed, None
        return before is not None

    def _answer(self, pid: int, operation: str, path: str) -> str:
        _before, found, below = path.partition(self._artifact)
        if not found or not self._artifact:
            return "go"
        change = Change(pid, operation, below)
        phase = change.phase
        if phase == "after" and not self.is_committed():
            return "again"
        with self._lock:
            armed = self._armed
            if phase:
                self.heard[phase] = self.heard.get(phase, 0) + 1
            if armed is None or phase != armed.phase or not _began_after(pid, armed.since):
                return "go"
            armed.left -= 1
            if armed.left > 0:
                return "go"
            self._armed = None
        return armed.strike(change)


def moment() -> float:
    """Now, in seconds since boot, as the kernel tells when a process has begun."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _began_after(pid: int, since: float) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    ticks = os.sysconf("SC_CLK_TCK")
    return int(fields[19]) / ticks >= since - 1 / ticks
