"""Label files and their index: how they are written, and how they are read without model or Ray.

    depth/NAME.png          16-bit: 65535 x affine-invariant linear depth, 0 near, 1 far
    normals/NAME.png        8-bit: 127.5 (n + 1), rounded, right-up-viewer axes; (0, 0, 0) unknown
    npy/NAME.npy            float32 [h w], the same depth unrounded (on request)
    npy/NAME.normals.npy    float32 [h w 3], unit normals in OpenCV camera axes; NaN unknown
    preview/NAME.jpg        depth in colours, for people only
    index/part-NNNNNN.parquet   one row for every planned image: what became of it, and why

A label lies on the upright image pixel by pixel, at its full size. Every PNG says in its text
chunks what its numbers mean. A part's index is written after all of its files: if it is there, they
are. The manifest lists the index with digests, and the index the digests of the labels.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from e2eft.artifacts import Artifact, ArtifactError, Parent, load_artifact, sha256
from e2eft.data.resize import resize_depth
from e2eft.errors import DamagedError
from e2eft.storage import Store
from e2eft.views.colour import colour_depth, colour_normals

KIND = "labels"
LABEL_SCHEMA_VERSION = 1
JOB_KEY = b"e2eft_job"
"""In a part's metadata: the digest of the job that made it."""
OK, DEGRADED, REJECTED = "ok", "ok_degraded", "rejected"
DEPTH_CODES = 65535
COMPRESS_LEVEL = 1
"""Pillow's default of 6 takes eight times as long to save 6 %."""
PREVIEW_SIDE_PX = 1024
PREVIEW_QUALITY = 90

DEPTH_COLUMN, NORMALS_COLUMN = "depth_affine", "normals_cam"
"""What tasks call the arrays of their labels."""

CONVENTIONS: dict[str, dict[str, str]] = {
    "depth": {
        "kind": "affine_depth",
        "encoding": "linear uint16: depth = value / 65535",
        "convention": "0 near, 1 far; linear in depth (not disparity), unknown scale and shift",
        "unit": "none",
        "geometry": "planar z",
        "invalid": "none",
    },
    "normals": {
        "kind": "normals",
        "encoding": "uint8: n = value / 127.5 - 1",
        "convention": "unit vectors facing the camera",
        "axes": "right-up-viewer: x right, y up, z to the viewer",
        "npy_axes": "opencv: x right, y down, z forward",
        "unit": "none",
        "invalid": "0 0 0",
    },
}
"""What the numbers in a label mean, by task: text chunks of the PNG and part of the manifest."""


def _column(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


INDEX_SCHEMA = pa.schema(
    [
        _column("index", pa.int64()),
        _column("part", pa.int32()),
        _column("key", pa.string()),
        _column("uri", pa.string()),
        _column("status", pa.string()),
        _column("reason", pa.string()),
        _column("detail", pa.string()),
        _column("width", pa.int32()),
        _column("height", pa.int32()),
        _column("label_width", pa.int32()),
        _column("label_height", pa.int32()),
        _column("processing_width", pa.int32()),
        _column("processing_height", pa.int32()),
        _column("exif_orientation", pa.int16()),
        _column("mode", pa.string()),
        _column("source_sha256", pa.string()),
        _column("depth_path", pa.string()),
        _column("normals_path", pa.string()),
        _column("npy_path", pa.string()),
        _column("preview_path", pa.string()),
        _column("label_sha256", pa.string()),
        _column("npy_sha256", pa.string()),
        _column("seconds", pa.float32()),
    ]
)
"""One terminal row an image. Text is "" where there is nothing to say, numbers are 0, never null.

status: `ok`, `ok_degraded` or `rejected`; reason: of `DEGRADATIONS` (joined by "+") or `REASONS`;
width, height: of the upright image, as its label's; processing_*: at which the model saw it.
"""


def blank_row(planned: dict[str, Any]) -> dict[str, Any]:
    """The index row of an image of the plan of which nothing is known yet."""
    row = {field.name: "" if pa.types.is_string(field.type) else 0 for field in INDEX_SCHEMA}
    return row | {name: planned[name] for name in ("index", "part", "key", "uri")}


def part_path(part: int) -> str:
    """The name of a part of the index."""
    return f"index/part-{part:06d}.parquet"


def encode_index(rows: list[dict[str, Any]], job: str = "") -> bytes:
    """Index rows as one Parquet file, sorted by index. job: digest of what it was made for."""
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["index"]), INDEX_SCHEMA)
    if job:
        table = table.replace_schema_metadata({JOB_KEY: job})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _png(pixels: np.ndarray, text: dict[str, str]) -> bytes:
    chunks = PngInfo()
    for name, value in text.items():
        chunks.add_text(name, value)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=COMPRESS_LEVEL, pnginfo=chunks)
    return buffer.getvalue()


