"""From a prediction in unknown scale and shift to metres, as each depth protocol does it.

All in float64. `prediction`, `target_m`: `[h w]`; `scored`: bool `[h w]`, at least one pixel.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from e2eft.geometry.depth import align_scale_shift
from e2eft.targets import DepthTarget

MIN_DISPARITY = 1e-3
"""1/m; aligned disparities are raised to this before they become depths."""
RANSAC_TRIALS = 1000
RANSAC_SEED = 0
RANSAC_MIN_DEPTH_M = 1e-3


def fit_columns(size: tuple[int, int], longest_px: int | None) -> np.ndarray:
    """Columns of an image that take part in a fit "at `longest_px`": int `[k]`.

    The reference code means to shrink images larger than that, but shrinks their last axis only
    (nearest neighbour): all rows and a part of the columns. Published numbers are of this fit.
    """
    width = size[1]
    factor = min(1.0, min(longest_px / side for side in size)) if longest_px else 1.0
    if factor == 1:
        return np.arange(width)
    numbers = torch.arange(width, dtype=torch.float64)[None, None]
    return functional.interpolate(numbers, scale_factor=factor, mode="nearest")[0, 0].long().numpy()


def scale_and_shift(
    prediction: np.ndarray, target: np.ndarray, fitted: np.ndarray
) -> tuple[float, float]:
    """(scale, shift) of least squares over the pixels `fitted`; (0, 0) without any."""
    arrays = (torch.from_numpy(np.ascontiguousarray(a)) for a in (prediction, target, fitted))
    predicted, truth, valid = (array[None] for array in arrays)
    scale, shift = align_scale_shift(predicted.double(), truth.double(), valid)
    return float(scale), float(shift)


def by_least_squares(
    prediction: np.ndarray, target_m: np.ndarray, scored: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Depth in metres, the prediction being affine in depth (Marigold, arXiv 2312.02145)."""
    cut = np.s_[:, columns]
    scale, shift = scale_and_shift(prediction[cut], target_m[cut], scored[cut])
    return scale * prediction.astype(np.float64) + shift


def in_space(
    target: DepthTarget,
    prediction: np.ndarray,
    target_m: np.ndarray,
    scored: np.ndarray,
    columns: np.ndarray,
) -> np.ndarray:
    """Depth in metres, the prediction being affine in a target's values."""
    values = target.of_depth(np.where(scored, target_m, 1).astype(np.float64))
    with np.errstate(over="ignore"):  # far beyond any range, to which it is clipped
        return target.to_depth(by_least_squares(prediction, values, scored, columns))


def by_disparity(
    prediction: np.ndarray, target_m: np.ndarray, scored: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Depth in metres, the prediction being affine in disparity 1 / depth.

    Pixels where the prediction is not positive do not take part in the fit, as in the reference
    code.
    """
    disparity = 1 / np.where(scored, target_m, 1).astype(np.float64)
    cut = np.s_[:, columns]
    fitted = scored & (prediction > 0)
    scale, shift = scale_and_shift(prediction[cut], disparity[cut], fitted[cut])
    return 1 / np.maximum(scale * prediction.astype(np.float64) + shift, MIN_DISPARITY)


def by_ransac_in_log_depth(
    prediction: np.ndarray, target_m: np.ndarray, scored: np.ndarray
) -> np.ndarray:
    """Depth in metres: prediction to ln(depth + 1) by RANSAC (scikit-learn's, seeded).

    A fit that would turn near into far, or that finds no consensus, is replaced as in the reference
    code (Pixel-Perfect Depth): by the ratio of the means, and by the prediction as it is.
    """
    from sklearn.linear_model import RANSACRegressor

    predicted = prediction[scored].astype(np.float64)
    truth = np.log1p(target_m[scored].astype(np.float64))
    consensus: Any = RANSACRegressor(max_trials=RANSAC_TRIALS, random_state=RANSAC_SEED)
    try:
        consensus.fit(predicted[:, None], truth)
        scale = float(consensus.estimator_.coef_[0])
        shift = float(consensus.estimator_.intercept_)
    except ValueError:
        # What scikit-learn raises without a consensus; also for a single pixel.
        scale, shift = 1.0, 0.0
    if scale <= 0:
        mean = float(predicted.mean())
        scale, shift = float(truth.mean()) / mean if mean else 0.0, 0.0
    # Clipped before the exponential, which may overflow; it is monotonic.
    ends = np.log1p([RANSAC_MIN_DEPTH_M, float(target_m[scored].max())])
    return np.expm1(np.clip(scale * prediction.astype(np.float64) + shift, *ends))
