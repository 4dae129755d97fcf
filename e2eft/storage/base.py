"""What a store is, and how its paths are kept inside it."""

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from e2eft.errors import DamagedError, StorageError

log = logging.getLogger(__name__)

TELL_EVERY_S = 10.0
BUFFER_BYTES = 1 << 20
"""Read ahead by `Store.open`, so that many small reads are few requests."""
CHUNK_BYTES = 16 << 20
"""Of files that are copied: no more than a few of these are in memory at once."""


@dataclass(frozen=True)
class Stored:
    """What a file contains: size in bytes and SHA-256 (hexadecimal)."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Found:
    """A file of a listing: path, size in bytes, time of change in nanoseconds since 1970."""

    path: str
    size: int
    modified_ns: int


class Store(Protocol):
    """A folder at `uri`. Paths are relative, with forward slashes.

    Every method raises the `StorageError` that fits: MissingError, DeniedError, UnreachableError.
    """

    uri: str

    def read(self, path: str, most: int | None = None) -> bytes:
        """A whole file, for what is small.

        Raises:
            TooLargeError: if it has more than `most` bytes, of which no more are read.
        """
        ...

    def read_range(self, path: str, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start`; fewer at the end of the file."""
        ...

    def open(self, path: str, buffer_bytes: int = BUFFER_BYTES) -> BinaryIO:
        """A seekable file that fetches what is read of it."""
        ...

    def write(self, path: str, content: bytes) -> None: ...

    def create(self, path: str, content: bytes) -> bool:
        """Writes only if nothing is there; False if something was."""
        ...

    def upload(self, file: Path, path: str, *, exclusive: bool = False) -> Stored:
        """Copies a local file of any size, and says what was copied.

        Raises:
            ConflictError: if `exclusive` and something was there; it is left as it was.
        """
        ...

    def download(self, path: str, file: Path) -> Stored:
        """Copies a file of any size to a local one, which is whole or absent."""
        ...

    def digest(self, path: str) -> Stored:
        """Reads a file of any size through."""
        ...

    def exists(self, path: str) -> bool: ...

    def scan(self, prefix: str = "", problems: list[StorageError] | None = None) -> Iterator[Found]:
        """Every file whose path starts with `prefix`, as they are found: in no order, and never all
        in memory.

        Args:
            problems: collects links that lead nowhere and folders that may not be read, which are
                errors otherwise.
        """
        ...

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(path, size in bytes) of what `scan` finds."""
        return ((found.path, found.size) for found in self.scan(prefix))

    def names(self, folder: str = "") -> Iterator[str]:
        """Names of the files and folders directly in a folder, in no order; none if it is not
        there."""
        ...

    def delete(self, path: str) -> None:
        """Removes a file, if it is there."""
        ...

    def delete_exactly(self, path: str, content: bytes) -> None:
        """Removes a file if this is what it contains. What another writer puts there meanwhile
        stays, unless the store has no conditional deletion."""
        ...

    def delete_many(self, paths: Iterable[str]) -> None:
        """Removes files in their order, in batches.

        Raises:
            StorageError: if one of them is still there.
        """
        ...


def telling(found: Iterable[Found], uri: str) -> Iterator[Found]:
    """The same listing of the store at `uri`; of one that takes long a line says from time to time
    how far it is."""
    told = time.monotonic()
    for count, one in enumerate(found, 1):
        if time.monotonic() - told > TELL_EVERY_S:
            told = time.monotonic()
            log.info("%s: %d files so far, at %s", uri, count, one.path)
        yield one


def join(uri: str, *parts: str) -> str:
    """The URI of something inside the folder at `uri`."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def check_relative(path: str) -> str:
    """`path` if it stays inside its store, else StorageError."""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise StorageError(f"path {path!r} leaves its folder; keys must be relative without '..'")
    return path


def resolved(path: str | Path) -> Path:
    """A local path made absolute: `~` and `~user` are homes, links are followed.

    Raises:
        DamagedError: for a link that leads back to itself.
        StorageError: for the home of an unknown user, and for what cannot be a path.
    """
    try:
        place = Path(path).expanduser()
    except RuntimeError:
        raise StorageError(f"{path}: there is no such home; give the whole path") from None
    try:
        return place.resolve()
    except RuntimeError:
        raise DamagedError(f"{path} leads to a link that leads back to itself") from None
    except (OSError, ValueError) as error:
        raise StorageError(f"{str(path)!r} cannot be a path: {error}") from None


def check_name(name: str) -> str:
    """`name`, which somebody else chose, if it is that of a file below a folder, and the only one
    that this file can have there, else StorageError."""
    if any(part in ("", ".") for part in check_relative(name).split("/")):
        raise StorageError(f"path {name!r} cannot be a file's name; rename it")
    return name


def inside(folder: Path, name: str) -> Path:
    """Where `name`, which somebody else chose, lies in a local folder.

    Raises:
        StorageError: if that is not in the folder, by its name or by a link on the way, or if
            another name would lie in the same place.
    """
    place = folder / check_name(name)
    if not resolved(place).is_relative_to(resolved(folder)):
        raise StorageError(f"path {name!r} leaves {folder} by a link")
    return place
