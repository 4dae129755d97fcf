"""Depth up to a scale and a shift, as arXiv 2409.11355 trains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from e2eft.geometry.depth import (
    align_scale_shift,
    apply_scale_shift,
    normalize_affine,
    quantile_range,
)
from e2eft.losses import AffineInvariant, DepthFit, DepthLoss, summed
from e2eft.metrics.depth import least_squares_depth_errors
from e2eft.targets import LINEAR, DepthTarget
from e2eft.tasks import TaskSettings
from e2eft.tasks.base import Batch

MIN_DEPTH_M = 1e-5


def build(settings: TaskSettings) -> AffineInvariantDepth:
    """See `e2eft.tasks.get_task`."""
    return AffineInvariantDepth(
        max_depth_m=settings.max_depth_m,
        values=settings.depth_target,
        losses=cast("tuple[DepthLoss, ...]", settings.losses) or (AffineInvariant(),),
    )


@dataclass(frozen=True, kw_only=True)
class AffineInvariantDepth:
    """Depth, or a function of it, up to each image's own unknown scale and shift.

    A prediction is ``[n h w]`` in [0, 1], affine in the target's values: of linear depth 0 near and
    1 far. Pixels are supervised and scored where they are valid and
    ``MIN_DEPTH_M < depth_m < max_depth_m``.
    """

    max_depth_m: float = 80.0
    """The paper takes 65 m on Hypersim, 80 m on Virtual KITTI."""
    values: DepthTarget = LINEAR
    """The space in which depth is predicted."""
    losses: tuple[DepthLoss, ...] = (AffineInvariant(),)
    """Their sum is minimized."""

    def __post_init__(self) -> None:
        if not self.max_depth_m > MIN_DEPTH_M:
            raise ValueError(
                f"max_depth_m={self.max_depth_m}: expected metres, more than {MIN_DEPTH_M}"
            )

    @property
    def name(self) -> str:
        return "depth"

    @property
    def target(self) -> str:
        return self.values.phrase

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for loss in self.losses for name in loss.modalities))

    def read_from(self, axes: str, full_z_range: bool) -> AffineInvariantDepth:
        """Itself: depth has no axes."""
        return self

    def decode(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n h w"]:
        """Mean of the channels, clamped to [-1, 1] (no gradient outside), mapped to [0, 1]."""
        dtype = torch.promote_types(image.dtype, torch.float32)
        return (image.to(dtype).mean(1).clamp(-1, 1) + 1) / 2

    def encode_target(self, batch: Batch) -> tuple[Float[Tensor, "n 3 h w"], Bool[Tensor, "n h w"]]:
        """Three equal channels: each image's quantiles (2 % and 98 %) at -1 and 1, clamped.

        What is not supervised (unknown, sky, too far) is as far as can be. An image whose quantiles
        coincide has no supervised pixel.
        """
        values, mask, low, high = self._supervised(batch)
        far = 1 if self.values.nearest_is_least else -1
        normalized = normalize_affine(values, low, high).where(mask, far)
        return normalized[:, None].expand(-1, 3, -1, -1), mask

    def loss(self, prediction: Float[Tensor, "n h w"], batch: Batch) -> Float[Tensor, ""]:
        """The sum of the task's losses, after each image's best scale and shift in the target's
        space; of linear depth, `AffineInvariant` alone is the paper's L_D.

        The truth is clamped to its image's quantiles. The gradient flows through scale and shift.
        The paper's loss does not mind a prediction that is upside down, which it fits with a
        negative scale: of linear depth it is left so, since far is bright to an image model too.
        All others fit such a prediction the right way round, and are the worse for it.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            values, mask, low, high = self._supervised(batch)
            dtype = torch.promote_types(prediction.dtype, torch.float32)
            prediction = prediction.to(dtype).where(mask, 0)
            low, high = low[:, None, None], high[:, None, None]
            truth = values.clamp(low, high).where(mask, 0)
            scale, shift = align_scale_shift(prediction, truth, mask)
            if not self._is_papers:
                scale, shift = _upright(scale, shift, prediction, mask)
            fitted = apply_scale_shift(prediction, scale, shift)
            fit = DepthFit(fitted, truth, mask, low, high, self.values.to_depth)
            return summed(self.losses, fit)

    def errors(
        self, prediction: Float[Tensor, "n h w"], batch: Batch
    ) -> dict[str, Float[Tensor, " n"]]:
        """`depth_errors` as by the protocol ``least-squares-depth``, the prediction fitted in the
        target's space; quantiles play no part."""
        return least_squares_depth_errors(
            prediction,
            batch.depth_m,
            self._in_range(batch),
            MIN_DEPTH_M,
            self.max_depth_m,
            self.values,
        )

    def label(self, prediction: Float[Tensor, "n h w"]) -> dict[str, np.ndarray]:
        """``depth_affine`` float32 ``[n h w]``, between the ends of the target's range."""
        return {"depth_affine": prediction.detach().float().cpu().numpy()}

    def constant_prediction(self, batch: Batch) -> Float[Tensor, "n h w"]:
        """One half everywhere: fitted, it is the mean of each image's values."""
        return torch.full_like(batch.depth_m, 0.5)

    @property
    def _is_papers(self) -> bool:
        return self.values == LINEAR and self.losses == (AffineInvariant(),)

    def _in_range(self, batch: Batch) -> Bool[Tensor, "n h w"]:
        return batch.valid & (batch.depth_m > MIN_DEPTH_M) & (batch.depth_m < self.max_depth_m)

    def _supervised(
        self, batch: Batch
    ) -> tuple[
        Float[Tensor, "n h w"], Bool[Tensor, "n h w"], Float[Tensor, " n"], Float[Tensor, " n"]
    ]:
        """Values in the target's space, mask, and the quantiles of each image; the mask of an image
        whose depth is all the same is empty."""
        in_range = self._in_range(batch)
        values = self.values.of_depth(batch.depth_m)
        low, high = quantile_range(values, in_range, self.values.low, self.values.high)
        return values, in_range & (high > low)[:, None, None], low, high


def _upright(
    scale: Float[Tensor, " n"],
    shift: Float[Tensor, " n"],
    prediction: Float[Tensor, "n h w"],
    mask: Bool[Tensor, "n h w"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The same fit, of a prediction that is upside down turned about its mean: as far from the
    truth as it is, so that its loss falls until it is not."""
    mean = prediction.where(mask, 0).sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
    return scale.abs(), shift + (scale - scale.abs()) * mean
