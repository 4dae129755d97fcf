"""The scores of an artifact: one row an image, means with intervals, and paired comparisons."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from e2eft.artifacts import Artifact, load_artifact
from e2eft.evaluate.protocols import ScoringProtocol
from e2eft.metrics.bootstrap import weighted_mean_interval

KIND = "scores"
TABLE = "scores/per_image.parquet"
SUMMARY = "scores.json"
SCORED, NOT_APPLICABLE, TOO_FEW = "scored", "nothing_to_score", "too_few_pixels"
"""Status of an image with scores, and of one whose truth has no pixel in the protocol's range, or
too few to tell anything."""
UNFIT = "unfit_frame"
"""Status of an image that cannot be of its dataset, which is incomplete without it."""
TRUTHS_FAULT = (NOT_APPLICABLE, TOO_FEW)
"""Status of images that lack a score whatever is predicted."""
BASELINE = "constant_"
"""Prefix of the columns that hold the constant baseline's scores."""
LISTED_PROBLEMS = 1000
NOT_AN_AVERAGE = ("median_deg", "rmse_deg")
TEXT_COLUMNS = ("dataset", "key", "scene", "domain", "protocol", "status", "detail")


def empty_row(protocol: ScoringProtocol) -> dict[str, Any]:
    """A row of the table before anything is known; NaN stands for no score."""
    row: dict[str, Any] = dict.fromkeys(TEXT_COLUMNS, "")
    row |= {"protocol": protocol.full_name, "pixels": 0, "inverted": False}
    for prefix in ("", BASELINE):
        row |= {f"{prefix}{name}": float("nan") for name in protocol.metrics}
        row |= {f"{prefix}{name}": kind() for name, kind in protocol.statistics.items()}
    return row


def encode_table(rows: list[dict[str, Any]], protocol: ScoringProtocol) -> bytes:
    """Rows as Parquet, in the order given; a score that is not there is null."""
    columns: dict[str, pa.Array] = {
        name: pa.array([row[name] for row in rows], pa.string()) for name in TEXT_COLUMNS
    }
    columns["pixels"] = pa.array([row["pixels"] for row in rows], pa.int64())
    columns["inverted"] = pa.array([row["inverted"] for row in rows], pa.bool_())
    for prefix in ("", BASELINE):
        for name in protocol.metrics:
            column = np.array([row[prefix + name] for row in rows], np.float64)
            columns[prefix + name] = pa.array(column, pa.float64(), mask=~np.isfinite(column))
        for name, kind in protocol.statistics.items():
            values = [row[prefix + name] for row in rows]
            columns[prefix + name] = pa.array(
                values, pa.binary() if kind is bytes else pa.float64()
            )
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def summarize(
    rows: list[dict[str, Any]], protocol: ScoringProtocol, resamples: int
) -> dict[str, Any]:
    """Scores of every domain and of all images, with intervals, beside the constant baseline's.

    `complete` is False if any image lacks a score for a reason that lies with its prediction, or if
    there are fewer images of a benchmark than the protocol counts. Rows may come in any order.
    """
    rows = sorted(rows, key=lambda row: (row["domain"], row["key"]))  # draws go by place
    domains = sorted({row["domain"] for row in rows})
    groups = {
        name: _summarize_group(
            [row for row in rows if row["domain"] == name],
            protocol,
            resamples,
            protocol.expected(name),
        )
        for name in domains
    }
    counts = [group["expected"] for group in groups.values()]
    whole = sum(counts) if all(count is not None for count in counts) else None
    problems = [row for row in rows if row["status"] != SCORED]
    listed = ("dataset", "key", "status", "detail")
    return {
        "protocol": protocol.full_name,
        "headline": protocol.primary_metric,
        "complete": all(group["complete"] for group in groups.values()),
        "overall": _summarize_group(rows, protocol, resamples, whole),
        "domains": groups,
        "problems": [{name: row[name] for name in listed} for row in problems[:LISTED_PROBLEMS]],
    }


