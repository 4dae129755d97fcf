"""Meshes, textures, atlas, sky, denoiser and tone map, without a renderer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2eft.scenes import atlas, meshes, textures
from e2eft.scenes.denoise import Guides, denoise
from e2eft.scenes.render import tone_map
from e2eft.scenes.scene import Mesh
from e2eft.scenes.sky import even_lighting, outdoor_lighting

RNG = np.random.default_rng(0)
SQUARE = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]])
SOLIDS = {
    "box": (meshes.box(1, 2, 3), 6.0, 1e-9),
    "tiled box": (meshes.box(1, 2, 3, repeat_m=0.7), 6.0, 1e-9),
    "two boxes": (meshes.boxes(np.eye(3)[:2] * 5, np.array([[1, 1, 1], [1, 2, 3]])), 7.0, 1e-9),
    "prism": (meshes.prism(SQUARE, 3.0), 6.0, 1e-9),
    "cylinder": (meshes.cylinder(1, 2, 200), 2 * np.pi, 1e-2),
    "cone": (meshes.cylinder(1, 3, 200, top_radius=0.0), np.pi, 1e-2),
    "rod": (meshes.rod((1, 2, 3), (3, 1, 5), 0.5, 200), 0.75 * np.pi, 1e-2),
    "upright rod": (meshes.rod((0, 0, 3), (0, 0, 0), 0.5, 200), 0.75 * np.pi, 1e-2),
    "sphere": (meshes.sphere(1, 200), 4 / 3 * np.pi, 1e-2),
    "torus": (meshes.torus(2, 0.5, 200), np.pi**2, 1e-2),
}


def volume(mesh: Mesh) -> float:
    """Of a closed mesh; negative if it is wound inwards."""
    a, b, c = mesh.vertices[mesh.faces].transpose(1, 0, 2)
    return float((a * np.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_are_closed_and_wound_outwards(name: str):
    mesh, expected, relative = SOLIDS[name]
    assert volume(mesh) == pytest.approx(expected, rel=relative)
    a, b, c = mesh.vertices[mesh.faces].transpose(1, 0, 2)
    geometric = np.cross(b - a, c - a)
    proper = np.linalg.norm(geometric, axis=1) > 1e-9
    shading = mesh.normals[mesh.faces].mean(1)
    assert ((geometric * shading).sum(1)[proper] > 0).all()


@pytest.mark.parametrize("make", [meshes.vase, meshes.blob])
def test_random_solids_are_wound_outwards(make):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        assert volume(make(rng, 0.5, 0.1)) > 0


def test_moving_turning_and_stretching():
    mesh = meshes.sphere(1.0, 40).stretched(1, 2, 3).turned(np.pi / 2).moved(10, 0, 0)
    np.testing.assert_allclose(np.ptp(mesh.vertices, axis=0), [4, 2, 6], atol=0.02)
    local = mesh.vertices - [10, 0, 0]
    ellipsoid = local / np.array([4.0, 1.0, 9.0])
    ellipsoid /= np.linalg.norm(ellipsoid, axis=1, keepdims=True)
    np.testing.assert_allclose(mesh.normals, ellipsoid, atol=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.3, 9), st.floats(0.3, 9), st.floats(0.2, 3))
def test_a_panel_is_cut_where_its_texture_repeats(width: float, height: float, repeat: float):
    mesh = meshes.panel((1, 2, 3), (width, 0, 0), (0, 0, height), repeat)
    a, b, c = mesh.vertices[mesh.faces].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    assert area == pytest.approx(width * height)
    phase = (mesh.vertices[:, [0, 2]] - [1, 3]) / repeat
    whole = np.abs(phase - mesh.uvs - np.round(phase - mesh.uvs))
    assert whole.max() < 1e-6
    assert mesh.uvs.min() >= 0 and mesh.uvs.max() <= 1 + 1e-9


def test_the_atlas_gives_every_texture_back():
    pictures = [textures.pick(RNG) for _ in range(12)]
    packed = atlas.pack(pictures)
    height, width = packed.image.shape[:2]
    for number, picture in enumerate(pictures):
        size = picture.shape[0]
        v, u = np.mgrid[0:size, 0:size]
        centres = (np.stack([u.ravel(), v.ravel()], -1) + 0.5) / size
        column, row = (packed.place(number, centres) * [width, height]).astype(int).T
        np.testing.assert_array_equal(packed.image[row, column].reshape(picture.shape), picture)
        left, low = packed.origins_px[number]
        np.testing.assert_array_equal(packed.image[low : low + size, left - 1], picture[:, -1])
        np.testing.assert_array_equal(packed.image[low + size, left : left + size], picture[0])


@pytest.mark.parametrize("painter", textures.ANY, ids=lambda painter: painter.__name__)
def test_painters(painter):
    first, again, other = (painter(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == np.uint8 and first.ndim == 3 and first.shape[0] == first.shape[1]
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize("seed", range(8))
def test_skies_are_finite_and_brighter_above(seed: int):
    sky = outdoor_lighting(np.random.default_rng(seed)).sky_radiance
    assert sky.shape[1] == 2 * sky.shape[0]
    assert np.isfinite(sky).all() and sky.min() >= 0
    half = len(sky) // 2
    assert np.median(sky[:half]) > np.median(sky[half:])
    assert even_lighting(0.3).sky_radiance.max() == pytest.approx(0.3)


def two_walls(height: int = 32, width: int = 40) -> tuple[Guides, Guides, np.ndarray]:
    """Left at 2 m, right at 5 m, both facing the camera, of striped albedo; which is left."""

    def guides(scale: int) -> Guides:
        h, w = scale * height, scale * width
        left = np.arange(w) < w // 2
        albedo = np.where((np.arange(w) // scale) % 4 < 2, 0.2, 0.8)
        depth = np.broadcast_to(np.where(left, 2.0, 5.0), (h, w))
        normals = np.broadcast_to([0.0, 0.0, -1.0], (h, w, 3))
        return Guides(np.broadcast_to(albedo[:, None], (h, w, 3)), normals, depth)

    return guides(1), guides(2), np.broadcast_to(np.arange(width) < width // 2, (height, width))


def test_denoising_keeps_texture_and_edges_and_removes_noise():
    coarse, fine, left = two_walls()
    truth = coarse.albedo * np.where(left, 1.0, 4.0)[..., None]
    noise = np.random.default_rng(0).gamma(4.0, 0.25, truth.shape)
    clean = denoise(truth * noise, coarse, fine)
    before = np.abs(truth * noise / truth - 1).mean()
    after = np.abs(clean / truth - 1).mean()
    assert after < 0.25 * before
    beside = clean[:, 19:21].mean(0).mean(-1) / coarse.albedo[0, 19:21, 0]
    np.testing.assert_allclose(beside, [1.0, 4.0], rtol=0.2)
    np.testing.assert_allclose(denoise(truth, coarse, fine), truth, rtol=0.02)


def test_denoising_leaves_the_sky_alone():
    coarse, fine, left = two_walls()
    depth = np.where(left, 2.0, np.inf)
    fine_depth = depth.repeat(2, 0).repeat(2, 1)
    sky = np.linspace(0.5, 2.0, left.shape[0])[:, None, None] * np.ones((*left.shape, 3))
    radiance = np.where(left[..., None], coarse.albedo, sky)
    facing = np.array([0.0, 0.0, -1.0])
    normals = np.where(np.isinf(depth)[..., None], 0.0, facing)
    fine_normals = np.where(np.isinf(fine_depth)[..., None], 0.0, facing)
    albedo = np.where(left[..., None], coarse.albedo, 0.0)
    fine_albedo = np.where(np.isinf(fine_depth)[..., None], 1.0, fine.albedo)
    clean = denoise(
        radiance, Guides(albedo, normals, depth), Guides(fine_albedo, fine_normals, fine_depth)
    )
    np.testing.assert_allclose(clean, radiance, rtol=0.02)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.01, 100))
def test_exposure_makes_the_brightness_of_the_lamp_irrelevant(scale: float):
    radiance = np.random.default_rng(0).random((20, 30, 3))
    first, second = tone_map(radiance).astype(int), tone_map(scale * radiance).astype(int)
    assert np.abs(first - second).max() <= 1
    brightness = (first / 255.0) ** 2.2 @ np.array([0.3, 0.59, 0.11])
    assert np.percentile(brightness, 90) == pytest.approx(0.8**2.2, rel=0.03)


def test_darkness_stays_black():
    assert tone_map(np.zeros((4, 4, 3))).max() == 0
