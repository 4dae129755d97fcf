"""A store on a local or mounted disk."""

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from e2eft.errors import (
    ConflictError,
    DamagedError,
    DeniedError,
    MissingError,
    StorageError,
    TooLargeError,
    UnsupportedError,
)
from e2eft.storage.base import (
    BUFFER_BYTES,
    CHUNK_BYTES,
    Found,
    Store,
    Stored,
    check_relative,
    telling,
)
from e2eft.walk import walk_files

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
"""What disks that have no hard links say."""
STAGED_SUFFIX = ".tmp"
"""Of files that are being written; their names begin with a dot."""


class LocalStore(Store):
    """A folder on a local or mounted disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = str(folder)

    def _at(self, path: str) -> Path:
        place = self.folder / check_relative(path)
        try:
            os.fsencode(place)
        except UnicodeEncodeError:
            raise StorageError(f"path {path!r} cannot be a name on this disk; rename it") from None
        return place

    def read(self, path: str, most: int | None = None) -> bytes:
        with self.open(path) as file, self._reading(path):
            if most is None:
                return file.read()
            # It may grow meanwhile.
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, most) + 1)
        if len(content) > most:
            raise TooLargeError(str(self._at(path)), max(size, len(content)), most)
        return content

    def read_range(self, path: str, start: int, size: int) -> bytes:
        with self.open(path) as file, self._reading(path):
            file.seek(start)
            return file.read(size)

    def open(self, path: str, buffer_bytes: int = BUFFER_BYTES) -> BinaryIO:
        with self._reading(path):
            file = open(self._at(path), "rb", buffer_bytes, opener=_without_waiting)  # noqa: SIM115
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file
            file.close()
        raise DamagedError(
            f"{self._at(path)} is a pipe, a socket or a device; put the file there, or remove it"
        )

    @contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise MissingError(f"{self._at(path)} is not there") from None
        except OSError as error:
            raise explained(f"cannot read {self._at(path)}", error) from error

    def write(self, path: str, content: bytes) -> None:
        with self._staged(path) as (staged, file):
            file.write(content)
            _onto_disk(file)
            staged.replace(self._at(path))

    def create(self, path: str, content: bytes) -> bool:
        with self._staged(path) as (staged, file):
            file.write(content)
            _onto_disk(file)
            return self._linked(staged, path)

    def upload(self, file: Path, path: str, *, exclusive: bool = False) -> Stored:
        with opened_to_copy(file) as original, self._staged(path) as (staged, copy):
            stored = _copy(_chunks_of(original, file), copy)
            _onto_disk(copy)
            if not exclusive:
                staged.replace(self._at(path))
            elif not self._linked(staged, path):
                raise ConflictError(f"{self._at(path)} is there already")
        return stored

    def download(self, path: str, file: Path) -> Stored:
        with self.open(path) as original:
            return copied_to(file, _chunks_of(original, self._at(path)))

    def digest(self, path: str) -> Stored:
        with self.open(path) as file, self._reading(path):
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            return Stored(file.tell(), sha256)

    @contextmanager
    def _staged(self, path: str) -> Iterator[tuple[Path, BinaryIO]]:
        """A temporary file beside the target, gone afterwards unless it was renamed."""
        target = self._at(path)
        staged = _staged_name(target)
        self._make_folder(target.parent)
        try:
            with staged.open("wb") as file:
                yield staged, file
        except OSError as error:
            raise explained(f"cannot write {target}", error) from error
        finally:
            with suppress(OSError):
                staged.unlink()

    def _make_folder(self, folder: Path) -> None:
        """Says of a folder that cannot be made what lies in the way, and not what was to lie in
        it, which may be no name that its reader knows."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            place = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
            kind = "a file" if place.is_file() else "no folder"
            raise StorageError(
                f"cannot write to {self.folder}: {place} is {kind}; choose another place"
            ) from error
        except OSError as error:
            place = error.filename or folder
            raise explained(f"cannot write to {place}", error) from error

    def _linked(self, staged: Path, path: str) -> bool:
        try:
            os.link(staged, self._at(path))
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            raise UnsupportedError(
                f"cannot create {self._at(path)}: {error.strerror}; the disk must allow hard "
                "links, or only one job may write there (--single-writer)"
            ) from error
        return True

    def exists(self, path: str) -> bool:
        try:
            return self._at(path).is_file()
        except OSError as error:
            raise explained(f"cannot look at {self._at(path)}", error) from error

    def scan(self, prefix: str = "", problems: list[StorageError] | None = None) -> Iterator[Found]:
        return telling(self._scan(prefix, problems), self.uri)

    def _scan(self, prefix: str, problems: list[StorageError] | None) -> Iterator[Found]:
        with suppress(MissingError):
            for file in walk_files(self.folder, check_relative(prefix), problems):
                if not is_staged(file.path.name):
                    yield Found(file.name, file.size, file.modified_ns)

    def names(self, folder: str = "") -> Iterator[str]:
        with suppress(MissingError), self._reading(folder):
            yield from (name for name in os.listdir(self._at(folder)) if not is_staged(name))

    def delete(self, path: str) -> None:
        try:
            self._at(path).unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise explained(f"cannot delete {self._at(path)}", error) from error

    def delete_exactly(self, path: str, content: bytes) -> None:
        target = self._at(path)
        aside = _staged_name(target)
        try:
            if target.read_bytes() != content:
                return
            target.rename(aside)
            if (moved := aside.read_bytes()) != content:
                self.create(path, moved)
            aside.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise explained(f"cannot delete {target}", error) from error

    def delete_many(self, paths: Iterable[str]) -> None:
        folders: set[Path] = set()
        for path in paths:
            self.delete(path)
            folders.update((self.folder / path).parents)
        inner = (folder for folder in folders if self.folder in folder.parents)
        for folder in sorted(inner, key=lambda folder: len(folder.parts), reverse=True):
            with suppress(OSError):  # not empty, or not ours
                folder.rmdir()


