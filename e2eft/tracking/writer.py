"""Writes to MLflow, in a thread: in order, again while the server is away, never waited for.

A process has one queue. When it is full, the oldest metrics are dropped first. What could not be
sent is counted, and said in one line when a run ends.
"""

import atexit
import logging
import os
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from threading import Condition, Thread
from typing import Any

from e2eft.secrets import shown
from e2eft.tracking.connection import ANSWER_S, asked, client_of, explained, is_passing

log = logging.getLogger(__name__)

QUEUE_WRITES = 10_000
QUEUE_BYTES = 256 * 2**20
BATCH = 1000
"""Metrics in one request, the most that MLflow takes."""
FLUSH_S = 20.0
"""How long the end waits for a server that takes nothing; one that takes something has longer."""
GIVEN_UP_S = 2.0
"""The same once a flush has waited in vain."""
CATCH_UP_S = 10.0
"""How long a server that has not failed yet is waited for in the midst of the work."""
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.25, 5.0
ATTEMPTS = 5
"""Tries of a write that a server which answers otherwise fails to take."""

Metrics = tuple[tuple[str, float, int, int], ...]
"""Name, value, milliseconds since 1970, step."""


@dataclass(frozen=True, eq=False)
class Write:
    """One write to a run.

    kind, count: what it is to a person, e.g. 3 metrics; send: does it with a client, and may have
    to do it again; metrics: instead of `send`, values that may share a request; size: bytes held.
    """

    uri: str
    run_id: str
    kind: str
    count: int
    send: Callable[[Any], None] | None = None
    metrics: Metrics = ()
    size: int = 0


@dataclass
class _Lost:
    """What of a run was not sent, and why."""

    uri: str
    counts: Counter[str] = field(default_factory=Counter)
    reason: str = ""

    def line(self, run_id: str) -> str:
        counts = ", ".join(
            f"{count} {kind if count != 1 else kind.removesuffix('s')}"
            for kind, count in sorted(self.counts.items())
        )
        return (
            f"MLflow at {shown(self.uri)} did not take {counts} of run {run_id} ({self.reason}); "
            "the work itself is not affected"
        )


