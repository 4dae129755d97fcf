"""The boxes that JPEG 2000 files consist of."""

import struct
from collections.abc import Iterator


def boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, end) of what each box between two places holds; a broken one ends them."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, start)
        head = 8
        if size == 1 and start + 16 <= end:
            size, head = int.from_bytes(content[start + 8 : start + 16]), 16
        stop = end if size == 0 else min(start + size, end)
        if stop < start + head:
            return
        yield kind, start + head, stop
        start = stop


def box(content: bytes, *path: bytes) -> bytes:
    """What the first box of these kinds, one in the other, holds; b"" without one."""
    start, end = 0, len(content)
    for wanted in path:
        found = next((place for kind, *place in boxes(content, start, end) if kind == wanted), None)
        if found is None:
            return b""
        start, end = found
    return content[start:end]
