"""Where to photograph a scene from."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import render
from e2eft.scenes.scene import Camera, FloatArray, Heading, Scene, ViewZone, look_along

_TRIES, _CHOICES = 40, 3
_PROBE_HEIGHT, _PROBE_WIDTH = 24, 30
_NEAREST_M, _CROWDED_M, _CROWDED_SHARE, _SKY_SHARE = 0.15, 0.5, 0.6, 0.6


def sample_camera(scene: Scene, seed: int, frame_index: int) -> Camera:
    """The camera of one frame: a pure function of its arguments, another one for each scene.

    Of three usable draws from the scene's zones, the one that shows most shapes. Usable, as a
    low-resolution probe of the geometry tells: nothing nearer than 0.15 m, at most 60 % of the
    picture nearer than 0.5 m, not inside a solid, not mostly sky, not one flat surface.

    Raises ValueError if no view in 40 draws is usable.
    """
    stream = np.random.SeedSequence((seed, frame_index, *scene.identity))
    rng = np.random.Generator(np.random.Philox(stream))
    best: tuple[float, Camera] | None = None
    usable = 0
    for _ in range(_TRIES):
        camera = _draw(rng, scene.zones)
        interest = _interest(scene, camera)
        if interest is None:
            continue
        usable += 1
        if best is None or interest > best[0]:
            best = interest, camera
        if usable == _CHOICES:
            break
    if best is None:
        raise ValueError(
            f"no usable view of this {scene.kind} scene in {_TRIES} draws "
            f"(seed {seed}, frame {frame_index}): skip the scene"
        )
    return best[1]


def _draw(rng: np.random.Generator, zones: tuple[ViewZone, ...]) -> Camera:
    weights = np.array([zone.weight for zone in zones])
    zone = zones[int(rng.choice(len(zones), p=weights / weights.sum()))]
    position = rng.uniform(zone.low, zone.high)
    if isinstance(zone.aim, Heading):
        yaw, pitch = (
            np.radians(rng.uniform(*zone.aim.yaw_deg)),
            np.radians(rng.uniform(*zone.aim.pitch_deg)),
        )
        forward = np.array(
            [np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)]
        )
    else:
        forward = rng.uniform(zone.aim.low, zone.aim.high) - position
    # Never straight up or down, where "level" has no meaning.
    level = float(np.linalg.norm(forward[:2]))
    if level < 0.15 * abs(forward[2]):
        forward[:2] = (
            (0.15 * abs(forward[2]), 0.0)
            if level == 0
            else forward[:2] * 0.15 * abs(forward[2]) / level
        )
    hfov_deg, roll_deg = rng.uniform(*zone.hfov_deg), rng.normal() * zone.roll_sigma_deg
    return look_along(position, forward, float(hfov_deg), float(roll_deg))


def _interest(scene: Scene, camera: Camera) -> float | None:
    """How much of the picture is edges or curved surfaces; None if the view is unusable."""
    seen = render.trace_geometry(scene, camera, _PROBE_HEIGHT, _PROBE_WIDTH)
    depth_m, normals_cam = seen.depth_m, seen.normals_cam
    sky = np.isinf(depth_m)
    if sky.mean() > _SKY_SHARE or seen.backside.mean() > 0.1:
        return None
    if depth_m.min() < _NEAREST_M or (depth_m < _CROWDED_M).mean() > _CROWDED_SHARE:
        return None
    if _is_one_plane(normals_cam[~sky]):
        return None
    beside = normals_cam[:, 1:] * normals_cam[:, :-1]
    below = normals_cam[1:] * normals_cam[:-1]
    return float((beside.sum(-1) < 0.97).mean() + (below.sum(-1) < 0.97).mean())


def _is_one_plane(normals_cam: FloatArray) -> bool:
    """More than nine tenths of the normals [n 3] within 5 degrees of each other."""
    typical = np.median(normals_cam, axis=0)
    typical = typical / max(float(np.linalg.norm(typical)), 1e-9)
    return float((normals_cam @ typical > np.cos(np.radians(5))).mean()) > 0.9
