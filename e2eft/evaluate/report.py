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
    """Places in `rows` of the worst and of the middle images by the primary metric, by the names of
    their pictures."""
    worst_last = -1 if not protocol.metrics[protocol.primary_metric].lower_is_better else 1
    scored = [place for place, row in enumerate(rows) if row["status"] == SCORED]
    scored.sort(key=lambda place: worst_last * rows[place][protocol.primary_metric])
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
        f"# Scores: {protocol.task}, {protocol.full_name}",
        "",
        *_incomplete(summary),
        *_departed(protocol),
        *_asked(inversion(summary, protocol)),
        *(f"- data: `{entry['uri']}` ({entry['digest'][:12]})" for entry in summary["data"]),
        *(
            f"- labels: `{entry['uri']}` ({entry['digest'][:12]}){_how_made(entry)}"
            for entry in summary["labels"]
        ),
        "",
        f"Mean over {'all pixels' if protocol.statistics else 'images'} with its 95 % bootstrap "
        "interval over images; *constant* is what a prediction gets that looks at nothing, on "
        "the same images.",
        *_undefined(groups, protocol),
        "",
        *_table(groups, protocol),
        "",
        *compared_to_published(summary, protocol),
        *_problems(summary),
        *(f"![{path}]({path})" for path in pictures),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _how_made(labels: dict[str, Any]) -> str:
    if "sampling" not in labels:
        return ""
    steps, size = labels["sampling"]["steps"], labels.get("processing_size")
    at = f"longest side {size} px" if size else "each image at its own size"
    return f": {steps} step{'s' * (steps > 1)}, {labels['sampling']['spacing']}, {at}"


def _table(groups: dict[str, Any], protocol: ScoringProtocol) -> list[str]:
    heads = [f"{name} ({_coverage(group)})" for name, group in groups.items()]
    columns = [cell for head in heads for cell in (head, "*constant*")]
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name, metric in protocol.metrics.items():
        cells: list[str] = []
        for group in groups.values():
            numbers = group["metrics"].get(name)
            if numbers is None:
                cells += ["–", "–"]
                continue
            cells.append(_interval(numbers, metric) + _defined_on(numbers, group))
            cells.append(_constant(numbers, metric))
        lines.append(f"| {name} {metric.arrow} | {' | '.join(cells)} |")
    return lines


def _undefined(groups: dict[str, Any], protocol: ScoringProtocol) -> list[str]:
    """What a dash and a number of images behind a score say, where there are any."""
    scored = [group for group in groups.values() if group["scored"]]
    if all(len(group["metrics"]) == len(protocol.metrics) for group in scored) and not any(
        _defined_on(numbers, group) for group in scored for numbers in group["metrics"].values()
    ):
        return []
    return [
        "A metric that is not defined on every image (boundaries where the truth has no edge, say) "
        "is a mean over those where it is; – where there are none."
    ]


def _incomplete(summary: dict[str, Any]) -> list[str]:
    short = [name for name, group in summary["domains"].items() if not group["complete"]]
    if not short:
        return []
    return [
        f"**Incomplete: {', '.join(short)}.** Images are missing, or their predictions could not "
        "be scored: not to be set beside scores of all images.",
        "",
    ]


def _departed(protocol: ScoringProtocol) -> list[str]:
    if not protocol.departures:
        return []
    return [
        f"**Not the benchmark's data: {', '.join(map(str, protocol.departures))}.** Not to be set "
        "beside scores of the benchmark.",
        "",
    ]


def _asked(question: str) -> list[str]:
    return [f"**{question[0].upper()}{question[1:]}**", ""] if question else []


def inversion(summary: dict[str, Any], protocol: ScoringProtocol) -> str:
    """What to ask where the fit turns most predictions upside down, as it does without a word; ""
    where it does not."""
    count, scored = summary["overall"]["inverted"], summary["overall"]["scored"]
    if 2 * count <= scored:
        return ""
    turned, kind = protocol.upside_down
    return f"{turned} in {count} of {scored} images: is it {kind}? see --labels-kind"


def _coverage(group: dict[str, Any]) -> str:
    mark = "" if group["complete"] else ", incomplete"
    return f"{group['scored']} of {max(group['images'], group['expected'] or 0)}{mark}"


def _constant(numbers: dict[str, float], metric: Metric) -> str:
    return metric.written(numbers["constant"]) if "constant" in numbers else "–"


def _interval(numbers: dict[str, float], metric: Metric) -> str:
    mean = f"**{metric.written(numbers['mean'])}**"
    if "low" not in numbers:
        return f"{mean} (one image has no interval)"
    low, high = (metric.written(numbers[end], unit=False) for end in ("low", "high"))
    return f"{mean} [{low}, {high}]"


def _defined_on(numbers: dict[str, float], group: dict[str, Any]) -> str:
    """On how many of the scored images a metric is defined, if not on all."""
    images = numbers.get("images", group["scored"])
    return f" ({images} of {group['scored']} images)" if images < group["scored"] else ""


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