def encode_depth_png(depth: np.ndarray, text: dict[str, str]) -> bytes:
    """float32 `[h w]` in [0, 1], all finite -> 16-bit PNG, to 1/131070."""
    assert np.isfinite(depth).all()
    codes = np.rint(np.clip(depth, 0, 1).astype(np.float64) * DEPTH_CODES).astype(np.uint16)
    return _png(codes, CONVENTIONS["depth"] | text)


def decode_depth_png(content: bytes) -> np.ndarray:
    """The inverse of `encode_depth_png`: float32 `[h w]`."""
    return (np.asarray(Image.open(io.BytesIO(content))) / DEPTH_CODES).astype(np.float32)


def encode_normals_png(normals_cam: np.ndarray, text: dict[str, str]) -> bytes:
    """float32 `[h w 3]` in OpenCV axes, NaN unknown -> 8-bit PNG in right-up-viewer axes.

    Rounding costs at most 0.4 degrees.
    """
    return _png(colour_normals(normals_cam), CONVENTIONS["normals"] | text)


def decode_normals_png(content: bytes) -> np.ndarray:
    """The inverse of `encode_normals_png`: float32 `[h w 3]` in OpenCV axes, unit, NaN unknown."""
    codes = np.asarray(Image.open(io.BytesIO(content)))
    normals = (codes / 127.5 - 1) * (1.0, -1.0, -1.0)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[(codes == 0).all(axis=-1)] = np.nan
    return normals.astype(np.float32)


