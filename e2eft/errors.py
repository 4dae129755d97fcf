"""Errors that a person reads as one line, told apart by type and never by their text.

Ray and processes in general keep a remote exception's text, not the exception, so workers hand
errors back as data: `as_json` there, `from_json` here.
"""

import importlib
from typing import Any


class E2eftError(ValueError):
    """Something that its reader can correct: the message names the thing and the fix."""


class StorageError(E2eftError):
    """A URI that cannot be read or written."""


class MissingError(StorageError):
    """A file that is not there."""


class DeniedError(StorageError):
    """Credentials or permissions that do not allow it, or none at all."""


class UnreachableError(StorageError):
    """A store that did not answer for as long as it was waited for."""


class ConflictError(StorageError):
    """Something that was created by somebody else meanwhile."""


class UnsupportedError(StorageError):
    """A store that has no means for what is asked of it."""


class DamagedError(StorageError):
    """Content that is there and is not what was written."""


class TooLargeError(StorageError):
    """A file of more bytes than were asked for; `size` is how many it has."""

    def __init__(self, where: str, size: int, most: int) -> None:
        super().__init__(f"{where} has {size} bytes; {most} are the most that are read of it")
        self.where, self.size, self.most = where, size, most

    def __reduce__(self) -> tuple[type, tuple[str, int, int]]:
        return type(self), (self.where, self.size, self.most)


def as_json(error: E2eftError) -> dict[str, Any]:
    """An error as plain data, for another process."""
    kind = type(error)
    state = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    return {
        "kind": f"{kind.__module__}:{kind.__qualname__}",
        "args": list(error.args),
        **({"state": state} if state else {}),
    }


def from_json(data: dict[str, Any]) -> E2eftError:
    """The inverse of `as_json`; an error of an unknown kind keeps its text."""
    module, _, name = str(data["kind"]).partition(":")
    kind: Any = E2eftError
    if module.split(".")[0] == __name__.split(".")[0]:
        try:
            kind = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            kind = E2eftError
    if not (isinstance(kind, type) and issubclass(kind, E2eftError)):
        kind = E2eftError
    # Not by calling it: a kind may build its text from other arguments than it keeps.
    error = kind.__new__(kind, *data["args"])
    error.args = tuple(data["args"])
    vars(error).update(data.get("state", {}))
    return error
