"""Named protocols: what one image's scores are, and how the scores of many become one number.

Numbers of two protocols are never compared. `rules` says what each protocol does with each
benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence

from e2eft.config import EvaluateConfig
from e2eft.evaluate.protocols.base import NATIVE, Departure, Means, Metric, ScoringProtocol
from e2eft.evaluate.protocols.depth import (
    DepthProtocol,
    LeastSquaresDepth,
    LeastSquaresDisparity,
    RansacLogDepth,
)
from e2eft.evaluate.protocols.normals import NormalsProtocol, PerImageMean, PooledPixels
from e2eft.evaluate.protocols.rules import FRAME_SIZES, SCORED_AS, UnfitFrameError

DEPTH: tuple[type[DepthProtocol], ...] = (LeastSquaresDepth, LeastSquaresDisparity, RansacLogDepth)
NORMALS: tuple[type[NormalsProtocol], ...] = (PerImageMean, PooledPixels)
"""The first is the default of its task."""

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
]


def protocol_of(
    config: EvaluateConfig, sources: Sequence[str] = (), departures: tuple[Departure, ...] = ()
) -> ScoringProtocol:
    """The protocol that a configuration names, or its task's own.

    Args:
        sources: the datasets to be scored, as `Sample.source` calls them.
        departures: see `ScoringProtocol`.

    Raises:
        ValueError: if the named protocol belongs to another task.
    """
    fitting = {kind.name: kind for kind in (DEPTH if config.task == "depth" else NORMALS)}
    name = config.protocol or next(iter(fitting))
    if name not in fitting:
        raise ValueError(
            f"--protocol {name} does not score {config.task}; use {' or '.join(fitting)}"
        )
    kind = fitting[name]
    if not issubclass(kind, DepthProtocol):
        return kind(departures)
    known = bool(sources) and all(source in kind.rules for source in sources)
    return kind(config.max_depth_m, known, departures)
