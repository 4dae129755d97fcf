"""Depth, normals and mask against closed form; run in each variant by `test_variants`."""

import os

import numpy as np
import pytest

from e2eft.scenes import SceneRenderer, render, scene, select_variant
from e2eft.scenes.materials import flat
from e2eft.scenes.meshes import block, panel
from e2eft.scenes.sky import even_lighting

HEIGHT, WIDTH = 192, 240
SPHERE_CENTRE, SPHERE_RADIUS = np.array([0.3, 4.0, 1.2]), 0.8
WALL_POINT, WALL_HALF = np.array([0.0, 12.0, 0.0]), 3.0
WALL_NORMAL = np.array([0.3, -1.0, 0.2]) / np.linalg.norm([0.3, -1.0, 0.2])
GROUND_HALF = 50.0


def camera() -> scene.Camera:
    position = np.array([0.1, -0.2, 1.5])
    return scene.look_along(position, np.array([0.2, 4.0, 0.9]) - position, 65.0, 3.0)


def wall_axes() -> tuple[np.ndarray, np.ndarray]:
    across = np.cross([0.0, 0.0, 1.0], WALL_NORMAL)
    across /= np.linalg.norm(across)
    return across, np.cross(WALL_NORMAL, across)


def closed_form(view: scene.Camera, radius: float = SPHERE_RADIUS) -> tuple[np.ndarray, np.ndarray]:
    """Depth [h w] and normals facing the camera [h w 3] of sphere, ground and tilted wall."""
    focal = WIDTH / 2 / np.tan(np.radians(view.hfov_deg) / 2)
    column, row = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    rays_cam = np.stack(
        [(column - WIDTH / 2) / focal, (row - HEIGHT / 2) / focal, np.ones((HEIGHT, WIDTH))], -1
    )
    rays, origin = rays_cam @ view.world_from_cam.T, view.position_m
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = origin - SPHERE_CENTRE
        a, b = (rays**2).sum(-1), rays @ apart
        root = b**2 - a * (apart @ apart - radius**2)
        sphere = np.where(root > 0, (-b - np.sqrt(root)) / a, np.inf)
        ground = -origin[2] / rays[..., 2]
        wall = ((WALL_POINT - origin) @ WALL_NORMAL) / (rays @ WALL_NORMAL)

    def bounded(depth: np.ndarray, half: float, centre: np.ndarray, axes: tuple) -> np.ndarray:
        at = origin + np.where(np.isfinite(depth), depth, 0)[..., None] * rays - centre
        outside = np.max([np.abs(at @ axis) for axis in axes], axis=0) > half
        return np.where((depth <= 0) | outside, np.inf, depth)

    ground = bounded(ground, GROUND_HALF, np.zeros(3), (np.eye(3)[0], np.eye(3)[1]))
    wall = bounded(wall, WALL_HALF, WALL_POINT, wall_axes())
    depths = np.stack([sphere, ground, wall])
    nearest, depth = depths.argmin(0), depths.min(0)
    hit = origin + np.where(np.isfinite(depth), depth, 0)[..., None] * rays
    normals = np.choose(
        nearest[..., None],
        [(hit - SPHERE_CENTRE) / radius, np.array([0.0, 0.0, 1.0]), WALL_NORMAL],
    )
    normals = normals @ view.world_from_cam
    normals *= -np.sign((normals * rays_cam).sum(-1, keepdims=True))
    normals[np.isinf(depth)] = np.nan
    return depth, normals


