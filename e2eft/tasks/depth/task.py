"""Depth up to a scale and a shift, as arXiv 2409.11355 trains it."""

from __future__ import annotations

from dataclasses import dataclass

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
from e2eft.metrics.depth import least_squares_depth_errors
from e2eft.tasks.base import Batch

MIN_DEPTH_M = 1e-5


def build(*, max_depth_m: float) -> AffineInvariantDepth:
    """See `e2eft.tasks.get_task`."""
    return AffineInvariantDepth(max_depth_m=max_depth_m)


@dataclass(frozen=True, kw_only=True)
class AffineInvariantDepth:
    """Linear depth, 0 near and 1 far, up to each image's own unknown scale and shift.

    A prediction is ``[n h w]`` in [0, 1]. Pixels are supervised and scored where they are valid
    and ``MIN_DEPTH_M < depth_m < max_depth_m``.
    """

    max_depth_m: float = 80.0
    """The paper takes 65 m on Hypersim, 80 m on Virtual KITTI."""

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
        return "affine-invariant linear depth, 0 near 1 far"

    @property
    def modalities(self) -> tuple[str, ...]:
        return ("depth",)

    def read_from(self, axes: str, full_z_range: bool) -> AffineInvariantDepth:
        """Itself: depth has no axes."""
        return self

    def decode(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n h w"]:
        """Mean of the channels, clamped to [-1, 1] (no gradient outside), mapped to [0, 1]."""
        dtype = torch.promote_types(image.dtype, torch.float32)
        return (image.to(dtype).mean(1).clamp(-1, 1) + 1) / 2

    def encode_target(self, batch: Batch) -> tuple[Float[Tensor, "n 3 h w"], Bool[Tensor, "n h w"]]:
        """Three equal channels: each image's 2 % and 98 % quantiles at -1 and 1, clamped.

        What is not supervised (unknown, sky, too far) is 1, as far as can be. An image whose
        quantiles coincide has no supervised pixel.
        """
        mask, near_m, far_m = self._supervised(batch)
        normalized = normalize_affine(batch.depth_m, near_m, far_m).where(mask, 1)
        return normalized[:, None].expand(-1, 3, -1, -1), mask

    def loss(self, prediction: Float[Tensor, "n h w"], batch: Batch) -> Float[Tensor, ""]:
        """Mean absolute error in metres after each image's best scale and shift (the paper's L_D).

        The true depth is clamped to its image's 2 % and 98 % quantiles. The gradient flows through
        scale and shift. The error is metric, so far scenes weigh more than near ones.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            mask, near_m, far_m = self._supervised(batch)
            dtype = torch.promote_types(prediction.dtype, torch.float32)
            prediction = prediction.to(dtype).where(mask, 0)
            target_m = batch.depth_m.clamp(near_m[:, None, None], far_m[:, None, None])
            target_m = target_m.where(mask, 0)
            scale, shift = align_scale_shift(prediction, target_m, mask)
            residual_m = apply_scale_shift(prediction, scale, shift) - target_m
            return residual_m.where(mask, 0).abs().sum() / mask.sum().clamp(min=1)

    def errors(
        self, prediction: Float[Tensor, "n h w"], batch: Batch
    ) -> dict[str, Float[Tensor, " n"]]:
        """`depth_errors` under the protocol ``least-squares-depth``, quantiles playing no part."""
        return least_squares_depth_errors(
            prediction, batch.depth_m, self._in_range(batch), MIN_DEPTH_M, self.max_depth_m
        )

    def label(self, prediction: Float[Tensor, "n h w"]) -> dict[str, np.ndarray]:
        """``depth_affine`` float32 ``[n h w]``: 0 near, 1 far."""
        return {"depth_affine": prediction.detach().float().cpu().numpy()}

    def constant_prediction(self, batch: Batch) -> Float[Tensor, "n h w"]:
        """One half everywhere: aligned, it is each image's mean depth."""
        return torch.full_like(batch.depth_m, 0.5)

    def _in_range(self, batch: Batch) -> Bool[Tensor, "n h w"]:
        return batch.valid & (batch.depth_m > MIN_DEPTH_M) & (batch.depth_m < self.max_depth_m)

    def _supervised(
        self, batch: Batch
    ) -> tuple[Bool[Tensor, "n h w"], Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Mask, near and far end in metres; the mask of an image without depth range is empty."""
        in_range = self._in_range(batch)
        near_m, far_m = quantile_range(batch.depth_m, in_range)
        return in_range & (far_m > near_m)[:, None, None], near_m, far_m