def encode_npy(array: np.ndarray) -> bytes:
    """An array as a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def decode_npy(content: bytes) -> np.ndarray:
    """The inverse of `encode_npy`."""
    return np.load(io.BytesIO(content), allow_pickle=False)


def encode_preview(depth: np.ndarray) -> bytes:
    """Depth in colours over its own 2 % to 98 % range, at most PREVIEW_SIDE_PX a side, as JPEG."""
    height, width = depth.shape
    shrink = min(1.0, PREVIEW_SIDE_PX / max(height, width))
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    buffer = io.BytesIO()
    picture = Image.fromarray(colour_depth(resize_depth(depth, size)))
    picture.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return buffer.getvalue()


@dataclass(frozen=True)
class LabelIndex:
    """A committed labels artifact, ready to be read."""

    artifact: Artifact

    @property
    def task(self) -> str:
        """`depth` or `normals`."""
        return self.artifact.details["task"]

    @property
    def uri(self) -> str:
        """Where the artifact is."""
        return self.artifact.uri

    @property
    def parents(self) -> tuple[Parent, ...]:
        """What they were made from: images and model."""
        return self.artifact.parents

    @property
    def kind(self) -> str:
        """What the numbers are: `affine_depth` or `normals`."""
        return CONVENTIONS[self.task]["kind"]

    @cached_property
    def store(self) -> Store:
        return self.artifact.store

    @cached_property
    def table(self) -> pa.Table:
        """Every row of the index, INDEX_SCHEMA, by index."""
        return read_index(self.store)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every row of the index."""
        for batch in self.table.to_batches(max_chunksize=4096):
            yield from batch.to_pylist()

    def as_parent(self, role: str) -> Parent:
        """A reference for another artifact's lineage."""
        return self.artifact.as_parent(role)

    def label_rows(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The rows of these keys, also of rejected images; a key without a row is left out."""
        wanted = set(keys)
        return {row["key"]: row for row in self.rows() if row["key"] in wanted}

    def by_key(self) -> dict[str, dict[str, Any]]:
        """The rows of images that have a label, by key."""
        return {row["key"]: row for row in self.rows() if row["status"] != REJECTED}

    def read(self, row: dict[str, Any]) -> np.ndarray:
        """The label of a row: depth float32 `[h w]` in [0, 1], or unit normals float32 `[h w 3]` in
        OpenCV camera axes, NaN unknown.

        Raises:
            ArtifactError: if that image was rejected.
            StorageError: if the file is gone.
        """
        return read_label(self.store, row)


def read_label(store: Store, row: dict[str, Any]) -> np.ndarray:
    """See `LabelIndex.read`."""
    if row["npy_path"]:
        return decode_npy(store.read(row["npy_path"]))
    if row["depth_path"]:
        return decode_depth_png(store.read(row["depth_path"]))
    if row["normals_path"]:
        return decode_normals_png(store.read(row["normals_path"]))
    raise ArtifactError(f"{row['key']!r} has no label: {row['reason']} ({row['detail']})")


def committed_parts(store: Store) -> set[int]:
    """The parts whose index is there."""
    found = (re.fullmatch(r"part-(\d{6})\.parquet", name) for name in store.names("index"))
    return {int(match[1]) for match in found if match}


def read_index(store: Store, job: str = "") -> pa.Table:
    """Every index part that is there, one below another.

    Raises:
        ArtifactError: for a part that was made for another job than this one, if it is given.
    """
    parts = sorted(committed_parts(store))
    tables = [_index_part(store, part_path(part)) for part in parts]
    for part, table in zip(parts, tables, strict=True):
        maker = (table.schema.metadata or {}).get(JOB_KEY, b"").decode()
        if job and maker and maker != job:
            raise ArtifactError(
                f"{store.uri}/{part_path(part)} was made by a job with another configuration that "
                "has been replaced; delete it and run again"
            )
    return pa.concat_tables(
        [table.cast(INDEX_SCHEMA) for table in tables] or [INDEX_SCHEMA.empty_table()]
    )


def _index_part(store: Store, path: str) -> pa.Table:
    try:
        return pq.read_table(io.BytesIO(store.read(path)))
    except pa.ArrowException as error:
        why = " ".join(str(error).split())
        raise DamagedError(
            f"{store.uri}/{path} cannot be read ({why}); put back what was there; of labels that "
            "are not finished, delete it and run again"
        ) from None


def open_labels(uri: str) -> LabelIndex:
    """The index of the labels at `uri`.

    Raises:
        ArtifactError: not a committed labels artifact, or a newer schema.
    """
    artifact = load_artifact(uri, KIND)
    version = artifact.details.get("label_schema_version", 0)
    if version > LABEL_SCHEMA_VERSION:
        raise ArtifactError(
            f"{uri} has label schema {version}, this program reads up to {LABEL_SCHEMA_VERSION}; "
            "upgrade e2eft"
        )
    return LabelIndex(artifact)


def verify_labels(index: LabelIndex) -> list[str]:
    """Reads every label file again; returns the paths that are missing or changed."""
    present = {path for path, _ in index.store.list()}
    bad: list[str] = []
    for row in index.rows():
        files = {row["depth_path"] or row["normals_path"]: row["label_sha256"],
                 row["npy_path"]: row["npy_sha256"]}  # fmt: skip
        files.pop("", None)
        bad += [
            path
            for path, digest in files.items()
            if path not in present or sha256(index.store.read(path)) != digest
        ]
    return bad
