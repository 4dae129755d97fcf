"""One labelling job from its configuration to its committed artifact."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from e2eft.artifacts import CLAIM, MANIFEST, Artifact, Parent, claim, commit, entries, load_artifact
from e2eft.config import LabelConfig
from e2eft.data.corpus import PLAN, Corpus, check_apart, decode_plan, encode_plan, survey
from e2eft.data.labels import (
    CONVENTIONS,
    DEGRADED,
    KIND,
    LABEL_SCHEMA_VERSION,
    OK,
    REJECTED,
    committed_parts,
    part_path,
    read_index,
)
from e2eft.data.sources.images import DEGRADATIONS, REASONS
from e2eft.errors import E2eftError
from e2eft.label.chunks import Work
from e2eft.label.gallery import count_outcomes, render_gallery
from e2eft.label.graph import Backlog, label_parts
from e2eft.storage import Store, absolute, open_store
from e2eft.tracking import Run, download_model, is_registry_uri, start_run

if TYPE_CHECKING:
    from e2eft.model.pinned import PinnedModel

MODEL_PIN = "plan/model.json"
GALLERY = "gallery.html"


class LabelError(E2eftError):
    """A labelling job that cannot go on or be committed; the message says why and what to do."""


@dataclass(frozen=True)
class Job:
    """A job with everything resolved."""

    config: LabelConfig
    store: Store
    corpus: Corpus
    model: "PinnedModel"
    target: str
    number: int

    @property
    def work(self) -> Work:
        """What its workers must know."""
        config, card = self.config, self.model.card
        longest_px = None if config.native_size else config.processing_size or card.processing_size
        return Work(
            images_uri=self.corpus.uri,
            out_uri=self.store.uri,
            task=config.task,
            target=self.target,
            model=f"{self.model.uri}@{self.model.digest[:16]}",
            longest_px=longest_px or None,
            max_pixels=config.max_pixels,
            batch_size=config.batch_size,
            seed=config.sampling.seed,
            save_npy=config.save_npy,
            save_previews=config.save_previews,
            corpus=self.number,
        )


def run(config: LabelConfig) -> Artifact:
    """Labels the corpus, or finishes it, or finds it finished.

    Raises:
        ValueError: (and its subclasses) for what the user can correct: no such model or images, an
            output made with another configuration, more rejected images than allowed.
    """
    return run_all([config])[0]


def run_all(configs: Sequence[LabelConfig]) -> list[Artifact]:
    """Labels several corpora, each into an artifact of its own, starting the model's replicas once.

    Args:
        configs: equal but for `images` and `out`.

    Raises:
        ValueError: as `run`, and if the model changes between the corpora.
    """
    configs = [_located(config) for config in configs]
    apart = {"images": "", "out": ""}
    assert all(c.model_copy(update=apart) == configs[0].model_copy(update=apart) for c in configs)
    artifacts: dict[str, Artifact] = {}
    jobs: list[Job] = []
    with tempfile.TemporaryDirectory(prefix="e2eft-label-") as scratch:
        for number, config in enumerate(configs):
            check_apart(config.images, config.out)
            store = open_store(config.out)
            if finished := claim(store, KIND, config, config.overwrite):
                print(f"already labelled, nothing to do\n{summary(finished)}")
                artifacts[config.out] = finished
                continue
            with _withdrawn_unless_planned(store):
                jobs.append(_prepare(config, store, Path(scratch, str(number)), len(jobs)))
        for artifact, job in zip(_tracked(jobs), jobs, strict=True):
            print(summary(artifact))
            artifacts[job.config.out] = artifact
    return [artifacts[config.out] for config in configs]


def _located(config: LabelConfig) -> LabelConfig:
    """The configuration with local paths resolved, so that they mean the same everywhere."""
    local = not is_registry_uri(config.model) and "://" not in config.model
    path = Path(config.model).expanduser()
    return config.model_copy(
        update={
            "out": absolute(config.out),
            "images": absolute(config.images),
            "model": str(path.resolve()) if local and path.is_dir() else config.model,
        }
    )


@contextmanager
def _withdrawn_unless_planned(store: Store) -> Iterator[None]:
    """Gives the claimed folder free again if the job turns out to be impossible before it began."""
    try:
        yield
    except ValueError:
        if not store.exists(PLAN):
            store.delete(MODEL_PIN)
            store.delete(CLAIM)
        raise


def _prepare(config: LabelConfig, store: Store, scratch: Path, number: int) -> Job:
    from e2eft.model.pinned import require_task
    from e2eft.tasks import get_task

    scratch.mkdir()
    model = _pin(config, store, scratch)
    require_task(model, config.task)
    if not store.exists(PLAN):
        store.create(PLAN, encode_plan(survey(config.images, config.images_per_part)))
    corpus = decode_plan(store.read(PLAN), config.images)
    target = model.card.target or get_task(config.task).target
    return Job(config, store, corpus, model, target, number)


def _pin(config: LabelConfig, store: Store, scratch: Path) -> "PinnedModel":
    """The model, the same one whenever this job is run again."""
    from e2eft.model.pinned import pin_model

    pinned = json.loads(store.read(MODEL_PIN)) if store.exists(MODEL_PIN) else None
    uri = location = pinned["uri"] if pinned else config.model
    if is_registry_uri(uri):
        registered = download_model(config.tracking, uri, scratch / "registered")
        uri, location = registered.uri, str(registered.folder)
    model = pin_model(config.model, uri, location, scratch)
    if pinned and pinned["digest"] != model.digest:
        raise LabelError(
            f"the model {uri} has changed since this job began (digest {pinned['digest'][:16]}, "
            f"now {model.digest[:16]}); put it back, or delete {store.uri} and label anew"
        )
    pin = {"name": model.name, "uri": model.uri, "digest": model.digest}
    store.create(MODEL_PIN, json.dumps(pin, indent=1).encode())
    return model


def _tracked(jobs: list[Job]) -> list[Artifact]:
    """Labels what is missing and commits, a job under one MLflow run however often resumed."""
    runs: list[Run] = []
    try:
        for job in jobs:
            runs.append(_start_run(job))
        _label_missing(jobs, runs)
        artifacts = [_finish(job, run) for job, run in zip(jobs, runs, strict=True)]
    except BaseException as error:
        for run in runs:
            run.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    for run in runs:
        run.finish()
    return artifacts


def _start_run(job: Job) -> Run:
    config = job.config
    run = start_run(
        config.tracking,
        f"label {config.task}",
        f"{KIND}:{config.digest()}:{config.out}",
        {"e2eft.stage": "label", "e2eft.out": config.out, "e2eft.model.digest": job.model.digest},
    )
    run.params(config.parameters())
    return run


def _label_missing(jobs: list[Job], runs: list[Run]) -> None:
    backlogs = [_backlog(job) for job in jobs]
    if len({job.model.digest for job in jobs}) > 1:
        raise LabelError(f"the model {jobs[0].config.model} changed meanwhile; run it again")
    if not any(backlog.rows_of_part for backlog in backlogs):
        return
    for progress in label_parts(jobs[0].config, jobs[0].model, backlogs):
        print(progress.line(), flush=True)
        for run, outcomes in zip(runs, progress.corpora, strict=True):
            counts = {name: float(count) for name, count in outcomes.items()}
            run.metrics(counts | {"images_per_s": progress.images_per_s}, step=outcomes.total())


def _backlog(job: Job) -> Backlog:
    """The parts of a corpus that are not committed yet."""
    done, corpus = committed_parts(job.store), job.corpus
    if done:
        print(f"resuming {job.store.uri}: {len(done)} of {corpus.parts} parts are there")
    missing = [part for part in range(corpus.parts) if part not in done]
    rows = {part: corpus.part(part, job.config.images_per_part) for part in missing}
    return Backlog(job.store, corpus, job.work, rows)


def _finish(job: Job, run: Run) -> Artifact:
    index = read_index(job.store)
    _check_accounts(job, index)
    outcomes = count_outcomes(index)
    counts = {"planned": len(job.corpus)}
    counts |= {
        status: sum(outcomes.get(status, {}).values()) for status in (OK, DEGRADED, REJECTED)
    }
    if counts[REJECTED] > job.config.max_reject_fraction * counts["planned"]:
        raise LabelError(
            f"{counts[REJECTED]} of {counts['planned']} images were rejected "
            f"({outcomes[REJECTED]}), more than --max-reject-fraction "
            f"{job.config.max_reject_fraction}; see {job.store.uri}/index, or run again with a "
            "larger fraction, which labels nothing anew"
        )
    files = [PLAN, MODEL_PIN, *(part_path(part) for part in range(job.corpus.parts))]
    details = _details(job, outcomes)
    if job.config.gallery_images:
        page = render_gallery(
            job.corpus,
            index,
            job.store,
            _provenance(job, counts),
            images=job.config.gallery_images,
            max_pixels=job.config.max_pixels,
        )
        job.store.write(GALLERY, page.encode("utf-8", "backslashreplace"))
        run.text(page, GALLERY)
        files.append(GALLERY)
    artifact = commit(
        job.store,
        KIND,
        job.config,
        files=entries(job.store, files),
        counts=counts,
        parents=_parents(job),
        details=details,
    )
    run.metrics({name: float(value) for name, value in counts.items()})
    run.tags({"e2eft.labels.digest": artifact.digest})
    return artifact


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
        **CONVENTIONS[config.task],
        "frame": "upright",
        "model": {
            "name": job.model.name,
            "uri": job.model.uri,
            "digest": job.model.digest,
            "card": job.model.card.as_json(),
        },
        "sampling": config.sampling.model_dump(mode="json"),
        "processing_size": work.longest_px,
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
        "convention": CONVENTIONS[config.task]["convention"],
        "model": job.model.uri,
        "model digest": job.model.digest,
        "processing": f"longest side {size} px" if size else "each image at its own size",
        "sampling": f"{sampling.steps} step(s), {sampling.spacing}, initial latent {initial}, "
        f"seed {sampling.seed}",
        "counts": ", ".join(f"{count} {name}" for name, count in counts.items()),
        "configuration digest": config.digest(),
    }


def _parents(job: Job) -> tuple[Parent, ...]:
    model = Parent("model", job.model.uri, job.model.digest)
    if "/" in job.model.uri and not is_registry_uri(job.model.uri):
        store = open_store(job.model.uri)
        if store.exists(MANIFEST):
            model = load_artifact(job.model.uri).as_parent("model")
    images = () if job.corpus.shards is None else (job.corpus.shards.as_parent("images"),)
    return (*images, model)


def summary(artifact: Artifact) -> str:
    """What became of the images and where it all lies, for a person."""
    counts, details = artifact.counts, artifact.details
    lines = [
        f"{counts['planned']} images: {counts[OK]} ok, {counts[DEGRADED]} degraded, "
        f"{counts[REJECTED]} rejected"
    ]
    for title, reasons, sentences in (
        ("degraded", details["degradations"], DEGRADATIONS),
        ("rejected", details["reject_reasons"], REASONS),
    ):
        for reason, count in sorted(reasons.items(), key=lambda entry: -entry[1]):
            said = "; ".join(sentences[name] for name in reason.split("+"))
            lines.append(f"  {title} {count:6}  {reason}: {said}")
    if details["excluded"]:
        passed = ", ".join(f"{count} {why}" for why, count in details["excluded"].items())
        lines.append(f"  passed over: {passed}")
    lines.append(f"labels   {artifact.uri}/{details['task']}")
    lines.append(f"index    {artifact.uri}/index")
    if any(file.path == GALLERY for file in artifact.files):
        lines.append(f"gallery  {artifact.uri}/{GALLERY}")
    return "\n".join(lines)
