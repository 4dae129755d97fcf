"""Rendering with Mitsuba 3: a noisy picture made clean, and geometry taken at pixel centres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from e2eft.scenes.denoise import Guides, denoise
from e2eft.scenes.mitsuba_scene import built
from e2eft.scenes.scene import Camera, FloatArray, Scene
from e2eft.scenes.variant import mitsuba, select_variant

_MAX_DEPTH, _ROULETTE_DEPTH = 5, 1
_BLOCK_SIZE = 32  # fixed: the scalar variant seeds by block, and sizes blocks by thread count
_NEAR_M, _FAR_M = 1e-3, 1e5
# The default sampler jitters within the pixel.
_CENTRES = {"type": "stratified", "jitter": False, "sample_count": 1}


@dataclass(frozen=True, eq=False)
class RenderedFrame:
    """`rgb` uint8 [h w 3] (gamma 2.2); `depth_m` float32 [h w] planar z, +inf on sky;
    `normals_cam` float32 [h w 3] unit, OpenCV axes, facing the camera, NaN on sky;
    `intrinsics_px` float64 [3 3] (see `Camera.intrinsics_px`).

    Geometry is that of the first surface hit by the ray through the pixel's centre: also for
    mirrors and glass, and never a mean over a pixel.
    """

    rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32]
    normals_cam: NDArray[np.float32]
    intrinsics_px: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TracedGeometry:
    """As in `RenderedFrame`; `backside` [h w] is True where the back of a triangle was hit."""

    depth_m: NDArray[np.float32]
    normals_cam: NDArray[np.float32]
    backside: NDArray[np.bool_]


class SceneRenderer:
    """Renders any number of cameras of one scene, which is built once.

    Using two renderers in turn is correct but rebuilds at every turn.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        built(scene)

    def render(
        self, camera: Camera, height: int, width: int, *, samples_per_pixel: int = 16, seed: int
    ) -> RenderedFrame:
        """The picture depends on `seed`; depth and normals do not.

        Raises ValueError for a size below 8 pixels or samples_per_pixel below 1.
        """
        if min(height, width) < 8 or samples_per_pixel < 1:
            raise ValueError(
                f"height={height}, width={width}, samples_per_pixel={samples_per_pixel}: "
                "expected at least 8 x 8 pixels and 1 sample"
            )
        seen = trace_geometry(self._scene, camera, height, width)
        radiance, albedo = _trace_light(self._scene, camera, height, width, samples_per_pixel, seed)
        coarse = Guides(albedo, np.nan_to_num(seen.normals_cam), seen.depth_m)
        clean = denoise(radiance, coarse, _trace_fine(self._scene, camera, height, width))
        intrinsics_px = camera.intrinsics_px(height, width)
        return RenderedFrame(tone_map(clean), seen.depth_m, seen.normals_cam, intrinsics_px)


