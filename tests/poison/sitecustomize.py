"""Loaded by every Python process of a cluster: one that opens a poisonous file dies at once, as of
a defect in a decoder, and one that opens a file beside which another of its name and `.hangs` lies
waits until that is gone, as for a file system that does not answer."""

import os
import signal
import sys
import time
from typing import Any

POISON, HANGS = "/poison.png", ".hangs"


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "open" or not isinstance(arguments[0], str):
        return
    path = arguments[0]
    if path.endswith(POISON):
        os.kill(os.getpid(), signal.SIGKILL)
    while path.endswith(".parquet") and os.path.exists(path + HANGS):
        time.sleep(0.1)


sys.addaudithook(hook)
