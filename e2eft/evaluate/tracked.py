"""What MLflow learns of scores: their run, and the registered model that they speak of."""

from __future__ import annotations

import io
import json
import logging
import math
from pathlib import Path
from typing import Any

from PIL import Image

from e2eft.artifacts import Artifact, Parent, load_artifact
from e2eft.config import EvaluateConfig
from e2eft.evaluate.chunks import Pair
from e2eft.evaluate.report import REPORT
from e2eft.evaluate.scores import SUMMARY, primary_score
from e2eft.labels.index import KIND as LABELS_KIND
from e2eft.storage import absolute
from e2eft.tracking import (
    Promotion,
    Run,
    Score,
    TrackingError,
    is_registry_uri,
    promote_if_better,
    record_score,
    register_model,
    resolve_version,
    start_run,
)

log = logging.getLogger(__name__)

DATA, LABELS = "data", "labels"
"""Roles of the parents of scores."""
PANELS = "panels/"
UNSCORED = (*("model", "images", "task"), "images_per_part", "max_pixels", "save_previews")
"""Settings of labels that no score depends on, or that the model and the data say."""


def work_of(config: EvaluateConfig, work: str) -> tuple[str, str, dict[str, str]]:
    """The arguments of `start_run` for the job of this name."""
    tags = {"e2eft.stage": "evaluate", "e2eft.out": config.out}
    return f"evaluate-{config.task}", work, tags


def complete(run: Run, config: EvaluateConfig, scores: Artifact, pairs: tuple[Pair, ...]) -> None:
    """What a run that was interrupted after the commit lacks, from the artifact."""
    describe(run, config, scores.parents)
    for file in scores.files:
        if file.called.startswith(PANELS):
            run.image(Image.open(io.BytesIO(scores.store.read(file.path))), file.path)
    summary = json.loads(scores.store.read(scores.path(SUMMARY)))
    log_scores(run, scores, summary, scores.store.read(scores.path(REPORT)).decode())
    note_registered_model(config, scores, pairs)


def describe(run: Run, config: EvaluateConfig, parents: tuple[Parent, ...]) -> None:
    run.params(config.parameters())
    for parent in parents:
        run.dataset(parent.uri, parent.digest, "ground truth" if parent.role == DATA else "labels")


def scored_model(scores: Artifact) -> tuple[str, str]:
    """URI and digest of the model whose labels were scored, as it was fixed when they were made."""
    labels = next(parent.uri for parent in scores.parents if parent.role == LABELS)
    model = load_artifact(labels, LABELS_KIND).details["model"]
    return model["uri"], model["digest"]


def register(
    config: EvaluateConfig, scores: Artifact, folder: Path, card: dict[str, Any] | None = None
) -> Promotion:
    """Registers the scored model as --register says; it becomes champion if its scores are better.

    Args:
        folder: the model in diffusers' layout.

    Raises:
        TrackingError: if MLflow is off or does not answer.
    """
    name = config.register_as
    assert name is not None
    config = with_absolute_uris(config)
    run = start_run(config.tracking, *work_of(config, scores.work))
    tags = {"e2eft.scores": scores.uri, "e2eft.scores.digest": scores.digest}
    try:
        model = register_model(config.tracking, run, name, folder, card=card, tags=tags)
    finally:
        run.finish()  # what it is the run of is done
    if not primary_score(scores).complete:
        return Promotion(
            False, f"version {model.version} is registered, but its scores are incomplete"
        )
    return promote_if_better(config.tracking, model.name, model.version, score_of(scores))


def score_of(scores: Artifact) -> Score:
    """The number by which the scored model is judged, with everything that decides it."""
    found = primary_score(scores)
    labels = [
        load_artifact(parent.uri, LABELS_KIND) for parent in scores.parents if parent.role == LABELS
    ]
    ways = {_images_digest(artifact): _way(artifact) for artifact in labels}
    one = next(iter(ways.values()))
    same = all(way == one for way in ways.values())
    return Score(
        metric_name=found.metric_name,
        value=found.value,
        lower_is_better=found.lower_is_better,
        terms={
            "protocol": found.protocol,
            "data_digest": found.data_digest,
            "labelled": one if same else ways,
        },
        model_digest=labels[0].details["model"]["digest"],
        scores=scores.uri,
        scores_digest=scores.digest,
    )


def _images_digest(labels: Artifact) -> str:
    return next((parent.digest for parent in labels.parents if parent.role == "images"), "")


def _way(labels: Artifact) -> dict[str, Any]:
    """How images were labelled: sampling, processing size, and whatever else was set."""

    def given(tree: dict[str, Any]) -> dict[str, Any]:
        values = {name: given(v) if isinstance(v, dict) else v for name, v in tree.items()}
        return {
            name: value
            for name, value in values.items()
            if value is not None and value is not False
        }

    return given({k: v for k, v in labels.config.items() if k not in UNSCORED})


def with_absolute_uris(config: EvaluateConfig) -> EvaluateConfig:
    """Relative folders resolved here, since workers run elsewhere."""
    return config.model_copy(
        update={
            "out": absolute(config.out),
            "data": tuple(map(absolute, config.data)),
            "labels": tuple(map(absolute, config.labels)),
        }
    )


def log_scores(run: Run, artifact: Artifact, summary: dict[str, Any], report: str) -> None:
    run.text(report, REPORT)
    run.json(summary, SUMMARY)
    values: dict[str, float] = {}
    for name, group in {"": summary["overall"], **summary["domains"]}.items():
        for metric, numbers in group["metrics"].items():
            suffix = f"/{name}" if name else ""
            values[f"{metric}{suffix}"] = numbers["mean"]
            if "constant" in numbers:
                values[f"constant/{metric}{suffix}"] = numbers["constant"]
    run.metrics(values | {f"images/{name}": float(n) for name, n in artifact.counts.items()})
    run.tags(
        {
            "e2eft.scores.digest": artifact.digest,
            "e2eft.protocol": artifact.details["protocol"],
            "e2eft.data.digest": artifact.details["headline"]["data_digest"],
            "e2eft.complete": str(summary["complete"]).lower(),
        }
    )


def note_registered_model(
    config: EvaluateConfig, scores: Artifact, pairs: tuple[Pair, ...]
) -> None:
    """A registered version that made the labels keeps its score, to be compared with later."""
    makers = {
        parent.uri for pair in pairs for parent in pair.labels.parents if parent.role == "model"
    }
    found = primary_score(scores)
    if not config.tracking.enabled or not found.complete or len(makers) != 1:
        return
    if not math.isfinite(found.value):
        log.warning("%s is not noted on its model: %s", found.metric_name, found.value)
        return
    (uri,) = makers
    if not is_registry_uri(uri):
        return
    try:
        name, version = resolve_version(config.tracking, uri)
        record_score(config.tracking, name, version, score_of(scores))
    except TrackingError as error:
        # The labels may come from another registry, and the scores are committed already.
        log.warning("the score was not noted on %s: %s", uri, error)
