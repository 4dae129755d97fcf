"""Statistics of the pixels of all images at once, merged from what is kept of each image.

Sufficient for every metric: the number of an image's pixels, its mean, root mean square and
percentages, and a histogram of its angles. Sums over images are exact (`math.fsum`, whole numbers),
so neither order nor partition matters. The median is read off the merged histogram, to 0.01°; its
bootstrap interval off bins of 0.1°.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from e2eft.evaluate.protocols.base import Means
from e2eft.metrics.bootstrap import bootstrap_means

BIN_DEG, COARSE = 0.01, 10
BINS = round(180 / BIN_DEG)
_LEVELS = (0.025, 0.975)


def angle_histogram(angles_deg: np.ndarray) -> bytes:
    """Counts of angles in [0, 180] by bins of `BIN_DEG`, packed for the table."""
    bins = np.minimum((angles_deg / BIN_DEG).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS).astype("<u4")
    return pa.Codec("zstd").compress(counts.tobytes(), asbytes=True)


def unpack_histogram(packed: bytes) -> np.ndarray:
    """The inverse of `angle_histogram`: uint32 `[BINS]`."""
    raw = pa.Codec("zstd").decompress(packed, decompressed_size=4 * BINS, asbytes=True)
    return np.frombuffer(raw, "<u4")


def histogram_median_deg(counts: np.ndarray, bin_deg: float) -> np.ndarray:
    """The angle below which half of the counts lie, angles within a bin taken as evenly spread.

    Args:
        counts: `[... bins]`, not all zero.
    """
    total = counts.cumsum(axis=-1)
    half = total[..., -1:] / 2
    bins = (total < half).sum(axis=-1, keepdims=True)
    inside = np.take_along_axis(counts, bins, axis=-1)
    below = np.take_along_axis(total, bins, axis=-1) - inside
    return ((bins + (half - below) / inside) * bin_deg)[..., 0]


def pooled_over_pixels(
    rows: list[dict[str, Any]], metrics: Iterable[str], prefix: str, resamples: int
) -> Means:
    """See `ScoringProtocol.summarize`. The interval is of resampled images, not of pixels."""
    pixels = np.array([row["pixels"] for row in rows], np.float64)
    resamples = resamples if len(rows) > 1 else 0
    whole = math.fsum(pixels)
    counted = bootstrap_means(pixels[:, None], resamples)[:, 0] if resamples else None
    means: Means = {}
    for name in metrics:
        if name == "median_deg":
            means[name] = _pooled_median(rows, prefix, resamples) | {"images": len(rows)}
            continue
        values = np.array([row[prefix + name] for row in rows], np.float64)
        square = name == "rmse_deg"
        sums = pixels * (values**2 if square else values)
        mean = math.fsum(sums) / whole
        numbers = {"mean": math.sqrt(mean) if square else mean, "images": len(rows)}
        if counted is not None:
            resampled = bootstrap_means(sums[:, None], resamples)[:, 0] / counted
            ends = np.quantile(np.sqrt(resampled) if square else resampled, _LEVELS)
            numbers |= dict(zip(("low", "high"), map(float, ends), strict=True))
        means[name] = numbers
    return means


def _pooled_median(rows: list[dict[str, Any]], prefix: str, resamples: int) -> dict[str, float]:
    merged = np.zeros(BINS, np.uint64)
    coarse = np.empty((len(rows), BINS // COARSE), np.float32)
    for number, row in enumerate(rows):
        counts = unpack_histogram(row[f"{prefix}histogram"])
        merged += counts
        coarse[number] = counts.reshape(-1, COARSE).sum(axis=1)
    numbers = {"mean": float(histogram_median_deg(merged.astype(np.float64), BIN_DEG))}
    if resamples:
        resampled = histogram_median_deg(bootstrap_means(coarse, resamples), BIN_DEG * COARSE)
        ends = np.quantile(resampled, _LEVELS)
        numbers |= dict(zip(("low", "high"), map(float, ends), strict=True))
    return numbers
