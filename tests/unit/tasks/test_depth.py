import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from e2eft.data.batch import Batch
from e2eft.geometry.depth import align_scale_shift, apply_scale_shift
from e2eft.tasks.depth.task import AffineInvariantDepth
from tests.unit.tasks.batches import batch_of

TASK = AffineInvariantDepth()
RAMP_M = torch.arange(101.0).view(1, 1, 101) / 2 + 1  # quantiles at 2 m and 50 m
UNKNOWN = torch.nan


def random_scene(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Batch]:
    """A prediction that wants a gradient, and depth with holes: a room and a street."""
    generator = torch.Generator().manual_seed(0)
    depth_m = torch.rand(2, 8, 9, generator=generator, dtype=torch.float64)
    depth_m = depth_m * torch.tensor([4.0, 60.0])[:, None, None] + 1
    prediction = (depth_m.log() / 5 + 0.1 * torch.rand(2, 8, 9, generator=generator)).to(dtype)
    depth_m[0, :2], depth_m[1, :, 5:7] = UNKNOWN, torch.inf
    return prediction.requires_grad_(), batch_of(depth_m.to(dtype))


def test_decode_takes_the_clamped_mean_to_zero_near_one_far() -> None:
    image = torch.tensor([[-1.0, -1.0, -1.0], [0.0, 0.3, -0.3], [1.0, 1.0, 1.0], [3.0, 2.0, 1.0]])
    decoded = TASK.decode(image.T.reshape(1, 3, 1, 4))
    torch.testing.assert_close(decoded, torch.tensor([[[0.0, 0.5, 1.0, 1.0]]]))


def test_target_has_the_quantiles_at_the_ends_and_everything_unsupervised_far() -> None:
    depth_m = torch.cat([RAMP_M, torch.tensor([[[UNKNOWN, torch.inf, 80.0, 500.0, 0.0]]])], dim=2)
    image, mask = TASK.encode_target(batch_of(depth_m))
    assert mask[0, 0].tolist() == [True] * 101 + [False] * 5
    expected = ((RAMP_M - 2) / 48 * 2 - 1).clamp(-1, 1)
    torch.testing.assert_close(image[:, 0, :, :101], expected)
    assert image[0, 0, 0, 101:].tolist() == [1] * 5
    assert (image == image[:, :1]).all()


def test_a_decoded_target_is_the_depth_up_to_scale_and_shift() -> None:
    image, mask = TASK.encode_target(batch_of(RAMP_M))
    decoded = TASK.decode(image)
    scale, shift = align_scale_shift(decoded, RAMP_M.clamp(2, 50), mask)
    torch.testing.assert_close(apply_scale_shift(decoded, scale, shift), RAMP_M.clamp(2, 50))


@pytest.mark.parametrize(
    "depth_m",
    [
        torch.full((1, 3, 4), 2.5),
        torch.full((1, 3, 4), UNKNOWN),
        torch.full((1, 3, 4), torch.inf),
        torch.full((1, 3, 4), 200.0),
    ],
    ids=["flat", "unknown", "sky", "too far"],
)
def test_an_image_without_depth_range_is_not_supervised(depth_m: Tensor) -> None:
    batch = batch_of(depth_m)
    image, mask = TASK.encode_target(batch)
    assert not mask.any()
    assert (image == 1).all()
    prediction = torch.rand(1, 3, 4, requires_grad=True)
    loss = TASK.loss(prediction, batch)
    assert loss.item() == 0
    assert loss.requires_grad
    loss.backward()
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()


def test_the_loss_of_a_perfect_prediction_is_zero() -> None:
    for prediction in (RAMP_M.clamp(2, 50), RAMP_M.clamp(2, 50) / 90, 3 - RAMP_M.clamp(2, 50)):
        assert TASK.loss(prediction, batch_of(RAMP_M)).item() == pytest.approx(0, abs=1e-5)


