"""Tables of scores under one protocol: beside what was published, and beside one another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from e2eft.artifacts import Artifact, load_artifact
from e2eft.evaluate.protocols import Metric, ScoringProtocol
from e2eft.evaluate.protocols.depth import DEPTH_METRICS
from e2eft.evaluate.protocols.normals import NORMALS_METRICS
from e2eft.evaluate.published import published_tables
from e2eft.evaluate.scores import KIND, SUMMARY, paired_difference

METRICS_OF_TASK = {"depth": DEPTH_METRICS, "normals": NORMALS_METRICS}
SHOWN_METRICS = {"depth": ("abs_rel", "delta1"), "normals": ("mean_deg", "pct_11_25")}
"""What papers print of a task."""


def compared_to_published(summary: dict[str, Any], protocol: ScoringProtocol) -> list[str]:
    """Lines of Markdown: this run's benchmarks above what was published of them; none if nothing
    was. A benchmark of which images are missing is marked."""
    lines: list[str] = []
    for table in published_tables(protocol.name):
        sets = [name for name in table.sets if name in summary["domains"]]
        if not sets:
            continue
        cells = [(dataset, metric) for dataset in sets for metric in table.metrics]
        heads = [
            f"{dataset} {metric} {protocol.metrics[metric].arrow}" for dataset, metric in cells
        ]
        lines += [f"| | {' | '.join(heads)} | |", f"|---|{'---:|' * len(heads)}---|"]
        ours = " | ".join(
            _own(summary["domains"][name], m, protocol.metrics[m]) for name, m in cells
        )
        lines.append(f"| **this run** | {ours} | |")
        for method, scores in table.scores.items():
            numbers = " | ".join(
                protocol.metrics[cell[1]].written(scores[cell]) if cell in scores else "–"
                for cell in cells
            )
            lines.append(f"| {method} | {numbers} | published: {table.source} |")
        lines.append("")
    if not lines:
        return []
    note = (
        f"All under `{protocol.name}`. What is published was computed by other code on the "
        "publishers' files, and rounded."
    )
    return ["## Beside published scores", "", note, "", *lines]


def _own(group: dict[str, Any], name: str, metric: Metric) -> str:
    numbers = group["metrics"].get(name)
    if numbers is None:
        return "–"
    return f"**{metric.written(numbers['mean'])}**{_incomplete_mark(group)}"


def _incomplete_mark(group: dict[str, Any]) -> str:
    """What stands behind a score over fewer images than there should be; else nothing."""
    if group["complete"]:
        return ""
    return f" (incomplete: {group['scored']} of {group['expected'] or group['images']})"


def comparison_table(scores: Sequence[str | Artifact], metrics: Sequence[str] = ()) -> str:
    """Markdown: finished scores below one another, datasets and metrics side by side.

    Args:
        metrics: default: the protocol's headline, and its second measure.

    Raises:
        ValueError: if they are of different protocols or of different data, or lack a metric.
    """
    artifacts = [load_artifact(s, KIND) if isinstance(s, str) else s for s in scores]
    summaries = [json.loads(artifact.store.read(artifact.path(SUMMARY))) for artifact in artifacts]
    _check_alike(artifacts, summaries)
    kinds = METRICS_OF_TASK[artifacts[0].details["task"]]
    chosen = tuple(metrics) or SHOWN_METRICS[artifacts[0].details["task"]]
    if unknown := [name for name in chosen if name not in kinds]:
        raise ValueError(f"no metric {unknown[0]!r}; there are {', '.join(kinds)}")
    cells = [(domain, metric) for domain in summaries[0]["domains"] for metric in chosen]
    heads = [f"{domain} {metric} {kinds[metric].arrow}" for domain, metric in cells]
    lines = [
        f"Protocol: {summaries[0]['protocol']}",
        "",
        f"| | {' | '.join(heads)} |",
        f"|---|{'---:|' * len(heads)}",
    ]
    for artifact, summary in zip(artifacts, summaries, strict=True):
        own = (_own(summary["domains"][domain], m, kinds[m]) for domain, m in cells)
        lines.append(f"| {artifact.uri} | {' | '.join(own)} |")
    return "\n".join(lines) + "\n"


def differences_table(scores: Sequence[str | Artifact], metrics: Sequence[str] = ()) -> str:
    """Markdown: by how much each of the scores differs from the first, over the same images.

    Raises:
        ValueError: as `paired_difference`.
    """
    first, *others = (load_artifact(s, KIND) if isinstance(s, str) else s for s in scores)
    chosen = tuple(metrics) or SHOWN_METRICS[first.details["task"]]
    lines = [
        f"Difference to {first.uri}, mean and 95 % interval of a paired bootstrap over images:",
        "",
        f"| | {' | '.join(chosen)} |",
        f"|---|{'---:|' * len(chosen)}",
    ]
    for other in others:
        cells = (paired_difference(other, first, metric) for metric in chosen)
        own = " | ".join(f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]" for mean, low, high in cells)
        lines.append(f"| {other.uri} | {own} |")
    return "\n".join(lines) + "\n"


def _check_alike(artifacts: Sequence[Artifact], summaries: Sequence[dict[str, Any]]) -> None:
    if not summaries:
        raise ValueError("no scores to compare")
    first, one = artifacts[0].uri, summaries[0]
    for artifact, other in zip(artifacts[1:], summaries[1:], strict=True):
        if other["protocol"] != one["protocol"]:
            raise ValueError(
                f"{first} was scored with {one['protocol']}, {artifact.uri} with "
                f"{other['protocol']}: scores of different protocols do not belong in one table"
            )
        digests = [sorted(entry["digest"] for entry in summary["data"]) for summary in (one, other)]
        if digests[0] != digests[1]:
            raise ValueError(f"{first} and {artifact.uri} were scored on different data")
