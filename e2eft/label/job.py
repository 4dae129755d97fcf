"""One labelling job from its configuration to its committed artifact."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa

from e2eft.artifacts import MANIFEST, Artifact, Claim, Parent, entries, load_artifact
from e2eft.config import LabelConfig
from e2eft.data.corpus import PLAN
from e2eft.data.labels import (
    CONVENTIONS,
    DEGRADED,
    LABEL_SCHEMA_VERSION,
    OK,
    REJECTED,
    committed_parts,
    part_path,
    read_index,
)
from e2eft.data.sources.images import DEGRADATIONS, REASONS
from e2eft.label.chunks import Work
from e2eft.label.gallery import count_outcomes, render_gallery
from e2eft.label.graph import Backlog, label_parts
from e2eft.label.opening import (
    GALLERY,
    MODEL_PIN,
    LabelError,
    Opened,
    freeze,
    located,
    open_job,
    require_possible,
)
from e2eft.storage import open_store
from e2eft.tracking import Run, complete_run, is_registry_uri, start_run


class Job:
    """A job whose folder is claimed: its plan and its model are what the claim's first run found.

    number: among those that are labelled together.
    """

    def __init__(self, opened: Opened, claim: Claim, number: int) -> None:
        self.config, self.model, self.number = opened.config, opened.model, number
        self.claim, self.store = claim, claim.store
        self.target = opened.target
        self.corpus = freeze(opened, claim)

    @property
    def work(self) -> Work:
        """What its workers must know."""
        config, card = self.config, self.model.card
        longest_px = None if config.native_size else config.processing_size or card.processing_size
        return Work(
            images_uri=self.corpus.uri,
            writer=self.claim.writer,
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
    with tempfile.TemporaryDirectory(prefix="e2eft-label-") as scratch:
        return run_opened(open_all(configs, Path(scratch)))


def open_all(configs: Sequence[LabelConfig], scratch: Path) -> list[Opened | Artifact]:
    """The jobs of `run_all`, checked and not begun, or what they have made already."""
    configs = [located(config) for config in configs]
    apart = {"images": "", "out": ""}
    assert all(c.model_copy(update=apart) == configs[0].model_copy(update=apart) for c in configs)
    found = [open_job(config, scratch / str(number)) for number, config in enumerate(configs)]
    require_possible([job for job in found if isinstance(job, Opened)])
    for config, one in zip(configs, found, strict=True):
        if isinstance(one, Artifact):
            print(f"already labelled, nothing to do\n{summary(one)}")
            _complete_run(config, one)
    return found


def run_opened(found: Sequence[Opened | Artifact]) -> list[Artifact]:
    """Claims and labels what is not finished; the artifacts, in the same order."""
    with ExitStack() as claims:
        jobs: list[Job] = []
        places: list[Artifact | Job] = []
        for one in found:
            place: Artifact | Job | None = one if isinstance(one, Artifact) else None
            if isinstance(one, Opened):
                claim = claims.enter_context(one.place.take())
                if not claim.finished:
                    jobs.append(Job(one, claim, len(jobs)))
                place = claim.finished or jobs[-1]
            assert place is not None
            places.append(place)
        made = dict(zip(map(id, jobs), _tracked(jobs), strict=True))
        for artifact in made.values():
            print(summary(artifact))
        return [place if isinstance(place, Artifact) else made[id(place)] for place in places]


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
    run = start_run(config.tracking, *_work(config, job.claim.work, job.model.digest))
    run.params(config.parameters())
    return run


def _work(config: LabelConfig, work: str, model_digest: str) -> tuple[str, str, dict[str, str]]:
    """The arguments of `start_run` for the job of this name."""
    tags = {"e2eft.stage": "label", "e2eft.out": config.out, "e2eft.model.digest": model_digest}
    return f"label {config.task}", work, tags


def _complete_run(config: LabelConfig, labels: Artifact) -> None:
    """Writes and ends the MLflow run of finished labels, or finds it ended."""

    def write(run: Run) -> None:
        run.params(config.parameters())
        if any(file.called == GALLERY for file in labels.files):
            page = labels.store.read(labels.path(GALLERY))
            run.text(page.decode("utf-8", "backslashreplace"), GALLERY)
        _log_outcome(run, labels)

    model_digest = labels.details["model"]["digest"]
    complete_run(config.tracking, *_work(config, labels.work, model_digest), write)


def _log_outcome(run: Run, labels: Artifact) -> None:
    run.metrics({name: float(value) for name, value in labels.counts.items()})
    run.tags({"e2eft.labels.digest": labels.digest})


def _label_missing(jobs: list[Job], runs: list[Run]) -> None:
    backlogs = [_backlog(job) for job in jobs]
    if not any(backlog.rows_of_part for backlog in backlogs):
        return
    for progress in label_parts(jobs[0].config, jobs[0].model, backlogs):
        for job in jobs:
            job.claim.require_owner()
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
    return Backlog(job.claim, corpus, job.work, rows)


def _finish(job: Job, run: Run) -> Artifact:
    index = read_index(job.store, job.claim.digest)
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
    paths = [PLAN, MODEL_PIN, *(part_path(part) for part in range(job.corpus.parts))]
    files = entries(job.store, paths)
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
        files.append(job.claim.put(GALLERY, page.encode("utf-8", "backslashreplace")))
        run.text(page, GALLERY)
    artifact = job.claim.commit(
        files=files,
        counts=counts,
        parents=_parents(job),
        details=details,
    )
    _log_outcome(run, artifact)
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
    if any(file.called == GALLERY for file in artifact.files):
        lines.append(f"gallery  {artifact.uri}/{artifact.path(GALLERY)}")
    return "\n".join(lines)
