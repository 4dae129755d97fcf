"""How well depth edges are kept: two measures for dense ground truth.

Both are named by their papers; numbers of other papers under the same words follow other
definitions.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

THRESHOLDS = np.linspace(1.05, 1.25, 10)
"""Ratios of neighbouring depths above which there is an edge."""
MIN_DEPTH_M = 1e-6
SEE_DISPARITY_STEP = 0.05
"""1/m between neighbours that makes a boundary."""
SEE_QUANTILES = (0.02, 0.98)

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
    averaged with weight t. NaN where the truth has no edge at all.

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
    """Soft edge error SEE_k in metres, as Marigold V2 (arXiv 2609.08084) takes it.

    Over boundary pixels (both of two neighbours whose disparities differ by more than 0.05 1/m),
    the mean distance of the prediction to the nearest true depth within window x window pixels: an
    edge that is a pixel off costs little, a blurred one much. True depth outside its own 2 % to
    98 % quantiles counts as invalid. NaN without boundaries.

    Args:
        window: odd, in pixels.
    """
    if not valid.any():
        return float("nan")
    near_m, far_m = np.quantile(target_m[valid], SEE_QUANTILES)
    with np.errstate(invalid="ignore"):
        valid = valid & (target_m >= near_m) & (target_m <= far_m)
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
