import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from e2eft.tasks.normals.task import AngularNormals
from tests.unit.tasks.batches import batch_of

TASK = AngularNormals()


def pixels(*vectors: list[float]) -> Tensor:
    """One image of one row from its pixels' vectors."""
    return torch.tensor(vectors, dtype=torch.float32).T.reshape(1, 3, 1, len(vectors))


def turned(angle_rad: float) -> list[float]:
    """The wall ahead, turned about the y axis."""
    return [math.sin(angle_rad), 0.0, -math.cos(angle_rad)]


WALL, FLOOR, LOOKING_RIGHT = [0.0, 0.0, -1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]
UNKNOWN = [math.nan, math.nan, math.nan]


def random_unit(dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1).to(dtype)


def test_the_image_is_in_the_axes_of_marigold_right_up_viewer() -> None:
    image, mask = TASK.encode_target(
        batch_of(normals_cam=pixels(WALL, FLOOR, LOOKING_RIGHT, UNKNOWN))
    )
    expected = pixels([0, 0, 1], [0, 1, 0], [1, 0, 0], [0, 0, 0])
    torch.testing.assert_close(image, expected)
    assert mask[0, 0].tolist() == [True, True, True, False]


def test_decode_inverts_encode_target_up_to_the_papers_epsilon() -> None:
    normals_cam = random_unit()
    decoded = TASK.decode(TASK.encode_target(batch_of(normals_cam=normals_cam))[0])
    torch.testing.assert_close(decoded, normals_cam / (1 + 1e-5))


def test_decode_does_not_mind_the_length() -> None:
    image = random_unit()
    torch.testing.assert_close(TASK.decode(3 * image), TASK.decode(image), rtol=0, atol=2e-5)


@pytest.mark.parametrize("angle_rad", [0.0, 1e-3, 0.4, math.pi / 2, 3.0, math.pi])
def test_the_loss_is_the_angle(angle_rad: float) -> None:
    prediction, batch = pixels(turned(angle_rad)), batch_of(normals_cam=pixels(WALL))
    assert TASK.loss(prediction, batch).item() == pytest.approx(angle_rad, abs=1e-6)


def test_the_mean_is_over_known_pixels_of_the_whole_batch() -> None:
    target = torch.cat([pixels(WALL, WALL, WALL), pixels(WALL, UNKNOWN, UNKNOWN)])
    prediction = torch.cat(
        [pixels(WALL, WALL, WALL), pixels(turned(1.0), turned(2.0), UNKNOWN)]
    ).requires_grad_()
    loss = TASK.loss(prediction, batch_of(normals_cam=target))
    assert loss.item() == pytest.approx(1.0 / 4)
    loss.backward()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()
    assert (prediction.grad[1, :, 0, 1:] == 0).all()
    assert (prediction.grad[1, :, 0, 0] != 0).any()


def test_a_normal_of_which_one_component_is_unknown_is_unknown() -> None:
    batch = batch_of(normals_cam=pixels([0.0, math.nan, -1.0], WALL))
    assert TASK.encode_target(batch)[1][0, 0].tolist() == [False, True]
    assert TASK.loss(pixels(turned(2.0), turned(0.5)), batch).item() == pytest.approx(0.5)


def test_normals_beyond_the_depths_range_are_not_supervised_but_scored() -> None:
    """As in the paper; where an image has no depth at all, its normals are all there is."""
    normals_cam = torch.cat([pixels(WALL, WALL, WALL), pixels(WALL, WALL, WALL)])
    depth_m = torch.tensor([[[5.0, 70.0, math.nan]], [[math.nan] * 3]])
    batch = replace(batch_of(depth_m, normals_cam), valid=depth_m < 65)
    prediction = torch.cat([pixels(turned(0.1), turned(2.0), turned(3.0)), pixels(*[WALL] * 3)])
    assert TASK.loss(prediction, batch).item() == pytest.approx(0.1 / 4)
    image, mask = TASK.encode_target(batch)
    assert mask.tolist() == [[[True, False, False]], [[True, True, True]]]
    assert not image[0, :, 0, 1:].any()
    errors = TASK.errors(prediction, batch)
    assert errors["mean_deg"][0].item() == pytest.approx(math.degrees(5.1 / 3), rel=1e-5)


