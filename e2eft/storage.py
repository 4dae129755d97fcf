"""One URI interface over a local disk and S3, and the artifact protocol on top of it.

A *store* is a folder at a URI: a plain path, `file://` or `s3://bucket/prefix`. S3 credentials,
region and endpoint come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL, ...), never from a configuration. Every write is whole or absent: locally a
temporary file that is renamed, on S3 one request. `create` is exclusive on both, which is what a
commit needs.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol
from urllib.parse import unquote, urlparse

import pyarrow.fs as pafs

from e2eft.errors import MissingError, StorageError

S3_RETRIES = 5
CREDENTIAL_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
)
_SESSION_LOCK = Lock()


class Store(Protocol):
    """A folder at `uri`. Paths are relative, with forward slashes."""

    uri: str

    def read(self, path: str) -> bytes: ...
    def write(self, path: str, content: bytes) -> None: ...
    def create(self, path: str, content: bytes) -> bool:
        """Writes only if nothing is there; False if something was."""
        ...

    def exists(self, path: str) -> bool: ...
    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """(path, size in bytes) of every file whose path starts with `prefix`, sorted by path."""
        ...

    def delete(self, path: str) -> None: ...
    def delete_all(self) -> None: ...
    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        """A pyarrow file system and this folder's path in it (for Parquet and Ray Train)."""
        ...


def open_store(uri: str) -> Store:
    """The store at `uri`.

    Raises:
        StorageError: for a scheme other than none, file or s3, an s3 URI without a bucket, or a
            file URI with a host.
    """
    if not uri:
        raise StorageError("the URI is empty; give a folder, file:///folder or s3://bucket/prefix")
    # Not by urlparse: '#' and '?' are ordinary characters of a key, and what follows them counts.
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise StorageError(f"{uri!r} names no bucket; write s3://bucket/prefix")
        return S3Store(bucket, check_relative(prefix.strip("/")))
    if uri.startswith("file:"):
        path = uri.removeprefix("file:").removeprefix("//")
        if not path.startswith("/"):
            raise StorageError(f"{uri!r} names a host; write file:///{path} for a folder here")
        return LocalStore(Path(unquote(path)))
    if "://" in uri:
        raise StorageError(f"{uri!r} has an unknown scheme; use a folder, file:// or s3://")
    return LocalStore(Path(uri).expanduser().resolve())


