"""From a URI to its store."""

from pathlib import Path
from urllib.parse import unquote

from e2eft.errors import StorageError
from e2eft.storage.base import Store, check_relative, resolved
from e2eft.storage.local import LocalStore, explained
from e2eft.storage.s3 import S3Store


def open_store(uri: str) -> Store:
    """The store at `uri`.

    Raises:
        StorageError: for a scheme other than none, file or s3, an s3 URI without a bucket, or a
            file URI with a host, and as `resolved` for a path.
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
        return LocalStore(resolved(unquote(path)))
    if "://" in uri:
        raise StorageError(f"{uri!r} has an unknown scheme; use a folder, file:// or s3://")
    if uri.startswith("s3:"):
        rest = uri.removeprefix("s3:").strip("/")
        raise StorageError(f"{uri!r} is no URI; write s3://{rest}, or ./{uri} for a folder")
    return LocalStore(resolved(uri))


def absolute(uri: str) -> str:
    """The one way of writing what `uri` means, here and in another process: a local path resolved,
    `file://` left out, an `s3://` URI without slashes at its end."""
    return open_store(uri).uri


def on_this_disk(name: str) -> Path | None:
    """Where what a name means lies, if it is a path and something is there.

    Raises:
        DeniedError: for what may not be looked at.
        StorageError: as `resolved`.
    """
    if not name or "://" in name:
        return None  # Nothing is no name of the folder that one is in.
    path = resolved(name)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise explained(f"cannot look at {path}", error) from error
    return path