def test_nothing_known_gives_zero_attached_with_zero_gradient() -> None:
    prediction = random_unit().requires_grad_()
    loss = TASK.loss(prediction, batch_of(normals_cam=torch.full((2, 3, 4, 5), torch.nan)))
    assert loss.item() == 0
    assert loss.requires_grad
    loss.backward()
    assert prediction.grad is not None
    assert (prediction.grad == 0).all()


@given(angle_rad=st.floats(-math.pi, math.pi))
def test_the_loss_is_invariant_to_a_common_rotation(angle_rad: float) -> None:
    cosine, sine = math.cos(angle_rad), math.sin(angle_rad)
    rotation = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=torch.float64)
    prediction, target = random_unit(torch.float64), random_unit(torch.float64, seed=1)
    rotated = (torch.einsum("ij,njhw->nihw", rotation, values) for values in (prediction, target))
    rotated_prediction, rotated_target = rotated
    expected = TASK.loss(prediction, batch_of(normals_cam=target)).item()
    assert TASK.loss(
        rotated_prediction, batch_of(normals_cam=rotated_target)
    ).item() == pytest.approx(expected)


@pytest.mark.parametrize("vector", [WALL, [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1e-20, 0.0, 0.0]])
def test_gradients_through_decode_are_finite_where_arccos_has_none(vector: list[float]) -> None:
    image = pixels(vector).requires_grad_()
    TASK.loss(TASK.decode(image), batch_of(normals_cam=pixels(WALL))).backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


def test_a_step_against_the_gradient_turns_towards_the_target() -> None:
    image = random_unit(seed=2).requires_grad_()
    batch = batch_of(normals_cam=random_unit())
    before = TASK.loss(TASK.decode(image), batch)
    before.backward()
    assert image.grad is not None
    after = TASK.loss(TASK.decode(image.detach() - 0.5 * image.grad), batch)
    assert after < before


def test_loss_passes_gradcheck_through_decode() -> None:
    image = random_unit(torch.float64, seed=2).requires_grad_()
    batch = batch_of(normals_cam=random_unit(torch.float64))
    assert torch.autograd.gradcheck(lambda values: TASK.loss(TASK.decode(values), batch), (image,))


def test_autocast_changes_nothing() -> None:
    prediction, batch = random_unit(), batch_of(normals_cam=random_unit(seed=1))
    with torch.autocast("cpu", torch.bfloat16):
        inside = TASK.loss(prediction, batch)
    assert inside.dtype == torch.float32
    assert inside.item() == TASK.loss(prediction, batch).item()


def test_errors_are_per_image_and_need_no_depth() -> None:
    ten, twenty = math.radians(10), math.radians(20)
    prediction = torch.cat(
        [pixels(turned(ten), turned(-twenty), turned(3)), pixels(WALL, WALL, WALL)]
    )
    target = torch.cat([pixels(WALL, WALL, UNKNOWN), pixels(UNKNOWN, UNKNOWN, UNKNOWN)])
    errors = TASK.errors(prediction, batch_of(normals_cam=target))
    expected = {"mean_deg": 15, "median_deg": 15, "rmse_deg": math.sqrt(250), "pct_5": 0,
                "pct_7_5": 0, "pct_11_25": 50, "pct_22_5": 100, "pct_30": 100}  # fmt: skip
    assert {name: value[0].item() for name, value in errors.items()} == pytest.approx(
        expected, rel=1e-5
    )
    assert all(value[1].isnan() for value in errors.values())


def test_labels_are_unit_vectors_channels_last_in_opencv_axes() -> None:
    decoded = TASK.decode(pixels([0.0, 0.0, 0.5], [0.0, 0.2, 0.0], [0.0, 0.0, 0.0]))
    normals_cam = TASK.label(decoded.requires_grad_())["normals_cam"]
    np.testing.assert_allclose(normals_cam, [[[WALL, FLOOR, UNKNOWN]]], atol=1e-7)


def test_the_baseline_faces_the_camera() -> None:
    batch = batch_of(normals_cam=pixels(WALL, turned(0.7)))
    baseline = TASK.constant_prediction(batch)
    assert TASK.errors(baseline, batch)["mean_deg"].item() == pytest.approx(math.degrees(0.35))
