"""Loaded by every Python process of a cluster under attack: asks before each change of an artifact.

Nothing of the program is replaced: Python itself announces (PEP 578) that a file is linked,
renamed or unlinked, and that an HTTP request is sent. Answers: "go", "again" (ask at the next
opportunity), "full" (what a full disk says). No answer: the asked one has gone; go on.
"""

import errno
import json
import os
import socket
import sys
import threading
from typing import Any

WHOM = os.environ.get("E2EFT_CHAOS_SOCKET", "")
MARK = "/e2eft-chaos/"
"""In the path of every artifact under attack."""
LAST = "/manifest.json"
PLACES = {"os.link": 1, "os.rename": 1, "os.remove": 0}
"""Which argument of an event is the file that changes."""
_committed: dict[int, str] = {}
"""By thread: the manifest it has just written, or is about to have written."""


def changed(event: str, arguments: tuple[Any, ...]) -> tuple[str, str] | None:
    """Operation and path, if an artifact is about to change."""
    if event in PLACES:
        path = os.fsdecode(arguments[PLACES[event]])
        operation = event.removeprefix("os.")
    elif event == "http.client.send":
        data = arguments[1]
        if not isinstance(data, bytes) or data[:4] not in (b"PUT ", b"POST", b"DELE"):
            return None
        words = data.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if not words[-1].startswith("HTTP/"):
            return None  # a body
        operation, path = words[0], words[1].partition("?")[0]
    else:
        return None
    return (operation, path) if MARK in path and not path.endswith(".tmp") else None


def ask(operation: str, path: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(WHOM)
            asked = {"pid": os.getpid(), "operation": operation, "path": path}
            connection.sendall(json.dumps(asked).encode() + b"\n")
            return connection.makefile().readline().strip()
        except OSError:
            return "go"


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event.startswith(("socket.", "object.", "import", "compile", "exec")):
        return
    thread = threading.get_ident()
    change = changed(event, arguments)
    if thread in _committed and (change or not event.startswith("http.client.")):
        path = _committed.pop(thread)
        if ask("after", path) == "again":
            _committed[thread] = path
    if change is None:
        return
    if ask(*change) == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), change[1])
    if change[1].endswith(LAST) and change[0] in ("link", "PUT"):
        _committed[thread] = change[1]


if WHOM:
    sys.addaudithook(hook)
