"""The two CPU halves of labelling: from the plan to images that a model can take, and from its
predictions to files and index rows. They import no torch, so their processes start fast.

What travels between them is a chunk: items whose images are of one size, at most a batch of them.
"""

import pickle
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from e2eft import __version__
from e2eft.artifacts import Writer, sha256
from e2eft.corpora.corpus import FULL_DECODING, RANGED_DECODING, planned_rows
from e2eft.corpora.reading import ANY_SIZE, content_seed, largest_file, read_image
from e2eft.images.decoder import MIN_SIDE_PX, decode_image
from e2eft.images.npy import encode_npy
from e2eft.images.reasons import ImageError
from e2eft.images.resize import fitted_size, resize_rgb
from e2eft.labels.index import DEGRADED, OK, REJECTED, blank_row, index_schema
from e2eft.storage import Store, open_store
from e2eft.targets import LINEAR, DepthTarget
from e2eft.tasks import label_codec

READERS, WRITERS = 8, 4
HELD_BYTES = 256 * 2**20
"""Decoded pixels that one task collects before it sends an incomplete batch on."""
AHEAD_BYTES = 128 * 2**20
"""Of files that one task reads ahead, unless a single one has more."""
BYTES_PER_PIXEL = 28
"""Of memory that an image takes at most while it is decoded (WebP: 22), or its label while it is
restored and written (normals: 28, depth: 12)."""


def peak_bytes(max_pixels: int, largest_bytes: int) -> int:
    """Memory that a task takes at most whose images have so many pixels each, and so many bytes as
    files: of one that is decoded there may be a second copy."""
    return HELD_BYTES + AHEAD_BYTES + BYTES_PER_PIXEL * max_pixels + 2 * largest_bytes


@dataclass(frozen=True)
class Work:
    """What every process must know of a corpus. `longest_px` None: each image's own size.

    decoding: version of how its images are decoded; see `Corpus`. as_it_is: an image may be of
    another size than when it was listed.
    corpus: its number among those that are labelled together. largest_bytes: what the largest of
    its files had when it was listed.
    """

    images_uri: str
    writer: Writer
    task: str
    target: str
    model: str
    longest_px: int | None
    max_pixels: int
    batch_size: int
    seed: int
    save_npy: bool
    save_previews: bool
    decoding: int = FULL_DECODING
    corpus: int = 0
    as_it_is: bool = False
    largest_bytes: int = 0
    depth_target: DepthTarget = LINEAR

    @property
    def peak_bytes(self) -> int:
        """Memory that a task takes at most."""
        allowed = largest_file(self.max_pixels)
        largest = allowed if self.as_it_is else min(self.largest_bytes, allowed)
        return peak_bytes(self.max_pixels, largest)


@dataclass(frozen=True)
class Item:
    """One image on its way.

    row: its index row, filled as far as known.
    name: stem of its files.
    seed: names its initial noise.
    array: uint8 `[h w 3]` before the model, the prediction (float32) after it; None if rejected.
    corpus: number of the corpus it belongs to; one in a chunk.
    """

    row: dict[str, Any]
    name: str
    seed: int = 0
    array: np.ndarray | None = None
    corpus: int = 0

    def predicted(self, prediction: np.ndarray, seconds: float) -> "Item":
        """The same image with what the model made of it in `seconds`."""
        if not np.isfinite(prediction).all():
            share = 1 - float(np.isfinite(prediction).mean())
            return self.rejected("model_nan", f"{share:.2%} of the prediction is not finite")
        row = self.row | {"seconds": self.row["seconds"] + seconds}
        return replace(self, row=row, array=prediction)

    def rejected(self, reason: str, detail: str) -> "Item":
        """The same image without a label."""
        row = self.row | {"status": REJECTED, "reason": reason, "detail": detail[:500]}
        return replace(self, row=row, array=None)


def to_table(chunks: list[list[Item]]) -> pa.Table:
    """Chunks as rows of a table, for processes of the same job only."""
    packed = [pickle.dumps(items, protocol=5) for items in chunks]
    return pa.table({"chunk": pa.array(packed, pa.large_binary())})


def from_table(table: pa.Table) -> list[list[Item]]:
    """The inverse of `to_table`."""
    return [pickle.loads(packed) for packed in table["chunk"].to_pylist()]


CORPUS, ROWS = "corpus", "rows"


def packed_rows(corpus: int, rows: list[dict[str, Any]]) -> pa.Table:
    """Index rows of a corpus as a single row, for the driver."""
    table = pa.Table.from_pylist(rows, index_schema())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    content = pa.array([sink.getvalue().to_pybytes()], pa.large_binary())
    return pa.table({CORPUS: pa.array([corpus], pa.int32()), ROWS: content})


