"""The losses a run may choose, by hand."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from e2eft.losses import (
    AffineInvariant,
    Angular,
    DepthFit,
    DepthLoss,
    GradientMatching,
    LogSpace,
    NormalsFit,
    ScaleNormalized,
)
from e2eft.targets import DepthTarget, Disparity, LinearDepth, LogDepth

LOSSES = [loss() for loss in get_args(DepthLoss)]


def fit(fitted: Tensor, truth: Tensor, target: DepthTarget | None = None) -> DepthFit:
    """Where the truth is finite; the whole of it is each image's range."""
    known, target = truth.isfinite(), target or LinearDepth()
    low = torch.stack([image[k].min() if k.any() else truth.new_tensor(math.nan)
                       for image, k in zip(truth, known, strict=True)])[:, None, None]  # fmt: skip
    high = torch.stack([image[k].max() if k.any() else truth.new_tensor(math.nan)
                        for image, k in zip(truth, known, strict=True)])[:, None, None]  # fmt: skip
    return DepthFit(
        fitted.where(known, 0), truth.where(known, 0), known, low, high, target.to_depth
    )


def near_and_far() -> tuple[Tensor, Tensor]:
    """Two images of ramps, the second ten times as far; the prediction is a tenth too far."""
    ramp = torch.linspace(1, 5, 5, dtype=torch.float64).expand(4, 5)
    truth = torch.stack([ramp, 10 * ramp])
    return truth * 1.1, truth


def test_the_papers_loss_is_in_metres_and_the_others_in_shares_and_ratios() -> None:
    of_both = fit(*near_and_far())
    assert float(AffineInvariant()(of_both)) == pytest.approx(0.1 * 3 * 11 / 2)
    assert float(ScaleNormalized()(of_both)) == pytest.approx(0.1 * 3 / 4)
    assert float(LogSpace()(of_both)) == pytest.approx(math.log(1.1))


def test_log_space_is_that_of_depth_whatever_the_target_is() -> None:
    fitted_m, truth_m = near_and_far()
    for target in (LogDepth(eps_m=0.0), Disparity()):
        of_both = fit(target.of_depth(fitted_m), target.of_depth(truth_m), target)
        assert float(LogSpace()(of_both)) == pytest.approx(math.log(1.1))


def test_log_space_floors_what_is_fitted_behind_the_camera() -> None:
    truth = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    behind = truth.clone()
    behind[..., 0] = -7
    assert float(LogSpace()(fit(behind, truth))) == pytest.approx(math.log(10) / 4)


def test_gradients_match_where_an_error_is_level_and_count_where_it_steps() -> None:
    truth = torch.arange(64.0).reshape(1, 8, 8)
    assert float(GradientMatching()(fit(truth + 5, truth))) == 0
    stepped = truth.clone()
    stepped[..., 4:] += 6.3  # a tenth of the range, at one of seven steps to the right
    of_step = fit(stepped, truth)
    assert float(GradientMatching(scales=1)(of_step)) == pytest.approx(0.1 / 7)
    # At half the resolution one of three steps, at a quarter the only one, then no pair is left.
    whole = 0.1 * (1 / 7 + 1 / 3 + 1)
    assert float(GradientMatching()(of_step)) == pytest.approx(whole)


def test_gradients_do_not_cross_what_is_unknown() -> None:
    truth = torch.arange(64.0).reshape(1, 8, 8)
    truth[..., 4] = math.nan
    stepped = truth.clone()
    stepped[..., 5:] += 6.3
    assert float(GradientMatching(scales=1)(fit(stepped, truth))) == pytest.approx(0, abs=1e-6)


def test_angles_are_averaged_over_what_is_supervised() -> None:
    error_rad = torch.tensor([[[0.1, 0.3, 9.0]]])
    known = torch.tensor([[[True, True, False]]])
    assert float(Angular()(NormalsFit(error_rad, known))) == pytest.approx(0.2)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.kind)
def test_an_image_of_unknown_depth_changes_neither_loss_nor_gradient(loss: DepthLoss) -> None:
    truth = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) + 1
    fitted = truth + torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(1))
    truth[1] = math.nan
    losses, gradients = [], []
    for images in (1, 2):
        leaf = fitted.clone().requires_grad_()
        losses.append(loss(fit(leaf[:images], truth[:images])))
        losses[-1].backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert float(losses[0].detach()) == float(losses[1].detach()) > 0
    assert torch.equal(gradients[0], gradients[1])
    assert not gradients[1][1].any()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.kind)
def test_without_a_known_pixel_a_loss_is_zero_and_attached(loss: DepthLoss) -> None:
    fitted = torch.ones(1, 4, 4, requires_grad=True)
    value = loss(fit(fitted, torch.full((1, 4, 4), math.nan)))
    value.backward()
    assert float(value.detach()) == 0
    assert fitted.grad is not None and not fitted.grad.any()


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_is_positive(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        AffineInvariant(weight=weight)
    with pytest.raises(ValueError, match="scales 0: expected 1 to 8"):
        GradientMatching(scales=0)