class Writer:
    """A queue and its thread; everything returns at once but `catch_up` and `settle`."""

    def __init__(self, queue_writes: int = QUEUE_WRITES, queue_bytes: int = QUEUE_BYTES) -> None:
        self._limits = queue_writes, queue_bytes
        self._changed = Condition()
        self._queue: deque[Write] = deque()
        self._bytes = 0
        self._flying: set[Write] = set()
        self._lost: dict[str, _Lost] = {}
        self._reason = "no answer"
        self._apart = 0
        self._failures: Counter[str] = Counter()
        self._given_up: set[str] = set()
        self._moved_at = time.monotonic()
        self._flushing = False
        self._thread: Thread | None = None

    def put(self, write: Write) -> None:
        """Queues a write; what no longer fits is dropped and counted."""
        with self._changed:
            self._queue.append(write)
            self._bytes += write.size
            self._make_room()
            if self._thread is None:
                self._thread = Thread(target=self._work, name="e2eft-mlflow", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def settle(self, run_id: str | None = None) -> None:
        """Waits until all (of a run) is sent, or the server has taken nothing for long; says once
        what was lost."""
        with self._changed:
            self._wait_for(run_id)
            for write in self._pending(run_id):
                self._lose(write, self._reason)
            lost = {run: self._lost.pop(run) for run in [*self._lost] if run_id in (None, run)}
        for run, entry in lost.items():
            log.warning("%s", entry.line(run))

    def catch_up(self, run_id: str) -> None:
        """Waits until all of a run is sent, unless the server does not answer: once for seconds,
        then not at all until it has taken something again."""
        with self._changed:
            end = time.monotonic() + CATCH_UP_S
            while pending := self._pending(run_id):
                uri = pending[0].uri
                if self._failures[uri] or uri in self._given_up:
                    break
                if time.monotonic() >= end:
                    self._given_up.add(uri)
                    break
                self._changed.wait(end - time.monotonic())

    def _wait_for(self, run_id: str | None) -> None:
        started = time.monotonic()
        self._flushing = True
        self._changed.notify_all()
        while pending := self._pending(run_id):
            uri = pending[0].uri
            patience = GIVEN_UP_S if uri in self._given_up else FLUSH_S
            left = max(started, self._moved_at) + patience - time.monotonic()
            if left <= 0:
                self._given_up.add(uri)
                break
            self._changed.wait(left)
        self._flushing = False

    def _pending(self, run_id: str | None) -> list[Write]:
        return [write for write in self._queue if run_id in (None, write.run_id)]

    def _make_room(self) -> None:
        writes, size = self._limits
        while len(self._queue) > writes or self._bytes > size:
            oldest = (
                self._oldest(lambda write: bool(write.metrics))
                or self._oldest(lambda write: write.size > 0)
                or self._oldest(lambda write: True)
            )
            if oldest is None:
                return
            self._lose(oldest, "more was waiting than is kept")

    def _oldest(self, fits: Callable[[Write], bool]) -> Write | None:
        """Not one that is on its way, nor the newest."""
        older = islice(self._queue, len(self._queue) - 1)
        return next((write for write in older if fits(write) and write not in self._flying), None)

    def _lose(self, write: Write, reason: str) -> None:
        if self._remove(write):
            entry = self._lost.setdefault(write.run_id, _Lost(write.uri))
            entry.counts[write.kind] += write.count
            entry.reason = reason

    def _remove(self, write: Write) -> bool:
        try:
            self._queue.remove(write)
        except ValueError:
            return False  # given up meanwhile
        self._bytes -= write.size
        return True

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                flying = self._next()
                self._flying = set(flying)
            error = _attempt(flying)
            hopeless = error is not None and self._is_hopeless(error, flying[0].uri)
            with self._changed:
                self._flying = set()
                self._account(flying, error, hopeless)
                self._changed.notify_all()

    def _next(self) -> list[Write]:
        """The first write, with the metrics of its run that follow it if it has some."""
        first = self._queue[0]
        if self._apart or not first.metrics:
            self._apart = max(0, self._apart - 1)
            return [first]
        together, values = [], 0
        for write in self._queue:
            values += len(write.metrics)
            same = write.metrics and (write.uri, write.run_id) == (first.uri, first.run_id)
            if not same or (together and values > BATCH):
                break
            together.append(write)
        return together

    def _is_hopeless(self, error: Exception, uri: str) -> bool:
        """Whether it was refused, or is what a server that answers otherwise always fails at."""
        if not is_passing(error):
            return True
        if self._failures[uri] + 1 < ATTEMPTS:
            return False
        try:
            asked(lambda: client_of(uri).search_experiments(max_results=1), ANSWER_S)
        except Exception:
            return False
        return True

    def _account(self, flying: list[Write], error: Exception | None, hopeless: bool) -> None:
        uri = flying[0].uri
        if error is None or hopeless:
            self._moved_at = time.monotonic()
            self._failures.pop(uri, None)
            self._given_up.discard(uri)
        if error is None:
            for write in flying:
                self._remove(write)
        elif hopeless and len(flying) > 1:
            self._apart = len(flying)  # only one of them may be bad
        elif hopeless:
            self._lose(flying[0], explained(error, uri))
        else:
            self._failures[uri] += 1
            self._reason = explained(error, uri)
            self._changed.notify_all()
            self._rest(self._failures[uri])

    def _rest(self, failures: int) -> None:
        """Between two tries: longer and longer, and hardly while somebody waits."""
        longest = min(LONGEST_WAIT_S, SHORTEST_WAIT_S * 2**failures)
        started, long = time.monotonic(), longest * random.uniform(0.5, 1)
        while True:
            end = started + (SHORTEST_WAIT_S if self._flushing else long)
            if time.monotonic() >= end:
                return
            self._changed.wait(end - time.monotonic())


def _attempt(writes: list[Write]) -> Exception | None:
    """What went wrong with one request for these writes."""
    first = writes[0]
    try:
        client = client_of(first.uri)
        if first.send:
            first.send(client)
        else:
            from mlflow.entities import Metric

            metrics = [Metric(*values) for write in writes for values in write.metrics]
            client.log_batch(first.run_id, metrics=metrics)
    except Exception as error:
        return error
    return None


_writer: tuple[int, Writer] | None = None


def writer() -> Writer:
    """This process's writer; a forked child has its own, and leaves the parent's writes to it."""
    global _writer
    if _writer is None or _writer[0] != os.getpid():
        import mlflow  # noqa: F401  (not by the thread, while others import too)

        _writer = os.getpid(), Writer()
    return _writer[1]


@atexit.register
def settle(run_id: str | None = None) -> None:
    """`Writer.settle` of this process, if it has written anything."""
    if _writer is not None and _writer[0] == os.getpid():
        _writer[1].settle(run_id)
