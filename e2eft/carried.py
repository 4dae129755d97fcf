"""How what goes wrong in a worker reaches the driver: as data, with its type."""

import json
import logging
import socket
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pyarrow as pa

from e2eft.cluster import private_folder
from e2eft.errors import E2eftError, as_json, from_json
from e2eft.head import ClusterError
from e2eft.storage import be_patient

log = logging.getLogger(__name__)

RETRIES = 2
"""How often Ray does again what a process died of, or what was lost with a machine. Its own default
is for ever."""
TASK: dict[str, Any] = {"max_retries": RETRIES}
ACTOR: dict[str, Any] = {"max_restarts": -1, "max_task_retries": RETRIES}
"""Arguments of Ray Data's transformations, by tasks and by actors."""
DEATHS = RETRIES + 1
"""Of processes that start one actor, after which no further one is tried."""
STOPPED_BY = "e2eft_stopped_by"
"""Column, or key of a row, in which an error travels to the driver as data."""


class WorkerError(E2eftError):
    """An exception of a worker that nobody foresaw. `traceback` says where it was raised."""

    def __init__(self, message: str, traceback: str) -> None:
        super().__init__(message)
        self.traceback = traceback


def carried(function: Any, *, defects: bool = False) -> Any:
    """`function`, or an actor's class, whose `E2eftError` reaches the driver with its type.

    For `flat_map` of rows and for `map_batches` of pyarrow tables. Ray would keep an exception's
    text only; as a row it passes the stages that follow, each of which is `carried` too, to
    `raise_carried`. An actor that could not be made says so at its first call.

    Args:
        defects: any other exception reaches the driver as a `WorkerError`. False: it goes Ray's
            way.
    """
    if isinstance(function, type):
        return _carried_class(function, defects)

    @wraps(function)
    def carrying(given: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        be_patient()
        return _outputs(lambda: function(given, *args, **kwargs), given, defects)

    return carrying


def _carried_class(kind: type, defects: bool) -> type:
    class Carrying:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.actor: Any = None
            be_patient()
            try:
                with _survived(kind.__name__):
                    self.actor = kind(*args, **kwargs)
            except Exception as error:
                self.stopped_by = _said(error, defects)

        def __call__(self, given: Any) -> Iterator[Any]:
            return _outputs(lambda: self._call(given), given, defects)

        def _call(self, given: Any) -> Any:
            if self.actor is None:
                raise from_json(json.loads(self.stopped_by))
            return self.actor(given)

    # Ray names a stage after its class.
    Carrying.__name__ = Carrying.__qualname__ = kind.__name__
    return Carrying


@contextmanager
def _survived(name: str) -> Iterator[None]:
    """While an actor is made. Raises ClusterError in place of another try, if its process has not
    survived DEATHS of them: Ray would go on for ever."""
    import ray

    if not ray.is_initialized():
        yield
        return
    actor = ray.get_runtime_context().get_actor_id()
    note = private_folder() / f"starting-{actor}"
    deaths = int(note.read_text()) if note.exists() else 0
    if deaths >= DEATHS:
        note.unlink()
        raise ClusterError(
            f"{name}: {deaths} processes were killed or crashed while they started on "
            f"{socket.gethostname()}; it may have too little memory for the model, and Ray's logs "
            "of that machine say more"
        )
    note.write_text(str(deaths + 1))
    try:
        yield
    finally:  # of which a process that dies does nothing
        note.unlink(missing_ok=True)


def _outputs(call: Callable[[], Any], given: Any, defects: bool) -> Iterator[Any]:
    """What `call` returns, item by item if it is a list or an iterator; the error if it raises
    one, or the error that is `given`."""
    try:
        _raise_if_stopped(given)
        made = call()
        if isinstance(made, (list, Iterator)):
            yield from made
        else:
            yield made
    except Exception as error:
        said = _said(error, defects)
        yield pa.table({STOPPED_BY: [said]}) if isinstance(given, pa.Table) else {STOPPED_BY: said}


def _said(error: Exception, defects: bool) -> str:
    """The error as text. Raises it if nobody shall carry it."""
    if not isinstance(error, E2eftError):
        if not defects:
            raise error
        last = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())
        where = f"{Path(last.filename).name}:{last.lineno}"
        error = WorkerError(
            f"a worker failed with {type(error).__name__}: {text} ({where})",
            "".join(traceback.format_exception(error)),
        )
    return json.dumps(as_json(error), default=str)


def _raise_if_stopped(item: Any) -> None:
    said: list[str | None] = []
    if isinstance(item, pa.Table):
        if STOPPED_BY in item.column_names:
            said = item[STOPPED_BY].to_pylist()
    elif isinstance(item, dict):
        said = [item.get(STOPPED_BY)]
    for text in filter(None, said):
        error = from_json(json.loads(text))
        if isinstance(error, WorkerError):
            log.error("%s", error.traceback)
        raise error


def raise_carried(items: Iterable[Any]) -> Iterator[Any]:
    """The rows or tables that came back; raises the error that is among them.

    Raises:
        E2eftError: of the kind, and with the text, that it had in its worker.
        ClusterError: if a process died at every try.
    """
    from ray import exceptions

    died = (
        exceptions.WorkerCrashedError,
        exceptions.ActorDiedError,
        exceptions.ActorUnavailableError,
        exceptions.OutOfMemoryError,
    )
    try:
        for item in items:
            _raise_if_stopped(item)
            yield item
    except died as error:
        raise ClusterError(
            f"a process was killed or crashed at {DEATHS} tries of the same work "
            f"({type(error).__name__}); what is done stays: see Ray's logs for what it died of, "
            "often memory, and run the same command again"
        ) from None