def test_the_depth_is_clamped_to_its_quantiles_before_the_fit() -> None:
    outlier_m = RAMP_M.clone()
    outlier_m[0, 0, -1] = 79.0
    prediction = RAMP_M.clamp(2, 50)
    assert TASK.loss(prediction, batch_of(outlier_m)).item() == pytest.approx(0, abs=1e-5)
    assert TASK.loss(RAMP_M, batch_of(RAMP_M)).item() > 1e-3, "unclamped ends must not fit"


def test_a_square_wave_that_no_line_fits_has_its_amplitude_as_loss() -> None:
    # Depth 5 +- 1 m; the prediction is uncorrelated with it, so the best fit is the mean.
    depth_m = torch.tensor([[[4.0, 6.0, 4.0, 6.0]]])
    prediction = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    near_m, far_m = 4.0, 6.0
    assert TASK.loss(prediction, batch_of(depth_m)).item() == pytest.approx((far_m - near_m) / 2)


def test_the_mean_is_over_pixels_not_over_images() -> None:
    wrong_m = torch.tensor([[4.0, 6.0] * 4])
    right_m = torch.tensor([[1.0, 3.0, 3.0, 1.0, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]])
    depth_m = torch.stack([wrong_m, right_m])
    prediction = torch.stack([torch.tensor([[0.0, 0.0, 1.0, 1.0] * 2]), right_m.nan_to_num(9.0)])
    # 8 pixels off by 1 m and 4 right ones; the mean of image means would be 0.5.
    assert TASK.loss(prediction, batch_of(depth_m)).item() == pytest.approx(8 / 12)


@given(scale=st.floats(0.05, 20), shift=st.floats(-5, 5), flip=st.booleans())
def test_the_loss_is_invariant_to_affine_change_of_each_prediction(
    scale: float, shift: float, flip: bool
) -> None:
    prediction, batch = random_scene()
    factors = torch.tensor([-scale if flip else scale, 1.0])[:, None, None]
    changed = TASK.loss(prediction * factors + shift, batch)
    assert changed.item() == pytest.approx(TASK.loss(prediction, batch).item(), rel=1e-4)


def test_the_gradient_is_orthogonal_to_affine_change() -> None:
    prediction, batch = random_scene(torch.float64)
    TASK.loss(prediction, batch).backward()
    gradient = prediction.grad
    assert gradient is not None
    assert gradient.norm() > 0.1
    for direction in (torch.ones_like(prediction), prediction.detach()):
        along = (gradient * direction).sum((1, 2))
        torch.testing.assert_close(along, torch.zeros_like(along), rtol=0, atol=1e-12)


def test_the_gradient_flows_through_scale_and_shift() -> None:
    prediction, batch = random_scene(torch.float64)
    TASK.loss(prediction, batch).backward()
    mask = TASK.encode_target(batch)[1]
    target_m = batch.depth_m.where(mask, 0)
    with torch.no_grad():
        near_m = batch.depth_m.where(mask, torch.nan).flatten(1).nanquantile(0.02, dim=1)
        far_m = batch.depth_m.where(mask, torch.nan).flatten(1).nanquantile(0.98, dim=1)
        target_m = target_m.clamp(near_m[:, None, None], far_m[:, None, None])
        scale, shift = align_scale_shift(prediction, target_m, mask)
    detached = prediction.detach().requires_grad_()
    residual_m = apply_scale_shift(detached, scale, shift) - target_m
    residual_m[mask].abs().mean().backward()
    assert prediction.grad is not None
    assert detached.grad is not None
    difference = (prediction.grad - detached.grad).norm() / prediction.grad.norm()
    assert difference > 0.05


def test_loss_passes_gradcheck() -> None:
    prediction, batch = random_scene(torch.float64)
    assert torch.autograd.gradcheck(lambda values: TASK.loss(values, batch), (prediction,))


