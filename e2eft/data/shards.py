"""Sample <-> Parquet row, lossless in the stated precision; the index of a shards artifact.

    rgb      lossless WebP in a {bytes, path} struct, which Hugging Face `datasets` shows as an
    image depth    16-bit logarithmic code, differences along rows, bytes split, zstd: <= 0.85e-4
    relative from
             1 cm to 655.36 m; NaN and +inf exact
    normals  octahedral, 2 x 16 bit, bytes split, zstd: <= 0.02 degrees; NaN exact

Measured against the alternatives in benchmarks/encodings.py. A part is one Parquet file with small
row groups, so that a reader fetches few frames it does not want; columns are not compressed a
second time.
"""

import io
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from e2eft.artifacts import Artifact, ArtifactError, load_artifact
from e2eft.data.latents import RgbLatents, latents_path
from e2eft.data.sample import (
    MAX_DEPTH_M,
    MIN_DEPTH_M,
    Sample,
    unknown_depth,
    unknown_normals,
)
from e2eft.storage import Store

KIND = "shards"
SHARD_SCHEMA_VERSION = 1
ROWS_PER_GROUP = 8
ZSTD_LEVEL = 3

DEPTH_UNKNOWN, DEPTH_SKY, DEPTH_STEPS = 0, 65535, 65533
_LOG_RANGE = np.log(MAX_DEPTH_M / MIN_DEPTH_M)
NORMAL_UNKNOWN, NORMAL_STEPS = 65535, 65534

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("scene", pa.string(), nullable=False),
        # Nullable, or `datasets` does not know it for an image.
        pa.field("rgb", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        pa.field("depth", pa.binary(), nullable=False),
        pa.field("normals", pa.binary(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("intrinsics_px", pa.list_(pa.float64(), 9), nullable=False),
        pa.field("schema_version", pa.int16(), nullable=False),
    ],
    metadata={
        "e2eft_schema_version": str(SHARD_SCHEMA_VERSION),
        "huggingface": json.dumps({"info": {"features": {"rgb": {"_type": "Image"}}}}),
    },
)


def _split_and_pack(codes: np.ndarray) -> bytes:
    """uint16 codes -> all low bytes, then all high bytes, then zstd."""
    split = np.ascontiguousarray(codes, "<u2").view(np.uint8).reshape(-1, 2).T
    return pa.Codec("zstd", ZSTD_LEVEL).compress(split.tobytes(), asbytes=True)


def _unpack_and_join(packed: bytes, count: int) -> np.ndarray:
    raw = pa.Codec("zstd").decompress(packed, decompressed_size=2 * count, asbytes=True)
    return (
        np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(2, count).T).view("<u2").ravel()
    )


def encode_depth(depth_m: np.ndarray) -> bytes:
    """float32 `[h w]` metres (NaN unknown, +inf sky) -> bytes.

    Raises:
        ValueError: for a depth outside [MIN_DEPTH_M, MAX_DEPTH_M] other than NaN and +inf.
    """
    unmeasured = np.isnan(depth_m) | np.isposinf(depth_m)
    values = np.where(unmeasured, 1.0, depth_m)
    if values.min() < MIN_DEPTH_M or values.max() > MAX_DEPTH_M:
        raise ValueError(
            f"depth {values.min():.4g} .. {values.max():.4g} m is outside "
            f"{MIN_DEPTH_M} .. {MAX_DEPTH_M} m"
        )
    steps = np.log(values.astype(np.float64) / MIN_DEPTH_M) * (DEPTH_STEPS / _LOG_RANGE)
    codes = np.rint(steps).astype(np.uint16) + np.uint16(1)
    codes[np.isnan(depth_m)] = DEPTH_UNKNOWN
    codes[np.isposinf(depth_m)] = DEPTH_SKY
    return _split_and_pack(np.diff(codes, axis=1, prepend=np.uint16(0)))


_DEPTH_OF_CODE = np.concatenate(
    [
        [np.nan],
        MIN_DEPTH_M * np.exp(np.arange(DEPTH_STEPS + 1) * (_LOG_RANGE / DEPTH_STEPS)),
        [np.inf],
    ]
).astype(np.float32)


def decode_depth(packed: bytes, height: int, width: int) -> np.ndarray:
    """The inverse of `encode_depth`: float32 `[h w]` metres."""
    differences = _unpack_and_join(packed, height * width).reshape(height, width)
    return _DEPTH_OF_CODE[np.cumsum(differences, axis=1, dtype=np.uint16)]


