"""How failures come back from workers through Ray Train: which end the run, and what people see.

A rank hands its error back as data, in an exception that Ray Train carries. Errors that would come
again end the run at once, on whichever rank they are; all others use up one of the restarts.
"""

import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray.train
from ray.train import ControllerError, TrainingFailedError, WorkerGroupError

from e2eft.errors import E2eftError, UnreachableError, as_json, from_json
from e2eft.train.errors import CrashedError, StalledError, TrainingError

RETRIED = (UnreachableError, StalledError, CrashedError)
"""Errors that may be gone when the workers start anew."""
GONE = "health_check_failure"
"""Attribute in which Ray keeps what it knows of a process that is gone."""


class HandedBackError(Exception):
    """An error as data, on its way through Ray Train."""

    def __init__(self, data: dict[str, Any]) -> None:
        super().__init__(data)
        self.data = data

    def __str__(self) -> str:
        return str(from_json(self.data))


@contextmanager
def handing_back(rank: int) -> Iterator[None]:
    """Turns what a rank raises into a HandedBackError, which Ray does not print a traceback of."""
    try:
        yield
    except Exception as error:
        mine = error if isinstance(error, E2eftError) else _crashed(rank, error)
        # This is where Ray prints the traceback of whatever its worker raises.
        logging.getLogger("ray.train.v2._internal.util").setLevel(logging.CRITICAL)
        raise HandedBackError(as_json(mine)) from None


def _crashed(rank: int, error: Exception) -> CrashedError:
    what = traceback.format_exception_only(error)[-1].strip()
    return CrashedError(f"rank {rank}: {what}", trace="".join(traceback.format_exception(error)))


def _errors_of(failures: Mapping[int, Exception]) -> list[E2eftError]:
    """What each failed rank raised, causes first: what ends a run, then what one rank was alone
    with, then where ranks may have waited for another."""
    errors = [_error_of(rank, failures[rank]) for rank in sorted(failures)]
    return sorted(
        errors,
        key=lambda error: (
            isinstance(error, RETRIED),
            isinstance(error, StalledError) and error.for_peers,
        ),
    )


def _error_of(rank: int, failure: Exception) -> E2eftError:
    if isinstance(failure, HandedBackError):
        return from_json(failure.data)
    return CrashedError(f"rank {rank}: {_first_line(getattr(failure, GONE, failure))}")


def _first_line(failure: BaseException) -> str:
    lines = str(failure).strip().splitlines()
    return lines[0] if lines else type(failure).__name__


class EndOrRestart(ray.train.UserCallback):
    """Ends a run whose failure would come again, and says once what the others were. It lives in
    the controller, over all restarts."""

    def __init__(self, max_failures: int) -> None:
        self.max_failures = max_failures
        self._failures = 0
        self._traces: set[str] = set()

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises ControllerError, which Ray Train does not retry, if the run shall end."""
        error = _errors_of(worker_exceptions)[0]
        if not isinstance(error, RETRIED):
            raise ControllerError(HandedBackError(as_json(error)))
        self._failures += 1
        if isinstance(error, CrashedError) and error.trace and error.trace not in self._traces:
            self._traces.add(error.trace)
            print(error.trace.rstrip(), flush=True)
        if self._failures <= self.max_failures:
            print(
                f"training failed: {error}; restart {self._failures} of {self.max_failures} from "
                "the last checkpoint",
                flush=True,
            )


def as_error(failed: TrainingFailedError) -> E2eftError:
    """What a person is told of a failed run."""
    if isinstance(failed, ControllerError):
        cause = failed.controller_failure
        if isinstance(cause, HandedBackError):
            return from_json(cause.data)
        return TrainingError(f"training failed: {_first_line(cause)}")
    if isinstance(failed, WorkerGroupError) and failed.worker_failures:
        error = _errors_of(failed.worker_failures)[0]
        return TrainingError(
            f"training failed: {error}; the same command goes on from the last checkpoint"
        )
    return TrainingError(f"training failed: {_first_line(failed)}")
