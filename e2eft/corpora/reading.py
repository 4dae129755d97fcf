"""How the images that a plan names are read: no more of a file than it can need, and whatever is
wrong with it as the reject of one image."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from e2eft.corpora.listing import unread_format
from e2eft.data.shards import ROWS_PER_GROUP
from e2eft.errors import (
    DamagedError,
    DeniedError,
    MissingError,
    StorageError,
    TooLargeError,
    UnreachableError,
)
from e2eft.images.reasons import ImageError
from e2eft.storage import Store

ANY_SIZE = -1
"""In a row of a plan: the file is read as it is now, of whatever size."""
ENCODED_BYTES_PER_PIXEL = 8
"""Of the largest picture without compression: four channels of 16 bits."""
BESIDE_PIXELS = 64 * 2**20
"""What a file may hold besides: profiles, previews, a phone's moving picture."""
_PER_IMAGE: dict[type[StorageError], str] = {
    MissingError: "read_missing",
    DeniedError: "read_denied",
}


def largest_file(max_pixels: int) -> int:
    """Bytes that the file of a picture of so many pixels may have, generously."""
    return ENCODED_BYTES_PER_PIXEL * max_pixels + BESIDE_PIXELS


def read_image(store: Store, row: dict[str, Any], max_pixels: int) -> bytes:
    """The encoded image that a row of the plan means. Of a file that is larger than its row says,
    or than pictures of `max_pixels` are, nothing is read.

    Raises:
        ImageError: the reason that the plan gives, or read_missing, read_denied, read_failed,
            source_changed, file_too_large.
        UnreachableError: if the store itself does not answer: no image's fault, and worth a retry.
    """
    if row["reason"]:
        unread = row["reason"] == "decode_unsupported" and unread_format(row["key"])
        told = f"{unread}; convert it to PNG or JPEG first" if unread else row["key"]
        raise ImageError(row["reason"], told)
    if row["shard"]:
        return _read_from_shard(store, row["shard"], row["row"])
    planned, most = row["size_bytes"], largest_file(max_pixels)
    if planned > most:
        raise _too_large(planned, max_pixels)
    try:
        with _as_reject():
            content = store.read(row["key"], most if planned == ANY_SIZE else planned)
        size = len(content)
    except TooLargeError as error:
        content, size = b"", error.size
    if planned not in (size, ANY_SIZE):
        raise ImageError("source_changed", f"{size} bytes, {planned} when it was listed")
    if size > most:
        raise _too_large(size, max_pixels)
    return content


def _too_large(size: int, max_pixels: int) -> ImageError:
    return ImageError(
        "file_too_large",
        f"{size} bytes, allowed {largest_file(max_pixels)} for --max-pixels {max_pixels}",
    )


def _read_from_shard(store: Store, path: str, row: int) -> bytes:
    group, offset = divmod(row, ROWS_PER_GROUP)
    with _as_reject(), store.open(path) as file:
        try:
            column = pq.ParquetFile(file).read_row_group(group, columns=["rgb"])["rgb"]
            return column[offset].as_py()["bytes"]
        except (pa.ArrowException, IndexError) as error:
            why = " ".join(str(error).split())
            raise DamagedError(f"{store.uri}/{path} cannot be read ({why})") from error


@contextmanager
def _as_reject() -> Iterator[None]:
    """Makes an image's reject of what its store says of it, unless that does not answer."""
    try:
        yield
    except (UnreachableError, TooLargeError):
        raise
    except StorageError as error:
        reason = next(
            (r for kind, r in _PER_IMAGE.items() if isinstance(error, kind)), "read_failed"
        )
        raise ImageError(reason, str(error)) from error


def content_seed(content: bytes, seed: int) -> int:
    """Names an image's initial noise by its encoded content, whatever it is batched with."""
    digest = hashlib.sha256(seed.to_bytes(8, "little", signed=True) + content).digest()
    return int.from_bytes(digest[:8], "little") >> 2
