"""A Ray Data job in which every task makes one part of a shards artifact, and the commit of it.

What a part is, and how it is committed, is in `parts`.
"""

import io
import json
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from e2eft.artifacts import (
    Artifact,
    Claim,
    FileEntry,
    Owned,
    Place,
    look,
    recorded,
)
from e2eft.carried import TASK, carried, raise_carried
from e2eft.cluster import connect, is_local
from e2eft.config.flags import flag_of, typed
from e2eft.data.latents import DETAIL, require_encodable
from e2eft.data.sample import Sample
from e2eft.data.shards import (
    KIND,
    SHARD_SCHEMA_VERSION,
    decode_row,
)
from e2eft.data.survey import Survey, merged, planned_line, report_page
from e2eft.datasets import FrameSource, located, open_source
from e2eft.extras import require_extra
from e2eft.prepare.config import PrepareConfig
from e2eft.prepare.inputs import inputs_of
from e2eft.prepare.parts import (
    RECORDS,
    PartRecord,
    frames_of_part,
    index_of,
    make_part_row,
    parts_to_make,
    read_records,
)
from e2eft.storage import Store, absolute, open_store
from e2eft.tracking import Run, check_tracking, complete_run
from e2eft.views.sheets import Tile, contact_sheet

if TYPE_CHECKING:
    from e2eft.model.codec import Codec

REJECTS = "rejects.parquet"
SHEET = "contact_sheet.png"
REPORT, REPORT_PAGE = "report.json", "report.md"
OWNED = Owned(
    patterns=(
        r"data/part-\d{6}\.parquet",
        r"latents/([0-9a-f]+/)?part-\d{6}(\.[0-9a-f]+)?\.(parquet|json)",
        r"index/.+",
        *(re.escape(name) for name in (REJECTS, SHEET, REPORT, REPORT_PAGE)),
    ),
    results=(rf"{RECORDS}/([0-9a-f]+/)?part-\d{{6}}(\.\d+)?\.json",),
)
"""What this stage writes."""
SHEET_FRAMES, SHEET_SIDE_PX = 12, 1280
PROGRESS_EVERY_S = 10.0


def run(config: PrepareConfig) -> Artifact:
    """Makes the shards, or finishes them, or finds them made.

    Raises:
        ValueError: (and its subclasses) for what the user can correct, or too many rejected frames.
    """
    require_extra(config.source.extra, "preparing these shards")
    places = {"out": absolute(config.out), "source": located(config.source)}
    config, codec = _with_vae(config.model_copy(update=places))
    store = open_store(config.out)
    config = _settled(config, store)
    place = look(store, KIND, config, inputs_of(config, store), OWNED)
    artifact = place.finished
    if artifact is None:
        _check(config, place)
        with place.take() as claim:
            artifact = claim.finished or _prepare(config, claim, codec)
    else:
        count = artifact.counts["frames"]
        print(f"already prepared: {config.out} ({count} frames; nothing to do)")
    _after_commit(config, artifact)
    return artifact


def _check(config: PrepareConfig, place: Place) -> None:
    """Raises what can be known before anything is claimed: no files there, no room, no MLflow."""
    open_source(config.source, None).check_present(thorough=place.replaces)
    check_tracking(config.tracking)
    _require_room(config)


def _require_room(config: PrepareConfig) -> None:
    import ray

    connect()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    largest = max(resources.get("CPU", 0) for resources in nodes)
    if config.cpus_per_task > largest:
        raise ValueError(
            f"--cpus-per-task {config.cpus_per_task:g}: the cluster's largest node has "
            f"{largest:g} CPUs, so no part could ever be made"
        )
    if config.latents_of is not None:
        from e2eft.prepare.latents import reserved

        reserved(config)


