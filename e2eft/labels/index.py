"""Labels and their index: where they lie, and how they are read without model or Ray.

    TASK/NAME.png           the label as a picture; depth/NAME.png, say
    npy/NAME...             the same as float32, unrounded; some tasks' on request only
    preview/NAME.jpg        in colours, for people only; not of all tasks
    index/part-NNNNNN.parquet   one row for every planned image: what became of it, and why
    retried/NNNNNN.parquet      rows that count instead, of images that were tried again

A label lies on the upright image pixel by pixel, at its full size. What its numbers are, its task
says (`e2eft.tasks`), and every PNG in its text chunks. A part's index is written after all of its
files: if it is there, they are. The manifest lists the index with digests, and the index the
digests of the labels.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from e2eft.artifacts import Artifact, ArtifactError, Parent, load_artifact, sha256
from e2eft.errors import DamagedError
from e2eft.images.npy import decode_npy
from e2eft.storage import Store
from e2eft.targets import LINEAR, DepthTarget, target_of
from e2eft.tasks import label_codec, label_codecs
from e2eft.tasks.labels import LabelCodec

KIND = "labels"
LABEL_SCHEMA_VERSION = 1
JOB_KEY = b"e2eft_job"
"""In a part's metadata: the digest of the job that made it."""
OK, DEGRADED, REJECTED = "ok", "ok_degraded", "rejected"


def _column(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


def picture_columns() -> tuple[str, ...]:
    """The index's columns with the paths of labels, one a task."""
    return tuple(codec.column for codec in label_codecs())


def index_schema() -> pa.Schema:
    """One terminal row an image. Text is "" where there is nothing to say, numbers are 0, never
    null.

    status: `ok`, `ok_degraded` or `rejected`; reason: of `DEGRADATIONS` (joined by "+") or
    `REASONS`; width, height: of the upright image, as its label's; processing_*: at which the model
    saw it.
    """
    return pa.schema(
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
            *(_column(name, pa.string()) for name in picture_columns()),
            _column("npy_path", pa.string()),
            _column("preview_path", pa.string()),
            _column("label_sha256", pa.string()),
            _column("npy_sha256", pa.string()),
            _column("seconds", pa.float32()),
        ]
    )


def blank_row(planned: dict[str, Any]) -> dict[str, Any]:
    """The index row of an image of the plan of which nothing is known yet."""
    row = {field.name: "" if pa.types.is_string(field.type) else 0 for field in index_schema()}
    return row | {name: planned[name] for name in ("index", "part", "key", "uri")}


def part_path(part: int) -> str:
    """The name of a part of the index."""
    return f"index/part-{part:06d}.parquet"


def encode_index(rows: pa.Table, job: str = "") -> bytes:
    """Index rows as one Parquet file, sorted by index. job: digest of what it was made for."""
    table = rows.cast(index_schema()).sort_by("index").combine_chunks()
    if job:
        table = table.replace_schema_metadata({JOB_KEY: job})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


@dataclass(frozen=True)
class LabelIndex:
    """A committed labels artifact, ready to be read."""

    artifact: Artifact

    @property
    def task(self) -> str:
        """Its name; see `e2eft.tasks.TASKS`."""
        return self.artifact.details["task"]

    @property
    def codec(self) -> LabelCodec:
        """What the labels are.

        Raises:
            ValueError: if this program does not know their task, or what their depth is affine in.
        """
        said = self.artifact.details.get("depth_target")
        return label_codec(self.task, target_of(said) if said else LINEAR)

    @property
    def depth_target(self) -> DepthTarget:
        """What labels of depth are affine in."""
        return self.codec.depth_target

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
        """What the numbers are: `affine_depth` or `normals`, say."""
        return self.codec.kind

    @cached_property
    def store(self) -> Store:
        return self.artifact.store

    @cached_property
    def table(self) -> pa.Table:
        """Every row of the index, of `index_schema`, by index; of images that were tried again, the
        row of the newest generation in which that changed anything."""
        return with_rows(read_index(self.store), retried_rows(self.artifact))

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
        """The label of a row: float32 `[h w]` or `[h w 3]`, as its task's codec says.

        Raises:
            ArtifactError: if that image was rejected.
            StorageError: if the file is gone.
            ValueError: if it is damaged, or no label of its task.
        """
        return read_label(self.store, row, self.codec)


def read_label(store: Store, row: dict[str, Any], codec: LabelCodec) -> np.ndarray:
    """See `LabelIndex.read`."""
    if row["npy_path"]:
        label = decode_npy(store.read(row["npy_path"]))
        if not codec.is_label(label):
            raise ValueError(f"{row['npy_path']} is {label.dtype} {label.shape}, which is no label")
        return label
    if row[codec.column]:
        return codec.decode(store.read(row[codec.column]))
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
    return pa.concat_tables([_of_now(table) for table in tables] or [index_schema().empty_table()])


def retried_path(generation: int) -> str:
    """The name of the index rows that a later generation changes."""
    return f"retried/{generation:06d}.parquet"


def retried_rows(labels: Artifact) -> pa.Table:
    """The index rows that later generations have changed, each as in the newest of them."""
    rows = index_schema().empty_table()
    named = ((file.called, file.path) for file in labels.files)
    for name, path in sorted(named):
        if name.startswith("retried/"):
            rows = with_rows(rows, _of_now(_index_part(labels.store, path)))
    return rows


def with_rows(table: pa.Table, changed: pa.Table) -> pa.Table:
    """An index with some of its rows changed; both of `index_schema`."""
    kept = table.filter(~pc.field("index").isin(changed["index"].to_pylist()))
    return pa.concat_tables([kept, changed]).sort_by("index")


def _index_part(store: Store, path: str) -> pa.Table:
    try:
        return pq.read_table(io.BytesIO(store.read(path)))
    except pa.ArrowException as error:
        why = " ".join(str(error).split())
        raise DamagedError(
            f"{store.uri}/{path} cannot be read ({why}); put back what was there; of labels that "
            "are not finished, delete it and run again"
        ) from None


def _of_now(rows: pa.Table) -> pa.Table:
    """Index rows of `index_schema`, also those that are older than a task, of which they have no
    label."""
    for name in picture_columns():
        if name not in rows.column_names:
            none = pa.array([""] * len(rows), pa.string())
            rows = rows.append_column(_column(name, pa.string()), none)
    schema = index_schema()
    return rows.select([name for name in schema.names if name in rows.column_names]).cast(schema)


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
    column = index.codec.column
    for row in index.rows():
        files = {row[column]: row["label_sha256"], row["npy_path"]: row["npy_sha256"]}
        files.pop("", None)
        bad += [
            path
            for path, digest in files.items()
            if path not in present or sha256(index.store.read(path)) != digest
        ]
    return bad
