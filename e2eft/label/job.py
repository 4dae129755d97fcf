"""One labelling job from its configuration to its committed artifact."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from e2eft.artifacts import Artifact, Claim
from e2eft.config import LabelConfig, SamplingConfig
from e2eft.label.books import Books, Ledger, Retried, may_mend
from e2eft.label.chunks import Work
from e2eft.label.commit import commit_labels, commit_retried, log_outcome
from e2eft.label.graph import label_parts
from e2eft.label.opening import GALLERY, Opened, freeze, located, open_job, require_possible
from e2eft.label.told import say_changes, say_retry, summary
from e2eft.labels.index import LabelIndex, committed_parts
from e2eft.tracking import Run, complete_run, start_run


class Job:
    """A job whose folder is claimed: its plan and its model are what the claim's first run found.

    number: among those that are labelled together. again: finished labels, of which some images are
    tried again.
    """

    def __init__(self, opened: Opened, claim: Claim, number: int) -> None:
        self.config, self.model, self.number = opened.config, opened.model, number
        self.claim, self.store = claim, claim.store
        self.again = claim.finished
        self.target, self.codec = opened.target, opened.codec
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
            decoding=self.corpus.decoding,
            corpus=self.number,
            as_it_is=self.again is not None,
            depth_target=card.depth_target,
            largest_bytes=int(self.corpus.plan["size_bytes"].to_numpy().max(initial=0)),
        )


def run(config: LabelConfig) -> Artifact:
    """Labels the corpus, or finishes it, or finds it finished.

    Raises:
        ValueError: (and its subclasses) for what the user can correct: no such model or images, an
            output made with another configuration.
    """
    return run_all([config])[0]


def run_all(configs: Sequence[LabelConfig]) -> list[Artifact]:
    """Labels several corpora, each into an artifact of its own, starting the model's replicas once.

    Args:
        configs: equal but for `images`, `out`, and the size at which the model sees them.

    Raises:
        ValueError: as `run`, and if the model changes between the corpora.
    """
    with tempfile.TemporaryDirectory(prefix="e2eft-label-") as scratch:
        return run_opened(open_all(configs, Path(scratch)))


def open_all(configs: Sequence[LabelConfig], scratch: Path) -> list[Opened | Artifact]:
    """The jobs of `run_all`, checked and not begun, or what they have made already."""
    configs = [located(config) for config in configs]
    apart = {"images": "", "out": "", "processing_size": None, "native_size": False}
    assert all(c.model_copy(update=apart) == configs[0].model_copy(update=apart) for c in configs)
    found = [open_job(config, scratch / str(number)) for number, config in enumerate(configs)]
    require_possible([job for job in found if isinstance(job, Opened)])
    for config, one in zip(configs, found, strict=True):
        if isinstance(one, Artifact):
            print(f"already labelled, nothing to do\n{summary(one)}")
            say_changes(config, one)
            say_retry(config, one)
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
                if claim.finished and not one.is_retry:
                    place = claim.finished
                else:
                    jobs.append(place := Job(one, claim, len(jobs)))
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
        ledgers = _label_missing(jobs, runs)
        artifacts = [
            commit_retried(job, run, ledger)
            if isinstance(ledger, Retried)
            else commit_labels(job, run)
            for job, run, ledger in zip(jobs, runs, ledgers, strict=True)
        ]
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
    sampling = SamplingConfig.model_validate(labels.details["sampling"])
    config = config.model_copy(update={"sampling": sampling})

    def write(run: Run) -> None:
        run.params(config.parameters())
        if any(file.called == GALLERY for file in labels.files):
            page = labels.store.read(labels.path(GALLERY))
            run.text(page.decode("utf-8", "backslashreplace"), GALLERY)
        log_outcome(run, labels)

    model_digest = labels.details["model"]["digest"]
    complete_run(config.tracking, *_work(config, labels.work, model_digest), write)


def _label_missing(jobs: list[Job], runs: list[Run]) -> list[Books]:
    ledgers = [_books(job) for job in jobs]
    if not any(ledger.images for ledger in ledgers):
        return ledgers
    for progress in label_parts(jobs[0].config, jobs[0].model, ledgers):
        for job in jobs:
            job.claim.require_owner()
        print(progress.line(), flush=True)
        for run, outcomes in zip(runs, progress.corpora, strict=True):
            counts = {name: float(count) for name, count in outcomes.items()}
            run.metrics(counts | {"images_per_s": progress.images_per_s}, step=outcomes.total())
    return ledgers


def _books(job: Job) -> Books:
    """The parts of a corpus that are not committed yet, or the images that are tried again."""
    corpus, images_per_part = job.corpus, job.config.images_per_part
    if job.again is not None:
        indices = may_mend(LabelIndex(job.again).table)
        return Retried(corpus, job.work, indices, images_per_part)
    done = committed_parts(job.store)
    if done:
        print(f"resuming {job.store.uri}: {len(done)} of {corpus.parts} parts are there")
    missing = [part for part in range(corpus.parts) if part not in done]
    return Ledger(job.claim, corpus, job.work, missing, images_per_part)