def encode_normals(normals_cam: np.ndarray) -> bytes:
    """float32 `[h w 3]` unit vectors (NaN unknown) -> bytes.

    Octahedral map of Cigolle et al., "A Survey of Efficient Representations for Independent Unit
    Vectors" (JCGT 2014), around the axis towards the camera, which normals prefer.
    """
    if np.isnan(normals_cam).all():  # a frame of depth only, which may be large
        return _split_and_pack(np.full((2, *normals_cam.shape[:2]), NORMAL_UNKNOWN, np.uint16))
    x, y, z = np.ascontiguousarray(np.moveaxis(normals_cam, -1, 0), np.float32)
    scale = np.abs(x) + np.abs(y) + np.abs(z)
    known = np.isfinite(scale)
    scale[~known] = 1
    u, v = x / scale, y / scale
    behind = z > 0
    folded = np.copysign(1 - np.abs(v), u), np.copysign(1 - np.abs(u), v)
    codes = np.empty((2, *known.shape), np.uint16)
    for axis, flat in enumerate((u, v)):
        value = np.where(behind, folded[axis], flat)
        value[~known] = 0
        codes[axis] = np.rint((value + 1) * np.float32(NORMAL_STEPS / 2))
    codes[:, ~known] = NORMAL_UNKNOWN
    return _split_and_pack(codes)


def decode_normals(packed: bytes, height: int, width: int) -> np.ndarray:
    """The inverse of `encode_normals`: float32 `[h w 3]`."""
    codes = _unpack_and_join(packed, 2 * height * width).reshape(2, height, width)
    if (codes[0] == NORMAL_UNKNOWN).all():
        return np.full((height, width, 3), np.nan, np.float32)
    u, v = codes.astype(np.float32) * np.float32(2 / NORMAL_STEPS) - 1
    z = 1 - np.abs(u) - np.abs(v)
    fold = np.maximum(-z, 0)
    n = np.stack([u - np.copysign(fold, u), v - np.copysign(fold, v), -z], axis=-1)
    n /= np.sqrt((n * n).sum(axis=-1, keepdims=True))
    n[codes[0] == NORMAL_UNKNOWN] = np.nan
    return n


def encode_rgb(rgb: np.ndarray) -> bytes:
    """uint8 `[h w 3]` -> lossless WebP."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "WEBP", lossless=True, quality=0, method=0, exact=True)
    return buffer.getvalue()


def decode_rgb(content: bytes) -> np.ndarray:
    """An encoded image -> uint8 `[h w 3]`."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def encode_row(sample: Sample) -> dict[str, Any]:
    """A checked sample as one row of SCHEMA."""
    height, width = sample.size
    return {
        "key": sample.key,
        "source": sample.source,
        "scene": sample.scene,
        "rgb": {"bytes": encode_rgb(sample.rgb), "path": f"{sample.key}.webp"},
        "depth": encode_depth(sample.depth_m),
        "normals": encode_normals(sample.normals_cam),
        "height": height,
        "width": width,
        "intrinsics_px": sample.intrinsics_px.ravel().tolist(),
        "schema_version": SHARD_SCHEMA_VERSION,
    }


def decode_row(row: dict[str, Any]) -> Sample:
    """The inverse of `encode_row`. Of what was not read, the image is black, depth and normals are
    unknown.

    Raises:
        ArtifactError: if the row's schema is newer than this program.
    """
    if row["schema_version"] > SHARD_SCHEMA_VERSION:
        raise ArtifactError(
            f"row {row['key']!r} has shard schema {row['schema_version']}, this program reads "
            f"up to {SHARD_SCHEMA_VERSION}; upgrade e2eft"
        )
    height, width = row["height"], row["width"]
    return Sample(
        key=row["key"],
        source=row["source"],
        scene=row["scene"],
        rgb=decode_rgb(row["rgb"]["bytes"]) if "rgb" in row else _black(height, width),
        depth_m=decode_depth(row["depth"], height, width)
        if "depth" in row
        else unknown_depth(height, width),
        normals_cam=decode_normals(row["normals"], height, width)
        if "normals" in row
        else unknown_normals(height, width),
        intrinsics_px=np.asarray(row["intrinsics_px"], np.float64).reshape(3, 3),
    )


def _black(height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.uint8(0), (height, width, 3))


def encode_part(rows: list[dict[str, Any]]) -> bytes:
    """Rows as one Parquet file; equal rows give equal bytes."""
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows, SCHEMA)
    pq.write_table(
        table,
        sink,
        row_group_size=ROWS_PER_GROUP,
        compression="none",
        use_dictionary=False,
        write_statistics=["key"],  # type: ignore[arg-type]
    )
    return sink.getvalue()


