"""Tables of scores under one protocol: beside what was published, and beside one another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isnan
from typing import Any

from e2eft.artifacts import Artifact, load_artifact
from e2eft.evaluate.protocols import Metric, ScoringProtocol, protocols_of
from e2eft.evaluate.published import neighbours, published_rows
from e2eft.evaluate.scores import KIND, SUMMARY, paired_difference


def compared_to_published(summary: dict[str, Any], protocol: ScoringProtocol) -> list[str]:
    """Lines of Markdown: this run's benchmarks above what was published of them; none if nothing
    was. A benchmark of which images are missing, or were seen at another size, is marked; one of
    other data is left out."""
    departed = {departure.source for departure in protocol.departures}
    shown = [name for name in summary["domains"] if name not in departed]
    known = [row for row in published_rows() if row.protocol == protocol.name]
    cells = [
        cell
        for cell in dict.fromkeys(cell for row in known for cell in row.scores)
        if cell[0] in shown
    ]
    if not cells:
        return []
    metrics = protocol.metrics
    heads = [f"{dataset} {metric} {metrics[metric].arrow}" for dataset, metric in cells]
    ours = " | ".join(_own(summary["domains"][name], m, metrics[m]) for name, m in cells)
    lines = [
        f"| | {' | '.join(heads)} | |",
        f"|---|{'---:|' * len(heads)}---|",
        f"| **this run** | {ours} | |",
    ]
    for row in known:
        if row.scores.keys() & set(cells):
            numbers = " | ".join(
                metrics[cell[1]].written(row.scores[cell]) if cell in row.scores else "–"
                for cell in cells
            )
            lines.append(f"| {row.method} | {numbers} | published: {row.source} |")
    note = (
        f"All under `{protocol.name}`. What is published was computed by other code on the "
        "publishers' files, and rounded."
    )
    lines.append("")
    for name in shown:
        if remark := protocol.remark(name):
            lines += [f"{name}: {remark}.", ""]
    return ["## Beside published scores", "", note, "", *lines, *_not_beside(protocol.name)]


def _not_beside(protocol: str) -> list[str]:
    """What a reader would look for in vain, and why: scores of protocols easily taken for this."""
    lines: list[str] = []
    for other in neighbours():
        if other.resembles == protocol:
            methods = ", ".join(other.methods)
            said = f"{methods} in {other.source}: `{other.name}` ({other.differs})"
            lines += [f"Not beside it, being under another protocol: {said}.", ""]
    return lines


def _own(group: dict[str, Any], name: str, metric: Metric) -> str:
    numbers = group["metrics"].get(name)
    if numbers is None:
        return "–"
    return f"**{metric.written(numbers['mean'])}**{_mark(group)}"


def _mark(group: dict[str, Any]) -> str:
    """What stands behind a score over fewer images than there should be, or of images that a model
    saw at another size than the protocol's; else nothing."""
    # Scores of before have no word about sizes.
    said = list(group.get("seen_otherwise", ()))
    if not group["complete"]:
        said.insert(0, f"incomplete: {group['scored']} of {group['expected'] or group['images']}")
    return f" ({'; '.join(said)})" if said else ""


def comparison_table(scores: Sequence[str | Artifact], metrics: Sequence[str] = ()) -> str:
    """Markdown: finished scores below one another, datasets and metrics side by side.

    Args:
        metrics: default: the protocol's primary metric, and its second measure.

    Raises:
        ValueError: if they are of different protocols or of different data, or lack a metric.
    """
    artifacts = [load_artifact(s, KIND) if isinstance(s, str) else s for s in scores]
    summaries = [json.loads(artifact.store.read(artifact.path(SUMMARY))) for artifact in artifacts]
    _check_alike(artifacts, summaries)
    protocols = protocols_of(artifacts[0].details["task"])
    kinds = {name: metric for one in protocols for name, metric in one.metrics.items()}
    chosen = tuple(metrics) or protocols[0].printed
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
    chosen = tuple(metrics) or protocols_of(first.details["task"])[0].printed
    lines = [
        f"Difference to {first.uri}, mean and 95 % interval of a paired bootstrap over images:",
        "",
        f"| | {' | '.join(chosen)} |",
        f"|---|{'---:|' * len(chosen)}",
    ]
    for other in others:
        cells = (paired_difference(other, first, metric) for metric in chosen)
        own = " | ".join(_difference(*cell) for cell in cells)
        lines.append(f"| {other.uri} | {own} |")
    return "\n".join(lines) + "\n"


def _difference(mean: float, low: float, high: float) -> str:
    if isnan(low):
        return f"{mean:+.4f} (one image has no interval)"
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"


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