def angles_deg(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    sine = np.linalg.norm(np.cross(first, second), axis=-1)
    return np.degrees(np.arctan2(sine, (first * second).sum(-1)))


def assert_agrees(traced: render.TracedGeometry, depth: np.ndarray, normals: np.ndarray) -> None:
    assert traced.depth_m.dtype == traced.normals_cam.dtype == np.float32
    seen = np.isfinite(depth)
    np.testing.assert_array_equal(np.isfinite(traced.depth_m), seen)
    assert np.isposinf(traced.depth_m[~seen]).all()
    assert np.isnan(traced.normals_cam[~seen]).all()
    # No pixel is excepted: a depth between two surfaces at any edge would be metres off.
    assert np.abs(traced.depth_m[seen] - depth[seen]).max() < 1e-4
    assert angles_deg(traced.normals_cam[seen].astype(float), normals[seen]).max() < 0.01


def test_variant_is_the_one_asked_for():
    assert select_variant() == os.environ.get("E2EFT_RENDER_VARIANT", "llvm_ad_rgb")


def test_quadrics_against_closed_form(monkeypatch: pytest.MonkeyPatch):
    select_variant()
    import mitsuba as mi

    to_world = mi.ScalarTransform4f
    across, up = wall_axes()
    pose = np.eye(4)
    pose[:3, 0], pose[:3, 1], pose[:3, 2] = across * WALL_HALF, up * WALL_HALF, WALL_NORMAL
    pose[:3, 3] = WALL_POINT
    shapes = mi.load_dict(
        {
            "type": "scene",
            "sphere": {
                "type": "sphere",
                "center": SPHERE_CENTRE.tolist(),
                "radius": SPHERE_RADIUS,
            },
            "ground": {"type": "rectangle", "to_world": to_world().scale(GROUND_HALF)},
            "wall": {"type": "rectangle", "to_world": to_world(pose)},
        }
    )
    monkeypatch.setattr(render, "built", lambda _: shapes)
    view = camera()
    depth, normals = closed_form(view)
    seen = np.isfinite(depth)
    assert 0.5 < seen.mean() < 0.95, "the fixture should show sky as well as surfaces"
    traced = render.trace_geometry(None, view, HEIGHT, WIDTH)  # type: ignore[arg-type]
    assert_agrees(traced, depth, normals)


def planes_scene() -> scene.Scene:
    """Ground and tilted wall of the closed form, through our own meshes."""
    across, up = wall_axes()
    corner = WALL_POINT - WALL_HALF * (across + up)
    wall = panel(corner, 2 * WALL_HALF * across, 2 * WALL_HALF * up, 0.7)
    ground = block(2 * GROUND_HALF, 2 * GROUND_HALF, 1.0, 3.0).moved(0, 0, -1.0)
    items = (
        scene.MeshItem(wall, flat((0.5, 0.5, 0.5))),
        scene.MeshItem(ground, flat((0.3, 0.6, 0.3))),
    )
    return scene.Scene("street", "test", items, even_lighting(1.0, 1.0), ())


def test_rendered_frame_against_closed_form():
    view = camera()
    depth, normals = closed_form(view, radius=1e-9)
    frame = SceneRenderer(planes_scene()).render(view, HEIGHT, WIDTH, samples_per_pixel=1, seed=3)
    traced = render.TracedGeometry(frame.depth_m, frame.normals_cam, np.zeros(0, bool))
    assert_agrees(traced, depth, normals)
    assert frame.rgb.shape == (HEIGHT, WIDTH, 3) and frame.rgb.dtype == np.uint8
    # Lit from everywhere alike, the wall is grey but for what the green ground throws on it.
    at_wall = np.isfinite(depth) & (angles_deg(normals, normals[HEIGHT // 3, WIDTH // 2]) < 1)
    mean_wall = frame.rgb[at_wall].mean(0)
    ground = np.isfinite(depth) & ~at_wall
    mean_ground = frame.rgb[ground].mean(0)
    assert np.ptp(mean_wall) < 10 < 30 < mean_ground[1] - mean_ground[0]


def test_wall_in_front_faces_minus_z():
    wall = panel((-5, 3, -5), (10, 0, 0), (0, 0, 10))
    item = scene.MeshItem(wall, flat((0.5, 0.5, 0.5)))
    straight = scene.Scene("indoor", "test", (item,), even_lighting(1.0, 1.0), ())
    view = scene.look_along(np.zeros(3), np.array([0.0, 1.0, 0.0]), 60.0, 0.0)
    traced = render.trace_geometry(straight, view, 16, 20)
    expected = np.broadcast_to([0.0, 0.0, -1.0], (16, 20, 3))
    np.testing.assert_allclose(traced.normals_cam, expected, atol=1e-6)
    np.testing.assert_allclose(traced.depth_m, 3.0, atol=1e-5)


@pytest.mark.parametrize("low_in_the_picture", [True, False])
def test_down_in_the_camera_is_down_in_the_picture(low_in_the_picture: bool):
    """A floor below the camera fills the lower half and faces up, which is -y."""
    height = -1.0 if low_in_the_picture else 1.0
    slab = block(50, 50, 0.1).moved(0, 0, height - 0.1 * low_in_the_picture)
    item = scene.MeshItem(slab, flat((0.5, 0.5, 0.5)))
    one = scene.Scene("indoor", "test", (item,), even_lighting(1.0, 1.0), ())
    view = scene.look_along(np.zeros(3), np.array([0.0, 1.0, 0.0]), 60.0, 0.0)
    traced = render.trace_geometry(one, view, 16, 20)
    half = traced.normals_cam[12:] if low_in_the_picture else traced.normals_cam[:4]
    np.testing.assert_allclose(half[..., 1], height, atol=1e-6)
