"""Standard output of this process, which its reader (head, a pager) may close before the end."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def forget_stdout() -> None:
    """Drops what is not written yet: else Python tries once more when it ends, and complains."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def for_a_reader() -> Iterator[None]:
    """Ends the process without a word, with exit code 1, if what is printed in here has no reader
    any more."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
        raise SystemExit(1) from None
