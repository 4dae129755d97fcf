"""The second half of preparation, if asked for: latents of a frozen VAE beside every part.

They are computed in a Ray Data actor pool. A file of latents is committed by a small JSON written
after it, which names the part's content, so the latents of a part that was made anew are too.
"""

import io
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from e2eft.artifacts import Claim, FileEntry, Writer, sha256
from e2eft.carried import ACTOR, carried, raise_carried
from e2eft.cluster import connect, count_gpus, quietly_started, require_room
from e2eft.data.batch import rgb_tensor
from e2eft.data.latents import RgbLatents, encode_latents, encode_latents_part, latents_path
from e2eft.data.shards import ROWS_PER_GROUP, decode_rgb
from e2eft.errors import E2eftError
from e2eft.model.backbones import layout
from e2eft.model.codec import Codec
from e2eft.model.hub import ModelError
from e2eft.model.pretrained import load_codec
from e2eft.model.source import find_model
from e2eft.prepare.config import PrepareConfig

PROGRESS_EVERY_S = 10.0


@dataclass(frozen=True)
class LatentsRecord:
    """A finished file of latents; `part_sha256` is the part it belongs to."""

    part: int
    size: int
    sha256: str
    part_sha256: str
    path: str = ""

    @property
    def file(self) -> FileEntry:
        name = latents_path(self.part)
        path = self.path or name
        return FileEntry(path, self.size, self.sha256, "" if path == name else name)


def record_path(claim_id: str, part: int, part_sha256: str) -> str:
    """The JSON that commits the latents of a part of this content."""
    return f"latents/{claim_id}/part-{part:06d}.{part_sha256[:16]}.json"


def open_codec(name: str) -> Codec:
    """The VAE of a model: packaged name, folder, run artifact, or hub id.

    Raises:
        ModelError: if there is none, or if it is of a model that training does not take.
    """
    with tempfile.TemporaryDirectory(prefix="e2eft-vae-") as scratch:
        source = find_model(name, Path(scratch))
        if layout(source.backbone).training is None:
            raise ModelError(
                f"--latents-of {name}: latents are for training, which does not take such a model"
            )
        return load_codec(source)


def describe(config: PrepareConfig, codec: Codec) -> RgbLatents:
    """For the artifact's details."""
    assert config.vae_digest is not None and config.latents_of is not None
    return RgbLatents(config.vae_digest, config.latents_of, codec.channels, codec.factor)


def mirrored_latents(codec: Codec, rgb: np.ndarray) -> np.ndarray:
    """float32 `[2 c hl wl]` of an image uint8 `[h w 3]` and of its mirror image."""
    images = rgb_tensor([rgb, rgb[:, ::-1]]).to(codec.vae.device)
    with torch.no_grad():
        return codec.encode(images).float().cpu().numpy()


def make_latents(codec: Codec, writer: Writer, part: int, path: str) -> LatentsRecord:
    """Encodes and commits the latents of one part, which lies at `path`.

    Raises:
        E2eftError: with the frame's key, for latents that float16 does not hold.
    """
    content = writer.store.read(path)
    keys: list[str] = []
    latents: list[bytes] = []
    for row in pq.read_table(io.BytesIO(content), columns=["key", "rgb"]).to_pylist():
        keys.append(row["key"])
        try:
            encoded = mirrored_latents(codec, decode_rgb(row["rgb"]["bytes"]))
            latents.append(encode_latents(encoded))
        except ValueError as error:
            raise E2eftError(f"frame {row['key']}: {error}") from error
    file = writer.put(latents_path(part), encode_latents_part(keys, latents, ROWS_PER_GROUP))
    record = LatentsRecord(part, file.size, file.sha256, sha256(content), file.path)
    place = record_path(writer.claim_id, part, record.part_sha256)
    if not writer.create(place, json.dumps(asdict(record)).encode()):
        return LatentsRecord(**json.loads(writer.store.read(place)))
    return record


class LatentsMaker:
    """The actor that holds a VAE: rows of part numbers in, rows of finished parts out.

    codec: a `Codec` in Ray's object store, so that every machine has the driver's, whatever lies
    under its model's name there.
    """

    def __init__(self, codec: Any, writer: Writer) -> None:
        import ray

        device = "cuda" if torch.cuda.is_available() else "cpu"
        # TF32 has the bits of what is stored, and so would lose some more on the way.
        torch.backends.cudnn.allow_tf32 = False
        shared: Any = ray.get(codec)
        self.codec: Codec = shared.to(device)
        self.writer = writer

    def __call__(self, table: pa.Table) -> pa.Table:
        for row in table.to_pylist():
            make_latents(self.codec, self.writer, row["part"], row["path"])
        return pa.table({"part": table["part"]})


def add_latents(
    config: PrepareConfig, codec: Codec, claim: Claim, parts: dict[int, FileEntry]
) -> list[FileEntry]:
    """Makes what is missing of the latents; returns their files.

    Args:
        parts: the file of every part, by number.
    """
    records = _read_records(claim, parts)
    missing = [
        {"part": part, "path": file.path} for part, file in parts.items() if part not in records
    ]
    if len(missing) < len(parts):
        there = len(parts) - len(missing)
        print(f"resuming {config.out}: latents of {there} of {len(parts)} parts are there")
    if missing:
        run_actors(config, codec, claim.writer, missing)
        records = _read_records(claim, parts)
    return [records[part].file for part in parts]


def _read_records(claim: Claim, parts: dict[int, FileEntry]) -> dict[int, LatentsRecord]:
    """Of the parts whose latents are committed, as those parts are now."""
    present = {path for path, _ in claim.store.list("latents/")}
    records: dict[int, LatentsRecord] = {}
    for part, file in parts.items():
        places = [record_path(claim.record.id, part, file.sha256)]
        if claim.record.identity_version == 1:
            places.append(f"latents/part-{part:06d}.json")
        for place in present.intersection(places):
            record = LatentsRecord(**json.loads(claim.store.read(place)))
            if record.part_sha256 == file.sha256:
                records[part] = record
    return records


def reserved(config: PrepareConfig) -> dict[str, int]:
    """What an actor reserves of the cluster that this process has joined.

    Raises:
        ValueError: if it has no room for `config.latent_actors`.
    """
    gpus = 1 if count_gpus() else 0
    require_room(config.latent_actors, 1 - gpus, gpus, flag="--latent-actors")
    return {"num_gpus": 1} if gpus else {"num_cpus": 1}


def run_actors(
    config: PrepareConfig, codec: Codec, writer: Writer, missing: list[dict[str, Any]]
) -> None:
    """The Ray Data graph: every part's latents are made by one of `config.latent_actors`."""
    import ray.data

    connect()
    actors = min(config.latent_actors, len(missing))
    shared = ray.put(codec)  # held here until the last actor, perhaps restarted, has read it
    items: Any = ray.data.from_items(missing, override_num_blocks=len(missing))
    dataset = items.map_batches(
        carried(LatentsMaker),
        fn_constructor_args=(shared, writer),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=actors),
        **reserved(config),
        **ACTOR,
    )
    started = reported = time.monotonic()
    for done, _ in enumerate(raise_carried(quietly_started(dataset.iter_rows())), 1):
        now = time.monotonic()
        if now - reported > PROGRESS_EVERY_S or done == len(missing):
            reported = now
            left = (now - started) / done * (len(missing) - done)
            print(f"latents of {done}/{len(missing)} parts  {left:.0f} s left", flush=True)
