"""The one statement of how patient we are with a store that does not answer.

A process that has not heard from a store yet gives it FIRST_ANSWER_S: a wrong endpoint is a line,
not a wait. Once it has answered (a refusal is an answer, a 503 is none), and in every worker of a
job whose driver has heard from it, every request and every body is repeated with jitter for
E2EFT_STORE_PATIENCE_S seconds (default DEFAULT_PATIENCE_S), counted from its first failure.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from e2eft.errors import StorageError

if TYPE_CHECKING:
    from tenacity import RetryCallState

PATIENCE_VARIABLE = "E2EFT_STORE_PATIENCE_S"
DEFAULT_PATIENCE_S = 300.0
FIRST_ANSWER_S = 7.0
LONGEST_PAUSE_S = 5.0
_heard_from: set[str] = set()
_of_a_job = False

T = TypeVar("T")


def be_patient() -> None:
    """Called in workers, whose driver has heard from the job's stores."""
    global _of_a_job
    _of_a_job = True


def patience_s() -> float:
    """What E2EFT_STORE_PATIENCE_S says.

    Raises:
        StorageError: if that is no number of seconds.
    """
    said = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        seconds = float(said) if said else DEFAULT_PATIENCE_S
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise StorageError(
            f"{PATIENCE_VARIABLE}={said!r} is no number of seconds, 0 or more; "
            f"unset it for {DEFAULT_PATIENCE_S:.0f}"
        )
    return seconds


def is_heard(place: str) -> bool:
    """Whether a store is known to be one: it has answered this process or its job's driver."""
    return _of_a_job or place in _heard_from


def note_answer(place: str) -> None:
    """A store at `place` has answered."""
    _heard_from.add(place)


class _Limit:
    """How long to go on, from the first failure."""

    def __init__(self, limit_s: float) -> None:
        from tenacity import wait_random_exponential

        self._limit_s, self._since = limit_s, 0.0
        self._jittered = wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_S)

    def left_s(self) -> float:
        now = time.monotonic()
        self._since = self._since or now
        return self._limit_s - (now - self._since)

    def pause_s(self, state: RetryCallState) -> float:
        # Cut, so that the last attempt is made when patience ends and not a pause earlier.
        return max(0.0, min(self._jittered(state), self.left_s()))

    def is_over(self, _: RetryCallState) -> bool:
        return self.left_s() <= 0


def patiently(
    attempt: Callable[[int], T], is_transient: Callable[[Exception], bool], limit_s: float
) -> T:
    """What `attempt` returns, which is repeated while what it raises is transient, up to `limit_s`
    after the first failure; then that is raised.

    Args:
        attempt: gets the number of failures before it.
    """
    from tenacity import Retrying, retry_if_exception

    limit, failures = _Limit(limit_s), itertools.count()
    retrying = Retrying(
        retry=retry_if_exception(
            lambda error: isinstance(error, Exception) and is_transient(error)
        ),
        wait=limit.pause_s,
        stop=limit.is_over,
        reraise=True,
    )
    return retrying(lambda: attempt(next(failures)))


def within(limit_s: float, call: Callable[[], object]) -> None:
    """Calls in a thread that is left behind after `limit_s`: looking up a name has no time-out.

    Raises:
        TimeoutError: if it has not returned by then; else what `call` raises.
    """
    outcome: SimpleQueue[Exception | None] = SimpleQueue()

    def calling() -> None:
        try:
            call()
        except Exception as error:
            outcome.put(error)
        else:
            outcome.put(None)

    Thread(target=calling, name="first-contact", daemon=True).start()
    try:
        error = outcome.get(timeout=limit_s)
    except Empty:
        raise TimeoutError(f"no answer within {limit_s:.0f} s") from None
    if error is not None:
        raise error
