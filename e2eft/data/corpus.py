"""What a labelling job will label: the plan, frozen before any work, and how its images are read.

The plan names every image, its part and the names of its files, so a job that is killed and run
again, anywhere, cuts the same corpus in the same way although the folder may have grown meanwhile.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from e2eft.artifacts import FORMAT, MANIFEST, Artifact
from e2eft.data.shards import ROWS_PER_GROUP, open_shards
from e2eft.data.sources.images import ImageError, ListedImage, list_images, with_output_names
from e2eft.errors import (
    DamagedError,
    DeniedError,
    E2eftError,
    MissingError,
    StorageError,
    UnreachableError,
)
from e2eft.storage import LocalStore, Store, open_store, resolved

PLAN = "plan/images.parquet"
PLAN_SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
    ]
)
"""index: position in the order of keys; part: its unit of work; name: stem of its label files;
reason: why it is refused unread, or ""; shard, row: its place in a shards artifact, or "", 0."""


class CorpusError(E2eftError):
    """A corpus that cannot be labelled; the message names it and the fix."""


@dataclass(frozen=True)
class Corpus:
    """The images of a job. `plan` has PLAN_SCHEMA, sorted by index.

    excluded: how many files were passed over, by reason.
    shards: the artifact they come from, if they are no plain folder.
    """

    uri: str
    plan: pa.Table
    excluded: dict[str, int]
    shards: Artifact | None = None

    def __len__(self) -> int:
        return self.plan.num_rows

    @property
    def parts(self) -> int:
        return int(self.plan["part"][-1].as_py()) + 1 if len(self) else 0

    def part(self, number: int, images_per_part: int) -> list[dict[str, Any]]:
        """The plan's rows of one part."""
        return self.plan.slice(number * images_per_part, images_per_part).to_pylist()


def check_apart(images_uri: str, out_uri: str) -> None:
    """Raises CorpusError if the output lies in the images' folder, which would then label its own
    labels, or the images in the output's, which --overwrite would delete."""
    images, out = (_comparable(uri) for uri in (images_uri, out_uri))
    if out.startswith(images) or images.startswith(out):
        raise CorpusError(
            f"--out {out_uri} and --images {images_uri} lie one in the other; choose another --out"
        )


def _comparable(uri: str) -> str:
    store = open_store(uri)
    folder = str(resolved(store.folder)) if isinstance(store, LocalStore) else store.uri
    return folder.rstrip("/") + "/"


def survey(uri: str, images_per_part: int) -> Corpus:
    """Lists a folder of images, or the colour images of a shards artifact.

    Raises:
        CorpusError: if there is nothing to label.
        ArtifactError: for an artifact of another kind, or one that is not finished.
    """
    store = open_store(uri)
    if is_artifact(store):
        rows, artifact, excluded = *_list_shards(uri), {}
    else:
        listing = list_images(store)
        rows = [
            _plan_row(image, f"{store.uri.rstrip('/')}/{image.key}") for image in listing.images
        ]
        artifact, excluded = None, listing.excluded
    if not rows:
        passed = ", ".join(f"{count} {reason}" for reason, count in excluded.items()) or "nothing"
        raise CorpusError(f"no images at {uri}; found there: {passed}")
    for index, row in enumerate(rows):
        row.update(index=index, part=index // images_per_part)
    return Corpus(store.uri, pa.Table.from_pylist(rows, PLAN_SCHEMA), excluded, artifact)


def is_artifact(store: Store) -> bool:
    """Whether there is a finished one, of whatever kind."""
    if not store.exists(MANIFEST):
        return False
    content = store.read(MANIFEST)
    try:
        body = json.loads(content)
    except ValueError:
        return False
    return isinstance(body, dict) and body.get("format") == FORMAT


def _plan_row(image: ListedImage, uri: str, shard: str = "", row: int = 0) -> dict[str, Any]:
    return {
        "key": image.key,
        "name": image.name,
        "uri": uri,
        "size_bytes": image.size_bytes,
        "reason": image.reason,
        "shard": shard,
        "row": row,
    }


def _list_shards(uri: str) -> tuple[list[dict[str, Any]], Artifact]:
    index = open_shards(uri)
    images: list[ListedImage] = []
    places: list[tuple[str, int]] = []
    for path in index.part_paths:
        with index.artifact.store.open(path) as file:
            keys = pq.read_table(file, columns=["key"])["key"].to_pylist()
        images += [ListedImage(key, key, 0) for key in keys]
        places += [(path, row) for row in range(len(keys))]
    rows = [
        _plan_row(image, f"{index.artifact.uri}#{path}:{row}", path, row)
        for image, (path, row) in zip(with_output_names(images), places, strict=True)
    ]
    return rows, index.artifact


def encode_plan(corpus: Corpus) -> bytes:
    """The plan as `read_plan` reads it: Parquet, with what was passed over in its metadata."""
    facts = {"excluded": json.dumps(corpus.excluded), "images": corpus.uri}
    sink = io.BytesIO()
    pq.write_table(corpus.plan.replace_schema_metadata(facts), sink, compression="zstd")
    return sink.getvalue()


def read_plan(store: Store, images: str) -> Corpus:
    """The plan that a labelling job at `store` has kept of `images`; the shards artifact, if any,
    is looked up again.

    Raises:
        MissingError: if there is none.
        DamagedError: if the file is no plan.
    """
    try:
        read = pq.read_table(io.BytesIO(store.read(PLAN)))
        facts, table = read.schema.metadata or {}, read.cast(PLAN_SCHEMA)
        excluded, uri = json.loads(facts[b"excluded"]), facts[b"images"].decode()
    except (pa.ArrowException, KeyError, ValueError) as error:
        why = " ".join(str(error).split())
        raise DamagedError(
            f"{store.uri}/{PLAN} is no plan ({why}); put back what was there, or --overwrite"
        ) from None
    shards = open_shards(images).artifact if len(table) and table["shard"][0].as_py() else None
    return Corpus(uri, table, excluded, shards)


def read_image(store: Store, row: dict[str, Any]) -> bytes:
    """The encoded image that a row of the plan means.

    Raises:
        ImageError: the reason that the plan gives, or read_missing, read_denied, read_failed,
            source_changed.
        UnreachableError: if the store itself does not answer: no image's fault, and worth a retry.
    """
    if row["reason"]:
        raise ImageError(row["reason"], row["key"])
    if row["shard"]:
        return _read_from_shard(store, row["shard"], row["row"])
    try:
        content = store.read(row["key"])
    except UnreachableError:
        raise
    except StorageError as error:
        reason = next(
            (r for kind, r in _PER_IMAGE.items() if isinstance(error, kind)), "read_failed"
        )
        raise ImageError(reason, str(error)) from error
    if len(content) != row["size_bytes"]:
        raise ImageError(
            "source_changed", f"{len(content)} bytes, {row['size_bytes']} when it was listed"
        )
    return content


_PER_IMAGE: dict[type[StorageError], str] = {
    MissingError: "read_missing",
    DeniedError: "read_denied",
}


def _read_from_shard(store: Store, path: str, row: int) -> bytes:
    group, offset = divmod(row, ROWS_PER_GROUP)
    with store.open(path) as file:
        column = pq.ParquetFile(file).read_row_group(group, columns=["rgb"])["rgb"]
    return column[offset].as_py()["bytes"]


def content_seed(content: bytes, seed: int) -> int:
    """Names an image's initial noise by its encoded content, whatever it is batched with."""
    digest = hashlib.sha256(seed.to_bytes(8, "little", signed=True) + content).digest()
    return int.from_bytes(digest[:8], "little") >> 2
