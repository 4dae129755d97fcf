"""The evaluation stage: label artifacts against shards, as a Ray Data job over chunks of frames.

Needs neither the model nor a GPU. Every image is scored on its own, so the numbers do not depend on
workers, batches or the order in which tasks end.
"""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from e2eft.artifacts import (
    MANIFEST,
    Artifact,
    ArtifactError,
    Parent,
    claim,
    commit,
    entries,
)
from e2eft.config import EvaluateConfig
from e2eft.evaluate.chunks import Pair
from e2eft.evaluate.job import draw_panel, score_rows
from e2eft.evaluate.pairing import check_pair, open_pairs, source_of
from e2eft.evaluate.protocols import ScoringProtocol, protocol_of
from e2eft.evaluate.report import REPORT, chosen_images, write_report
from e2eft.evaluate.scores import (
    KIND,
    SCORED,
    SUMMARY,
    TABLE,
    Headline,
    data_digest,
    encode_table,
    headline,
    summarize,
)
from e2eft.storage import Store, absolute, open_store
from e2eft.tracking import (
    Promotion,
    Run,
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


def claim_output(config: EvaluateConfig) -> Artifact | None:
    """Takes --out for this configuration; the scores if they are there already.

    To be called before labels are written below --out, since --overwrite deletes what is there.

    Raises:
        ArtifactError: if --out holds something else.
    """
    return claim(open_store(config.out), KIND, _absolute(config), config.overwrite)


def run(config: EvaluateConfig, labels: Sequence[str]) -> Artifact:
    """Scores one labels artifact for each --data, or finds them scored.

    Raises:
        ValueError: (and its subclasses) for what the user can correct, or if nothing can be scored.
    """
    config = _absolute(config)
    pairs = open_pairs(config, labels)
    protocol = protocol_of(config, [source_of(pair.shards.artifact) for pair in pairs])
    for pair in pairs:
        check_pair(pair, protocol)
    parents = (
        *(pair.shards.artifact.as_parent(DATA) for pair in pairs),
        *(pair.labels.as_parent(LABELS) for pair in pairs),
    )
    done = claim_output(config)
    if done and _still_valid(done, parents, config.overwrite):
        print(f"already scored: {config.out} ({done.counts['scored']} images; nothing to do)")
        return done
    run = start_run(
        config.tracking,
        f"evaluate-{config.task}",
        f"{KIND}:{config.digest()}:{config.out}",
        {"e2eft.stage": "evaluate", "e2eft.out": config.out},
    )
    try:
        artifact = _score_and_commit(config, protocol, pairs, parents, run)
    except BaseException:
        run.finish("FAILED")
        raise
    _note_registered_model(config, artifact, pairs)
    run.finish()
    return artifact


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
    config = _absolute(config)
    run = start_run(
        config.tracking,
        f"evaluate-{config.task}",
        f"{KIND}:{config.digest()}:{config.out}",
        {"e2eft.stage": "evaluate", "e2eft.out": config.out},
    )
    tags = {"e2eft.scores": scores.uri, "e2eft.scores.digest": scores.digest}
    model = register_model(config.tracking, run, name, folder, card=card, tags=tags)
    run.finish()
    found = asdict(headline(scores))
    if not found.pop("complete"):
        return Promotion(
            False, f"version {model.version} is registered, but its scores are incomplete"
        )
    return promote_if_better(config.tracking, model.name, model.version, **found)


def _absolute(config: EvaluateConfig) -> EvaluateConfig:
    """Relative folders resolved here, since workers run elsewhere."""
    return config.model_copy(
        update={
            "out": absolute(config.out),
            "data": tuple(map(absolute, config.data)),
            "labels": tuple(map(absolute, config.labels)),
        }
    )


def _still_valid(done: Artifact, parents: tuple[Parent, ...], overwrite: bool) -> bool:
    """Whether finished scores are of what lies at their parents' places now."""
    then, now = ([parent.digest for parent in group] for group in (done.parents, parents))
    if then == now:
        return True
    if not overwrite:
        raise ArtifactError(
            f"{done.uri} holds scores of other labels or data than are there now; use another "
            "--out, or --overwrite to score again"
        )
    # Not the whole folder: the labels may lie in it.
    for path in (MANIFEST, *(file.path for file in done.files)):
        done.store.delete(path)
    return False


def _score_and_commit(
    config: EvaluateConfig,
    protocol: ScoringProtocol,
    pairs: tuple[Pair, ...],
    parents: tuple[Parent, ...],
    run: Run,
) -> Artifact:
    run.params(config.parameters())
    for parent in parents:
        run.dataset(parent.uri, parent.digest, "ground truth" if parent.role == DATA else "labels")
    rows = score_rows(protocol, pairs, config.frames_per_task, config.scoring_tasks)
    if not any(row["status"] == SCORED for row in rows):
        example = rows[0]
        raise ValueError(
            f"none of {len(rows)} images could be scored, e.g. {example['key']}: "
            f"{example['status']} ({example['detail']})"
        )
    store = open_store(config.out)
    summary = summarize(rows, protocol, config.bootstrap) | _lineage(parents)
    store.write(TABLE, encode_table(rows, protocol))
    store.write(SUMMARY, json.dumps(summary, indent=1).encode())
    pictures = _draw_panels(store, protocol, pairs, rows, config.panels, run)
    report = write_report(summary, protocol, pictures)
    store.write(REPORT, report.encode())
    found = _headline(protocol, summary, parents)
    artifact = commit(
        store,
        KIND,
        config,
        files=entries(store, [TABLE, SUMMARY, REPORT, *pictures]),
        counts=_counts(rows),
        parents=parents,
        details={
            "protocol": protocol.terms,
            "task": protocol.task,
            "metrics": list(protocol.metrics),
            "pooled": bool(protocol.statistics),
            "headline": asdict(found),
        },
    )
    _log(run, artifact, summary, report)
    return artifact


def _lineage(parents: tuple[Parent, ...]) -> dict[str, list[dict[str, str]]]:
    """What was scored against what, for the summary."""
    return {
        role: [
            {"uri": parent.uri, "digest": parent.digest}
            for parent in parents
            if parent.role == role
        ]
        for role in (DATA, LABELS)
    }


def _counts(rows: list[dict[str, Any]]) -> dict[str, int]:
    statuses = Counter(row["status"] for row in rows)
    return {"images": len(rows), SCORED: statuses.pop(SCORED)} | dict(sorted(statuses.items()))


def _headline(
    protocol: ScoringProtocol, summary: dict[str, Any], parents: tuple[Parent, ...]
) -> Headline:
    return Headline(
        metric_name=protocol.headline,
        value=summary["overall"]["metrics"][protocol.headline]["mean"],
        lower_is_better=protocol.metrics[protocol.headline].lower_is_better,
        protocol=protocol.terms,
        data_digest=data_digest([parent.digest for parent in parents if parent.role == DATA]),
        complete=summary["complete"],
    )


def _draw_panels(
    store: Store,
    protocol: ScoringProtocol,
    pairs: tuple[Pair, ...],
    rows: list[dict[str, Any]],
    count: int,
    run: Run,
) -> list[str]:
    """Writes the pictures of the worst and of the middle images; their paths."""
    paths: list[str] = []
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
        paths.append(f"panels/{name}.png")
        store.write(paths[-1], buffer.getvalue())
        run.image(picture, paths[-1])
    return paths


def _log(run: Run, artifact: Artifact, summary: dict[str, Any], report: str) -> None:
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


def _note_registered_model(
    config: EvaluateConfig, scores: Artifact, pairs: tuple[Pair, ...]
) -> None:
    """A registered version that made the labels keeps its score, to be compared with later."""
    makers = {
        parent.uri for pair in pairs for parent in pair.labels.parents if parent.role == "model"
    }
    found = headline(scores)
    if not config.tracking.enabled or not found.complete or len(makers) != 1:
        return
    (uri,) = makers
    if not is_registry_uri(uri):
        return
    try:
        record_score(
            config.tracking,
            *resolve_version(config.tracking, uri),
            found.metric_name,
            found.value,
            found.protocol,
            found.data_digest,
        )
    except TrackingError as error:
        # The labels may come from another registry, and the scores are committed already.
        log.warning("the score was not noted on %s: %s", uri, error)
