"""From labels that are all there to the committed artifact, or its next generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from e2eft.artifacts import MANIFEST, Artifact, FileEntry, Parent, entries, load_artifact
from e2eft.corpora.corpus import PLAN
from e2eft.label.books import Retried
from e2eft.label.gallery import count_outcomes, render_gallery
from e2eft.label.opening import GALLERY, MODEL_PIN
from e2eft.label.sampling import LabelError
from e2eft.labels.index import (
    DEGRADED,
    LABEL_SCHEMA_VERSION,
    OK,
    REJECTED,
    LabelIndex,
    encode_index,
    part_path,
    read_index,
    retried_path,
    with_rows,
)
from e2eft.storage import open_store
from e2eft.tracking import Run, is_registry_uri

if TYPE_CHECKING:
    from e2eft.label.job import Job


def commit_labels(job: Job, run: Run) -> Artifact:
    """Commits a job of which every part is there.

    Raises:
        LabelError: if the books do not balance.
    """
    index = read_index(job.store, job.claim.digest)
    _check_accounts(job, index)
    paths = [PLAN, MODEL_PIN, *(part_path(part) for part in range(job.corpus.parts))]
    return _committed(job, run, index, entries(job.store, paths))


def commit_retried(job: Job, run: Run, tried: Retried) -> Artifact:
    """Commits a new generation with what has come of images that were tried again; the one before
    if that is what had come of them already."""
    assert job.again is not None
    before, rows = LabelIndex(job.again).table, tried.rows
    then = before.take(rows["index"])  # a row's index is its place
    now, was = (table.select(["status", "reason"]).to_pylist() for table in (rows, then))
    is_changed = [one != other for one, other in zip(now, was, strict=True)]
    changed = rows.filter(pa.array(is_changed, pa.bool_()))
    print(f"{_labelled(changed)} of {len(rows)} images that were tried again have a label")
    if not len(changed):
        log_outcome(run, job.again)
        return job.again
    path = retried_path(job.again.generation + 1)
    file = job.claim.put(path, encode_index(changed, job.claim.digest))
    files = [entry for entry in job.again.files if entry.called != GALLERY]
    return _committed(job, run, with_rows(before, changed), [*files, file])


def _labelled(rows: pa.Table) -> int:
    return sum(status != REJECTED for status in rows["status"].to_pylist())


def _committed(job: Job, run: Run, index: pa.Table, files: list[FileEntry]) -> Artifact:
    outcomes = count_outcomes(index)
    counts = {"planned": len(job.corpus)}
    counts |= {
        status: sum(outcomes.get(status, {}).values()) for status in (OK, DEGRADED, REJECTED)
    }
    details = _details(job, outcomes)
    if job.config.gallery_images:
        page = render_gallery(
            job.corpus,
            index,
            job.store,
            job.codec,
            _provenance(job, counts),
            images=job.config.gallery_images,
            max_pixels=job.config.max_pixels,
        )
        files = [*files, job.claim.put(GALLERY, page.encode("utf-8", "backslashreplace"))]
        run.text(page, GALLERY)
    artifact = job.claim.commit(
        files=files,
        counts=counts,
        parents=_parents(job),
        details=details,
        after=job.again,
    )
    log_outcome(run, artifact)
    return artifact


def log_outcome(run: Run, labels: Artifact) -> None:
    """Writes what became of the images into an MLflow run."""
    run.metrics({name: float(value) for name, value in labels.counts.items()})
    run.tags({"e2eft.labels.digest": labels.digest})


def _check_accounts(job: Job, index: pa.Table) -> None:
    """Every planned image has come to one end, and only those: anything else is a defect."""
    ended, planned = index.select(["index", "key"]), job.corpus.plan.select(["index", "key"])
    if not ended.combine_chunks().equals(planned.combine_chunks()):
        missing = len({*planned["index"].to_pylist()} - {*ended["index"].to_pylist()})
        raise LabelError(
            f"{job.store.uri}/index does not account for its plan: {planned.num_rows} images, "
            f"{ended.num_rows} rows, {missing} images missing; delete the index parts that do not "
            "belong to it and run again"
        )


def _details(job: Job, outcomes: dict[str, dict[str, int]]) -> dict[str, Any]:
    config, work = job.config, job.work
    return {
        "label_schema_version": LABEL_SCHEMA_VERSION,
        "task": config.task,
        "target": job.target,
        **job.codec.details,
        "frame": "upright",
        "model": {
            "name": job.model.name,
            "uri": job.model.uri,
            "digest": job.model.digest,
            "card": job.model.card.as_json(),
        },
        "sampling": config.sampling.model_dump(mode="json"),
        "processing_size": work.longest_px,
        "decoding": work.decoding,
        "parts": job.corpus.parts,
        "reject_reasons": outcomes.get(REJECTED, {}),
        "degradations": outcomes.get(DEGRADED, {}),
        "excluded": job.corpus.excluded,
    }


def _provenance(job: Job, counts: dict[str, int]) -> dict[str, str]:
    config, sampling = job.config, job.config.sampling
    size = job.work.longest_px
    initial = sampling.initial_latent or job.model.card.initial_latent
    return {
        "images": job.corpus.uri,
        "labels": job.store.uri,
        "task": config.task,
        "values": job.target,
        "convention": job.codec.conventions["convention"],
        "model": job.model.uri,
        "model digest": job.model.digest,
        "processing": f"longest side {size} px" if size else "each image at its own size",
        "sampling": f"{sampling.steps} step(s), {sampling.spacing}, initial latent {initial}, "
        f"seed {sampling.seed}",
        "counts": ", ".join(f"{count} {name}" for name, count in counts.items()),
        "configuration digest": job.claim.digest,
    }


def _parents(job: Job) -> tuple[Parent, ...]:
    model = Parent("model", job.model.uri, job.model.digest)
    if "/" in job.model.uri and not is_registry_uri(job.model.uri):
        store = open_store(job.model.uri)
        if store.exists(MANIFEST):
            model = load_artifact(job.model.uri).as_parent("model")
    images = () if job.corpus.shards is None else (job.corpus.shards.as_parent("images"),)
    return (*images, model)
