"""Means over images, each image weighing the same, with their bootstrap intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from e2eft.evaluate.protocols.base import Means
from e2eft.metrics.bootstrap import mean_interval


def mean_over_images(
    rows: list[dict[str, Any]], metrics: Iterable[str], prefix: str, resamples: int
) -> Means:
    """See `ScoringProtocol.summarize`. An image where a metric is not defined is left out of it."""
    columns = {name: np.array([row[prefix + name] for row in rows], float) for name in metrics}
    alike: dict[bytes, list[str]] = defaultdict(list)
    for name, values in columns.items():
        alike[np.isfinite(values).tobytes()].append(name)
    means: Means = {}
    for defined, names in alike.items():
        mask = np.frombuffer(defined, bool)
        if not mask.any():
            continue
        values = np.stack([columns[name][mask] for name in names], axis=1)
        one = len(values) == 1
        ends = (values.mean(axis=0),) if one or not resamples else mean_interval(values, resamples)
        for name, *numbers in zip(names, *ends, strict=True):
            # The mean alone, or with its interval.
            known = dict(zip(("mean", "low", "high"), map(float, numbers), strict=False))
            means[name] = known | {"images": int(mask.sum())}
    return {name: means[name] for name in columns if name in means}
