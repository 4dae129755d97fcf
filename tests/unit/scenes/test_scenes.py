"""What is in the scenes, and what is seen of them."""

from dataclasses import replace

import numpy as np
import pytest

import e2eft.scenes as scenes
from e2eft.scenes import indoor, render, street
from e2eft.scenes.materials import flat
from e2eft.scenes.meshes import block
from e2eft.scenes.scene import LookAt, MeshItem, Scene, Surface, ViewZone
from e2eft.scenes.sky import even_lighting

KINDS = sorted({*indoor.KINDS, *street.KINDS}, key=lambda maker: maker.__name__)


def fingerprint(scene: Scene) -> bytes:
    parts = [item.mesh.vertices.tobytes() for item in scene.items]
    parts += [i.material.texture.tobytes() for i in scene.items if isinstance(i.material, Surface)]
    return b"".join([scene.kind.encode(), scene.lighting.sky_radiance.tobytes(), *parts])


@pytest.mark.parametrize("family", ["indoor", "street"])
def test_a_scene_is_a_function_of_its_arguments(family: scenes.Family):
    first = fingerprint(scenes.make_scene(family, 7, 2))
    assert fingerprint(scenes.make_scene(family, 7, 3)) != first
    assert fingerprint(scenes.make_scene(family, 8, 2)) != first
    assert fingerprint(scenes.make_scene(family, 7, 2)) == first


def test_unknown_family_is_refused():
    with pytest.raises(ValueError, match=r"underwater.*indoor, street"):
        scenes.make_scene("underwater", 0, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("maker", KINDS, ids=lambda maker: maker.__name__)
def test_meshes_and_views_of_every_kind(maker):
    scene = maker(np.random.default_rng(4))
    for item in scene.items:
        mesh = item.mesh
        assert np.isfinite(mesh.vertices).all()
        np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-6)
        assert mesh.uvs.min() >= -1e-9 and mesh.uvs.max() <= 1 + 1e-9
        assert mesh.faces.min() >= 0 and mesh.faces.max() < len(mesh.vertices)
    camera = scenes.sample_camera(scene, 1, 0)
    axes = camera.world_from_cam
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert np.linalg.det(axes) == pytest.approx(1)
    seen = render.trace_geometry(scene, camera, 48, 60)
    near = seen.depth_m
    assert near.min() > 0.1 and (near < 0.5).mean() < 0.7 and np.isinf(near).mean() < 0.7
    assert seen.backside.mean() < 0.15, "inside a solid"
    surface = np.isfinite(near)
    normals = seen.normals_cam[surface]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    rays = render._pixel_rays(camera.intrinsics_px(48, 60), 48, 60)[surface]
    assert ((normals * rays).sum(-1) <= 1e-6).all(), "facing away from the camera"


def test_kinds_differ_within_a_family():
    for family in ("indoor", "street"):
        kinds = {scenes.make_scene(family, 0, index).kind for index in range(8)}
        assert len(kinds) >= 4


def test_cameras_differ_by_frame_by_seed_and_by_scene():
    scene = scenes.make_scene("indoor", 7, 2)
    assert scene.identity == (7, 2)
    twin = replace(scene, identity=(7, 3))
    sampled = [(scene, 0, 0), (scene, 0, 1), (scene, 1, 0), (twin, 0, 0)]
    lenses = [scenes.sample_camera(*arguments).hfov_deg for arguments in sampled]
    assert len(set(lenses)) == 4
    assert scenes.sample_camera(scene, 0, 0).hfov_deg == lenses[0]


