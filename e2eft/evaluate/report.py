"""The scores as a page of Markdown, and the choice of images worth a look."""

from __future__ import annotations

from typing import Any

from e2eft.evaluate.protocols import Metric, ScoringProtocol
from e2eft.evaluate.scores import SCORED
from e2eft.evaluate.tables import compared_to_published

REPORT = "report.md"
_SHOWN_PROBLEMS = 20


def chosen_images(
    rows: list[dict[str, Any]], protocol: ScoringProtocol, count: int
) -> dict[str, int]:
    """Places in `rows` of the worst and of the middle images by the headline, by picture name."""
    worst_last = -1 if not protocol.metrics[protocol.headline].lower_is_better else 1
    scored = [place for place, row in enumerate(rows) if row["status"] == SCORED]
    scored.sort(key=lambda place: worst_last * rows[place][protocol.headline])
    middle = max(0, (len(scored) - count) // 2)
    worst, median = scored[::-1][:count], scored[middle : middle + count]
    named = {f"worst-{number}": place for number, place in enumerate(worst, 1)}
    return named | {f"median-{number}": place for number, place in enumerate(median, 1)}


def write_report(summary: dict[str, Any], protocol: ScoringProtocol, pictures: list[str]) -> str:
    """Markdown: a table of metrics by domain, what was not scored, and links to the pictures."""
    groups = {**summary["domains"], "overall": summary["overall"]}
    if len(summary["domains"]) == 1:
        del groups["overall"]
    lines = [
        f"# Scores: {protocol.task}, {protocol.terms}",
        "",
        *_incomplete(summary),
        *(f"- data: `{entry['uri']}` ({entry['digest'][:12]})" for entry in summary["data"]),
        *(f"- labels: `{entry['uri']}` ({entry['digest'][:12]})" for entry in summary["labels"]),
        "",
        f"Mean over {'all pixels' if protocol.statistics else 'images'} with its 95 % bootstrap "
        "interval over images; *constant* is the best prediction that looks at nothing, on the "
        "same images.",
        "",
        *_table(groups, protocol),
        "",
        *compared_to_published(summary, protocol),
        *_problems(summary),
        *(f"![{path}]({path})" for path in pictures),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _table(groups: dict[str, Any], protocol: ScoringProtocol) -> list[str]:
    heads = [f"{name} ({_coverage(group)})" for name, group in groups.items()]
    columns = [cell for head in heads for cell in (head, "*constant*")]
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, metric in protocol.metrics.items():
        cells: list[str] = []
        for group in groups.values():
            numbers = group["metrics"].get(name)
            cells += (
                [_interval(numbers, metric), _constant(numbers, metric)] if numbers else ["–", "–"]
            )
        lines.append(f"| {name} {metric.arrow} | {' | '.join(cells)} |")
    return lines


def _incomplete(summary: dict[str, Any]) -> list[str]:
    short = [name for name, group in summary["domains"].items() if not group["complete"]]
    if not short:
        return []
    return [
        f"**Incomplete: {', '.join(short)}.** Images are missing, or their predictions could not "
        "be scored: not to be set beside scores of all images.",
        "",
    ]


def _coverage(group: dict[str, Any]) -> str:
    mark = "" if group["complete"] else ", incomplete"
    return f"{group['scored']} of {max(group['images'], group['expected'] or 0)}{mark}"


def _constant(numbers: dict[str, float], metric: Metric) -> str:
    return metric.written(numbers["constant"]) if "constant" in numbers else "–"


def _interval(numbers: dict[str, float], metric: Metric) -> str:
    low, high = (metric.written(numbers[end], unit=False) for end in ("low", "high"))
    return f"**{metric.written(numbers['mean'])}** [{low}, {high}]"


def _problems(summary: dict[str, Any]) -> list[str]:
    counts = summary["overall"]["not_scored"]
    if not counts:
        return []
    listed = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in counts.items())
    lines = ["## Not scored", "", listed, ""]
    shown = summary["problems"][:_SHOWN_PROBLEMS]
    lines += [f"- `{row['key']}`: {row['status']}, {row['detail']}" for row in shown]
    more = len(summary["problems"]) - len(shown)
    return [*lines, *([f"- and {more} more in scores.json"] if more > 0 else []), ""]
