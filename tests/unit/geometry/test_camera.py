import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2eft.geometry.camera import (
    crop_intrinsics,
    has_rays,
    hflip_intrinsics,
    intrinsics_from_hfov,
    pixel_rays,
    planar_depth,
    ray_distance,
    resize_intrinsics,
    unproject,
)

HEIGHT, WIDTH = 6, 9
SKEWED_PX = np.array([[7.0, 0.3, 4.1], [0.0, 8.0, 2.2], [0.0, 0.0, 1.0]])


def wavy_depth_m() -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return 3.0 + 0.2 * rows + np.sin(columns)


def test_hfov_spans_the_image_from_edge_to_edge() -> None:
    intrinsics_px = intrinsics_from_hfov(90.0, height=480, width=640)
    expected_px = [[320, 0, 320], [0, 320, 240], [0, 0, 1]]
    np.testing.assert_allclose(intrinsics_px, expected_px, rtol=1e-14)
    left_edge = np.linalg.inv(intrinsics_px) @ [0, 240, 1]
    assert math.degrees(math.atan2(-left_edge[0], left_edge[2])) == pytest.approx(45)


@pytest.mark.parametrize("hfov_deg", [0.0, -10.0, 180.0, math.nan])
def test_impossible_hfov_is_refused_by_name_and_value(hfov_deg: float) -> None:
    with pytest.raises(ValueError, match=f"hfov_deg={hfov_deg}"):
        intrinsics_from_hfov(hfov_deg, height=4, width=4)


def test_points_project_onto_the_centres_of_their_pixels() -> None:
    depth_m = wavy_depth_m()
    points_m = unproject(depth_m, SKEWED_PX)
    projected = points_m @ SKEWED_PX.T
    pixels_px = projected[..., :2] / projected[..., 2:]
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    np.testing.assert_allclose(pixels_px, np.stack([columns, rows], -1) + 0.5, atol=1e-12)
    np.testing.assert_array_equal(points_m[..., 2], depth_m)


def test_unknown_and_sky_have_no_point() -> None:
    depth_m = np.array([[np.nan, np.inf, 2.0]], np.float32)
    # An odd width puts the sky pixel on the optical axis, where infinity times 0 lies in wait.
    points_m = unproject(depth_m, intrinsics_from_hfov(60.0, 1, 3))
    assert np.isnan(points_m[0, :2]).all()
    assert np.isfinite(points_m[0, 2]).all()


def test_a_sphere_around_the_camera_has_constant_ray_distance() -> None:
    intrinsics_px = intrinsics_from_hfov(80.0, HEIGHT, WIDTH)
    depth_m = planar_depth(np.full((HEIGHT, WIDTH), 5.0), intrinsics_px)
    radii_m = np.linalg.norm(unproject(depth_m, intrinsics_px), axis=-1)
    np.testing.assert_allclose(radii_m, 5.0, rtol=1e-14)
    assert depth_m.min() < 4.0, "the corners of a wide image must be closer in z than on the ray"


def test_ray_distance_inverts_planar_depth_and_keeps_the_markers() -> None:
    depth_m = wavy_depth_m()
    depth_m[0, 0], depth_m[1, 1] = np.nan, np.inf
    there_and_back_m = planar_depth(ray_distance(depth_m, SKEWED_PX), SKEWED_PX)
    np.testing.assert_allclose(there_and_back_m, depth_m, rtol=1e-14)


@given(top=st.integers(0, HEIGHT - 1), left=st.integers(0, WIDTH - 1))
def test_crop_commutes_with_unproject(top: int, left: int) -> None:
    depth_m = wavy_depth_m()
    cropped_px = crop_intrinsics(SKEWED_PX, top, left)
    np.testing.assert_allclose(
        unproject(depth_m[top:, left:], cropped_px),
        unproject(depth_m, SKEWED_PX)[top:, left:],
        atol=1e-12,
    )


def test_resizing_keeps_the_rays_through_the_edges() -> None:
    old_size, new_size = (HEIGHT, WIDTH), (13, 5)
    resized_px = resize_intrinsics(SKEWED_PX, old_size, new_size)
    for row, column in [(0, 0), (0, 1), (1, 0), (0.25, 0.7)]:
        old_ray = np.linalg.inv(SKEWED_PX) @ [column * old_size[1], row * old_size[0], 1]
        new_ray = np.linalg.inv(resized_px) @ [column * new_size[1], row * new_size[0], 1]
        np.testing.assert_allclose(new_ray, old_ray, atol=1e-13)


def test_a_pixel_of_the_half_size_image_sees_the_middle_of_four() -> None:
    rays = pixel_rays(SKEWED_PX, 6, 8)
    middles = rays.reshape(3, 2, 4, 2, 3).mean((1, 3))
    halved_px = resize_intrinsics(SKEWED_PX, (6, 8), (3, 4))
    np.testing.assert_allclose(pixel_rays(halved_px, 3, 4), middles, atol=1e-13)


def test_hflip_mirrors_the_points() -> None:
    depth_m = wavy_depth_m()
    mirrored_m = unproject(depth_m[:, ::-1], hflip_intrinsics(SKEWED_PX, WIDTH))
    expected_m = unproject(depth_m, SKEWED_PX)[:, ::-1] * [-1, 1, 1]
    np.testing.assert_allclose(mirrored_m, expected_m, atol=1e-12)


def test_hflip_keeps_the_focal_length_positive_and_twice_is_identity() -> None:
    once_px = hflip_intrinsics(SKEWED_PX, WIDTH)
    assert once_px[0, 0] == SKEWED_PX[0, 0]
    np.testing.assert_allclose(hflip_intrinsics(once_px, WIDTH), SKEWED_PX, atol=1e-14)


def test_a_tilted_lens_has_a_ray_through_every_pixel_until_its_horizon_is_seen() -> None:
    intrinsics_px = np.array([[30.0, 0, 16], [0, 30, 12], [0, 0, 1]])
    assert has_rays(intrinsics_px, 24, 32) and has_rays(-intrinsics_px, 24, 32)
    intrinsics_px[2, 1] = 0.9
    assert has_rays(intrinsics_px, 24, 32)
    assert np.isfinite(pixel_rays(intrinsics_px, 24, 32)).all()
    # 1 - 0.9 (y - 12) / 30 of the inverse's last row changes its sign within a tall image.
    assert not has_rays(intrinsics_px, 60, 32)
    intrinsics_px[:, 1] = intrinsics_px[:, 0]
    assert not has_rays(intrinsics_px, 24, 32)