def test_where_every_view_is_inside_a_solid_there_is_no_camera():
    item = MeshItem(block(4, 4, 4), flat((0.5, 0.5, 0.5)))
    aim = LookAt((1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
    zone = ViewZone((-0.5, -0.5, 1.5), (0.5, 0.5, 2.5), aim)
    scene = Scene("indoor", "solid", (item,), even_lighting(), (zone,))
    with pytest.raises(ValueError, match="no usable view of this solid scene"):
        scenes.sample_camera(scene, 0, 0)


def test_a_single_flat_surface_is_not_a_view():
    item = MeshItem(block(40, 1, 40).moved(0, 3, -20), flat((0.5, 0.5, 0.5)))
    zone = ViewZone((-1, -1, -1), (1, 0, 1), LookAt((-1, 3, -1), (1, 3, 1)), (40, 60))
    scene = Scene("indoor", "wall", (item,), even_lighting(), (zone,))
    with pytest.raises(ValueError, match="no usable view"):
        scenes.sample_camera(scene, 0, 0)


@pytest.mark.parametrize(("family", "index"), [("indoor", 2), ("street", 0), ("street", 4)])
def test_normals_are_those_of_the_depth(family: scenes.Family, index: int):
    """Away from edges, differences of the points span the plane that the normals stand on."""
    scene = scenes.make_scene(family, 1, index)
    camera = scenes.sample_camera(scene, 1, 0)
    seen = render.trace_geometry(scene, camera, 128, 160)
    rays = render._pixel_rays(camera.intrinsics_px(128, 160), 128, 160)
    depth = np.where(np.isinf(seen.depth_m), np.nan, seen.depth_m).astype(float)
    points = rays * depth[..., None]
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    from_depth = np.cross(down, across)  # y down x right: towards the camera
    from_depth /= np.linalg.norm(from_depth, axis=-1, keepdims=True)
    # On one plane, inverse depth is affine in the pixel's coordinates.
    inverse = 1 / depth
    bend = np.abs(inverse[1:-1, 2:] + inverse[1:-1, :-2] - 2 * inverse[1:-1, 1:-1])
    bend += np.abs(inverse[2:, 1:-1] + inverse[:-2, 1:-1] - 2 * inverse[1:-1, 1:-1])
    one_plane = bend < 1e-5 * inverse[1:-1, 1:-1]
    normals = seen.normals_cam[1:-1, 1:-1].astype(float)
    cosine = np.clip((from_depth * normals).sum(-1), -1, 1)
    error_deg = np.degrees(np.arccos(cosine))
    near = [seen.normals_cam[i : i + 126, j : j + 158] for i in range(3) for j in range(3)]
    same = np.min([(n * normals).sum(-1) for n in near], axis=0) > 0.999999
    assert (one_plane & same).mean() > 0.2
    assert np.median(error_deg[one_plane & same]) < 0.05
    assert (error_deg[one_plane & same] > 1).mean() < 0.002
    # Smooth normals on the facets of a round thing.
    assert np.percentile(error_deg[one_plane], 99) < 25


def test_mirrors_and_glass_are_the_surface_seen():
    from e2eft.scenes.materials import mirror
    from e2eft.scenes.scene import Glass, look_along

    back = MeshItem(block(20, 1, 20).moved(0, 6, -10), flat((0.8, 0.2, 0.2)))
    view = look_along(np.zeros(3), np.array([0.0, 1.0, 0.0]), 40.0, 0.0)
    for material in (mirror(), Glass(), Glass(thin=True)):
        front = MeshItem(block(20, 0.5, 20).moved(0, 2.25, -10), material)
        scene = Scene("indoor", "panes", (back, front), even_lighting(1, 1), ())
        depth_m = render.trace_geometry(scene, view, 8, 10).depth_m
        np.testing.assert_allclose(depth_m, 2.0, atol=1e-5)


def test_absurd_sizes_are_refused():
    renderer = scenes.SceneRenderer(scenes.make_scene("indoor", 7, 2))
    camera = scenes.sample_camera(scenes.make_scene("indoor", 7, 2), 0, 0)
    with pytest.raises(ValueError, match="samples_per_pixel=0"):
        renderer.render(camera, 32, 32, samples_per_pixel=0, seed=0)
    with pytest.raises(ValueError, match="height=4"):
        renderer.render(camera, 4, 32, seed=0)
