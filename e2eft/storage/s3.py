"""A store on S3, or on a server that speaks its protocol, conditional PUT included.

Files that are copied go in parts of CHUNK_BYTES, each of which has its own patience: a long copy
over a bad line goes on where it was (boto3's transfer manager would begin the file again).
"""

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from e2eft.errors import ConflictError, DamagedError, MissingError, StorageError, TooLargeError
from e2eft.storage.base import (
    BUFFER_BYTES,
    CHUNK_BYTES,
    Found,
    Store,
    Stored,
    check_relative,
    telling,
)
from e2eft.storage.local import copied_to, opened_to_copy
from e2eft.storage.patience import (
    FIRST_ANSWER_S,
    is_heard,
    note_answer,
    patience_s,
    patiently,
    within,
)
from e2eft.storage.s3_client import SLOW_AFTER, client_for, endpoint_of
from e2eft.storage.s3_errors import (
    BEHIND_THE_END,
    HOPELESS,
    THERE,
    explained,
    is_transient,
    refusal,
)
from e2eft.storage.s3_streams import RangedFile, side_by_side

LAST_ANSWER_S = 2.0
"""Of FIRST_ANSWER_S: left to the last attempt, so that it can still say what is wrong."""
MOST_PARTS = 9_000
"""Of one upload; S3 allows 10,000."""
DELETED_AT_ONCE = 1000

T = TypeVar("T")


