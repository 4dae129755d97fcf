"""Named protocols: what one image's scores are, and how the scores of many become one number.

Numbers of two protocols are never compared. `rules` says what each protocol does with each
benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence

from e2eft.config import EvaluateConfig
from e2eft.evaluate.protocols.base import NATIVE, Departure, Means, Metric, ScoringProtocol
from e2eft.evaluate.protocols.depth import (
    LeastSquaresDepth,
    LeastSquaresDisparity,
    RansacLogDepth,
)
from e2eft.evaluate.protocols.normals import PerImageMean, PooledPixels
from e2eft.evaluate.protocols.rules import FRAME_SIZES, SCORED_AS, UnfitFrameError

PROTOCOLS: tuple[type[ScoringProtocol], ...] = (
    LeastSquaresDepth,
    LeastSquaresDisparity,
    RansacLogDepth,
    PerImageMean,
    PooledPixels,
)
"""The first of a task is its default."""

__all__ = [
    "FRAME_SIZES",
    "NATIVE",
    "SCORED_AS",
    "Departure",
    "LeastSquaresDepth",
    "LeastSquaresDisparity",
    "Means",
    "Metric",
    "PerImageMean",
    "PooledPixels",
    "RansacLogDepth",
    "ScoringProtocol",
    "UnfitFrameError",
    "protocol_of",
    "protocols_of",
]


def protocols_of(task: str) -> tuple[type[ScoringProtocol], ...]:
    """Those that score a task, its default first.

    Raises:
        ValueError: if there is none.
    """
    found = tuple(kind for kind in PROTOCOLS if kind.task == task)
    if not found:
        raise ValueError(f"no protocol scores {task}")
    return found


def protocol_of(
    config: EvaluateConfig, sources: Sequence[str] = (), departures: tuple[Departure, ...] = ()
) -> ScoringProtocol:
    """The protocol that a configuration names, or its task's own.

    Args:
        sources: the datasets to be scored, as `Sample.source` calls them.
        departures: see `ScoringProtocol`.

    Raises:
        ValueError: if the named protocol belongs to another task, or the task has none.
    """
    fitting = {kind.name: kind for kind in protocols_of(config.task)}
    name = config.protocol or next(iter(fitting))
    if name not in fitting:
        raise ValueError(
            f"--protocol {name} does not score {config.task}; use {' or '.join(fitting)}"
        )
    return fitting[name].configured(config, sources, departures)