def part_path(part: int) -> str:
    """The name of a part of a shards artifact."""
    return f"data/part-{part:06d}.parquet"


@dataclass(frozen=True)
class ShardIndex:
    """A committed shards artifact, ready to be read row by row without Ray.

    Row numbers are global: parts in the order of their names, rows in file order.
    """

    artifact: Artifact
    rows_of_part: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.rows_of_part)

    @cached_property
    def part_paths(self) -> list[str]:
        return [f.path for f in self.artifact.files if f.called.startswith("data/part-")]

    @cached_property
    def part_starts(self) -> np.ndarray:
        """First global row of each part, and the total: int64 `[parts + 1]`."""
        return np.concatenate([[0], np.cumsum(self.rows_of_part)]).astype(np.int64)

    @cached_property
    def _store(self) -> Store:
        return self.artifact.store

    @cached_property
    def latents(self) -> RgbLatents | None:
        """Of which VAE there are latents of the colour images, if any."""
        return RgbLatents.of(self.artifact.details)

    def read_group(
        self, part: int, group: int, without: frozenset[str] = frozenset()
    ) -> list[dict[str, Any]]:
        """The rows of one row group, still encoded. Columns `without` which one can do are not
        fetched from the store.

        Raises:
            ArtifactError: if another column is not there.
        """
        columns = [name for name in SCHEMA.names if name not in without]
        path = self.part_paths[part]
        rows = self._read(path, group, columns)
        if missing := [name for name in columns for row in rows[:1] if name not in row]:
            raise ArtifactError(
                f"{self.artifact.uri}: {path} has no column {', '.join(missing)}; prepare it anew"
            )
        return rows

    def read_group_with_latents(
        self, part: int, group: int, without: frozenset[str] = frozenset()
    ) -> list[dict[str, Any]]:
        """The same with `latents` in the place of `rgb`.

        Raises:
            ArtifactError: if the latents are those of other rows.
        """
        rows = self.read_group(part, group, without | {"rgb"})
        latents = self._read(self.artifact.path(latents_path(part)), group)
        if [row["key"] for row in rows] != [row["key"] for row in latents]:
            raise ArtifactError(
                f"{self.artifact.uri}: row group {group} of {latents_path(part)} has other rows "
                f"than {self.part_paths[part]}"
            )
        return [row | extra for row, extra in zip(rows, latents, strict=True)]

    def _read(
        self, path: str, group: int, columns: list[str] | None = None
    ) -> list[dict[str, Any]]:
        with self._store.open(path) as file:
            return pq.ParquetFile(file).read_row_group(group, columns).to_pylist()

    def columns(self, *names: str) -> pa.Table:
        """These columns of all rows, in the rows' order; nothing else is fetched from the store."""
        tables: list[pa.Table] = []
        for path in self.part_paths:
            with self._store.open(path) as file:
                tables.append(pq.read_table(file, columns=list(names)))
        return pa.concat_tables(tables)

    def locate(self, row: int) -> tuple[int, int, int]:
        """Global row -> (part, row group, row in the group)."""
        part = int(np.searchsorted(self.part_starts, row, "right")) - 1
        return part, *divmod(row - int(self.part_starts[part]), ROWS_PER_GROUP)


def open_shards(uri: str) -> ShardIndex:
    """The index of the shards at `uri`.

    Raises:
        ArtifactError: not a committed shards artifact, a newer schema, or no rows at all.
    """
    artifact = load_artifact(uri, KIND)
    version = artifact.details.get("shard_schema_version", 0)
    if version > SHARD_SCHEMA_VERSION:
        raise ArtifactError(
            f"{uri} has shard schema {version}, this program reads up to {SHARD_SCHEMA_VERSION}; "
            "upgrade e2eft"
        )
    rows = tuple(artifact.details["rows_of_part"])
    if not sum(rows):
        raise ArtifactError(f"{uri} holds no frames")
    return ShardIndex(artifact=artifact, rows_of_part=rows)


def require_modality(shards: ShardIndex, task: str) -> None:
    """Raises ArtifactError if the frames are known to lack what a task, `depth` or `normals`, is
    trained on: evaluation sets have one of the two."""
    there = shards.artifact.details.get("truth", (task,))
    if task not in there:
        raise ArtifactError(
            f"{shards.artifact.uri} has no {task} to train on: its frames have "
            f"{' and '.join(there)} only"
        )
