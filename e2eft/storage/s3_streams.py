"""Objects as streams: seekable files by ranged reads, and parts that are under way together."""

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from e2eft.storage.base import CHUNK_BYTES

PARALLEL_PARTS = 4
"""Under way at once: with one more that waits, no more are in memory."""

A = TypeVar("A")
B = TypeVar("B")


class RangedFile(io.RawIOBase):
    """A file of known size, of which each read fetches a range.

    Args:
        fetch: exactly the bytes at (start, size).
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size, self._position = fetch, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readall(self) -> bytes:
        """The rest, in a few large requests; RawIOBase would make one for every 8 KiB."""
        starts = range(self._position, self._size, CHUNK_BYTES)
        fetched = side_by_side(
            lambda at: self._fetch(at, min(CHUNK_BYTES, self._size - at)), starts
        )
        rest = b"".join(fetched)
        self._position = max(self._position, self._size)
        return rest

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._size - self._position)
        if size <= 0:
            return 0
        buffer[:size] = self._fetch(self._position, size)
        self._position += size
        return size


def side_by_side(call: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`map` in its order with PARALLEL_PARTS calls at once; items are taken when they are due.

    After an error no further call begins, and those under way end first.
    """
    underway: deque[Future[B]] = deque()
    with ThreadPoolExecutor(PARALLEL_PARTS) as pool:
        try:
            for item in items:
                if len(underway) == PARALLEL_PARTS:
                    yield underway.popleft().result()
                underway.append(pool.submit(call, item))
            while underway:
                yield underway.popleft().result()
        finally:
            for future in underway:
                future.cancel()
