"""What end-to-end fine-tuning minimizes: losses that a run chooses, and adds up by their weights.

A loss is a small class: its fields are what a run may set, its call is the formula. It is given
what the task has made of a batch (`DepthFit`, `NormalsFit`), so it decides neither what is
supervised nor how a prediction is fitted. Tensors are fp32 at least; sums are over all images of
the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

FLOOR = 0.1
"""Of an image's near end: nearer than this part of it counts as that where ratios are taken."""


@dataclass(frozen=True)
class DepthFit:
    """A batch's prediction, fitted to the truth image by image.

    fitted, truth: `[n h w]` in the target's space, 0 where not supervised; the truth clamped to its
        image's quantiles, `low` and `high`. supervised: `[n h w]`.
    low, high: `[n 1 1]`; NaN for an image without supervised pixels.
    to_depth: from that space to metres.
    """

    fitted: Float[Tensor, "n h w"]
    truth: Float[Tensor, "n h w"]
    supervised: Bool[Tensor, "n h w"]
    low: Float[Tensor, "n 1 1"]
    high: Float[Tensor, "n 1 1"]
    to_depth: Callable[[Any], Any]

    @property
    def residual(self) -> Float[Tensor, "n h w"]:
        """In units of the target's space; 0 where not supervised."""
        return (self.fitted - self.truth).where(self.supervised, 0)

    @property
    def share(self) -> Float[Tensor, "n h w"]:
        """The residual as a share of its image's own range."""
        span = self.high - self.low
        return self.residual / span.where(span > 0, 1)


@dataclass(frozen=True)
class NormalsFit:
    """error_rad, supervised: `[n h w]`; angles between prediction and truth."""

    error_rad: Float[Tensor, "n h w"]
    supervised: Bool[Tensor, "n h w"]


@dataclass(frozen=True, kw_only=True)
class _Loss:
    """weight: what the loss is multiplied by before all are added up."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    task: ClassVar[str] = "depth"
    modalities: ClassVar[tuple[str, ...]] = ("depth",)
    """Which of depth and normals of a frame it reads."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight {self.weight:g}: expected a positive number")


@dataclass(frozen=True, kw_only=True)
class AffineInvariant(_Loss):
    """Mean absolute error after each image's best scale and shift, in the target's units: of linear
    depth the paper's L_D, in metres, in which far scenes weigh more than near ones."""

    kind: Literal["affine-invariant"] = "affine-invariant"

    def __call__(self, fit: DepthFit) -> Tensor:
        return _mean(fit.residual.abs(), fit.supervised)


@dataclass(frozen=True, kw_only=True)
class ScaleNormalized(_Loss):
    """The same as a share of each image's own range between its quantiles: a near scene counts as
    much as a far one, as in MiDaS (arXiv 1907.01341, section 5)."""

    kind: Literal["scale-normalized"] = "scale-normalized"

    def __call__(self, fit: DepthFit) -> Tensor:
        return _mean(fit.share.abs(), fit.supervised)


@dataclass(frozen=True, kw_only=True)
class LogSpace(_Loss):
    """Mean absolute difference of the logarithms of depth after the fit, whatever the target's
    space is: errors count by their ratio. Depth below a tenth of the near end counts as that."""

    kind: Literal["log-space"] = "log-space"

    def __call__(self, fit: DepthFit) -> Tensor:
        ends_m = fit.to_depth(fit.low), fit.to_depth(fit.high)
        floor_m = FLOOR * ends_m[0].minimum(ends_m[1])
        depths_m = (fit.to_depth(fit.fitted), fit.to_depth(fit.truth))
        # 1 where nothing is known, before the logarithm is taken: its gradient must stay finite.
        logs = [depth_m.clip(floor_m).where(fit.supervised, 1).log() for depth_m in depths_m]
        return _mean((logs[0] - logs[1]).abs(), fit.supervised)


@dataclass(frozen=True, kw_only=True)
class GradientMatching(_Loss):
    """Multi-scale gradients of the error (MegaDepth, arXiv 1804.00607; MiDaS's L_reg): mean of
    |dx| + |dy| of the residual as a share of its image's range, over pairs of supervised pixels,
    added up over `scales`, each of half the resolution by leaving out pixels. For edges; alone it
    knows nothing of an image's level, so it goes beside another loss."""

    kind: Literal["gradient-matching"] = "gradient-matching"
    scales: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.scales <= 8:
            raise ValueError(f"scales {self.scales}: expected 1 to 8")

    def __call__(self, fit: DepthFit) -> Tensor:
        first, *others = (
            _gradients(fit.share[:, :: 2**k, :: 2**k], fit.supervised[:, :: 2**k, :: 2**k])
            for k in range(self.scales)
        )
        return sum(others, first)


@dataclass(frozen=True, kw_only=True)
class Angular(_Loss):
    """Mean angle between normals in radians: the paper's L_N."""

    task: ClassVar[str] = "normals"
    modalities: ClassVar[tuple[str, ...]] = ("normals", "depth")
    kind: Literal["angular"] = "angular"

    def __call__(self, fit: NormalsFit) -> Tensor:
        return _mean(fit.error_rad, fit.supervised)


DepthLoss = AffineInvariant | ScaleNormalized | LogSpace | GradientMatching
Loss = DepthLoss | Angular
"""All there are; a new one is a class here, and its name in one of these lines."""


def summed(losses: Sequence[Any], fit: Any) -> Tensor:
    """The sum of losses, each by its weight."""
    total, *others = (loss.weight * loss(fit) for loss in losses)
    for other in others:
        total = total + other
    return total


def _gradients(error: Tensor, known: Tensor) -> Tensor:
    across, along = known[:, :, 1:] & known[:, :, :-1], known[:, 1:] & known[:, :-1]
    right = (error[:, :, 1:] - error[:, :, :-1]).abs()
    down = (error[:, 1:] - error[:, :-1]).abs()
    return _mean(right, across) + _mean(down, along)


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Over the known pixels of the batch; 0, and attached to the graph, where there are none."""
    return values.where(known, 0).sum() / known.sum().clamp(min=1)
