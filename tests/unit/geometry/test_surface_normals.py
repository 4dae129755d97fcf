"""Normals of depth that is stored in centimetres, where surfaces end, meet and are far away."""

from collections.abc import Callable

import numpy as np
import pytest

from e2eft.geometry.camera import pixel_rays
from e2eft.geometry.normals import surface_normals
from e2eft.geometry.planes import neighbours_planes, own_planes
from tests.planted_depth import (
    FOCAL,
    GROUND_M,
    QUANTUM_M,
    SCENES,
    PlantedDepth,
    ball,
    camera_of,
    depth_codes,
    depth_of,
    error_deg,
    fence,
    ground,
    seen,
    wall,
)

HEIGHT, WIDTH = 240, 320


def errors_deg(scene: PlantedDepth) -> np.ndarray:
    """NaN where the normal is unknown."""
    found = surface_normals(scene.stored_m, scene.intrinsics_px, QUANTUM_M)
    return error_deg(found, scene.normals_cam)


@pytest.mark.parametrize(
    ("name", "mean_deg", "steep", "unknown"),
    [
        ("posts", 11.0, 0.10, 0.01),  # three pixels of a cylinder turn by 80 degrees
        ("fence of 4 px", 0.1, 0.001, 0.005),
        ("fence of 3 px", 0.2, 0.001, 0.005),
        ("fence of 2 px", 0.1, 0.001, 0.01),
        ("corners", 4.5, 0.045, 0.02),
        ("steps", 0.5, 0.001, 0.04),
        ("walls along a road", 0.2, 0.001, 0.002),
        ("room", 0.2, 0.001, 0.001),
        ("balls", 2.5, 0.005, 0.17),
    ],
)
def test_normals_beside_an_edge_are_those_of_the_pixels_own_surface(
    name: str, mean_deg: float, steep: float, unknown: float
) -> None:
    scene = seen(SCENES[name], HEIGHT, WIDTH)
    there = scene.surface >= 0
    error, near = errors_deg(scene), scene.near_edges()
    beside, elsewhere = error[near & there], error[~near & there]
    assert (near & there).mean() > 0.015, "this scene has too few edges to tell"
    assert np.nanmean(beside) < mean_deg
    assert (beside > 30).mean() < steep
    assert np.isnan(beside).mean() < unknown
    assert np.nanmean(elsewhere) < 1 and np.isnan(elsewhere).mean() < 0.001


def test_a_thing_of_one_pixel_is_unknown_and_what_is_behind_it_is_not() -> None:
    scene = seen([ground(), wall(20.3), *fence(10, 1, 5)], HEIGHT, WIDTH)
    error, boards = errors_deg(scene), scene.surface > 1
    assert boards.mean() > 0.02
    assert np.isnan(error[boards]).mean() > 0.95
    assert np.isnan(error[~boards]).mean() < 0.01
    assert np.nanmax(error) < 10


@pytest.mark.parametrize(
    ("rows", "columns", "has_plane"), [(1, 9, False), (2, 2, False), (2, 3, True)]
)
def test_a_plane_needs_six_pixels_that_agree_on_it(
    rows: int, columns: int, has_plane: bool
) -> None:
    inverse, known = np.zeros((24, 32), np.float32), np.zeros((24, 32), bool)
    known[11 : 11 + rows, 14 : 14 + columns] = True
    inverse[known] = 0.2
    planes = own_planes(inverse, known, np.full_like(inverse, 1e-4))
    assert np.isnan(planes[0][~known]).all()
    assert (np.isfinite(planes[0][known]) == has_plane).all()


@pytest.mark.parametrize("roll_deg", [0, 8, -17])
def test_a_road_far_away_is_known(roll_deg: float) -> None:
    camera = camera_of(HEIGHT, WIDTH)
    angle = np.radians(roll_deg)
    up = np.array([np.sin(angle), -np.cos(angle), 0])
    facing = pixel_rays(camera, HEIGHT, WIDTH) @ up
    depth_m = np.where(facing < 0, -GROUND_M / np.minimum(facing, -1e-9), np.inf)
    stored_m = depth_of(depth_codes(depth_m))
    found = surface_normals(stored_m, camera, QUANTUM_M)
    error = error_deg(found, np.broadcast_to(up, found.shape))
    for near_m, far_m in ((10, 30), (30, 100), (100, 300), (300, 655)):
        band = error[(stored_m > near_m) & (stored_m < far_m)]
        assert band.size > 500 and np.isnan(band).mean() <= 0.001
        assert np.nanmean(band) < 0.2


def test_rounding_takes_no_pixel_off_a_plane_of_any_slant_and_distance() -> None:
    rng = np.random.default_rng(0)
    camera = camera_of(64, 96)
    rays = pixel_rays(camera, 64, 96)
    unknown: list[float] = []
    for _ in range(60):
        slant = np.tan(np.radians(rng.uniform(0, 85)))
        turn = rng.uniform(0, 2 * np.pi)
        normal = np.array([slant * np.cos(turn), slant * np.sin(turn), -1])
        facing = rays @ normal
        depth_m = rng.uniform(2, 300) / np.where(facing < 0, -facing, np.nan)
        stored_m = depth_of(depth_codes(depth_m))
        there = np.isfinite(stored_m)
        unknown.append(np.isnan(surface_normals(stored_m, camera, QUANTUM_M)[there]).mean())
    assert np.mean(unknown) < 0.0005 and max(unknown) < 0.01


@pytest.mark.parametrize(
    ("radius_px", "mean_deg", "unknown"), [(9, 8.0, 0.2), (18, 5.0, 0.01), (36, 2.0, 0.001)]
)
def test_surfaces_that_curve_are_known(radius_px: int, mean_deg: float, unknown: float) -> None:
    camera = camera_of(64, 96)
    scene = seen([ball((0, 0, FOCAL / radius_px), 1.0)], 64, 96)
    facing = scene.normals_cam[..., 2] < -0.7
    error = error_deg(surface_normals(scene.depth_m, camera), scene.normals_cam)[facing]
    assert error.size > radius_px**2
    assert np.nanmean(error) < mean_deg and np.isnan(error).mean() < unknown


def test_the_plane_of_most_neighbours_is_still_to_be_had() -> None:
    """Shards that were begun with it are finished with it."""
    scene = seen(SCENES["room"], HEIGHT, WIDTH)
    near = scene.near_edges() & (scene.surface >= 0)
    found = surface_normals(scene.stored_m, scene.intrinsics_px, QUANTUM_M, "neighbours")
    beside = error_deg(found, scene.normals_cam)[near]
    assert np.nanmean(beside) == pytest.approx(34.75, abs=0.05)
    assert np.isnan(beside).mean() == 0


@pytest.mark.parametrize("planes_of", [own_planes, neighbours_planes])
def test_a_pixels_plane_depends_on_the_pixels_around_it_alone(
    planes_of: Callable[..., np.ndarray],
) -> None:
    stored_m = seen(SCENES["corners"], 160, 64).stored_m
    known = np.isfinite(stored_m)
    inverse = np.where(known, 1 / np.where(known, stored_m, 1), 0).astype(np.float32)
    images = inverse, known, np.full_like(inverse, 1e-4)
    whole = planes_of(*images)
    for top in (0, 31, 60):
        part = planes_of(*(image[top : top + 99] for image in images))
        inner = slice(2 if top else 0, 97)
        np.testing.assert_array_equal(part[:, inner], whole[:, top : top + 99][:, inner])
