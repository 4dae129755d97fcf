"""Standard error of this process, into which code that is not Python's writes too."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

STDERR = 2


@contextmanager
def without_lines(said: bytes) -> Iterator[None]:
    """Drops the lines with `said` in them, whoever writes them; all others go on as they come.

    One at a time in a process.
    """
    reading, writing = os.pipe()
    behind = os.dup(STDERR)
    os.dup2(writing, STDERR)
    os.close(writing)
    passing = threading.Thread(target=_pass_on, args=(reading, behind, said), daemon=True)
    passing.start()
    try:
        yield
    finally:
        os.dup2(behind, STDERR)  # the pipe ends with it, unless a child process writes there too
        passing.join(timeout=1)


def _pass_on(reading: int, behind: int, said: bytes) -> None:
    rest = b""
    with os.fdopen(reading, "rb", buffering=0) as pipe, os.fdopen(behind, "wb", 0) as stderr:
        while some := pipe.read(65536):
            *lines, rest = (rest + some).split(b"\n")
            _write(stderr, b"".join(line + b"\n" for line in lines if said not in line))
        if said not in rest:
            _write(stderr, rest)


def _write(stderr: BinaryIO, lines: bytes) -> None:
    """Goes on without a terminal that is gone: who writes into the pipe would wait for ever."""
    try:
        while lines:
            lines = lines[stderr.write(lines) :]
    except OSError:
        return
