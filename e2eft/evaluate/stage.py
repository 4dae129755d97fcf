"""The evaluation stage: label artifacts against shards, as a Ray Data job over chunks of frames.

Needs neither the model nor a GPU. Every image is scored on its own, so the numbers do not depend on
workers, batches or the order in which tasks end.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from e2eft.artifacts import (
    Artifact,
    ArtifactError,
    Claim,
    FileEntry,
    Owned,
    Parent,
    Place,
    finished_of,
    is_gone,
    left_of,
    load_artifact,
    look,
    recorded,
)
from e2eft.config import EvaluateConfig, as_begun
from e2eft.data.shards import KIND as SHARDS
from e2eft.evaluate.chunks import Pair
from e2eft.evaluate.job import draw_panel, score_rows
from e2eft.evaluate.pairing import (
    check_pair,
    note_how_made,
    open_pairs,
    protocol_for,
    range_without_effect,
    sizes_of,
)
from e2eft.evaluate.protocols import ScoringProtocol
from e2eft.evaluate.report import REPORT, chosen_images, inversion, write_report
from e2eft.evaluate.scores import (
    KIND,
    SCORED,
    SUMMARY,
    TABLE,
    PrimaryScore,
    data_digest,
    encode_table,
    summarize,
)
from e2eft.evaluate.tracked import (
    DATA,
    LABELS,
    PANELS,
    complete,
    describe,
    log_scores,
    note_registered_model,
    with_absolute_uris,
    work_of,
)
from e2eft.labels.index import KIND as LABELS_KIND
from e2eft.model.card import given_card
from e2eft.model.hub import ModelError
from e2eft.storage import MissingError, absolute, open_store
from e2eft.tracking import (
    Run,
    TrackingError,
    check_tracking,
    complete_run,
    is_registry_uri,
    start_run,
    version_digest,
)

OWNED = Owned(
    patterns=(r"scores/per_image\.parquet", r"scores\.json", r"report\.md", r"panels/[^/]+\.png"),
    results=(),
)
"""What this stage writes; labels of a model that is scored are artifacts of their own."""


def look_at(config: EvaluateConfig) -> Place:
    """What is at --out, and whether this can be scored at all. Reads only.

    Raises:
        ValueError: (and its subclasses) for what the user can correct.
        TrackingError: if scores would not find their way to MLflow, or the model to its registry.
    """
    _, digest = given_card(config.model_card)
    config = with_absolute_uris(config).model_copy(update={"card_digest": digest})
    store = open_store(config.out)
    try:
        if config.model:
            config = config.model_copy(update={"processing_px": sizes_of(config)})
        inputs = _inputs(config)
    except (ModelError, ArtifactError, MissingError):
        begun = None if config.overwrite else recorded(store)
        if begun is None or finished_of(store, begun) is None:
            raise
        if config.model and not config.processing_px:
            then = tuple(begun.config.get("processing_px", ()))
            config = config.model_copy(update={"processing_px": then})
        inputs = _inputs_left(config)
    place = look(store, KIND, config, inputs, OWNED)
    if not place.finished:
        if config.model and is_registry_uri(config.model):
            version_digest(config.tracking, config.model)  # raises what kept it from being known
        check_tracking(config.tracking, config.register_as)
    return place


def as_found(place: Place) -> EvaluateConfig:
    """The configuration of a place; with sampling and sizes as they were meant when what is resumed
    began."""
    config, record = place.config, None if place.replaces else place.record
    assert isinstance(config, EvaluateConfig)
    if record is None:
        return config
    update: dict[str, Any] = {"sampling": as_begun(config.sampling, record.identity_version)}
    if config.model and not place.finished and "processing_px" not in record.config:
        update["processing_px"] = sizes_of(config, unrecorded=True)
    return config.model_copy(update=update)


def _inputs(config: EvaluateConfig) -> tuple[Parent, ...]:
    """What is scored, and against what."""
    if config.model is None:
        pairs, _ = _checked_pairs(config, config.labels)
        data = tuple(pair.shards.artifact for pair in pairs)
        labels = tuple(pair.labels.as_parent(LABELS) for pair in pairs)
    else:
        data = tuple(load_artifact(uri, SHARDS) for uri in config.data)
        labels = (_model(config, config.model),)
    return (*(artifact.as_parent(DATA) for artifact in data), *labels)


def _inputs_left(config: EvaluateConfig) -> tuple[Parent, ...]:
    """The same of scores that are finished, where some of it has gone since: nothing is known of
    what that held."""
    data = (left_of(uri, DATA, SHARDS) for uri in config.data)
    if config.model is None:
        return (*data, *(left_of(uri, LABELS, LABELS_KIND) for uri in config.labels))
    try:
        model = _model(config, config.model)
    except ModelError:
        if not is_gone(config.model):
            raise
        model = Parent("model", absolute(config.model), "")
    return (*data, model)


def _model(config: EvaluateConfig, name: str) -> Parent:
    """A model as an input; without a digest while its registry does not answer."""
    if is_registry_uri(name):
        with suppress(TrackingError):
            return Parent("model", name, version_digest(config.tracking, name))
        return Parent("model", name, "")
    # Not above: labels are scored without what a model needs.
    from e2eft.model.pinned import as_input

    return as_input(name, "model")


def _checked_pairs(
    config: EvaluateConfig, labels: Sequence[str]
) -> tuple[tuple[Pair, ...], ScoringProtocol]:
    pairs = open_pairs(config, labels)
    protocol = protocol_for(config, [pair.shards for pair in pairs])
    for pair in pairs:
        check_pair(pair, protocol)
    return pairs, protocol


def run(config: EvaluateConfig, labels: Sequence[str]) -> Artifact:
    """Scores labels that are there, one for each --data, or finds them scored.

    Raises:
        ValueError: (and its subclasses) for what the user can correct, or if nothing can be scored.
    """
    config = config.model_copy(update={"model": None, "labels": tuple(labels)})
    place = look_at(config)
    if place.finished:
        say_finished(config, place.finished)
        return place.finished
    with place.take() as claim:
        return claim.finished or score(config, claim, labels)


def say_finished(config: EvaluateConfig, scores: Artifact) -> None:
    """Tells a person that there is nothing to do, but perhaps to end the MLflow run."""
    print(f"already scored: {scores.uri} ({scores.counts['scored']} images; nothing to do)")
    config = with_absolute_uris(config)

    def write(run: Run) -> None:
        made_of = [parent.uri for parent in scores.parents if parent.role == LABELS]
        complete(run, config, scores, open_pairs(config, made_of))

    complete_run(config.tracking, *work_of(config, scores.work), write)


def score(config: EvaluateConfig, claim: Claim, labels: Sequence[str]) -> Artifact:
    """Scores one labels artifact for each --data into the claimed folder.

    Raises:
        ValueError: (and its subclasses) for what the user can correct, or if nothing can be scored.
    """
    config = with_absolute_uris(config)
    pairs, protocol = _checked_pairs(config, labels)
    parents = (
        *(pair.shards.artifact.as_parent(DATA) for pair in pairs),
        *(pair.labels.as_parent(LABELS) for pair in pairs),
    )
    if said := range_without_effect(config, [pair.shards.artifact for pair in pairs], protocol):
        print(said)
    run = start_run(config.tracking, *work_of(config, claim.work))
    try:
        artifact = _score_and_commit(config, claim, protocol, pairs, parents, run)
    except BaseException:
        run.finish("FAILED")
        raise
    note_registered_model(config, artifact, pairs)
    run.finish()
    return artifact


def _score_and_commit(
    config: EvaluateConfig,
    claim: Claim,
    protocol: ScoringProtocol,
    pairs: tuple[Pair, ...],
    parents: tuple[Parent, ...],
    run: Run,
) -> Artifact:
    describe(run, config, parents)
    rows = score_rows(protocol, pairs, config.frames_per_task, config.scoring_tasks)
    _require_scored(rows)
    summary = summarize(rows, protocol, config.bootstrap) | _lineage(parents)
    note_how_made(summary, pairs, protocol)
    pictures = _draw_panels(claim, protocol, pairs, rows, config.panels, run)
    report = write_report(summary, protocol, [picture.path for picture in pictures])
    pages = {
        TABLE: encode_table(rows, protocol),
        SUMMARY: json.dumps(summary, indent=1).encode(),
        REPORT: report.encode(),
    }
    found = _primary_score(protocol, summary, parents)
    artifact = claim.commit(
        files=[*(claim.put(name, content) for name, content in pages.items()), *pictures],
        counts=_counts(rows),
        parents=parents,
        details={
            "protocol": protocol.full_name,
            "task": protocol.task,
            "metrics": list(protocol.metrics),
            "pooled": bool(protocol.statistics),
            "headline": asdict(found),
        },
    )
    log_scores(run, artifact, summary, report)
    if said := inversion(summary, protocol):
        print(f"evaluate: {said}", flush=True)
    return artifact


def _lineage(parents: tuple[Parent, ...]) -> dict[str, list[dict[str, Any]]]:
    """What was scored against what, for the summary."""
    return {
        role: [
            {"uri": parent.uri, "digest": parent.digest}
            for parent in parents
            if parent.role == role
        ]
        for role in (DATA, LABELS)
    }


def _require_scored(rows: list[dict[str, Any]]) -> None:
    """Raises ValueError, with an example, if no image has a score."""
    if not any(row["status"] == SCORED for row in rows):
        example = rows[0]
        raise ValueError(
            f"none of {len(rows)} images could be scored, e.g. {example['key']}: "
            f"{example['status']} ({example['detail']})"
        )


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    statuses = Counter(row["status"] for row in rows)
    return {"images": len(rows), SCORED: statuses.pop(SCORED)} | dict(sorted(statuses.items()))


def _primary_score(
    protocol: ScoringProtocol, summary: dict[str, Any], parents: tuple[Parent, ...]
) -> PrimaryScore:
    return PrimaryScore(
        metric_name=protocol.primary_metric,
        value=summary["overall"]["metrics"][protocol.primary_metric]["mean"],
        lower_is_better=protocol.metrics[protocol.primary_metric].lower_is_better,
        protocol=protocol.full_name,
        data_digest=data_digest([parent.digest for parent in parents if parent.role == DATA]),
        complete=summary["complete"],
    )


def _draw_panels(
    claim: Claim,
    protocol: ScoringProtocol,
    pairs: tuple[Pair, ...],
    rows: list[dict[str, Any]],
    count: int,
    run: Run,
) -> list[FileEntry]:
    """Writes the pictures of the worst and of the middle images."""
    files: list[FileEntry] = []
    chosen = {name: rows[place] for name, place in chosen_images(rows, protocol, count).items()}
    labels = [
        pair.labels.label_rows([row["key"] for row in chosen.values() if row["pair"] == number])
        for number, pair in enumerate(pairs)
    ]
    for name, row in chosen.items():
        number, key = row["pair"], row["key"]
        picture = draw_panel(protocol, pairs[number], labels[number][key], row)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        files.append(claim.put(f"{PANELS}{name}.png", buffer.getvalue()))
        run.image(picture, files[-1].path)
    return files
