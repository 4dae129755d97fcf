"""The customary angular errors of surface normals, image by image."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from e2eft.geometry.masked import masked_mean, masked_quantiles

PCT_THRESHOLDS_DEG = {
    "pct_5": 5.0,
    "pct_7_5": 7.5,
    "pct_11_25": 11.25,
    "pct_22_5": 22.5,
    "pct_30": 30.0,
}


def angular_summary(
    error_rad: Float[Tensor, "n h w"], valid: Bool[Tensor, "n h w"]
) -> dict[str, Float[Tensor, " n"]]:
    """Scores of each image over its valid pixels; NaN where there are none.

    ``mean_deg``, ``median_deg``, ``rmse_deg``, and the percentages of pixels strictly below the
    angles in `PCT_THRESHOLDS_DEG`.
    """
    error_deg = error_rad.rad2deg()
    summary = {
        "mean_deg": masked_mean(error_deg, valid),
        "median_deg": masked_quantiles(error_deg, valid, (0.5,))[:, 0],
        "rmse_deg": masked_mean(error_deg.square(), valid).sqrt(),
    }
    for name, threshold_deg in PCT_THRESHOLDS_DEG.items():
        within = (error_deg < threshold_deg).to(error_deg.dtype)
        summary[name] = masked_mean(within, valid) * 100
    return summary
