"""How well depth edges are kept: measures for dense ground truth.

They are named by their papers; numbers of other papers under the same words follow other
definitions.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float

from e2eft.geometry.depth import align_scale_shift

THRESHOLDS = np.linspace(1.05, 1.25, 10)
"""Ratios of neighbouring depths above which there is an edge."""
MIN_DEPTH_M = 1e-6
SEE_DISPARITY_STEP = 0.05
"""1/m between neighbours that makes a boundary."""
SEE_QUANTILES = (0.02, 0.98)
LOG_EPS_M = 1e-6
"""Added before the logarithm of true depth is taken, as Marigold V2 does."""

_NEIGHBOURS = (
    (np.s_[:, 1:], np.s_[:, :-1]),
    (np.s_[:, :-1], np.s_[:, 1:]),
    (np.s_[1:], np.s_[:-1]),
    (np.s_[:-1], np.s_[1:]),
)
"""(pixels, their neighbours) in the four directions."""


def boundary_f1(
    prediction_m: Float[np.ndarray, "h w"],
    target_m: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
) -> float:
    """Scale-invariant boundary F1 of Depth Pro (arXiv 2410.02073, section 4.2), in [0, 1].

    A pixel is an edge towards a neighbour if it is nearer by more than a factor t. For each of ten
    t from 1.05 to 1.25, precision and recall are averaged over the four directions; their F1 is
    averaged with weight t. NaN where the truth has no edge at all; Depth Pro's own code gives 0
    there, whatever the prediction.

    Args:
        prediction_m, target_m: positive where valid. Pairs with an invalid pixel do not count.
    """
    prediction = 1 / np.maximum(np.where(valid, prediction_m, 1), MIN_DEPTH_M)
    target = 1 / np.maximum(np.where(valid, target_m, 1), MIN_DEPTH_M)
    ratios = [
        (
            (prediction[here] / prediction[there])[valid[here] & valid[there]],
            (target[here] / target[there])[valid[here] & valid[there]],
        )
        for here, there in _NEIGHBOURS
    ]
    if not any((truth > THRESHOLDS[0]).any() for _, truth in ratios):
        return float("nan")
    scores = np.array([_f1_at(ratios, threshold) for threshold in THRESHOLDS])
    return float((scores * THRESHOLDS).sum() / THRESHOLDS.sum())


def _f1_at(ratios: list[tuple[np.ndarray, np.ndarray]], threshold: float) -> float:
    precisions: list[float] = []
    recalls: list[float] = []
    for predicted, truth in ratios:
        found, there = predicted > threshold, truth > threshold
        hits = float((found & there).sum())
        precisions.append(hits / max(float(found.sum()), 1.0))
        recalls.append(hits / max(float(there.sum()), 1.0))
    precision, recall = float(np.mean(precisions)), float(np.mean(recalls))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def soft_edge_error(
    prediction_m: Float[np.ndarray, "h w"],
    target_m: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    window: int,
) -> float:
    """Soft edge error SEE_k in metres, of a prediction that is aligned already.

    Over boundary pixels (both of two neighbours whose disparities differ by more than 0.05 1/m),
    the mean distance of the prediction to the nearest true depth within window x window pixels: an
    edge that is a pixel off costs little, a blurred one much. True depth outside its own 2 % to
    98 % quantiles counts as invalid. NaN without boundaries. Marigold V2's SEE_k is
    `log_fitted_soft_edge_error`.

    Args:
        window: odd, in pixels.
    """
    return _soft_edge_error(prediction_m, target_m, _trimmed(target_m, valid), window)


def log_fitted_soft_edge_error(
    prediction: Float[np.ndarray, "h w"],
    target_m: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    window: int,
    range_m: tuple[float, float],
) -> float:
    """SEE_k in metres as Marigold V2 (arXiv 2609.08084) takes it, alignment included.

    The prediction as it is, which should be affine in log depth, is fitted by least squares to
    ln(depth) over the pixels whose true depth lies within its own 2 % to 98 % quantiles, and
    clipped to `range_m`; then `soft_edge_error` over the same pixels.
    """
    valid = _trimmed(target_m, valid)
    predicted = prediction.astype(np.float64)
    logs = np.log(np.where(valid, target_m, 1).astype(np.float64) + LOG_EPS_M)
    fit = align_scale_shift(
        torch.tensor(predicted)[None], torch.tensor(logs)[None], torch.tensor(valid)[None]
    )
    scale, shift = map(float, fit)
    near_m, far_m = range_m
    # Clipped before the exponential, which may overflow; it is monotonic.
    fitted = np.clip(scale * predicted + shift, None, np.log(far_m + LOG_EPS_M))
    aligned_m = np.clip(np.exp(fitted) - LOG_EPS_M, near_m, far_m)
    return _soft_edge_error(aligned_m, target_m, valid, window)


def _trimmed(
    target_m: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Valid pixels whose true depth is neither of the nearest 2 % nor of the farthest."""
    if not valid.any():
        return valid
    near_m, far_m = np.quantile(target_m[valid], SEE_QUANTILES)
    with np.errstate(invalid="ignore"):
        return valid & (target_m >= near_m) & (target_m <= far_m)


def _soft_edge_error(
    prediction_m: Float[np.ndarray, "h w"],
    target_m: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    window: int,
) -> float:
    boundary = _boundary(target_m, valid)
    if not boundary.any():
        return float("nan")
    rows, columns = np.nonzero(boundary)
    reach = window // 2
    padded = np.pad(np.where(valid, target_m, np.inf), reach, constant_values=np.inf)
    predicted = prediction_m[rows, columns]
    nearest = np.full(len(rows), np.inf)
    for down in range(window):
        for right in range(window):
            distance = np.abs(padded[rows + down, columns + right] - predicted)
            nearest = np.minimum(nearest, distance)
    return float(nearest.mean())


def _boundary(
    target_m: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    disparity = 1 / np.maximum(np.where(valid, target_m, 1), MIN_DEPTH_M)
    boundary = np.zeros(valid.shape, bool)
    for here, there in _NEIGHBOURS:
        apart = np.abs(disparity[here] - disparity[there]) > SEE_DISPARITY_STEP
        boundary[here] |= apart & valid[here] & valid[there]
    return boundary
