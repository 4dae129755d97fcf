import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from torch import Tensor

from e2eft.geometry.depth import (
    align_scale_shift,
    apply_scale_shift,
    denormalize_affine,
    normalize_affine,
    quantile_range,
)


def all_valid(values: Tensor) -> Tensor:
    return torch.ones_like(values, dtype=torch.bool)


def lstsq(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    columns = np.stack([prediction, np.ones_like(prediction)], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(columns, target, rcond=None)
    return scale, shift


def test_quantile_range_cuts_two_per_cent_of_each_image() -> None:
    ramp_m = torch.arange(101.0).view(1, 1, 101)
    depth_m = torch.cat([ramp_m, ramp_m * 2])
    near_m, far_m = quantile_range(depth_m, all_valid(depth_m))
    assert near_m.tolist() == pytest.approx([2, 4])
    assert far_m.tolist() == pytest.approx([98, 196])


def test_quantile_range_of_nothing_is_nan() -> None:
    near_m, far_m = quantile_range(torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool))
    assert near_m.isnan().all()
    assert far_m.isnan().all()


def test_normalization_maps_the_range_to_minus_one_and_one_and_clamps() -> None:
    depth_m = torch.tensor([[[1.0, 2.0, 3.0, 5.0, 9.0, torch.inf, torch.nan]]])
    normalized = normalize_affine(depth_m, torch.tensor([2.0]), torch.tensor([5.0]))
    expected = torch.tensor([[[-1.0, -1.0, -1 / 3, 1.0, 1.0, 1.0, torch.nan]]])
    torch.testing.assert_close(normalized, expected, equal_nan=True)


def test_denormalization_inverts_within_the_range() -> None:
    depth_m = torch.linspace(2.0, 5.0, 12, dtype=torch.float64).view(2, 2, 3)
    near_m, far_m = torch.tensor([2.0, 1.0]).double(), torch.tensor([3.5, 5.0]).double()
    normalized = normalize_affine(depth_m, near_m, far_m)
    torch.testing.assert_close(
        denormalize_affine(normalized, near_m, far_m), depth_m, rtol=1e-14, atol=0
    )


@pytest.mark.parametrize(("near_m", "far_m"), [(3.0, 3.0), (4.0, 3.0), (math.nan, math.nan)])
def test_an_empty_range_normalizes_to_nan(near_m: float, far_m: float) -> None:
    depth_m = torch.tensor([[[2.0, 3.0, 4.0]]])
    assert normalize_affine(depth_m, torch.tensor([near_m]), torch.tensor([far_m])).isnan().all()


@given(
    values=npst.arrays(np.float64, (2, 30), elements=st.floats(-10, 10)),
    valid=npst.arrays(np.bool_, 30),
)
def test_alignment_is_numpys_least_squares(values: np.ndarray, valid: np.ndarray) -> None:
    prediction, target = values
    if valid.sum() < 2 or np.ptp(prediction[valid]) < 1e-3:
        return
    scale, shift = align_scale_shift(
        *(torch.tensor(array).view(1, 5, 6) for array in (prediction, target, valid))
    )
    expected_scale, expected_shift = lstsq(prediction[valid], target[valid])
    assert scale.item() == pytest.approx(expected_scale, rel=1e-6, abs=1e-6)
    assert shift.item() == pytest.approx(expected_shift, rel=1e-6, abs=1e-6)


def far_wall(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """300,000 pixels 80 m away with a millimetre of relief, and a prediction with as little."""
    generator = torch.Generator().manual_seed(0)
    relief = torch.randn(1, 500, 600, generator=generator, dtype=torch.float64)
    noise = torch.randn(1, 500, 600, generator=generator, dtype=torch.float64)
    prediction = 0.9 + 1e-4 * relief + 2e-5 * noise
    return prediction.to(dtype), (80 + 1e-3 * relief).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
def test_alignment_survives_a_tiny_spread_far_away(dtype: torch.dtype, tolerance: float) -> None:
    prediction, target_m = far_wall(dtype)
    scale, shift = align_scale_shift(prediction, target_m, all_valid(target_m))
    expected_scale, expected_shift = lstsq(
        *(values.double().flatten().numpy() for values in (prediction, target_m))
    )
    assert scale.item() == pytest.approx(expected_scale, rel=tolerance)
    assert shift.item() == pytest.approx(expected_shift, rel=tolerance)


def test_the_determinant_form_would_not_survive_it_in_float32() -> None:
    prediction, target_m = far_wall(torch.float32)
    count, total, square = prediction.numel(), prediction.sum(), prediction.square().sum()
    cross = (prediction * target_m).sum()
    naive = (count * cross - total * target_m.sum()) / (count * square - total.square())
    scale, _ = align_scale_shift(prediction, target_m, all_valid(target_m))
    assert not abs(naive.item() / scale.item() - 1) < 0.1  # it may also be 0 / 0


@given(scale=st.floats(0.01, 100), shift=st.floats(-100, 100), flip=st.booleans())
def test_the_aligned_prediction_is_invariant_to_affine_change(
    scale: float, shift: float, flip: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    prediction = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    target = torch.randn(2, 4, 5, generator=generator, dtype=torch.float64)
    changed = (-scale if flip else scale) * prediction + shift
    first, second = (
        apply_scale_shift(values, *align_scale_shift(values, target, all_valid(target)))
        for values in (prediction, changed)
    )
    torch.testing.assert_close(first, second, rtol=1e-8, atol=1e-8)


def test_alignment_passes_gradcheck_in_prediction_and_target() -> None:
    generator = torch.Generator().manual_seed(2)
    inputs = [
        torch.randn(2, 3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
        for _ in range(2)
    ]
    valid = torch.rand(2, 3, 4, generator=generator) > 0.3
    assert torch.autograd.gradcheck(lambda p, t: align_scale_shift(p, t, valid), inputs)


@pytest.mark.parametrize("constant", [0.0, 0.1, -0.3, 1e-20, 3e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_prediction_gets_scale_zero_and_the_mean(
    constant: float, dtype: torch.dtype
) -> None:
    prediction = torch.full((1, 480, 640), constant, dtype=dtype, requires_grad=True)
    target = torch.linspace(1, 9, 480 * 640, dtype=dtype).view(1, 480, 640)
    scale, shift = align_scale_shift(prediction, target, all_valid(target))
    assert scale.item() == 0
    assert shift.item() == pytest.approx(5, rel=1e-5)
    (scale + shift).sum().backward()
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_prediction_that_is_constant_up_to_rounding_counts_as_constant(
    dtype: torch.dtype,
) -> None:
    jitter = torch.rand(1, 30, 40, generator=torch.Generator().manual_seed(4), dtype=dtype)
    prediction = 0.7 * (1 + torch.finfo(dtype).eps * jitter.round())
    assert prediction.unique().numel() == 2
    scale, _ = align_scale_shift(prediction, jitter, all_valid(jitter))
    assert scale.item() == 0


@pytest.mark.parametrize("magnitude", [1e-8, 1e8, 1e20, 3e38])
def test_neither_tiny_nor_huge_predictions_break_the_fit(magnitude: float) -> None:
    generator = torch.Generator().manual_seed(5)
    prediction = torch.rand(1, 30, 40, generator=generator)
    target_m = 80 * prediction + torch.rand(1, 30, 40, generator=generator)
    first, second = (
        apply_scale_shift(values, *align_scale_shift(values, target_m, all_valid(target_m)))
        for values in (prediction, prediction * magnitude)
    )
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


def test_fewer_than_two_valid_pixels_get_scale_zero() -> None:
    prediction = torch.rand(2, 2, 2, requires_grad=True)
    target = torch.full((2, 2, 2), torch.nan)
    target[0, 0, 1] = 7.0
    scale, shift = align_scale_shift(prediction, target, target.isfinite())
    assert scale.tolist() == [0, 0]
    assert shift.tolist() == [7, 0]
    (scale + shift).sum().backward()
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()


def test_invalid_pixels_reach_neither_the_fit_nor_the_gradient() -> None:
    prediction = torch.tensor([[[1.0, 2.0, 3.0, torch.nan]]], requires_grad=True)
    target = torch.tensor([[[3.0, 5.0, 7.0, torch.inf]]])
    scale, shift = align_scale_shift(prediction, target, target.isfinite())
    assert (scale.item(), shift.item()) == pytest.approx((2, 1))
    scale.sum().backward()
    assert prediction.grad is not None
    assert prediction.grad[0, 0, 3] == 0
    assert prediction.grad.isfinite().all()


def test_half_precision_is_aligned_in_float32() -> None:
    prediction = torch.linspace(0, 1, 64).view(1, 8, 8).bfloat16()
    scale, shift = align_scale_shift(prediction, prediction.float() * 3 + 2, all_valid(prediction))
    assert scale.dtype == torch.float32
    assert (scale.item(), shift.item()) == pytest.approx((3, 2), rel=1e-5)


FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(values=npst.arrays(np.float32, (1, 2, 3), elements=FLOAT32))
def test_alignment_and_its_gradient_are_finite_for_any_finite_prediction(
    values: np.ndarray,
) -> None:
    prediction = torch.tensor(values, requires_grad=True)
    target = torch.tensor([[[1.0, 80.0, 3.0], [5.0, 2.0, 60.0]]])
    scale, shift = align_scale_shift(prediction, target, all_valid(target))
    (apply_scale_shift(prediction, scale, shift) - target).abs().mean().backward()
    assert scale.isfinite().all()
    assert shift.isfinite().all()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
