import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from e2eft.geometry.camera import (
    Intrinsics,
    hflip_intrinsics,
    intrinsics_from_hfov,
    pixel_rays,
)
from e2eft.geometry.normals import (
    Axes,
    angular_error,
    convert_axes,
    hflip_normals,
    normalize,
    normals_from_depth,
    surface_normals,
)

HEIGHT, WIDTH = 24, 32


def off_centre_camera() -> Intrinsics:
    intrinsics_px = intrinsics_from_hfov(70.0, HEIGHT, WIDTH)
    intrinsics_px[0, 2] += 3
    return intrinsics_px


def sphere(intrinsics_px: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Depth and normals of a sphere; NaN beside it."""
    centre_m, radius_m = np.array([0.3, -0.2, 4.0]), 1.5
    rays = pixel_rays(intrinsics_px, HEIGHT, WIDTH)
    squared, along = (rays**2).sum(-1), rays @ centre_m
    discriminant = along**2 - squared * (centre_m @ centre_m - radius_m**2)
    depth_m = (along - np.sqrt(np.where(discriminant > 0, discriminant, np.nan))) / squared
    return depth_m, (rays * depth_m[..., None] - centre_m) / radius_m


def rotated(angle_rad: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two unit vectors `angle_rad` apart, as images of one pixel."""
    first = torch.tensor([0.0, 0.6, -0.8], dtype=torch.float64)
    aside = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    second = first * math.cos(angle_rad) + aside * math.sin(angle_rad)
    return first.to(dtype).view(1, 3, 1, 1), second.to(dtype).view(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("axes", "wall", "right"),
    [
        ("opencv", [0, 0, -1], [1, 0, 0]),
        ("right-up-viewer", [0, 0, 1], [1, 0, 0]),
        ("left-up-viewer", [0, 0, 1], [-1, 0, 0]),
    ],
)
def test_axes_by_a_wall_ahead_and_a_wall_looking_right(
    axes: Axes, wall: list[float], right: list[float]
) -> None:
    normals_cam = np.array([[[0, 0, -1], [1, 0, 0], [0, 1, 0]]], np.float32)
    floor = [0, 1, 0] if axes == "opencv" else [0, -1, 0]
    np.testing.assert_array_equal(
        convert_axes(normals_cam, "opencv", axes), np.array([[wall, right, floor]])
    )


@pytest.mark.parametrize("source", get_args(Axes))
@pytest.mark.parametrize("target", get_args(Axes))
def test_axes_round_trip_is_identity_on_every_path(source: Axes, target: Axes) -> None:
    normals = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    converted = convert_axes(normals, source, target)
    torch.testing.assert_close(convert_axes(converted, target, source), normals, rtol=0, atol=0)
    via_opencv = convert_axes(convert_axes(normals, source, "opencv"), "opencv", target)
    torch.testing.assert_close(converted, via_opencv, rtol=0, atol=0)
    assert (source == target) == bool((converted == normals).all())


def test_axes_agree_between_numpy_and_torch() -> None:
    normals = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    normals[0, 0] = np.nan
    as_tensor = torch.tensor(normals).permute(2, 0, 1)[None]
    for axes in get_args(Axes):
        converted = convert_axes(as_tensor, "opencv", axes)[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(converted, convert_axes(normals, "opencv", axes))


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(1.0, 30.0))
def test_normals_of_a_tilted_plane_are_exact(slant_x: float, slant_y: float, far_m: float) -> None:
    intrinsics_px = off_centre_camera()
    normal = np.array([slant_x, slant_y, -1.0])
    normal /= np.linalg.norm(normal)
    depth_m = -far_m / (pixel_rays(intrinsics_px, HEIGHT, WIDTH) @ normal)
    normals_cam = normals_from_depth(depth_m, intrinsics_px)
    np.testing.assert_allclose(normals_cam, np.broadcast_to(normal, normals_cam.shape), atol=1e-6)


def test_normals_of_a_sphere_face_the_camera() -> None:
    intrinsics_px = off_centre_camera()
    depth_m, expected = sphere(intrinsics_px)
    normals_cam = normals_from_depth(depth_m, intrinsics_px)
    rays = pixel_rays(intrinsics_px, HEIGHT, WIDTH)
    inner = (expected * rays).sum(-1) / np.linalg.norm(rays, axis=-1) < -0.6
    assert inner.sum() > 50
    cosine = (normals_cam * expected).sum(-1)[inner]
    assert np.degrees(np.arccos(cosine.min())) < 2
    known = np.isfinite(normals_cam).all(-1)
    assert ((normals_cam * rays).sum(-1)[known] < 0).all()
    np.testing.assert_allclose(np.linalg.norm(normals_cam[known], axis=-1), 1, rtol=1e-6)


def test_normals_beside_unknown_depth_and_sky_are_unknown() -> None:
    depth_m = np.full((5, 5), 2.0)
    depth_m[2, 2], depth_m[0, 4] = np.nan, np.inf
    normals_cam = normals_from_depth(depth_m, intrinsics_from_hfov(50.0, 5, 5))
    expected = np.zeros((5, 5), bool)
    for row, column in [(2, 2), (1, 2), (3, 2), (2, 1), (2, 3), (0, 4), (1, 4), (0, 3)]:
        expected[row, column] = True
    np.testing.assert_array_equal(np.isnan(normals_cam).all(-1), expected)
    np.testing.assert_array_equal(np.isnan(normals_cam).any(-1), expected)


def test_a_single_row_has_no_normals() -> None:
    with pytest.raises(ValueError):
        normals_from_depth(np.ones((1, 5)), intrinsics_from_hfov(50.0, 1, 5))


def test_mirrored_depth_has_mirrored_normals() -> None:
    intrinsics_px = off_centre_camera()
    depth_m, _ = sphere(intrinsics_px)
    normals_cam = normals_from_depth(depth_m, intrinsics_px)
    mirrored = normals_from_depth(depth_m[:, ::-1], hflip_intrinsics(intrinsics_px, WIDTH))
    np.testing.assert_allclose(mirrored, hflip_normals(normals_cam), atol=1e-6)


def test_flipping_twice_is_identity_and_once_is_not() -> None:
    _, normals_cam = sphere(off_centre_camera())
    once = hflip_normals(normals_cam)
    np.testing.assert_array_equal(hflip_normals(once), normals_cam)
    np.testing.assert_array_equal(once[:, 0, 0], -normals_cam[:, -1, 0])
    np.testing.assert_array_equal(once[:, 0, 1:], normals_cam[:, -1, 1:])


def test_normalize_shrinks_by_eps_and_survives_zero() -> None:
    vectors = torch.tensor([3.0, 0.0, -4.0]).view(1, 3, 1, 1).repeat(1, 1, 1, 2)
    vectors[..., 1] = 0
    vectors.requires_grad_()
    unit = normalize(vectors, eps=1e-2)
    torch.testing.assert_close(unit[0, :, 0, 0], torch.tensor([3.0, 0.0, -4.0]) / 5.01)
    assert unit[0, :, 0, 1].tolist() == [0, 0, 0]
    unit.sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
    assert normalize(vectors.detach())[0, :, 0, 1].isnan().all()


@pytest.mark.parametrize("angle_rad", [0.0, 1e-7, 1e-4, 0.5, math.pi / 2, 3.0, math.pi - 1e-7])
def test_angles_are_exact_in_float64(angle_rad: float) -> None:
    assert angular_error(*rotated(angle_rad, torch.float64)).item() == pytest.approx(
        angle_rad, rel=1e-8, abs=1e-15
    )


def test_small_angles_survive_float32_where_arccos_loses_them() -> None:
    prediction, target = rotated(1e-4, torch.float32)
    assert angular_error(prediction, target).item() == pytest.approx(1e-4, rel=1e-2)
    cosine = (prediction * target).sum().clamp(-1, 1)
    assert cosine.acos().item() != pytest.approx(1e-4, rel=0.5)


def test_the_angle_does_not_depend_on_lengths_near_one() -> None:
    prediction, target = rotated(0.3, torch.float64)
    assert angular_error(prediction * 0.9, target).item() == pytest.approx(0.3)


@pytest.mark.parametrize("angle_rad", [0.0, 1e-20, 1e-7, math.pi / 2, math.pi - 1e-7, math.pi])
@pytest.mark.parametrize("length", [1.0, 0.5, 1e-3, 1e-20, 1e-30, 0.0])
def test_the_gradient_is_bounded_everywhere(angle_rad: float, length: float) -> None:
    prediction, target = rotated(angle_rad, torch.float32)
    prediction = (prediction * length).requires_grad_()
    angular_error(prediction, target).sum().backward()
    assert prediction.grad is not None
    assert prediction.grad.norm() <= 2.001


def test_exactly_opposite_and_equal_vectors() -> None:
    vector = torch.tensor([0.6, 0.0, -0.8]).view(1, 3, 1, 1)
    assert angular_error(vector, vector).item() == pytest.approx(0, abs=1e-7)
    assert angular_error(vector, -vector).item() == pytest.approx(math.pi, rel=1e-7)


def test_a_vector_without_direction_is_a_right_angle_off_and_is_pulled_to_the_target() -> None:
    target = torch.tensor([0.6, 0.0, -0.8]).view(1, 3, 1, 1)
    prediction = torch.zeros(1, 3, 1, 1, requires_grad=True)
    error_rad = angular_error(prediction, target)
    assert error_rad.item() == pytest.approx(math.pi / 2)
    error_rad.sum().backward()
    torch.testing.assert_close(prediction.grad, -target)


def test_angular_error_passes_gradcheck() -> None:
    generator = torch.Generator().manual_seed(0)
    prediction, target = (
        normalize(torch.randn(2, 3, 3, 4, generator=generator, dtype=torch.float64))
        for _ in range(2)
    )
    assert torch.autograd.gradcheck(
        angular_error, (prediction.requires_grad_(), target.requires_grad_())
    )


STRAIGHT_PX = np.array([[60.0, 0, 32], [0, 60.0, 24], [0, 0, 1]])
TILTED_PX = np.array([[60.0, 2.0, 33.0], [1.0, 62.0, 22.0], [0.01, -0.03, 1.0]])


def error_deg(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos((found.astype(np.float64) * wanted).sum(-1).clip(-1, 1)))


@pytest.mark.parametrize("camera", [STRAIGHT_PX, TILTED_PX])
def test_surface_normals_of_a_plane_are_exact_up_to_the_border(camera: np.ndarray) -> None:
    normal = np.array([0.3, -0.4, -0.866])
    normal /= np.linalg.norm(normal)
    depth_m = -5.0 / (pixel_rays(camera, 48, 64) @ normal)
    assert depth_m.min() > 0
    assert error_deg(surface_normals(depth_m, camera), normal).max() < 0.05


def test_surface_normals_do_not_bridge_a_depth_edge() -> None:
    camera = STRAIGHT_PX
    floor = np.array([0, -1.0, 0])
    facing = pixel_rays(camera, 48, 64) @ floor
    depth_m = np.where(facing < -0.02, -1.5 / np.minimum(facing, -0.02), 30.0)
    wanted = np.where(facing[..., None] < -0.02, floor, [0, 0, -1.0])
    box = np.s_[10:40, 20:44]
    depth_m[box], wanted[box] = 2.5, [0, 0, -1.0]
    pole = np.s_[5:45, 52:54]
    depth_m[pole], wanted[pole] = 1.5, [0, 0, -1.0]
    error = error_deg(surface_normals(depth_m, camera), wanted)
    assert np.nanmean(error > 5) < 0.03 and np.nanmax(error[pole]) < 1
    assert np.isnan(error).mean() < 0.04
    bridging = error_deg(normals_from_depth(depth_m, camera), wanted)
    assert np.nanmean(bridging > 5) > 0.08, "this scene has too few edges to tell"


def test_surface_normals_average_out_steps_of_the_stored_depth() -> None:
    camera = np.array([[725.0, 0, 64], [0, 725.0, -100], [0, 0, 1]])
    floor = np.array([0, -1.0, 0])
    depth_m = -1.6 / (pixel_rays(camera, 96, 128) @ floor)
    assert depth_m.min() > 5 and depth_m.max() < 12
    stored_m = np.round(depth_m, 2)
    error = error_deg(surface_normals(stored_m, camera, 0.01), floor)
    assert error.mean() < 0.3 and error.max() < 2
    assert error_deg(normals_from_depth(stored_m, camera), floor).mean() > 1.5 * error.mean()


def test_surface_normals_are_unknown_where_depth_is() -> None:
    depth_m = np.full((48, 64), 3.0)
    depth_m[:10], depth_m[10:12], depth_m[30, 30], depth_m[30, 31] = np.inf, np.nan, 0, -1
    depth_m[40:, 60:] = np.nan
    depth_m[45, 62] = 3.0  # alone
    normals = surface_normals(depth_m, STRAIGHT_PX)
    unknown = ~(np.isfinite(depth_m) & (depth_m > 0))
    unknown[45, 62] = True
    np.testing.assert_array_equal(np.isnan(normals).all(-1), unknown)
    assert np.abs(normals[~unknown] - [0, 0, -1]).max() < 1e-4