def tone_map(radiance: FloatArray, percentile: float = 90, level: float = 0.8) -> NDArray[np.uint8]:
    """Expose so that the `percentile` of brightness becomes `level`, then gamma 2.2.

    As Hypersim does (apple/ml-hypersim, scene_generate_images_tonemap.py); brightness is
    .3 R + .59 G + .11 B.
    """
    brightness = np.percentile(radiance @ np.array([0.3, 0.59, 0.11]), percentile)
    scale = level**2.2 / brightness if brightness > 1e-4 else 0.0
    return (np.clip(radiance * scale, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)


def trace_geometry(scene: Scene, camera: Camera, height: int, width: int) -> TracedGeometry:
    """One ray through each pixel's centre.

    Normals are the smooth shading normals, except where one would face away from the camera though
    the triangle does not: there the triangle's.
    """
    rays_cam = _pixel_rays(camera.intrinsics_px(height, width), height, width)
    mitsuba_scene = built(scene)
    trace = _by_rays if select_variant().startswith("llvm") else _by_integrator
    depth_m, shading, geometric = trace(mitsuba_scene, camera, rays_cam)
    sky = np.isinf(depth_m)
    shading, geometric = shading @ camera.world_from_cam, geometric @ camera.world_from_cam
    backside = (geometric * rays_cam).sum(-1) > 0
    geometric = np.where(backside[..., None], -geometric, geometric)
    same_side = (shading * geometric).sum(-1) >= 0
    shading = np.where(same_side[..., None], shading, -shading)
    faces_away = (shading * rays_cam).sum(-1) >= 0
    normals = np.where(faces_away[..., None], geometric, shading)
    normals[sky] = np.nan
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    return TracedGeometry(depth_m.astype(np.float32), normals.astype(np.float32), backside & ~sky)


def _pixel_rays(intrinsics_px: FloatArray, height: int, width: int) -> FloatArray:
    """Directions [h w 3] through pixel centres, camera axes, with z = 1."""
    v, u = np.mgrid[0:height, 0:width] + 0.5
    x = (u - intrinsics_px[0, 2]) / intrinsics_px[0, 0]
    y = (v - intrinsics_px[1, 2]) / intrinsics_px[1, 1]
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def _by_rays(
    mitsuba_scene: Any, camera: Camera, rays_cam: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Depth [h w], shading and geometric normals [h w 3] in the world."""
    import drjit

    mi = mitsuba()
    shape = rays_cam.shape
    lengths = np.linalg.norm(rays_cam, axis=-1).ravel()
    directions = (rays_cam @ camera.world_from_cam.T).reshape(-1, 3) / lengths[:, None]
    origin = mi.Point3f(*camera.position_m.tolist())
    # Else its numbers would be part of the kernel, which would be compiled anew for each camera.
    drjit.make_opaque(origin)
    ray = mi.Ray3f(origin, mi.Vector3f(np.ascontiguousarray(directions.T, dtype=np.float32)))
    flags = mi.RayFlags.Minimal | mi.RayFlags.ShadingFrame
    hit = mitsuba_scene.ray_intersect(ray, flags, True)
    depth_m = (np.array(hit.t, dtype=np.float64) / lengths).reshape(shape[:2])
    shading, geometric = (
        np.array(n, dtype=np.float64).T.reshape(shape) for n in (hit.sh_frame.n, hit.n)
    )
    return depth_m, shading, geometric


def _by_integrator(
    mitsuba_scene: Any, camera: Camera, rays_cam: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """As `_by_rays`, for the scalar variant, where single rays would cost a Python call each."""
    # Not the `depth` channel for depth: it is a ray's length from the near plane.
    height, width = rays_cam.shape[:2]
    sensor = _sensor(camera, height, width, _CENTRES)
    aovs = {"type": "aov", "aovs": "p:position,s:sh_normal,g:geo_normal,d:depth"}
    channels = _image(mitsuba_scene, sensor, aovs, 1, 0).astype(np.float64)[..., -10:]
    offset, geometric = channels[..., :3] - camera.position_m, channels[..., 6:9]
    depth_m = offset @ camera.world_from_cam[:, 2]
    # The sensor's own rays are single precision, 1e-4 m off at a grazing hit: meet the hit's plane
    # with the exact ray instead.
    with np.errstate(divide="ignore", invalid="ignore"):
        exact = (offset * geometric).sum(-1) / (
            (rays_cam @ camera.world_from_cam.T) * geometric
        ).sum(-1)
    depth_m = np.where(np.abs(exact - depth_m) < 1e-3 * depth_m, exact, depth_m)
    return np.where(channels[..., 9] > 0, depth_m, np.inf), channels[..., 3:6], geometric


def _trace_light(
    scene: Scene, camera: Camera, height: int, width: int, samples: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Linear radiance and albedo [h w 3]: the same rays (seed), so noise cancels in the ratio."""
    sensor = _sensor(camera, height, width, {"type": "independent", "sample_count": samples})
    path = {"type": "path", "max_depth": _MAX_DEPTH, "rr_depth": _ROULETTE_DEPTH}
    # Not one nested integrator: it would trace every path twice.
    radiance = _image(built(scene), sensor, path, samples, seed)
    albedo = _image(built(scene), sensor, {"type": "aov", "aovs": "a:albedo"}, samples, seed)
    return radiance[..., -3:], albedo[..., -3:]


def _trace_fine(scene: Scene, camera: Camera, height: int, width: int) -> Guides:
    """Four regular samples per pixel, [2h 2w ...]; normals in camera axes."""
    sensor = _sensor(camera, 2 * height, 2 * width, _CENTRES)
    aovs = {"type": "aov", "aovs": "a:albedo,p:position,n:sh_normal"}
    channels = _image(built(scene), sensor, aovs, 1, 0)
    albedo, position, normals = np.split(channels[..., -9:], 3, axis=-1)
    sky = (normals == 0).all(axis=-1)
    depth_m = (position - camera.position_m) @ camera.world_from_cam[:, 2]
    return Guides(
        np.where(sky[..., None], 1.0, albedo).astype(np.float32),
        (normals @ camera.world_from_cam).astype(np.float32),
        np.where(sky, np.inf, depth_m),
    )


def _sensor(camera: Camera, height: int, width: int, sampler: dict[str, Any]) -> Any:
    mi = mitsuba()
    # Mitsuba's camera axes: x left, y up, z forward.
    pose = np.eye(4)
    pose[:3, :3] = camera.world_from_cam * np.array([-1, -1, 1])
    pose[:3, 3] = camera.position_m
    film = {
        "type": "hdrfilm",
        "width": width,
        "height": height,
        "pixel_format": "rgb",
        "component_format": "float32",
        "rfilter": {"type": "box"},  # a wider one would mix pixels, and sums depend on their order
    }
    return mi.load_dict(
        {
            "type": "perspective",
            "fov": float(camera.hfov_deg),
            "fov_axis": "x",
            "near_clip": _NEAR_M,
            "far_clip": _FAR_M,
            "to_world": mi.ScalarTransform4f(pose),
            "film": film,
            "sampler": sampler,
        }
    )


def _image(
    mitsuba_scene: Any, sensor: Any, integrator: dict[str, Any], samples: int, seed: int
) -> FloatArray:
    mi = mitsuba()
    plugin = mi.load_dict({**integrator, "block_size": _BLOCK_SIZE})
    pixels = mi.render(mitsuba_scene, sensor=sensor, integrator=plugin, spp=samples, seed=seed)
    return np.nan_to_num(np.array(pixels), posinf=0.0, neginf=0.0)
