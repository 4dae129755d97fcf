"""Depth predicted in other spaces than its own, and under other losses than the paper's."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from e2eft.geometry.depth import align_scale_shift
from e2eft.losses import AffineInvariant, Angular, GradientMatching, LogSpace, ScaleNormalized
from e2eft.targets import DepthTarget, Disparity, LinearDepth, LogDepth, SqrtDisparity
from e2eft.tasks import get_task
from e2eft.tasks.depth.task import AffineInvariantDepth
from tests.unit.tasks.batches import batch_of

TARGETS = [LinearDepth(), LogDepth(), LogDepth(eps_m=1.0), Disparity(), SqrtDisparity()]
ALL = (AffineInvariant(), ScaleNormalized(), LogSpace(), GradientMatching())


def scene() -> Tensor:
    """Depth from 1 to 9 m, a corner of it unknown."""
    depth_m = 1 + 8 * torch.rand(2, 12, 16, generator=torch.Generator().manual_seed(0))
    depth_m[0, :3, :4] = math.nan
    return depth_m


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_what_is_affine_in_the_targets_values_is_perfect_and_nothing_else(
    target: DepthTarget,
) -> None:
    depth_m = scene()
    task = get_task("depth", depth_target=replace(target, low=0.0, high=1.0), losses=ALL)
    values = target.of_depth(depth_m).nan_to_num(0)
    perfect = (0.3 * values / values.abs().amax() + 0.1).requires_grad_()
    loss = task.loss(perfect, batch_of(depth_m))
    assert float(loss.detach()) < 1e-3
    errors = task.errors(perfect.detach(), batch_of(depth_m))
    assert float(errors["abs_rel"].max()) < 1e-3 and float(errors["delta1"].min()) == 1
    other = (depth_m.nan_to_num(1).square() / 100).requires_grad_()
    loss = task.loss(other, batch_of(depth_m))
    loss.backward()
    assert float(loss.detach()) > 0.05
    assert other.grad is not None and other.grad.isfinite().all() and other.grad.any()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_the_encoded_target_decodes_to_what_is_affine_in_its_values(target: DepthTarget) -> None:
    depth_m = scene()
    task = AffineInvariantDepth(values=replace(target, low=0.0, high=1.0))
    image, mask = task.encode_target(batch_of(depth_m))
    assert torch.equal(mask, depth_m.isfinite())
    decoded = task.decode(image)
    values = target.of_depth(depth_m).where(mask, 0)
    scale, shift = align_scale_shift(decoded, values, mask)
    fitted = scale[:, None, None] * decoded + shift[:, None, None]
    torch.testing.assert_close(fitted[mask], values[mask], rtol=1e-4, atol=1e-4)
    assert bool((scale > 0).all()), "it grows with the values"
    far = 1.0 if target.nearest_is_least else -1.0
    assert bool((image[0, :, :3, :4] == far).all()), "what is unknown is far away"


def test_quantiles_are_the_targets_own() -> None:
    depth_m = torch.linspace(1, 101, 101).reshape(1, 1, 101)
    target = LinearDepth(low=0.1, high=0.5)
    image, _ = AffineInvariantDepth(max_depth_m=200, values=target).encode_target(batch_of(depth_m))
    assert float(image[0, 0, 0, 10]) == pytest.approx(-1, abs=1e-6)
    assert float(image[0, 0, 0, 50]) == pytest.approx(1, abs=1e-6)


def test_losses_are_added_up_by_their_weights() -> None:
    depth_m = scene()
    noise = torch.rand(2, 12, 16, generator=torch.Generator().manual_seed(1))
    prediction = depth_m.nan_to_num(1) / 20 + 0.2 * noise  # the right way round

    def loss(*losses: AffineInvariant | GradientMatching) -> float:
        return float(get_task("depth", losses=losses).loss(prediction, batch_of(depth_m)))

    paper, edges = AffineInvariant(), GradientMatching()
    assert float(get_task("depth").loss(prediction, batch_of(depth_m))) == loss(paper)
    together = loss(paper, GradientMatching(weight=0.5))
    assert together == pytest.approx(loss(paper) + 0.5 * loss(edges))


PAPERS = (LinearDepth(), (AffineInvariant(),))


@pytest.mark.parametrize("losses", [(AffineInvariant(),), (ScaleNormalized(),), (LogSpace(),)])
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_a_prediction_that_is_upside_down_is_turned_round(
    target: DepthTarget, losses: tuple[AffineInvariant]
) -> None:
    depth_m = scene()[1:]
    task = get_task("depth", depth_target=target, losses=losses)
    values = target.of_depth(depth_m)
    values = (values - values.mean()) / values.std()

    def loss_of(correlation: float) -> float:
        noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(3))
        prediction = correlation * values + (1 - abs(correlation)) * noise
        return float(task.loss(0.1 * prediction + 0.5, batch_of(depth_m)))

    wrong, worse, right = loss_of(-0.95), loss_of(-0.6), loss_of(0.95)
    if (target, losses) == PAPERS:
        assert wrong == pytest.approx(right, rel=0.2), "the paper's does not mind"
    else:
        assert wrong > 1.5 * right and wrong > worse > right
        noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(4))
        prediction = (0.5 - 0.1 * values + 0.05 * noise).requires_grad_()
        optimizer = torch.optim.Adam([prediction], lr=0.02)
        for _ in range(150):
            optimizer.zero_grad()
            task.loss(prediction, batch_of(depth_m)).backward()
            optimizer.step()
        together = torch.stack([prediction.detach().flatten(), values.flatten()])
        assert float(torch.corrcoef(together)[0, 1]) > 0.9


def test_a_loss_of_another_task_is_refused() -> None:
    with pytest.raises(ValueError, match="the loss angular is one of normals, not of depth"):
        get_task("depth", losses=[Angular()])
    with pytest.raises(ValueError, match="the loss log-space is one of depth, not of normals"):
        get_task("normals", losses=[LogSpace()])


def test_what_a_task_reads_is_what_its_losses_read() -> None:
    assert get_task("depth").modalities == get_task("depth", losses=ALL).modalities == ("depth",)
    assert get_task("normals").modalities == ("normals", "depth")
