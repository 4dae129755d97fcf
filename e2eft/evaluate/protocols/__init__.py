"""Named protocols: what one image's scores are, and how the scores of many become one number.

Numbers of two protocols are never compared. What a protocol says of a dataset stands in the
dataset's file; how a protocol is added is in docs/extending/protocol.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import get_args

from e2eft.config import EvaluateConfig, ProtocolName
from e2eft.evaluate.protocols.base import Departure, Means, Metric, ScoringProtocol
from e2eft.evaluate.protocols.depth import DepthProtocol
from e2eft.evaluate.protocols.least_squares import (
    LeastSquaresDepth,
    LeastSquaresDisparity,
    LeastSquaresLogDepth,
    LeastSquaresOwnSpace,
)
from e2eft.evaluate.protocols.normals import NormalsProtocol, PerImageMean, PooledPixels
from e2eft.evaluate.protocols.ransac import RansacLogDepth
from e2eft.evaluate.protocols.windows import UnfitFrameError

__all__ = [
    "PROTOCOLS",
    "Departure",
    "LeastSquaresDepth",
    "LeastSquaresDisparity",
    "LeastSquaresLogDepth",
    "LeastSquaresOwnSpace",
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
    found = tuple(kind for kind in PROTOCOLS.values() if kind.task == task)
    if not found:
        raise ValueError(f"no protocol scores {task}")
    return found


def _named(base: type[DepthProtocol] | type[NormalsProtocol]) -> Iterator[type[ScoringProtocol]]:
    """The protocols below a base: its subclasses that have a name of their own."""
    for kind in base.__subclasses__():
        if "name" in vars(kind):
            yield kind
        yield from _named(kind)


_BY_NAME = {kind.name: kind for base in (DepthProtocol, NormalsProtocol) for kind in _named(base)}
PROTOCOLS: dict[str, type[ScoringProtocol]] = {
    name: _BY_NAME[name] for name in get_args(ProtocolName)
}
"""By name, in the order of `ProtocolName`: of each task, the first is the default."""


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
    return fitting[name].of(config, sources, departures)
