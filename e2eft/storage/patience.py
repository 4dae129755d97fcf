"""The one statement of how patient we are with a store that does not answer.

A process that has not heard from a store yet gives it FIRST_ANSWER_S: a wrong endpoint is a line,
not a wait. Once it has answered (a refusal is an answer), and in every worker of a job whose driver
has heard from it, reads, writes, lists and their bodies are repeated with jitter for
E2EFT_STORE_PATIENCE_S seconds (default DEFAULT_PATIENCE_S).
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

from e2eft.errors import StorageError

PATIENCE_VARIABLE = "E2EFT_STORE_PATIENCE_S"
DEFAULT_PATIENCE_S = 300.0
FIRST_ANSWER_S = 8.0
LONGEST_PAUSE_S = 10.0
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
        raise StorageError(f"{PATIENCE_VARIABLE}={said!r} is no number of seconds, 0 or more")
    return seconds


def is_heard(place: str) -> bool:
    """Whether a store is known to be one: it has answered this process or its job's driver."""
    return _of_a_job or place in _heard_from


def note_answer(place: str) -> None:
    """A store at `place` has answered."""
    _heard_from.add(place)


def patiently(attempt: Callable[[], T], place: str, is_transient: Callable[[Exception], bool]) -> T:
    """What `attempt` returns, which is repeated while what it raises is transient and patience
    lasts; then that is raised."""
    started = time.monotonic()

    def is_enough(state: RetryCallState) -> bool:
        limit = patience_s() if is_heard(place) else FIRST_ANSWER_S
        return time.monotonic() - started + state.upcoming_sleep > limit

    retrying = Retrying(
        retry=retry_if_exception(
            lambda error: isinstance(error, Exception) and is_transient(error)
        ),
        wait=wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE_S),
        stop=is_enough,
        reraise=True,
    )
    return retrying(attempt)
