"""The customary angular errors."""

import math

import numpy as np
import pytest
import torch

from e2eft.metrics.normals import angular_summary


def test_summary_is_that_of_numpy_on_the_valid_pixels() -> None:
    error_deg = np.array([1.0, 5.0, 7.0, 11.0, 20.0, 29.0, 90.0, 180.0])
    error_rad = torch.tensor(np.radians([*error_deg, np.nan])).view(1, 3, 3)
    summary = angular_summary(error_rad, error_rad.isfinite())
    expected = {
        "mean_deg": error_deg.mean(),
        "median_deg": 15.5,
        "rmse_deg": math.sqrt((error_deg**2).mean()),
        "pct_5": 12.5,
        "pct_7_5": 37.5,
        "pct_11_25": 50.0,
        "pct_22_5": 62.5,
        "pct_30": 75.0,
    }
    assert {name: value.item() for name, value in summary.items()} == pytest.approx(expected)


def test_summary_of_nothing_is_nan() -> None:
    error_rad = torch.zeros(1, 2, 2)
    summary = angular_summary(error_rad, torch.zeros(1, 2, 2, dtype=torch.bool))
    assert all(value.isnan().all() for value in summary.values())
