"""How sure a mean over images is: percentile bootstrap, seeded, with numpy alone.

The interval answers for the choice of images only. Images of one scene count as independent, so
where scenes are few the truth is less certain than the interval says.

Shape symbols: ``n`` images, ``m`` metrics, ``r`` resamples.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

_CHUNK_ENTRIES = 4_000_000


def bootstrap_means(
    values: Float[np.ndarray, "n m"], resamples: int, seed: int = 0
) -> Float64[np.ndarray, "r m"]:
    """Means of `resamples` draws of n rows with replacement (Efron 1979), the same in every column.

    Args:
        values: finite; one row an image, one column a metric.

    Raises:
        ValueError: for no rows, no resamples or a value that is not finite.
    """
    rows = len(values)
    if not rows or resamples < 1:
        raise ValueError(f"{rows} images and {resamples} resamples: both must be at least 1")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite: leave out the images that have no score")
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, rows])))
    means = np.empty((resamples, values.shape[1]), np.float64)
    step = max(1, _CHUNK_ENTRIES // rows)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        # How often each image is drawn, not which: so the means are one matrix product.
        drawn = generator.multinomial(rows, np.full(rows, 1 / rows), size=count)  # [count n]
        means[start : start + count] = drawn @ values.astype(np.float64) / rows
    return means


def mean_interval(
    values: Float[np.ndarray, "n m"], resamples: int, seed: int = 0, level: float = 0.95
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """(mean, low, high) of each column: the central `level` of the bootstrapped means. Of one row
    it is no interval, but the row.

    Raises:
        ValueError: as `bootstrap_means`, or if `level` is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a fraction between 0 and 1")
    means = bootstrap_means(values, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return values.astype(np.float64).mean(axis=0), low, high


def weighted_mean_interval(
    values: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    resamples: int,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """(mean, low, high) of ``sum w v / sum w``, rows being drawn together with their weights; NaN
    for the interval of one row.

    Raises:
        ValueError: as `mean_interval`, or for weights that are not positive.
    """
    if not (weights > 0).all():
        raise ValueError("weights must be positive")
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a fraction between 0 and 1")
    if len(values) == 1:
        return float(values[0]), float("nan"), float("nan")
    sums = bootstrap_means(np.stack([weights * values, weights], axis=1), resamples, seed)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [(1 - level) / 2, (1 + level) / 2])
    return float((weights * values).sum() / weights.sum()), float(low), float(high)