def _prepare(config: PrepareConfig, claim: Claim, codec: "Codec | None") -> Artifact:
    source = open_source(config.source, open_store(index_of(claim)))
    parts = -(-len(source) // config.frames_per_part)
    missing = parts_to_make(read_records(claim), parts)
    if len(missing) < parts:
        print(f"resuming {config.out}: {parts - len(missing)} of {parts} parts are there")
    if missing:
        source.write_index()
        _make_parts(config, claim, missing, len(source))
    records = [record for _, (_, record) in sorted(read_records(claim).items())]
    _require_enough(config, source, records)
    cached = _add_latents(config, codec, claim, records) if codec else ([], {})
    return _commit(config, claim, source, records, *cached)


def _settled(config: PrepareConfig, store: Store) -> PrepareConfig:
    """The configuration with what the dataset's was left open in: as this began, if it did."""
    anew = config.source.settled({})
    if anew == config.source:
        return config
    begun = None if config.overwrite else recorded(store)
    then = begun.config.get("source", {}) if begun and begun.kind == KIND else {}
    settled = config.source.settled(then)
    for name in type(settled).model_fields:
        if (value := getattr(settled, name)) != getattr(anew, name):
            flag = flag_of(type(settled), (name,))
            print(f"{config.out}: its frames are those of {typed(flag, value)}, as it was begun")
    return config.model_copy(update={"source": settled})


def _with_vae(config: PrepareConfig) -> tuple[PrepareConfig, "Codec | None"]:
    """The configuration with its VAE's digest, and the VAE, if latents are asked for."""
    if config.latents_of is None:
        return config.model_copy(update={"vae_digest": None}), None
    # Here and not above: tasks that make parts start without torch.
    from e2eft.prepare.latents import open_codec

    codec = open_codec(config.latents_of)
    return config.model_copy(update={"vae_digest": codec.digest()}), codec


def _add_latents(
    config: PrepareConfig, codec: "Codec", claim: Claim, records: list[PartRecord]
) -> tuple[list[FileEntry], dict[str, Any]]:
    """Files of latents, and what the artifact's details say of them."""
    from e2eft.prepare.latents import add_latents, describe

    require_encodable(size for record in records for size in record.survey["sizes"])
    files = add_latents(config, codec, claim, {record.part: record.file for record in records})
    return files, {DETAIL: describe(config, codec).as_json()}


def _make_parts(
    config: PrepareConfig, claim: Claim, missing: list[dict[str, int]], total: int
) -> None:
    import ray.data

    connect()
    dataset = ray.data.from_items(missing, override_num_blocks=len(missing)).flat_map(
        carried(make_part_row),
        fn_kwargs={
            "config": config.model_dump(mode="json"),
            "writer": claim.writer,
            "index": index_of(claim),
        },
        num_cpus=config.cpus_per_task,
        **TASK,
        compute=ray.data.TaskPoolStrategy(size=_pool_size(config, len(missing))),
    )
    planned = sum(len(frames_of_part(config, row["part"], total)) for row in missing)
    started = reported = time.monotonic()
    frames = rejected = 0
    for row in raise_carried(dataset.iter_rows()):
        claim.require_owner()
        if config.latents_of is not None:
            require_encodable(row["sizes"])
        frames += row["frames"]
        rejected += row["rejects"]
        now = time.monotonic()
        if now - reported > PROGRESS_EVERY_S or frames + rejected == planned:
            reported = now
            rate = (frames + rejected) / (now - started)
            left = (planned - frames - rejected) / rate
            print(
                f"{frames + rejected}/{planned} frames  {rate:.1f}/s  {rejected} rejected  "
                f"{left:.0f} s left",
                flush=True,
            )


def _pool_size(config: PrepareConfig, parts: int) -> int:
    import os

    import ray

    cpus = ray.cluster_resources().get("CPU", 1)
    if is_local():
        # A local cluster declares more CPUs than there are, for stages that wait for each other.
        cpus = min(cpus, os.cpu_count() or 1)
    return max(1, min(parts, int(cpus / config.cpus_per_task)))


def _require_enough(config: PrepareConfig, source: FrameSource, records: list[PartRecord]) -> None:
    rejects = [reject for record in records for reject in record.rejects]
    reasons = Counter(reason for _, reason, _ in rejects)
    if len(rejects) > config.max_reject_fraction * len(source):
        raise ValueError(
            f"{len(rejects)} of {len(source)} frames were rejected ({dict(reasons)}), more than "
            f"--max-reject-fraction {config.max_reject_fraction}; see {config.out}/parts, mend the "
            "files and run it again, or allow more"
        )
    if not any(record.rows for record in records):
        raise ValueError(
            f"all {len(source)} frames were rejected ({dict(reasons)}); see {config.out}/parts"
        )
    survey, dataset = merged(record.survey for record in records), source.dataset
    if survey.away_share() > dataset.modalities.away_share:
        raise ValueError(
            f"{survey.away_share():.0%} of the normals in {dataset.name}'s frames point away from "
            f"the camera, more than {dataset.modalities.away_share:.0%}: their axes are not those "
            "of the published files; get these and prepare them into another --out"
        )
    for remark in survey.remarks():
        print(f"{dataset.name}: {remark}")


def _commit(
    config: PrepareConfig,
    claim: Claim,
    source: FrameSource,
    records: list[PartRecord],
    latents: list[FileEntry],
    described: dict[str, Any],
) -> Artifact:
    rejects = [reject for record in records for reject in record.rejects]
    reasons = Counter(reason for _, reason, _ in rejects)
    survey, pages = _report(source, records, dict(reasons))
    pages |= {REJECTS: _encode_rejects(rejects), SHEET: _sheet(claim.store, records)}
    written = [claim.put(name, content) for name, content in pages.items()]
    artifact = claim.commit(
        files=[*(record.file for record in records), *latents, *written],
        counts={"frames": sum(r.rows for r in records), "rejected": len(rejects)},
        details={
            "shard_schema_version": SHARD_SCHEMA_VERSION,
            "rows_of_part": [record.rows for record in records],
            "reject_reasons": dict(reasons),
            "source": source.dataset.name,
            "planned": len(source),
            "truth": survey.modalities(source.dataset.modalities),
            "provenance": records[0].provenance,
            **described,
        },
    )
    return artifact


def _encode_rejects(rejects: list[list[str]]) -> bytes:
    table = pa.Table.from_arrays(
        [pa.array([reject[i] for reject in rejects], pa.string()) for i in range(3)],
        names=["key", "reason", "detail"],
    )
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _report(
    source: FrameSource, records: list[PartRecord], reasons: dict[str, int]
) -> tuple[Survey, dict[str, bytes]]:
    """What is in the frames, and the files that say so."""
    survey = merged(record.survey for record in records)
    planned = planned_line(len(source), records[0].provenance)
    page = report_page(survey, source.dataset.name, planned, reasons, SHEET)
    facts = json.dumps(survey.as_json(), indent=2)
    return survey, {REPORT: facts.encode(), REPORT_PAGE: page.encode()}


def _sheet(store: Store, records: list[PartRecord]) -> bytes:
    """A picture of frames spread evenly over the dataset."""
    offsets = np.concatenate([[0], np.cumsum([record.rows for record in records])])
    wanted = np.unique(np.linspace(0, offsets[-1] - 1, SHEET_FRAMES).round().astype(int))
    tiles: list[Tile] = []
    for row in wanted if offsets[-1] else []:
        part = int(np.searchsorted(offsets, row, "right")) - 1
        table = pq.read_table(io.BytesIO(store.read(records[part].file.path)))
        sample = decode_row(table.slice(int(row - offsets[part]), 1).to_pylist()[0])
        tiles.append(_tile(sample))
    buffer = io.BytesIO()
    contact_sheet(tiles).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _tile(sample: Sample) -> Tile:
    """What the frame has, of large frames every n-th pixel."""
    step = -(-max(sample.size) // SHEET_SIDE_PX)
    depth_m, normals_cam = sample.depth_m[::step, ::step], sample.normals_cam[::step, ::step]
    return Tile(
        key=sample.key,
        rgb=sample.rgb[::step, ::step],
        depth_m=None if np.isnan(depth_m).all() else depth_m,
        normals_cam=None if np.isnan(normals_cam).all() else normals_cam,
    )


def _after_commit(config: PrepareConfig, artifact: Artifact) -> None:
    """Writes and ends the MLflow run, or finds it ended."""

    def write(run: Run) -> None:
        run.params(config.parameters())
        run.metrics({name: float(value) for name, value in artifact.counts.items()})
        run.tags({"e2eft.data.digest": artifact.digest, "e2eft.out": artifact.uri})

    identity = f"{KIND}:{artifact.digest}"
    if artifact.identity_version > 1:  # before, the same frames elsewhere had the same run
        identity += f":{artifact.uri}"
    complete_run(config.tracking, "prepare", identity, {"e2eft.stage": "prepare"}, write)
