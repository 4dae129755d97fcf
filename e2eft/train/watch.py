"""Whether a rank gets on: what it is at and since when, looked at from another thread.

Nothing can interrupt a read or a collective that never returns. So the work runs in a thread of its
own, which says what it is about to wait for; the thread that started it raises if that takes too
long, and whoever started the process ends it.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

from e2eft.train.errors import StalledError

POLL_S = 0.5
PEER_PATIENCE = 1.5
"""Who waits for other ranks waits longer by this, so that the one that hangs is named first."""

T = TypeVar("T")
Description = str | Callable[[], str]


class Watch:
    """What a rank waits for, and for how long it may: `limit_s` seconds."""

    def __init__(self, rank: int, limit_s: float) -> None:
        self.rank, self.limit_s = rank, limit_s
        self.together("the start of the run")

    def alone(self, what: Description) -> None:
        """From now on this rank is at something that needs no other rank."""
        self._at = (what, time.monotonic(), self.limit_s, False)

    def together(self, what: Description) -> None:
        """From now on this rank is at something that all ranks take part in."""
        self._at = (what, time.monotonic(), PEER_PATIENCE * self.limit_s, True)

    def require_progress(self) -> None:
        """Raises StalledError if the rank has been at one thing for too long."""
        what, since, limit_s, for_peers = self._at
        waited_s = time.monotonic() - since
        if waited_s <= limit_s:
            return
        name = what if isinstance(what, str) else what()
        others = ", in which all ranks take part" if for_peers else ""
        raise StalledError(
            f"rank {self.rank} has waited {waited_s:.0f} s for {name}{others}; if that is no "
            f"hang, raise --scaling.hang-timeout-s {self.limit_s:g}",
            for_peers=for_peers,
        )


def run_watched(work: Callable[[], T], watch: Watch) -> T:
    """Does the work in a thread of its own.

    Raises:
        StalledError: if it no longer gets on. Its thread is left behind.
        Exception: whatever the work raises.
    """
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    Thread(target=run, name="training", daemon=True).start()
    while not wait([outcome], POLL_S).done:
        watch.require_progress()
    return outcome.result()
