"""The customary errors of depth, image by image.

Masks named `valid` cover finite depths only; what lies outside them influences nothing.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from e2eft.geometry.depth import align_scale_shift, apply_scale_shift
from e2eft.geometry.masked import masked_mean
from e2eft.targets import LINEAR, DepthTarget

DepthErrors: TypeAlias = dict[str, Float[Tensor, " n"]]
"""Scores of each image by name, NaN for an image without valid pixels; see `depth_errors`."""

MIN_ALIGNED_DEPTH_M = 1e-6
"""Aligned predictions are raised to this before ratios and logarithms are taken."""


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
    target: DepthTarget = LINEAR,
) -> DepthErrors:
    """The protocol ``least-squares-depth`` of Marigold (arXiv 2312.02145) and of arXiv 2409.11355.

    The prediction, known up to scale and shift, is fitted to the metric *depth* (not disparity) of
    the valid pixels by least squares, image by image, and clipped to [min_depth_m, max_depth_m]
    afterwards. All in float64.

    Args:
        valid: pixels whose true depth lies within the benchmark's range.
        target: what the prediction is affine in, if that is not depth: the fit is to that.
    """
    prediction, target_m = prediction.double(), target_m.double()
    scale, shift = align_scale_shift(prediction, target.of_depth(target_m), valid)
    fitted = apply_scale_shift(prediction, scale, shift)
    aligned_m = target.to_depth(fitted).clamp(min_depth_m, max_depth_m)
    return depth_errors(aligned_m.clamp(min=MIN_ALIGNED_DEPTH_M), target_m, valid)