def join(uri: str, *parts: str) -> str:
    """The URI of something inside the folder at `uri`."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def absolute(uri: str) -> str:
    """`uri` with a relative local path resolved, so that it means the same in another process."""
    return open_store(uri).uri if "://" not in uri else uri


def check_relative(path: str) -> str:
    """`path` if it stays inside its store, else StorageError."""
    if path.startswith("/") or ".." in path.split("/"):
        raise StorageError(f"path {path!r} leaves its folder; keys must be relative without '..'")
    return path


class LocalStore:
    """A folder on a local or mounted disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = str(folder)

    def _at(self, path: str) -> Path:
        return self.folder / check_relative(path)

    def read(self, path: str) -> bytes:
        try:
            return self._at(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise MissingError(f"{self._at(path)} is not there") from None
        except OSError as error:
            raise StorageError(f"cannot read {self._at(path)}: {error.strerror}") from error

    def _staged(self, path: str, content: bytes) -> Path:
        target = self._at(path)
        staged = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with staged.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):
                staged.unlink()
            raise StorageError(
                f"cannot write {target}: {error.strerror}; check the path and its permissions"
            ) from error
        return staged

    def write(self, path: str, content: bytes) -> None:
        self._staged(path, content).replace(self._at(path))

    def create(self, path: str, content: bytes) -> bool:
        staged = self._staged(path, content)
        try:
            os.link(staged, self._at(path))
        except FileExistsError:
            return False
        except OSError as error:
            raise StorageError(
                f"cannot create {self._at(path)}: {error.strerror}; the disk must allow hard links"
            ) from error
        finally:
            staged.unlink()
        return True

    def exists(self, path: str) -> bool:
        return self._at(path).is_file()

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        for root, _, names in os.walk(self.folder):
            for name in names:
                path = Path(root, name)
                relative = path.relative_to(self.folder).as_posix()
                staged = name[0] == "." and name.endswith(".tmp")
                # Not a dangling link, nor a file that another process has just removed.
                if relative.startswith(prefix) and not staged and path.is_file():
                    found.append((relative, path.stat().st_size))
        yield from sorted(found)

    def delete(self, path: str) -> None:
        self._at(path).unlink(missing_ok=True)

    def delete_all(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        return pafs.LocalFileSystem(), str(self.folder)


@lru_cache(maxsize=1)
def _session(*credentials: str | None) -> Any:
    """A boto3 session; making clients is dear without one that is kept, and unsafe in threads."""
    from boto3.session import Session

    return Session()


class S3Store:
    """A prefix in a bucket of S3 or of a server that speaks its protocol, conditional PUT
    included."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    @property
    def client(self) -> Any:
        """The boto3 client; one a store, made at first use."""
        if self._client is None:
            from botocore.config import Config as BotoConfig

            retries = {"max_attempts": S3_RETRIES, "mode": "standard"}
            settings = BotoConfig(
                retries=retries, connect_timeout=10, s3={"addressing_style": "path"}
            )  # type: ignore[arg-type]
            credentials = [os.environ.get(name) for name in CREDENTIAL_VARIABLES]
            with _SESSION_LOCK:
                self._client = _session(*credentials).client("s3", config=settings)
        return self._client

    def _key(self, path: str) -> str:
        return "/".join(filter(None, [self.prefix, check_relative(path)]))

    def _explained(self, error: Exception, path: str) -> StorageError:
        code = getattr(error, "response", {}).get("Error", {}).get("Code", "")
        where = f"s3://{self.bucket}/{self._key(path)}"
        hints = {
            "NoSuchBucket": f"bucket {self.bucket!r} does not exist; create it first",
            "InvalidAccessKeyId": "the access key is unknown; check AWS_ACCESS_KEY_ID",
            "SignatureDoesNotMatch": "the secret is wrong; check AWS_SECRET_ACCESS_KEY",
            "AccessDenied": "these credentials may not do this; check the key's policy",
            "403": "access denied; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        }
        if type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError"}:
            hint = "no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        elif type(error).__name__ in {
            "EndpointConnectionError",
            "ConnectTimeoutError",
            "ConnectionClosedError",
        }:
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            hint = f"no answer from {endpoint or 'AWS'}; check AWS_ENDPOINT_URL and the network"
        else:
            hint = hints.get(code, str(error))
        return StorageError(f"{where}: {hint}")

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self.client, method)(Bucket=self.bucket, **arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in {"NoSuchKey", "404", "PreconditionFailed", "412"}:
                raise
            raise self._explained(error, path) from error
        except BotoCoreError as error:
            raise self._explained(error, path) from error

    def read(self, path: str) -> bytes:
        from botocore.exceptions import ClientError

        try:
            return self._call("get_object", path, Key=self._key(path))["Body"].read()
        except ClientError as error:
            raise MissingError(f"s3://{self.bucket}/{self._key(path)} is not there") from error

    def write(self, path: str, content: bytes) -> None:
        self._call("put_object", path, Key=self._key(path), Body=content)

    def create(self, path: str, content: bytes) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._call("put_object", path, Key=self._key(path), Body=content, IfNoneMatch="*")
        except ClientError:
            return False
        return True

    def exists(self, path: str) -> bool:
        from botocore.exceptions import ClientError

        try:
            self._call("head_object", path, Key=self._key(path))
        except ClientError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        base = f"{self.prefix}/" if self.prefix else ""
        found: list[tuple[str, int]] = []
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", prefix, Prefix=base + prefix, **token)
            found += [(o["Key"][len(base) :], o["Size"]) for o in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                break
            token = {"ContinuationToken": page["NextContinuationToken"]}
        # Not every server lists in byte order.
        yield from sorted(found)

    def delete(self, path: str) -> None:
        self._call("delete_object", path, Key=self._key(path))

    def delete_all(self) -> None:
        for path, _ in list(self.list()):
            self.delete(path)

    def filesystem(self) -> tuple[pafs.FileSystem, str]:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        options: dict[str, Any] = {"region": os.environ.get("AWS_DEFAULT_REGION", "us-east-1")}
        if endpoint:
            parsed = urlparse(endpoint)
            options |= {"endpoint_override": parsed.netloc, "scheme": parsed.scheme}
        return pafs.S3FileSystem(**options), f"{self.bucket}/{self.prefix}".rstrip("/")


def upload_folder(folder: Path, store: Store, prefix: str) -> list[str]:
    """Copies every file under a local folder into the store below `prefix`; returns their paths."""
    paths: list[str] = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        path = "/".join(filter(None, [prefix, file.relative_to(folder).as_posix()]))
        store.write(path, file.read_bytes())
        paths.append(path)
    return paths


def download_folder(store: Store, prefix: str, folder: Path) -> Path:
    """Copies every file below `prefix` of the store into a local folder.

    Raises:
        StorageError: if there is none.
    """
    count = 0
    base = f"{prefix.rstrip('/')}/" if prefix else ""
    for path, _ in store.list(base):
        target = folder / path[len(base) :]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.read(path))
        count += 1
    if not count:
        raise StorageError(f"{join(store.uri, prefix)} is empty or not there")
    return folder
