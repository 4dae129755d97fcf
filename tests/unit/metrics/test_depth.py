"""The customary depth errors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from e2eft.geometry.depth import align_scale_shift, apply_scale_shift
from e2eft.metrics.depth import depth_errors, least_squares_depth_errors


def all_valid(values: Tensor) -> Tensor:
    return torch.ones_like(values, dtype=torch.bool)


def test_errors_of_a_case_worked_by_hand() -> None:
    target_m = torch.tensor([[[1.0, 2.0, 4.0, torch.nan]]], dtype=torch.float64)
    prediction_m = torch.tensor([[[1.0, 4.0, 5.0, 3.0]]], dtype=torch.float64)
    errors = depth_errors(prediction_m, target_m, target_m.isfinite())
    log_2, log_125 = math.log(2), math.log(1.25)
    mean_log = (log_2 + log_125) / 3
    mean_square_log = (log_2**2 + log_125**2) / 3
    expected = {
        "abs_rel": (0 + 1 + 0.25) / 3,
        "sq_rel": (0 + 2 + 0.25) / 3,
        "rmse": math.sqrt((0 + 4 + 1) / 3),
        "rmse_log": math.sqrt(mean_square_log),
        "i_rmse": math.sqrt((0 + 0.25**2 + 0.05**2) / 3),
        "log10": (math.log10(2) + math.log10(1.25)) / 3,
        "silog": 100 * math.sqrt(mean_square_log - mean_log**2),
        "delta1": 1 / 3,  # 5 / 4 is 1.25, which is not below 1.25
        "delta2": 2 / 3,
        "delta3": 2 / 3,
    }
    assert {name: value.item() for name, value in errors.items()} == pytest.approx(expected)
    softened = depth_errors(prediction_m, target_m, target_m.isfinite(), ratio_eps_m=1.0)
    assert softened["abs_rel"].item() == pytest.approx((0 + 2 / 3 + 1 / 5) / 3)
    assert softened["delta1"].item() == pytest.approx(2 / 3)  # 4 / 3 alone is not below 1.25


def test_a_factor_is_an_error_in_either_direction_but_not_for_silog() -> None:
    target_m = torch.tensor([[[1.0, 2.0, 4.0]]])
    for factor in (0.5, 2.0):
        errors = depth_errors(target_m * factor, target_m, all_valid(target_m))
        assert errors["silog"].item() == pytest.approx(0, abs=1e-4)
        assert errors["rmse_log"].item() == pytest.approx(math.log(2), rel=1e-6)
        assert errors["delta3"].item() == 0


def test_scores_are_nan_without_valid_pixels_and_only_there() -> None:
    depth_m = torch.ones(2, 2, 2)
    valid = all_valid(depth_m)
    valid[1] = False
    for value in depth_errors(depth_m, depth_m, valid).values():
        assert value.isnan().tolist() == [False, True]


def test_protocol_clips_after_alignment() -> None:
    target_m = torch.tensor([[[1.0, 2.0, 3.0, 9.0]]])
    prediction = torch.tensor([[[-9.0, 0.2, 0.3, 1.0]]])
    errors = least_squares_depth_errors(prediction, target_m, all_valid(target_m), 1.5, 4.0)
    columns, target = prediction.flatten().double().numpy(), target_m.flatten().double().numpy()
    scale, shift = np.polyfit(columns, target, 1)
    aligned_m = scale * columns + shift
    assert aligned_m.min() < 1.5, "the case must reach the lower clip"
    assert aligned_m.max() > 4.0, "the case must reach the upper clip"
    expected = np.mean(np.abs(np.clip(aligned_m, 1.5, 4.0) - target) / target)
    assert errors["abs_rel"].item() == pytest.approx(expected, rel=1e-6)


def test_protocol_keeps_logarithms_finite_when_the_benchmark_has_no_lower_end() -> None:
    target_m = torch.tensor([[[1.0, 1.0, 1.0, 9.0, 30.0]]])
    prediction = torch.tensor([[[0.0, 0.1, 0.2, 0.5, 1.0]]])
    scale, shift = align_scale_shift(prediction, target_m, all_valid(target_m))
    assert apply_scale_shift(prediction, scale, shift).min() < 0
    errors = least_squares_depth_errors(prediction, target_m, all_valid(target_m), 0.0, 80.0)
    assert errors["rmse_log"].isfinite().all()


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-1e3, 1e3))
def test_protocol_scores_do_not_depend_on_scale_and_shift(scale: float, shift: float) -> None:
    generator = torch.Generator().manual_seed(3)
    target_m = torch.rand(1, 6, 7, generator=generator, dtype=torch.float64) * 9 + 1
    prediction = target_m + torch.randn(1, 6, 7, generator=generator, dtype=torch.float64)
    first, second = (
        least_squares_depth_errors(values, target_m, all_valid(target_m), 0.1, 20.0)
        for values in (prediction, scale * prediction + shift)
    )
    for name, value in first.items():
        assert second[name].item() == pytest.approx(value.item(), rel=1e-6), name