def _summarize_group(
    rows: list[dict[str, Any]], protocol: ScoringProtocol, resamples: int, expected: int | None
) -> dict[str, Any]:
    scored = [row for row in rows if row["status"] == SCORED]
    counts = Counter(row["status"] for row in rows if row["status"] != SCORED)
    metrics: dict[str, dict[str, float]] = {}
    if scored:
        metrics = protocol.summarize(scored, "", resamples)
        for name, numbers in protocol.summarize(scored, BASELINE, 0).items():
            if name in metrics:
                metrics[name]["constant"] = numbers["mean"]
    wanting = sum(count for status, count in counts.items() if status not in TRUTHS_FAULT)
    return {
        "images": len(rows),
        "expected": expected,
        "scored": len(scored),
        "inverted": sum(row["inverted"] for row in scored),
        "complete": not wanting and len(rows) >= (expected or 0),
        "not_scored": dict(sorted(counts.items())),
        "metrics": metrics,
    }


def data_digest(digests: list[str]) -> str:
    """One digest for a set of shards, whatever the order they were given in."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class PrimaryScore:
    """The number by which a model is judged, and what has to be equal to compare it."""

    metric_name: str
    value: float
    lower_is_better: bool
    protocol: str
    data_digest: str
    complete: bool


def primary_score(scores: Artifact) -> PrimaryScore:
    """The primary metric's score in a scores artifact."""
    return PrimaryScore(**scores.details["headline"])


def read_table(scores: str | Artifact) -> tuple[Artifact, pa.Table]:
    """A scores artifact (or its URI, or its table's URI) and its rows.

    Raises:
        ArtifactError: if there is no scores artifact.
    """
    if isinstance(scores, str):
        scores = load_artifact(scores.removesuffix(f"/{TABLE}"), KIND)
    return scores, pq.read_table(io.BytesIO(scores.store.read(scores.path(TABLE))))


def paired_difference(
    a: str | Artifact, b: str | Artifact, metric: str, *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of a - b over the same images (over their pixels, for a protocol that pools them), with
    its 95 % interval from a paired bootstrap over images.

    The interval is of the difference: it is narrower than either score's own, because hard images
    are hard for both. An interval without 0 says that the two differ, on images like these.

    Returns:
        (mean, low, high), in the metric's unit. One image has no interval: low and high are NaN.

    Raises:
        ValueError: for scores of different protocols or of different images, or an unknown metric.
    """
    (first, rows_a), (second, rows_b) = read_table(a), read_table(b)
    terms_a, terms_b = (scores.details["protocol"] for scores in (first, second))
    if terms_a != terms_b:
        raise ValueError(
            f"{first.uri} was scored with {terms_a}, {second.uri} with {terms_b}: scores of "
            "different protocols are not comparable"
        )
    for scores in (first, second):
        if metric not in scores.details["metrics"]:
            known = ", ".join(scores.details["metrics"])
            raise ValueError(f"no metric {metric!r} in {scores.uri}; it has {known}")
    if first.details.get("pooled") and metric in NOT_AN_AVERAGE:
        raise ValueError(
            f"{metric} over all pixels is no average over images, so it has no paired difference"
        )
    values_a, values_b = _values_of(first, rows_a, metric), _values_of(second, rows_b, metric)
    if values_a.keys() != values_b.keys():
        only_a, only_b = values_a.keys() - values_b.keys(), values_b.keys() - values_a.keys()
        raise ValueError(
            f"the scores are of different images: {_some(only_a)} only in {first.uri}, "
            f"{_some(only_b)} only in {second.uri}"
        )
    images = sorted(values_a)
    pairs = np.array([values_a[image] - values_b[image] for image in images])
    pooled = first.details.get("pooled")
    pixels = _values_of(first, rows_a, "pixels") if pooled else dict.fromkeys(images, 1.0)
    weights = np.array([pixels[image] for image in images], np.float64)
    return weighted_mean_interval(pairs, weights, resamples, seed)


def _values_of(scores: Artifact, rows: pa.Table, metric: str) -> dict[tuple[str, str], float]:
    """The metric of every scored image, by its dataset's digest (not its place) and its key."""
    digests = {parent.uri: parent.digest for parent in scores.parents if parent.role == "data"}
    columns = (rows.column(name).to_pylist() for name in ("dataset", "key", metric))
    values = zip(*columns, strict=True)
    return {(digests[uri], key): value for uri, key, value in values if value is not None}


def _some(images: set[tuple[str, str]]) -> str:
    keys = sorted(key for _, key in images)
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{', '.join(keys[:3])}{more}" if keys else "none"
