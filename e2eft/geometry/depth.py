"""Depth of a batch of images: quantile normalization and scale-shift alignment.

Masks named `valid` cover finite depths only; what lies outside them influences nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from e2eft.geometry.masked import masked_quantiles


def quantile_range(
    depth: Float[Tensor, "n h w"],
    valid: Bool[Tensor, "n h w"],
    low: float = 0.02,
    high: float = 0.98,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Near and far end of each image: quantiles of its valid pixels, NaN where there are none."""
    near, far = masked_quantiles(depth, valid, (low, high)).unbind(1)
    return near, far


def normalize_affine(
    depth: Float[Tensor, "n h w"], near: Float[Tensor, " n"], far: Float[Tensor, " n"]
) -> Float[Tensor, "n h w"]:
    """Maps each image's [near, far] to [-1, 1] and clamps: ``2 (d - near) / (far - near) - 1``.

    NaN stays NaN, +inf becomes 1. An image whose range is empty (not ``near < far``) becomes NaN.
    """
    near, far = near[:, None, None], far[:, None, None]
    span = (far - near).where(far > near, torch.nan)
    return ((depth - near) / span * 2 - 1).clamp(-1, 1)


def denormalize_affine(
    normalized: Float[Tensor, "n h w"], near: Float[Tensor, " n"], far: Float[Tensor, " n"]
) -> Float[Tensor, "n h w"]:
    """Inverse of `normalize_affine` for depths within [near, far]."""
    near, far = near[:, None, None], far[:, None, None]
    return (normalized + 1) / 2 * (far - near) + near


def align_scale_shift(
    prediction: Float[Tensor, "n h w"],
    target: Float[Tensor, "n h w"],
    valid: Bool[Tensor, "n h w"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Minimizes ``sum (scale * prediction + shift - target)^2`` over each image's valid pixels.

    Closed form, differentiable in both arguments: scale = cov / var, shift = mean target - scale *
    mean prediction. Computed in the inputs' precision, at least float32, from centred values: the
    textbook determinant ``n sum p^2 - (sum p)^2`` loses every digit in float32 when the spread is
    small beside the mean.

    A prediction that is constant up to rounding, or an image with fewer than two valid pixels, gets
    scale 0 and shift = mean target (0 without valid pixels), with zero gradient through the scale.
    """
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    prediction, target = prediction.to(dtype).where(valid, 0), target.to(dtype).where(valid, 0)
    # Dividing by a constant changes neither the fit nor its gradient, only what overflows.
    unit = prediction.detach().abs().amax((1, 2)).clamp(min=torch.finfo(dtype).tiny ** 0.25)  # [n]
    prediction_mean, prediction_offset = _centre(prediction / unit[:, None, None], valid)
    target_mean, target_offset = _centre(target, valid)
    variance = prediction_offset.square().sum((1, 2))
    covariance = (prediction_offset * target_offset).sum((1, 2))
    constant = variance <= valid.sum((1, 2)) * (4 * torch.finfo(dtype).eps) ** 2
    scale = (covariance / variance.where(~constant, 1)).where(~constant, 0)
    return scale / unit, target_mean - scale * prediction_mean


def apply_scale_shift(
    prediction: Float[Tensor, "n h w"], scale: Float[Tensor, " n"], shift: Float[Tensor, " n"]
) -> Float[Tensor, "n h w"]:
    """``scale * prediction + shift``, image by image."""
    return scale[:, None, None] * prediction + shift[:, None, None]


def _centre(
    values: Float[Tensor, "n h w"], valid: Bool[Tensor, "n h w"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n h w"]]:
    """Mean (0 without valid pixels) and deviations from it; `values` are 0 at invalid pixels."""
    mean = values.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
    return mean, (values - mean[:, None, None]).where(valid, 0)
