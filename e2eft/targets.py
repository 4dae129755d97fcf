"""Spaces in which depth is learned and labelled: what a value in [0, 1] is affine in.

A model of depth is trained on a monotonic function of it, each image's own quantiles of which are
mapped to the ends of the model's range; so a prediction is known up to a scale and a shift *in that
space*, and has to be fitted to the truth there. Which space it is belongs to a model as much as its
weights, and goes along with it as data: `as_json` of a target in its card, in the manifest and the
files of its labels; `target_of` is the inverse.

Functions take arrays of numpy or tensors of torch, of any shape, and need neither to be installed
but for what they are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, TypeVar, get_args

A = TypeVar("A")
"""An array or tensor of floats."""

NEGLIGIBLE_M = 1e-3
SMALLEST = 1e-9
"""In place of values of no depth (zero, or below it) where a space is left for depth."""


@dataclass(frozen=True, kw_only=True)
class _Space:
    """low, high: quantiles of an image's supervised values that become 0 and 1."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    task: ClassVar[str] = "depth"
    nearest_is_least: ClassVar[bool] = True
    """Whether values grow with depth."""
    space: ClassVar[str]
    """See `values`."""

    low: float = 0.02
    high: float = 0.98

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"low {self.low:g}, high {self.high:g}: expected 0 <= low < high <= 1")

    @property
    def values(self) -> str:
        """What labels call what they are affine in."""
        return self.space

    @property
    def ends(self) -> str:
        """What 0 and 1 are."""
        return "0 near 1 far" if self.nearest_is_least else "0 far 1 near"

    @property
    def phrase(self) -> str:
        """For people."""
        return f"affine-invariant {self.values.replace('-', ' ')}, {self.ends}"

    def as_json(self) -> dict[str, Any]:
        """Itself as data, for `target_of`."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class LinearDepth(_Space):
    """Depth itself: the paper's and Marigold v1's."""

    space: ClassVar[str] = "linear-depth"
    kind: Literal["linear"] = "linear"

    def of_depth(self, depth_m: A) -> A:
        """Values of depth in metres, which is positive."""
        return depth_m

    def to_depth(self, values: A) -> A:
        """Depth in metres of values; the inverse of `of_depth`."""
        return values


@dataclass(frozen=True, kw_only=True)
class LogDepth(_Space):
    """The natural logarithm of depth + eps_m: near and far errors weigh by their ratio. Marigold V2
    (arXiv 2609.08084) has 1e-6; eps_m of metres spends less of the range on what is very near."""

    space: ClassVar[str] = "log-depth"
    kind: Literal["log"] = "log"
    eps_m: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eps_m < float("inf"):
            raise ValueError(f"eps_m {self.eps_m:g}: expected metres, 0 or more")

    @property
    def values(self) -> str:
        """With an eps_m of more than a millimetre it is no longer the logarithm of depth."""
        return self.space if self.eps_m <= NEGLIGIBLE_M else f"shifted-{self.space}"

    def of_depth(self, depth_m: A) -> A:
        """As of `LinearDepth`."""
        return _applied("log", depth_m + self.eps_m)  # type: ignore[operator]

    def to_depth(self, values: A) -> A:
        """As of `LinearDepth`."""
        return _applied("exp", values) - self.eps_m  # type: ignore[operator]


@dataclass(frozen=True, kw_only=True)
class Disparity(_Space):
    """1 / depth: nearly all of the range is spent on what is near."""

    space: ClassVar[str] = "disparity"
    nearest_is_least: ClassVar[bool] = False
    kind: Literal["disparity"] = "disparity"

    def of_depth(self, depth_m: A) -> A:
        """As of `LinearDepth`."""
        return 1 / depth_m  # type: ignore[operator, return-value]

    def to_depth(self, values: A) -> A:
        """As of `LinearDepth`; disparity that is not positive is that of 1e9 m."""
        return 1 / _at_least(values, SMALLEST)  # type: ignore[operator, return-value]


@dataclass(frozen=True, kw_only=True)
class SqrtDisparity(_Space):
    """1 / sqrt(depth): between log depth and disparity."""

    space: ClassVar[str] = "sqrt-disparity"
    nearest_is_least: ClassVar[bool] = False
    kind: Literal["sqrt-disparity"] = "sqrt-disparity"

    def of_depth(self, depth_m: A) -> A:
        """As of `LinearDepth`."""
        return depth_m**-0.5  # type: ignore[operator, return-value]

    def to_depth(self, values: A) -> A:
        """As of `LinearDepth`; what is not positive is 1e9 m away."""
        return _at_least(values, SMALLEST**0.5) ** -2.0  # type: ignore[operator, return-value]


DepthTarget = LinearDepth | LogDepth | Disparity | SqrtDisparity
"""All there are; a new one is a class here, and its name in this line."""

LINEAR = LinearDepth()
_BY_KIND: dict[str, Any] = {kind.kind: kind for kind in get_args(DepthTarget)}


def target_of(content: Mapping[str, Any]) -> DepthTarget:
    """The target that `as_json` wrote.

    Raises:
        ValueError: if there is none of that kind, or it has other fields.
    """
    kind = content.get("kind")
    if kind not in _BY_KIND:
        raise ValueError(f"kind {kind!r} is no depth target; they are {', '.join(_BY_KIND)}")
    try:
        return _BY_KIND[kind](**content)
    except TypeError as error:
        raise ValueError(f"{kind}: {error}") from None


def _applied(function: str, values: A) -> A:
    """A function that tensors have as a method and arrays as numpy's."""
    method = getattr(values, function, None)
    if method is not None:
        return method()
    import numpy as np

    return getattr(np, function)(values)


def _at_least(values: A, least: float) -> A:
    return values.clip(least)  # type: ignore[attr-defined]