class S3Store(Store):
    """A prefix in a bucket. It holds no connection: it may be pickled, forked, used by threads."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")

    def _key(self, path: str) -> str:
        return "/".join(filter(None, [self.prefix, check_relative(path)]))

    def _where(self, path: str) -> str:
        return f"s3://{self.bucket}/{self._key(path)}"

    def _patiently(self, path: str, attempt: Callable[[Any, int], T]) -> T:
        """What `attempt` returns, which gets a client and how often it has failed before.

        Raises:
            StorageError: whatever fits; ConflictError if something was there that should not.
        """
        endpoint = endpoint_of()
        limit_s = patience_s()

        def once(failures: int) -> T:
            return attempt(client_for("slow" if failures > SLOW_AFTER else "usual"), failures)

        try:
            if not is_heard(place := f"{endpoint}/{self.bucket}"):
                within(FIRST_ANSWER_S, self._first_contact)
                note_answer(place)
            return patiently(once, is_transient, limit_s)
        except StorageError:
            raise
        except Exception as error:
            raise explained(error, self._where(path), self.bucket, endpoint) from error

    def _first_contact(self) -> None:
        """Returns once the store has answered anything; what is said to all requests is raised."""
        from botocore.exceptions import ClientError

        def ask(_: int) -> None:
            try:
                client_for("first").list_objects_v2(
                    Bucket=self.bucket, Prefix=self.prefix, MaxKeys=1
                )
            except ClientError as error:
                if is_transient(error) or refusal(error) in HOPELESS:
                    raise

        patiently(ask, is_transient, FIRST_ANSWER_S - LAST_ANSWER_S)

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        return self._patiently(
            path, lambda client, _: getattr(client, method)(Bucket=self.bucket, **arguments)
        )

    def read(self, path: str, most: int | None = None) -> bytes:
        def attempt(client: Any, _: int) -> bytes:
            answer = client.get_object(Bucket=self.bucket, Key=self._key(path))
            body, size = answer["Body"], answer.get("ContentLength", 0)
            if most is not None and size > most:
                body.close()
                raise TooLargeError(self._where(path), size, most)
            return body.read()

        return self._patiently(path, attempt)

    def read_range(self, path: str, start: int, size: int) -> bytes:
        return self._range(path, start, size, {})

    def _range(self, path: str, start: int, size: int, condition: dict[str, str]) -> bytes:
        request = {"Bucket": self.bucket, "Key": self._key(path), **condition}
        request["Range"] = f"bytes={start}-{start + size - 1}"

        def attempt(client: Any, _: int) -> bytes:
            try:
                return client.get_object(**request)["Body"].read()
            except client.exceptions.ClientError as error:
                if refusal(error) in BEHIND_THE_END:
                    return b""
                if refusal(error) in THERE:
                    raise self._changed(path) from error
                raise

        return self._patiently(path, attempt) if size else b""

    def _changed(self, path: str) -> DamagedError:
        return DamagedError(f"{self._where(path)} was changed while it was read; read it again")

    def _versioned(self, path: str) -> tuple[int, Callable[[int, int], bytes]]:
        """An object's size, and what fetches (start, size) of it as long as it is the same one."""
        head = self._call("head_object", path, Key=self._key(path))
        condition = {"IfMatch": head["ETag"]} if head.get("ETag") else {}

        def fetch(start: int, size: int) -> bytes:
            content = self._range(path, start, size, condition)
            if len(content) != size:
                raise self._changed(path)
            return content

        return head["ContentLength"], fetch

    def open(self, path: str, buffer_bytes: int = BUFFER_BYTES) -> BinaryIO:
        size, fetch = self._versioned(path)
        return io.BufferedReader(RangedFile(fetch, size), buffer_bytes)  # type: ignore[return-value]

    def _chunks(self, path: str) -> Iterator[bytes]:
        size, fetch = self._versioned(path)
        starts = range(0, size, CHUNK_BYTES)
        return side_by_side(lambda at: fetch(at, min(CHUNK_BYTES, size - at)), starts)

    def download(self, path: str, file: Path) -> Stored:
        return copied_to(file, self._chunks(path))

    def digest(self, path: str) -> Stored:
        sha256, size = hashlib.sha256(), 0
        for chunk in self._chunks(path):
            sha256.update(chunk)
            size += len(chunk)
        return Stored(size, sha256.hexdigest())

    def write(self, path: str, content: bytes) -> None:
        self._call("put_object", path, Key=self._key(path), Body=content)

    def create(self, path: str, content: bytes) -> bool:
        key = self._key(path)
        try:
            self._create(
                path,
                Stored(len(content), hashlib.sha256(content).hexdigest()),
                lambda client: client.put_object(
                    Bucket=self.bucket, Key=key, Body=content, IfNoneMatch="*"
                ),
            )
        except ConflictError:
            return False
        return True

    def _create(self, path: str, stored: Stored, finish: Callable[[Any], object]) -> None:
        """A request that makes an object whole. What it is refused for after a failure may be what
        the failed one made, whose answer was lost.

        Raises:
            ConflictError: if something is there that is not `stored`.
        """
        failed = 0

        def attempt(client: Any, failures: int) -> None:
            nonlocal failed
            failed = failures
            finish(client)

        try:
            self._patiently(path, attempt)
        except ConflictError:
            with suppress(MissingError):
                if failed and self.digest(path) == stored:
                    return
            raise

    def upload(self, file: Path, path: str, *, exclusive: bool = False) -> Stored:
        condition = {"IfNoneMatch": "*"} if exclusive else {}
        target = {"Bucket": self.bucket, "Key": self._key(path)}
        with opened_to_copy(file) as original:
            size = os.fstat(original.fileno()).st_size
            if size > CHUNK_BYTES:
                return self._upload_parts(original, size, path, condition)
            content = original.read()
        stored = Stored(len(content), hashlib.sha256(content).hexdigest())
        self._create(
            path, stored, lambda client: client.put_object(**target, **condition, Body=content)
        )
        return stored

    def _upload_parts(
        self, original: BinaryIO, size: int, path: str, condition: dict[str, str]
    ) -> Stored:
        target = {"Bucket": self.bucket, "Key": self._key(path)}
        sha256, copied = hashlib.sha256(), 0

        def chunks() -> Iterator[bytes]:
            nonlocal copied
            while chunk := original.read(max(CHUNK_BYTES, -(-size // MOST_PARTS))):
                sha256.update(chunk)
                copied += len(chunk)
                yield chunk

        def send(numbered: tuple[int, bytes]) -> dict[str, Any]:
            part = {"PartNumber": numbered[0], "UploadId": upload}
            made = self._call("upload_part", path, Key=target["Key"], Body=numbered[1], **part)
            return {"PartNumber": numbered[0], "ETag": made["ETag"]}

        upload = self._call("create_multipart_upload", path, Key=target["Key"])["UploadId"]
        try:
            parts = list(side_by_side(send, enumerate(chunks(), 1)))
            stored = Stored(copied, sha256.hexdigest())
            whole = {"UploadId": upload, "MultipartUpload": {"Parts": parts}, **condition}
            self._create(
                path, stored, lambda client: client.complete_multipart_upload(**target, **whole)
            )
        except BaseException:
            with suppress(Exception):  # The store drops it some day, and this error matters more.
                client_for("first").abort_multipart_upload(**target, UploadId=upload)
            raise
        return stored

    def exists(self, path: str) -> bool:
        try:
            self._call("head_object", path, Key=self._key(path))
        except MissingError:
            return False
        return True

    def scan(self, prefix: str = "", problems: list[StorageError] | None = None) -> Iterator[Found]:
        return telling(self._scan(prefix), self.uri)

    def _scan(self, prefix: str) -> Iterator[Found]:
        base = f"{self.prefix}/" if self.prefix else ""
        for page in self._pages(prefix, Prefix=base + check_relative(prefix)):
            for found in page.get("Contents", []):
                modified_ns = int(found["LastModified"].timestamp() * 1_000_000_000)
                if path := found["Key"][len(base) :]:  # not the store's own directory marker
                    yield Found(path, found["Size"], modified_ns)

    def names(self, folder: str = "") -> Iterator[str]:
        base = self._key(folder).rstrip("/")
        base = f"{base}/" if base else ""
        seen = {""}
        for page in self._pages(folder, Prefix=base, Delimiter="/"):
            keys = [found["Key"] for found in page.get("Contents", [])]
            keys += [found["Prefix"] for found in page.get("CommonPrefixes", [])]
            for name in (key[len(base) :].rstrip("/") for key in keys):
                if name not in seen:
                    seen.add(name)
                    yield name

    def _pages(self, path: str, **arguments: str) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", path, **arguments, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            following = {"ContinuationToken": page.get("NextContinuationToken", "")}
            if not following["ContinuationToken"] or following == token:
                raise StorageError(
                    f"{self._where(path)}: the store does not say how its listing goes on; use one "
                    "that speaks ListObjectsV2"
                )
            token = following

    def delete(self, path: str) -> None:
        self._call("delete_object", path, Key=self._key(path))

    def delete_exactly(self, path: str, content: bytes) -> None:
        key = self._key(path)

        def attempt(client: Any, _: int) -> tuple[bytes, str]:
            answer = client.get_object(Bucket=self.bucket, Key=key)
            return answer["Body"].read(), answer["ETag"]

        try:
            there, tag = self._patiently(path, attempt)
        except MissingError:
            return
        if there != content:
            return
        try:
            self._call("delete_object", path, Key=key, IfMatch=tag)
        except (ConflictError, MissingError):
            return
        except StorageError as error:
            if type(error) is not StorageError:
                raise
            self.delete(path)  # a store that knows no condition here, and says so

    def delete_many(self, paths: Iterable[str]) -> None:
        for batch in _batches(paths, DELETED_AT_ONCE):
            self._delete_batch([self._key(path) for path in batch], batch[0])

    def _delete_batch(self, keys: list[str], first: str) -> None:
        from botocore.exceptions import ClientError

        def attempt(client: Any, _: int) -> None:
            objects = [{"Key": key} for key in keys]
            answer = client.delete_objects(
                Bucket=self.bucket, Delete={"Objects": objects, "Quiet": True}
            )
            failed = answer.get("Errors") or []
            errors = [ClientError({"Error": each}, "DeleteObjects") for each in failed]
            if lasting := [error for error in errors if not is_transient(error)]:
                key = lasting[0].response["Error"].get("Key", first)
                where = f"{len(failed)} objects were not deleted, e.g. s3://{self.bucket}/{key}"
                raise explained(lasting[0], where, self.bucket, endpoint_of())
            if errors:
                raise errors[0]

        self._patiently(first, attempt)


def _batches(paths: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for path in paths:
        batch.append(path)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
