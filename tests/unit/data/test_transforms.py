"""Resized frames: physics in closed form, no invented depth, the mirror before or after."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2eft.data.sample import Sample, check_sample
from e2eft.data.transforms import flip_sample, nearest_pixels, resize_sample
from e2eft.geometry.camera import pixel_rays, unproject
from tests.frames import analytic_frame

NATIVE, PAPER = (96, 128), (60, 80)
"""The ratio of Hypersim's 768 x 1024 to the paper's 480 x 640."""
NORMAL = np.array([0.28, -0.6, -0.75]) / np.linalg.norm([0.28, -0.6, -0.75])
TILTED = np.array([[110.0, 0, 61], [0, 112, 50], [0.02, -0.03, 1]])
"""A tilted lens: rays that no focal length gives."""
SIZES = [PAPER, (72, 80), (34, 46), (150, 200)]


def plane_depth(intrinsics_px: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth in metres of the plane n . x = -3 in closed form."""
    return -3 / (pixel_rays(intrinsics_px, *size) @ NORMAL)


def plane(intrinsics_px: np.ndarray = TILTED) -> Sample:
    frame = analytic_frame(0, *NATIVE)
    depth_m = plane_depth(intrinsics_px, NATIVE)
    assert depth_m.min() > 0 and depth_m.max() < 60
    return check_sample(
        replace(
            frame,
            depth_m=depth_m.astype(np.float32),
            normals_cam=np.broadcast_to(NORMAL, (*NATIVE, 3)).astype(np.float32),
            intrinsics_px=intrinsics_px,
        )
    )


@pytest.mark.parametrize("size", SIZES)
def test_a_resized_plane_is_the_same_plane(size: tuple[int, int]) -> None:
    """Depth is what the closed form says half a source pixel or less aside, without bias."""
    made = check_sample(resize_sample(plane(), size))
    assert made.size == size
    exact = plane_depth(made.intrinsics_px, size)
    per_pixel = [np.abs(np.diff(plane().depth_m, axis=axis)).max() for axis in (0, 1)]
    error = made.depth_m - exact
    assert np.abs(error).max() <= 0.5 * sum(per_pixel) + 1e-5
    assert abs(error.mean()) < 0.03 * sum(per_pixel), "shifted"
    off_plane = unproject(made.depth_m, made.intrinsics_px) @ NORMAL + 3
    assert np.abs(off_plane).max() < 0.05 and abs(off_plane.mean()) < 2e-3
    np.testing.assert_allclose(made.normals_cam, np.broadcast_to(NORMAL, (*size, 3)), atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_intrinsics_see_the_same_ray_at_the_same_place(size: tuple[int, int]) -> None:
    made = resize_sample(plane(), size)
    rng = np.random.default_rng(0)
    points = rng.uniform([-1, -1, 3], [1, 1, 5], (50, 3))
    shares = []
    for camera, (height, width) in ((TILTED, NATIVE), (made.intrinsics_px, size)):
        projected = points @ camera.T
        shares.append(projected[:, :2] / projected[:, 2:] / [width, height])
    np.testing.assert_allclose(shares[0], shares[1], rtol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_no_depth_is_made_up_and_what_is_not_finite_stays(size: tuple[int, int]) -> None:
    frame = analytic_frame(3, *NATIVE, sky=True)
    depth_m = frame.depth_m.copy()
    depth_m[40:60, 20:70] = np.nan
    made = resize_sample(replace(frame, depth_m=depth_m), size).depth_m
    assert np.isin(made[np.isfinite(made)], depth_m).all()
    for test in (np.isnan, np.isposinf):
        assert test(made).mean() == pytest.approx(test(depth_m).mean(), abs=0.02)
        assert test(made).any()


def test_normals_are_unit_face_the_camera_and_ignore_the_unknown() -> None:
    frame = analytic_frame(3, *NATIVE, sky=True)
    made = check_sample(resize_sample(frame, PAPER))
    known = np.isfinite(made.normals_cam).all(axis=-1)
    np.testing.assert_allclose(np.linalg.norm(made.normals_cam[known], axis=-1), 1, atol=1e-6)
    before = np.isfinite(frame.normals_cam).all(axis=-1).mean()
    assert before - 0.02 < known.mean() < before + 0.05
    assert np.isnan(made.normals_cam[:10]).all()


def test_a_mean_normal_that_faces_away_is_unknown() -> None:
    """Two walls that both face the camera, seen along their edge from far to the side."""
    frame = analytic_frame(0, 8, 8)
    camera = np.array([[4.0, 0, 4], [0, 4, 4], [0, 0, 1]])
    rays = pixel_rays(camera, 8, 8)
    ray = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    grazing = np.cross(ray, [0.0, 1, 0])
    grazing /= np.linalg.norm(grazing, axis=-1, keepdims=True)
    odd = (np.arange(8) % 2 == 1)[None, :, None]
    normals = np.where(odd, grazing, np.cross(ray, [1.0, 0, 0]))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    sample = check_sample(
        replace(frame, normals_cam=normals.astype(np.float32), intrinsics_px=camera)
    )
    made = check_sample(resize_sample(sample, (5, 5)))
    known = np.isfinite(made.normals_cam).all(axis=-1)
    assert 0 < known.sum() < known.size


def test_colour_is_averaged_over_the_pixels_it_stands_for() -> None:
    frame = analytic_frame(0, *NATIVE)
    stripes = np.zeros_like(frame.rgb)
    stripes[:, ::2] = 200
    made = resize_sample(replace(frame, rgb=stripes), (48, 32)).rgb[:, 1:-1]
    assert made.min() >= 85 and made.max() <= 115, "aliased"


@pytest.mark.parametrize("size", SIZES)
def test_resizing_commutes_with_the_mirror(size: tuple[int, int]) -> None:
    frame = analytic_frame(5, *NATIVE, sky=True)
    first = flip_sample(resize_sample(frame, size))
    second = resize_sample(flip_sample(frame), size)
    np.testing.assert_array_equal(first.depth_m, second.depth_m)
    np.testing.assert_allclose(first.normals_cam, second.normals_cam, atol=1e-6)
    np.testing.assert_allclose(first.intrinsics_px, second.intrinsics_px, rtol=1e-12)
    assert np.abs(first.rgb.astype(int) - second.rgb).max() <= 1


@given(old=st.integers(1, 400), new=st.integers(1, 400))
def test_the_nearest_pixel_is_the_nearest_and_pulls_to_no_side(old: int, new: int) -> None:
    picked = nearest_pixels(old, new)
    centres = [Fraction(2 * i + 1, 2) * Fraction(old, new) for i in range(new)]
    aside = [Fraction(2 * int(p) + 1, 2) - c for p, c in zip(picked, centres, strict=True)]
    assert all(abs(a) <= Fraction(1, 2) for a in aside)
    assert picked.min() >= 0 and picked.max() < old
    on_the_axis = old % 2 == 0 and new % 2 == 1
    assert sum(aside) == (Fraction(1, 2) if on_the_axis else 0)
    mirrored = old - 1 - picked[::-1]
    assert np.flatnonzero(picked != mirrored).tolist() == ([new // 2] if on_the_axis else [])


def test_the_same_size_is_the_same_frame() -> None:
    frame = analytic_frame(0, *NATIVE)
    assert resize_sample(frame, NATIVE) is frame
