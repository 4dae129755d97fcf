"""What a labelling job will label: the plan, frozen before any work.

The plan names every image, its part and the names of its files, so a job that is killed and run
again, anywhere, cuts the same corpus in the same way although the folder may have grown meanwhile.
"""

import io
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from e2eft.artifacts import FORMAT, MANIFEST, Artifact
from e2eft.corpora.listing import (
    ListedImage,
    list_images,
    unread_format,
    with_output_names,
)
from e2eft.corpora.mistaken import what_else
from e2eft.data.shards import open_shards
from e2eft.errors import DamagedError, E2eftError
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
PLAN_GROUP = 8192
"""Rows of a plan that are read if one of them is."""


FULL_DECODING, SCALED_DECODING, RANGED_DECODING = 1, 2, 3
"""Versions of how images are decoded on their way to a size at which a model sees them: all of
their pixels; JPEGs at the smallest of their decoder's scales that has as many; and colour of 16
bits that fills little of its range scaled from that. Since the last, files of formats that are not
read have rows of their own."""


class CorpusError(E2eftError):
    """A corpus that cannot be labelled; the message names it and the fix."""


@dataclass(frozen=True)
class Corpus:
    """The images of a job. `plan` has PLAN_SCHEMA, sorted by index.

    excluded: how many files were passed over, by reason.
    shards: the artifact they come from, if they are no plain folder.
    decoding: its version, frozen with the plan. Shards, whose labels are scored, are decoded in
        full.
    """

    uri: str
    plan: pa.Table
    excluded: dict[str, int]
    shards: Artifact | None = None
    decoding: int = FULL_DECODING

    def __len__(self) -> int:
        return self.plan.num_rows

    @property
    def parts(self) -> int:
        return int(self.plan["part"][-1].as_py()) + 1 if len(self) else 0


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
        if said := what_else(uri):
            raise CorpusError(f"--images {said}")
        passed = ", ".join(f"{count} {reason}" for reason, count in excluded.items()) or "nothing"
        raise CorpusError(f"no images at {uri}; found there: {passed}")
    _require_read(uri, [row["key"] for row in rows if artifact is None])
    for index, row in enumerate(rows):
        row.update(index=index, part=index // images_per_part)
    decoding = RANGED_DECODING if artifact is None else FULL_DECODING
    plan = pa.Table.from_pylist(rows, PLAN_SCHEMA)
    return Corpus(store.uri, plan, excluded, artifact, decoding)


def _require_read(uri: str, keys: list[str]) -> None:
    """Raises CorpusError if every one of some files is of a format that is not read."""
    formats = Counter(unread_format(key) for key in keys)
    if formats and not formats[""]:
        found = ", ".join(f"{count} {name}" for name, count in sorted(formats.items()) if name)
        raise CorpusError(
            f"no images at {uri} that can be read; found there: {found}; convert them to PNG or "
            "JPEG first"
        )


@dataclass(frozen=True)
class Changes:
    """Images that are new in a folder, gone from it, or of another size than they had."""

    new: int
    gone: int
    changed: int

    def __bool__(self) -> bool:
        return bool(self.new or self.gone or self.changed)

    def __str__(self) -> str:
        counts = (self.new, "new"), (self.gone, "gone"), (self.changed, "changed in size")
        return ", ".join(f"{count} {what}" for count, what in counts if count)


def changes_since(store: Store, images: str, later: Collection[str] = ()) -> Changes:
    """How a folder of images differs from the plan that was made of it; shards never do, nor does a
    folder of which nothing is left.

    Args:
        later: keys of images that were read later than they were listed, as they were then.

    Raises:
        StorageError: if either cannot be read.
    """
    plan = _read_plan(store)
    if _is_of_shards(plan):
        return Changes(0, 0, 0)
    listed_all = _decoding_of(plan) >= RANGED_DECODING
    now = {
        image.key: image.size_bytes
        for image in list_images(open_store(images)).images
        if listed_all or not unread_format(image.key)
    }
    if not now:
        return Changes(0, 0, 0)
    sizes = plan.select(["key", "size_bytes"]).to_pydict()
    then = dict(zip(sizes["key"], sizes["size_bytes"], strict=True))
    both = then.keys() & now.keys()
    return Changes(
        new=len(now.keys() - then.keys()),
        gone=len(then.keys() - now.keys()),
        changed=sum(then[key] != now[key] for key in both if key not in later),
    )


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
    facts = {
        "excluded": json.dumps(corpus.excluded),
        "images": corpus.uri,
        "decoding": str(corpus.decoding),
    }
    sink = io.BytesIO()
    plan = corpus.plan.replace_schema_metadata(facts)
    pq.write_table(plan, sink, compression="zstd", row_group_size=PLAN_GROUP)
    return sink.getvalue()


def planned_rows(store: Store, start: int, stop: int) -> list[dict[str, Any]]:
    """The rows of the plan at `store` from `start` up to `stop`; of a long one, little else is
    read.

    Raises:
        MissingError, DamagedError: as `read_plan`.
    """
    found: list[dict[str, Any]] = []
    with store.open(PLAN) as file:
        try:
            plan, first = pq.ParquetFile(file), 0
            for group in range(plan.num_row_groups):
                rows = plan.metadata.row_group(group).num_rows
                if first < stop and start < first + rows:
                    offset = max(0, start - first)
                    table = plan.read_row_group(group).cast(PLAN_SCHEMA)
                    found += table.slice(offset, stop - first - offset).to_pylist()
                first += rows
        except (pa.ArrowException, ValueError) as error:
            raise _no_plan(store, error) from None
    if len(found) != stop - start:
        raise _no_plan(store, ValueError(f"it ends before image {stop}"))
    return found


def read_plan(store: Store, images: str) -> Corpus:
    """The plan that a labelling job at `store` has kept of `images`; the shards artifact, if any,
    is looked up again.

    Raises:
        MissingError: if there is none.
        DamagedError: if the file is no plan.
        CorpusError: if a newer program made it.
    """
    table = _read_plan(store)
    try:
        facts = table.schema.metadata or {}
        excluded, uri = json.loads(facts[b"excluded"]), facts[b"images"].decode()
        decoding = _decoding_of(table)
    except (KeyError, ValueError) as error:
        raise _no_plan(store, error) from None
    table = table.replace_schema_metadata(None)
    shards = open_shards(images).artifact if _is_of_shards(table) else None
    if decoding > RANGED_DECODING:
        raise CorpusError(
            f"{store.uri}/{PLAN} asks for decoding {decoding}, this program knows up to "
            f"{RANGED_DECODING}; upgrade e2eft"
        )
    return Corpus(uri, table, excluded, shards, decoding)


def _read_plan(store: Store) -> pa.Table:
    try:
        read = pq.read_table(io.BytesIO(store.read(PLAN)))
        return read.cast(PLAN_SCHEMA.with_metadata(read.schema.metadata))
    except (pa.ArrowException, ValueError) as error:
        raise _no_plan(store, error) from None


def _decoding_of(plan: pa.Table) -> int:
    return int((plan.schema.metadata or {}).get(b"decoding", FULL_DECODING))


def _is_of_shards(plan: pa.Table) -> bool:
    return len(plan) > 0 and bool(plan["shard"][0].as_py())


def _no_plan(store: Store, error: Exception) -> DamagedError:
    why = " ".join(str(error).split())
    return DamagedError(
        f"{store.uri}/{PLAN} is no plan ({why}); put back what was there, or --overwrite"
    )
