"""Depth of a batch of images: quantile normalization, scale-shift alignment, errors.

Masks named `valid` cover finite depths only; what lies outside them influences nothing.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from e2eft.geometry.masked import masked_mean, masked_quantiles

DepthErrors: TypeAlias = dict[str, Float[Tensor, " n"]]
"""Scores of each image by name, NaN for an image without valid pixels; see `depth_errors`."""

MIN_ALIGNED_DEPTH_M = 1e-6
"""Aligned predictions are raised to this before ratios and logarithms are taken."""


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


def depth_errors(
    prediction_m: Float[Tensor, "n h w"],
    target_m: Float[Tensor, "n h w"],
    valid: Bool[Tensor, "n h w"],
    ratio_eps_m: float = 0.0,
) -> DepthErrors:
    """The customary errors (Eigen et al. 2014, arXiv 1406.2283, and successors) of each image.

    ``abs_rel``, ``sq_rel`` (m), ``rmse`` (m), ``rmse_log`` (natural), ``i_rmse`` (1/m, of inverse
    depth), ``log10``, ``silog`` (100 times the standard deviation of the log error), ``delta1`` to
    ``delta3`` (fraction in [0, 1] of pixels off by a factor below 1.25^k).

    Args:
        prediction_m, target_m: positive where valid.
        ratio_eps_m: added to what ``abs_rel`` and the deltas divide by, as some evaluations do.
    """
    prediction_m, target_m = prediction_m.where(valid, 1), target_m.where(valid, 1)
    difference_m = prediction_m - target_m
    log_error = prediction_m.log() - target_m.log()
    mean_log_error = masked_mean(log_error, valid)
    log_deviation = log_error - mean_log_error[:, None, None]
    factor = torch.maximum(
        prediction_m / (target_m + ratio_eps_m), target_m / (prediction_m + ratio_eps_m)
    )
    inverse_error = 1 / prediction_m - 1 / target_m
    errors = {
        "abs_rel": masked_mean(difference_m.abs() / (target_m + ratio_eps_m), valid),
        "sq_rel": masked_mean(difference_m.square() / target_m, valid),
        "rmse": masked_mean(difference_m.square(), valid).sqrt(),
        "rmse_log": masked_mean(log_error.square(), valid).sqrt(),
        "i_rmse": masked_mean(inverse_error.square(), valid).sqrt(),
        "log10": masked_mean((prediction_m.log10() - target_m.log10()).abs(), valid),
        "silog": masked_mean(log_deviation.square(), valid).sqrt() * 100,
    }
    for power in (1, 2, 3):
        within = (factor < 1.25**power).to(factor.dtype)
        errors[f"delta{power}"] = masked_mean(within, valid)
    return errors


def capped_inverse_rmse(
    prediction_m: Float[Tensor, "n h w"],
    target_m: Float[Tensor, "n h w"],
    valid: Bool[Tensor, "n h w"],
    floor_m: float,
) -> Float[Tensor, " n"]:
    """Root mean square error of inverse depth in 1/m, what is nearer than `floor_m` counting as
    that, in prediction and truth alike; NaN without valid pixels.

    Without a floor a single pixel at 1e-5 m, where clipped predictions may lie, is off by 1e5 1/m
    and decides the image's score.
    """
    inverse_error = 1 / prediction_m.clamp(min=floor_m) - 1 / target_m.clamp(min=floor_m)
    return masked_mean(inverse_error.square(), valid).sqrt()


@torch.no_grad()
def least_squares_depth_errors(
    prediction: Float[Tensor, "n h w"],
    target_m: Float[Tensor, "n h w"],
    valid: Bool[Tensor, "n h w"],
    min_depth_m: float,
    max_depth_m: float,
) -> DepthErrors:
    """The protocol ``least-squares-depth`` of Marigold (arXiv 2312.02145) and of arXiv 2409.11355.

    The prediction, known up to scale and shift, is fitted to the metric *depth* (not disparity) of
    the valid pixels by least squares, image by image, and clipped to [min_depth_m, max_depth_m]
    afterwards. All in float64.

    Args:
        valid: pixels whose true depth lies within the benchmark's range.
    """
    prediction, target_m = prediction.double(), target_m.double()
    scale, shift = align_scale_shift(prediction, target_m, valid)
    aligned_m = apply_scale_shift(prediction, scale, shift).clamp(min_depth_m, max_depth_m)
    return depth_errors(aligned_m.clamp(min=MIN_ALIGNED_DEPTH_M), target_m, valid)


def _centre(
    values: Float[Tensor, "n h w"], valid: Bool[Tensor, "n h w"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n h w"]]:
    """Mean (0 without valid pixels) and deviations from it; `values` are 0 at invalid pixels."""
    mean = values.sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)
    return mean, (values - mean[:, None, None]).where(valid, 0)