def is_staged(name: str) -> bool:
    """Whether a file is one that a writer was killed over."""
    return name[0] == "." and name.endswith(STAGED_SUFFIX)


def copied_to(file: Path, chunks: Iterable[bytes]) -> Stored:
    """Writes a local file, which is whole or absent, from what `chunks` yields.

    Raises:
        StorageError: if it cannot be written, or what `chunks` raises.
    """
    with LocalStore(file.parent)._staged(file.name) as (staged, copy):
        stored = _copy(chunks, copy)
        copy.flush()
        staged.replace(file)
    return stored


@contextmanager
def opened_to_copy(file: Path) -> Iterator[BinaryIO]:
    """A local file, open for reading.

    Raises:
        MissingError: if it is not there.
        StorageError: if it cannot be read.
    """
    store = LocalStore(file.parent)
    with store.open(file.name) as original, store._reading(file.name):
        yield original


def _without_waiting(path: str, flags: int) -> int:
    """Opens what is no file as well, such as a pipe that nobody writes into."""
    return os.open(path, flags | os.O_NONBLOCK)


def _chunks_of(original: BinaryIO, file: Path) -> Iterator[bytes]:
    try:
        while chunk := original.read(CHUNK_BYTES):
            yield chunk
    except OSError as error:
        raise explained(f"cannot read {file}", error) from error


def _staged_name(target: Path) -> Path:
    """Not with the target's name in it, which may be as long as a disk allows."""
    return target.with_name(f".{secrets.token_hex(8)}{STAGED_SUFFIX}")


def _copy(chunks: Iterable[bytes], copy: BinaryIO) -> Stored:
    sha256, size = hashlib.sha256(), 0
    for chunk in chunks:
        copy.write(chunk)
        sha256.update(chunk)
        size += len(chunk)
    return Stored(size, sha256.hexdigest())


def _onto_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def explained(what: str, error: OSError) -> StorageError:
    """What the operating system refused, as an error of ours that says what to do."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DeniedError(f"{what}: {error.strerror}; check the path and its permissions")
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "make room and run it again" if full else "check the path and its permissions"
    return StorageError(f"{what}: {error.strerror}; {hint}")
