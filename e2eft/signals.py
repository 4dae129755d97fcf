"""SIGTERM, by which Slurm, systemd, Kubernetes, `timeout` and `ray job stop` end a process."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """This process was sent SIGTERM. What holds for Ctrl-C holds for it."""


@contextmanager
def heeding_sigterm() -> Iterator[None]:
    """Raises Terminated in here where SIGTERM would end the process, whatever comes of it on its
    way; further ones, which `timeout` sends at once, are passed over while it ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate) or signal.SIG_DFL
    try:
        yield
    except BaseException:
        # Ray Train makes another interruption of it, and a cluster that ended too an error.
        if _is_terminated():
            raise Terminated from None
        raise
    finally:
        if not _is_terminated():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Puts back a handler that was there before what is called in here replaced it: Ray's own, in
    C++, prints a stack trace and aborts."""
    heeded = signal.getsignal(signal.SIGTERM) == _terminate
    try:
        yield
    finally:
        if heeded and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminate)


def _is_terminated() -> bool:
    return signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def _terminate(_: int, __: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated
