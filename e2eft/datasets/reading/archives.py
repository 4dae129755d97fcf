"""Raw files of a dataset, read in place: from a folder, or from an archive without unpacking it.

On S3 a member of an archive costs one ranged request. The directory of a zip file is read when it
is opened; a tar file has none, and is read through once to make one.
"""

import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from typing import Protocol, TypeVar

from e2eft.artifacts import sha256
from e2eft.errors import E2eftError
from e2eft.storage import MissingError, Store, open_store

_LOCAL_HEADER = 30
_STREAM_BUFFER = 8 << 20
_HEAD = 1 << 20
_SPARE = 256
"""Bytes for the extra fields of a member's own header, whose length only that header says."""


Frame = TypeVar("Frame")


class CorruptArchiveError(E2eftError):
    """An archive, or a member of one, that cannot be read."""


class RawFiles(Protocol):
    """Files by relative path."""

    def read(self, path: str) -> bytes:
        """A whole file.

        Raises:
            MissingError: if it is not there.
            CorruptArchiveError: if what is there cannot be read.
        """
        ...


class Folder:
    """Files below a path of a store."""

    def __init__(self, store: Store, prefix: str) -> None:
        self.store, self.prefix = store, prefix

    def read(self, path: str) -> bytes:
        return self.store.read(f"{self.prefix}/{path}" if self.prefix else path)


class ZipArchive:
    """Members of a zip file in a store, below a folder within it."""

    def __init__(self, store: Store, path: str, prefix: str) -> None:
        self.uri, self.prefix = f"{store.uri}/{path}", prefix
        self._store, self._path = store, path
        try:
            with store.open(path) as file, zipfile.ZipFile(file) as archive:
                self._members = {info.filename: info for info in archive.infolist()}
        except (zipfile.BadZipFile, OSError) as error:
            raise CorruptArchiveError(f"{self.uri}: {error}; download it again") from error

    def read(self, path: str) -> bytes:
        name = f"{self.prefix}/{path}"
        info = self._members.get(name)
        if info is None:
            raise MissingError(f"{self.uri} has no member {name}")
        spare = _LOCAL_HEADER + len(name.encode()) + _SPARE
        head = self._read(info.header_offset, spare + info.compress_size)
        name_length, extra_length = struct.unpack_from("<HH", head, 26)
        start = _LOCAL_HEADER + name_length + extra_length
        if start > spare:
            head = self._read(info.header_offset, start + info.compress_size)
        return self._unpacked(info, head[start : start + info.compress_size])

    def _read(self, start: int, size: int) -> bytes:
        return self._store.read_range(self._path, start, size)

    def _unpacked(self, info: zipfile.ZipInfo, packed: bytes) -> bytes:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise CorruptArchiveError(
                f"{self.uri}: member {info.filename} is compressed by method "
                f"{info.compress_type}; expected deflate or none"
            )
        try:
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            content = zlib.decompress(packed, -zlib.MAX_WBITS) if deflated else packed
        except zlib.error as error:
            raise CorruptArchiveError(f"{self.uri}: member {info.filename}: {error}") from error
        if zlib.crc32(content) != info.CRC:
            raise CorruptArchiveError(f"{self.uri}: member {info.filename} fails its checksum")
        return content


def index_tar(store: Store, path: str) -> dict[str, tuple[int, int]]:
    """(offset, size) of every file in an uncompressed tar, by name without a leading "./".

    Raises:
        CorruptArchiveError: if it is no tar, or ends too early.
    """
    members: dict[str, tuple[int, int]] = {}
    with store.open(path, _STREAM_BUFFER) as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    if member.isfile():
                        name = member.name.removeprefix("./")
                        members[name] = (member.offset_data, member.size)
        except tarfile.TarError as error:
            raise CorruptArchiveError(f"{store.uri}/{path}: {error}; download it again") from error
    return members


def kept_tar_index(store: Store, path: str, index: Store) -> dict[str, tuple[int, int]]:
    """`index_tar`, made once and kept as `path`.json in `index`.

    Raises:
        CorruptArchiveError: as `index_tar`.
    """
    kept = f"{path}.json"
    if not index.exists(kept):
        print(f"reading the directory of {path}", flush=True)
        index.write(kept, json.dumps(index_tar(store, path)).encode())
    return json.loads(index.read(kept))


class TarArchive:
    """Members of an uncompressed tar file in a store, whose index is known."""

    def __init__(self, store: Store, path: str, members: dict[str, tuple[int, int]]) -> None:
        self.uri, self._members = f"{store.uri}/{path}", members
        self._store, self._path = store, path

    def read(self, path: str) -> bytes:
        if path not in self._members:
            raise MissingError(f"{self.uri} has no member {path}")
        offset, size = self._members[path]
        content = self._store.read_range(self._path, offset, size)
        if len(content) < size:
            raise CorruptArchiveError(f"{self.uri} ends within {path}; download it again")
        return content


def spread(frames: Sequence[Frame]) -> list[Frame]:
    """The first, the middle and the last one."""
    numbers = {0, len(frames) // 2, len(frames) - 1} if frames else set[int]()
    return [frames[number] for number in sorted(numbers)]


def digest_of(files: RawFiles, path: str) -> str:
    """SHA-256 of a raw file; "" if there is none that can be read."""
    try:
        return sha256(files.read(path))
    except (MissingError, CorruptArchiveError):
        return ""


def digest_of_head(store: Store, path: str) -> str:
    """SHA-256 of an archive's first MiB, which a broken download has too; "" if it is not there."""
    if not store.exists(path):
        return ""
    with store.open(path) as file:
        return sha256(file.read(_HEAD))


def names_in(store: Store) -> list[str]:
    """Names of the files and folders directly in a store, sorted; none if it is not there.

    Raises:
        StorageError: if it cannot be listed.
    """
    return sorted(store.names())


def read_uri(uri: str) -> bytes:
    """The content of one file.

    Raises:
        MissingError, StorageError: as `Store.read`.
    """
    folder, _, name = uri.rpartition("/")
    return open_store(folder or ".").read(name)
