"""A store on S3, or on a server that speaks its protocol, conditional PUT included."""

import hashlib
import io
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from e2eft.errors import ConflictError, MissingError, StorageError
from e2eft.storage.base import BUFFER_BYTES, CHUNK_BYTES, Found, Store, Stored, check_relative
from e2eft.storage.local import STAGED_SUFFIX
from e2eft.storage.patience import is_heard, note_answer, patiently
from e2eft.storage.s3_client import client_for, endpoint_of, explained, is_transient, refusal

PARALLEL_PARTS = 4
DELETED_AT_ONCE = 1000

T = TypeVar("T")


class S3Store(Store):
    """A prefix in a bucket."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")

    def _key(self, path: str) -> str:
        return "/".join(filter(None, [self.prefix, check_relative(path)]))

    def _patiently(self, path: str, attempt: Callable[[Any], T], *, exclusive: bool = False) -> T:
        """What `attempt` returns with the client, which is one of a store that never answered yet
        for as long as it has not.

        Raises:
            StorageError: whatever fits; ConflictError if something was there that should not.
        """
        from botocore.exceptions import ClientError

        place = endpoint_of()

        def once() -> T:
            client = client_for(heard=is_heard(place), exclusive=exclusive)
            try:
                result = attempt(client)
            except ClientError:
                note_answer(place)
                raise
            note_answer(place)
            return result

        try:
            return patiently(once, place, is_transient)
        except StorageError:
            raise
        except Exception as error:
            raise explained(error, f"s3://{self.bucket}/{self._key(path)}", self.bucket) from error

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        return self._patiently(
            path, lambda client: getattr(client, method)(Bucket=self.bucket, **arguments)
        )

    def read(self, path: str) -> bytes:
        key = self._key(path)
        return self._patiently(
            path, lambda client: client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        )

    def read_range(self, path: str, start: int, size: int) -> bytes:
        key = self._key(path)

        def attempt(client: Any) -> bytes:
            try:
                wanted = f"bytes={start}-{start + size - 1}"
                got = client.get_object(Bucket=self.bucket, Key=key, Range=wanted)
                return got["Body"].read()
            except client.exceptions.ClientError as error:
                if refusal(error) in ("InvalidRange", "416"):  # behind the end
                    return b""
                raise

        return self._patiently(path, attempt) if size else b""

    def open(self, path: str, buffer_bytes: int = BUFFER_BYTES) -> BinaryIO:
        size = self._call("head_object", path, Key=self._key(path))["ContentLength"]
        return io.BufferedReader(_RangedFile(self, path, size), buffer_bytes)  # type: ignore[return-value]

    def write(self, path: str, content: bytes) -> None:
        self._call("put_object", path, Key=self._key(path), Body=content)

    def create(self, path: str, content: bytes) -> bool:
        key, attempts = self._key(path), 0

        def attempt(client: Any) -> None:
            nonlocal attempts
            attempts += 1
            client.put_object(Bucket=self.bucket, Key=key, Body=content, IfNoneMatch="*")

        try:
            self._patiently(path, attempt)
        except ConflictError:
            # An earlier attempt may have come through though its answer did not.
            return attempts > 1 and self.read(path) == content
        return True

    def upload(self, file: Path, path: str, *, exclusive: bool = False) -> Stored:
        from boto3.s3.transfer import TransferConfig

        settings = TransferConfig(
            multipart_threshold=CHUNK_BYTES,
            multipart_chunksize=CHUNK_BYTES,
            max_concurrency=PARALLEL_PARTS,
        )
        attempts = 0

        def attempt(client: Any) -> Stored:
            nonlocal attempts
            attempts += 1
            with file.open("rb") as original:
                passing = _Hashing(original)
                client.upload_fileobj(passing, self.bucket, self._key(path), Config=settings)
            return passing.stored

        try:
            return self._patiently(path, attempt, exclusive=exclusive)
        except ConflictError:
            if attempts > 1 and self.digest(path) == (mine := _digest_of(file)):
                return mine
            raise

    def download(self, path: str, file: Path) -> Stored:
        from boto3.s3.transfer import TransferConfig

        settings = TransferConfig(
            multipart_threshold=CHUNK_BYTES,
            multipart_chunksize=CHUNK_BYTES,
            max_concurrency=PARALLEL_PARTS,
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        staged = file.with_name(f".{file.name}.{secrets.token_hex(6)}{STAGED_SUFFIX}")

        def attempt(client: Any) -> Stored:
            with staged.open("wb") as copy:
                passing = _Hashing(copy)
                client.download_fileobj(self.bucket, self._key(path), passing, Config=settings)
            return passing.stored

        try:
            stored = self._patiently(path, attempt)
            staged.replace(file)
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error.strerror}") from error
        finally:
            with suppress(OSError):
                staged.unlink()
        return stored

    def digest(self, path: str) -> Stored:
        sha256, size = hashlib.sha256(), 0
        with self.open(path, CHUNK_BYTES) as file:
            while chunk := file.read(CHUNK_BYTES):
                sha256.update(chunk)
                size += len(chunk)
        return Stored(size, sha256.hexdigest())

    def exists(self, path: str) -> bool:
        try:
            self._call("head_object", path, Key=self._key(path))
        except MissingError:
            return False
        return True

    def scan(self, prefix: str = "", problems: list[StorageError] | None = None) -> Iterator[Found]:
        base = f"{self.prefix}/" if self.prefix else ""
        for page in self._pages(prefix, Prefix=base + prefix):
            for found in page.get("Contents", []):
                modified_ns = int(found["LastModified"].timestamp() * 1_000_000_000)
                yield Found(found["Key"][len(base) :], found["Size"], modified_ns)

    def names(self, folder: str = "") -> Iterator[str]:
        base = self._key(folder).rstrip("/")
        base = f"{base}/" if base else ""
        for page in self._pages(folder, Prefix=base, Delimiter="/"):
            keys = [o["Key"] for o in page.get("Contents", [])]
            keys += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
            yield from filter(None, (key[len(base) :].rstrip("/") for key in keys))

    def _pages(self, path: str, **arguments: str) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", path, **arguments, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, path: str) -> None:
        self._call("delete_object", path, Key=self._key(path))

    def delete_many(self, paths: Iterable[str]) -> None:
        for batch in _batches(paths, DELETED_AT_ONCE):
            keys = [{"Key": self._key(path)} for path in batch]
            answer = self._call("delete_objects", batch[0], Delete={"Objects": keys, "Quiet": True})
            if failed := answer.get("Errors"):
                first = failed[0]
                raise StorageError(
                    f"{len(failed)} objects could not be deleted, e.g. s3://{self.bucket}/"
                    f"{first.get('Key')}: {first.get('Message') or first.get('Code')}"
                )


def _batches(paths: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for path in paths:
        batch.append(path)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


class _RangedFile(io.RawIOBase):
    """An object of known size, of which each read fetches a range."""

    def __init__(self, store: S3Store, path: str, size: int) -> None:
        self._store, self._path, self._size, self._position = store, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._size - self._position)
        if size <= 0:
            return 0
        content = self._store.read_range(self._path, self._position, size)
        if len(content) < size:
            raise StorageError(f"{self._store.uri}/{self._path} became shorter while it was read")
        buffer[:size] = content
        self._position += size
        return size


class _Hashing:
    """A file that only reads or writes forward, and knows what has passed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._sha256, self._size = file, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        return self._passed(self._file.read(size))

    def write(self, content: bytes) -> int:
        self._file.write(self._passed(content))
        return len(content)

    def _passed(self, content: bytes) -> bytes:
        self._sha256.update(content)
        self._size += len(content)
        return content

    @property
    def stored(self) -> Stored:
        return Stored(self._size, self._sha256.hexdigest())


def _digest_of(file: Path) -> Stored:
    with file.open("rb") as opened:
        return Stored(file.stat().st_size, hashlib.file_digest(opened, "sha256").hexdigest())