def test_invalid_pixels_have_no_gradient_whatever_is_predicted_there() -> None:
    prediction, batch = random_scene()
    mask = TASK.encode_target(batch)[1]
    TASK.loss(prediction.where(mask, torch.nan), batch).backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert (prediction.grad[~mask] == 0).all()
    assert (prediction.grad[mask] != 0).any()


def test_an_empty_image_does_not_disturb_its_neighbour() -> None:
    prediction, batch = random_scene()
    alone = TASK.loss(prediction[:1], batch_of(batch.depth_m[:1]))
    depth_m = torch.stack([batch.depth_m[0], torch.full((8, 9), UNKNOWN)])
    assert TASK.loss(prediction, batch_of(depth_m)).item() == pytest.approx(alone.item())


def test_autocast_changes_nothing() -> None:
    prediction, batch = random_scene()
    with torch.autocast("cpu", torch.bfloat16):
        inside = TASK.loss(prediction, batch)
    assert inside.dtype == torch.float32
    assert inside.item() == TASK.loss(prediction, batch).item()


def test_the_range_follows_max_depth() -> None:
    depth_m = torch.tensor([[[1.0, 2.0, 3.0, 70.0]]])
    masks = [
        AffineInvariantDepth(max_depth_m=max_depth_m).encode_target(batch_of(depth_m))[1]
        for max_depth_m in (65.0, 70.0, 80.0)
    ]
    assert [mask[0, 0, 3].item() for mask in masks] == [False, False, True]


@pytest.mark.parametrize("max_depth_m", [0.0, -1.0, math.nan])
def test_an_impossible_range_is_refused_by_name_and_value(max_depth_m: float) -> None:
    with pytest.raises(ValueError, match=f"max_depth_m={max_depth_m}"):
        AffineInvariantDepth(max_depth_m=max_depth_m)


def test_errors_are_per_image_after_alignment() -> None:
    depth_m = torch.tensor([[[1.0, 2.0, 3.0, UNKNOWN]], [[4.0, 6.0, 4.0, 6.0]]])
    prediction = torch.tensor([[[0.1, 0.2, 0.3, 5.0]], [[0.0, 0.0, 1.0, 1.0]]])
    errors = TASK.errors(prediction, batch_of(depth_m))
    assert errors["abs_rel"].tolist() == pytest.approx([0, (1 / 4 + 1 / 6) / 2], abs=1e-6)
    assert errors["rmse"].tolist() == pytest.approx([0, 1], abs=1e-5)
    # 5 / 4 is not below 1.25, 6 / 5 is.
    assert errors["delta1"].tolist() == [1, 0.5]
    assert set(errors) == {
        "abs_rel", "sq_rel", "rmse", "rmse_log", "i_rmse", "log10", "silog",
        "delta1", "delta2", "delta3",
    }  # fmt: skip


def test_errors_know_no_quantiles_and_no_pixel_beyond_the_range() -> None:
    depth_m = torch.tensor([[[1.0, 2.0, 3.0, 90.0]]])
    prediction = torch.tensor([[[1.0, 2.0, 3.0, 0.0]]])
    assert TASK.errors(prediction, batch_of(depth_m))["abs_rel"].item() == pytest.approx(
        0, abs=1e-9
    )
    assert TASK.errors(RAMP_M, batch_of(RAMP_M))["abs_rel"].item() == pytest.approx(0, abs=1e-9)


def test_the_baseline_predicts_each_images_mean_depth() -> None:
    depth_m = torch.tensor([[[1.0, 3.0]], [[10.0, 20.0]]])
    batch = batch_of(depth_m)
    errors = TASK.errors(TASK.constant_prediction(batch), batch)
    assert errors["rmse"].tolist() == pytest.approx([1, 5])


def test_labels_are_the_prediction_as_numpy() -> None:
    prediction = torch.rand(2, 3, 4, requires_grad=True)
    np.testing.assert_array_equal(
        TASK.label(prediction)["depth_affine"], prediction.detach().numpy()
    )