def unpacked_rows(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """The inverse of `packed_rows`, of several."""
    for corpus, content in zip(table[CORPUS].to_pylist(), table[ROWS].to_pylist(), strict=True):
        yield corpus, pa.ipc.open_stream(content).read_all()


def lost_row(work: Work, index: int) -> pa.Table:
    """The index row of an image that no process survived."""
    (planned,) = planned_rows(work.writer.store, index, index + 1)
    item = Item(blank_row(planned), planned["name"]).rejected(
        "process_died", "alone in a process, which was killed or crashed each time it was tried"
    )
    return pa.Table.from_pylist([item.row], index_schema())


def decode_part(planned: list[dict[str, Any]], work: Work) -> Iterator[list[Item]]:
    """The images of a part, in chunks of equal size; those that are refused come last.

    Which images share a chunk follows from the plan and the images alone.
    """
    waiting: dict[tuple[int, ...], list[Item]] = {}
    refused: list[Item] = []
    held = 0
    for row, content in _read_ahead(open_store(work.images_uri), planned, work.max_pixels):
        item = _prepare(row, content, work)
        if item.array is None:
            refused.append(item)
            continue
        shape, size = item.array.shape, item.array.nbytes
        held += size
        waiting.setdefault(shape, []).append(item)
        if len(waiting[shape]) == work.batch_size:
            held -= size * work.batch_size
            yield waiting.pop(shape)
        elif held > HELD_BYTES:
            yield from waiting.values()
            waiting, held = {}, 0
    yield from waiting.values()
    if refused:
        yield refused


def _read_ahead(
    store: Store, planned: list[dict[str, Any]], max_pixels: int
) -> Iterator[tuple[dict[str, Any], bytes | ImageError]]:
    """Rows with their files' contents. What is read ahead, the one that is being used included, has
    no more than READERS files and AHEAD_BYTES, or is a single file."""

    def read(row: dict[str, Any]) -> bytes | ImageError:
        try:
            return read_image(store, row, max_pixels)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(READERS) as pool:
        coming: deque[tuple[dict[str, Any], int, Future[bytes | ImageError]]] = deque()
        ahead = 0
        for row in planned:
            size = _bytes_read(row, max_pixels)
            while coming and (len(coming) == READERS or ahead + size > AHEAD_BYTES):
                first, its_size, content = coming.popleft()
                yield first, content.result()
                del content
                ahead -= its_size
            coming.append((row, size, pool.submit(read, row)))
            ahead += size
        while coming:
            first, _, content = coming.popleft()
            yield first, content.result()


def _bytes_read(row: dict[str, Any], max_pixels: int) -> int:
    """What reading a planned image takes at most."""
    size, most = row["size_bytes"], largest_file(max_pixels)
    if size == ANY_SIZE:
        return most
    return 0 if size > most else size


def _prepare(planned: dict[str, Any], content: bytes | ImageError, work: Work) -> Item:
    started = time.perf_counter()
    item = Item(blank_row(planned), planned["name"], corpus=work.corpus)
    try:
        if isinstance(content, ImageError):
            raise content
        item.row["source_sha256"] = sha256(content)
        seen_px = None if work.decoding == FULL_DECODING else work.longest_px
        as_before = work.decoding < RANGED_DECODING
        image = decode_image(content, work.max_pixels, seen_px, as_before=as_before)
        height, width = image.size
        size = fitted_size(height, width, work.longest_px)
        item.row.update(width=width, height=height, mode=image.mode)
        item.row.update(exif_orientation=image.exif_orientation)
        if min(size) < MIN_SIDE_PX:
            raise ImageError(
                "aspect_extreme", f"{width} x {height} pixels become {size[1]} x {size[0]}"
            )
        pixels = resize_rgb(image.rgb, size)
    except ImageError as error:
        return item.rejected(error.reason, error.detail)
    item.row.update(
        status=DEGRADED if image.degraded else OK,
        reason="+".join(image.degraded),
        processing_height=size[0],
        processing_width=size[1],
        seconds=time.perf_counter() - started,
    )
    return replace(item, seed=content_seed(content, work.seed), array=pixels)


def write_chunk(items: list[Item], work: Work) -> list[dict[str, Any]]:
    """Restores each prediction to its image's size and writes its files; the final index rows."""
    largest = max(item.row["width"] * item.row["height"] for item in items)
    at_once = HELD_BYTES // (BYTES_PER_PIXEL * max(1, largest))
    with ThreadPoolExecutor(max(1, min(WRITERS, at_once))) as pool:
        return list(pool.map(lambda item: _write(item, work), items))


def _write(item: Item, work: Work) -> dict[str, Any]:
    if item.array is None:
        return item.row
    started = time.perf_counter()
    size = item.row["height"], item.row["width"]
    row = item.row | {"label_height": size[0], "label_width": size[1]}
    codec, put = label_codec(work.task, work.depth_target), work.writer.put
    label = codec.resize(item.array, size)
    picture = codec.encode(label, _text(row, work))
    if work.save_previews and (preview := codec.preview(label)):
        row["preview_path"] = put(f"preview/{item.name}.jpg", preview).path
    if work.save_npy or codec.always_npy:
        npy = put(codec.npy_path(item.name), encode_npy(label))
        row["npy_path"], row["npy_sha256"] = npy.path, npy.sha256
    file = put(codec.path(item.name), picture)
    row[codec.column], row["label_sha256"] = file.path, file.sha256
    row["seconds"] += time.perf_counter() - started
    return row


def _text(row: dict[str, Any], work: Work) -> dict[str, str]:
    """What a label file says of itself beyond its conventions."""
    return {
        "key": row["key"],
        "task": work.task,
        "target": work.target,
        "model": work.model,
        "frame": "upright",
        "exif_orientation": str(row["exif_orientation"]),
        "source_sha256": row["source_sha256"],
        "source_size": f"{row['width']}x{row['height']}",
        "processing_size": f"{row['processing_width']}x{row['processing_height']}",
        "Software": f"e2eft {__version__}",
    }
