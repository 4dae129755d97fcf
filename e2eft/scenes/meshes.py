"""Triangle primitives, centred on the origin unless said otherwise; sizes in metres, z up."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from e2eft.scenes.scene import FloatArray, Mesh, Vector


def merge(parts: Iterable[Mesh]) -> Mesh:
    """One mesh of all `parts`, in order."""
    parts = list(parts)
    counts = np.cumsum([0] + [len(part.vertices) for part in parts[:-1]])
    return Mesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.normals for part in parts]),
        np.concatenate([part.uvs for part in parts]),
        np.concatenate([part.faces + count for part, count in zip(parts, counts, strict=True)]),
    )


def _cuts(length: float, repeat: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Starts and ends of the pieces of [0, length] cut every `repeat`, and the share each fills."""
    starts = np.arange(0.0, max(length - 1e-6 * repeat, 1e-9), repeat)
    ends = np.minimum(starts + repeat, length)
    return starts, ends, (ends - starts) / repeat


def panel(
    origin: Vector,
    along_u: Vector,
    along_v: Vector,
    repeat_u: float | None = None,
    repeat_v: float | None = None,
) -> Mesh:
    """A parallelogram facing along_u x along_v.

    The texture repeats every so many metres, or fits once.
    """
    corner, u_axis, v_axis = (np.asarray(a, float) for a in (origin, along_u, along_v))
    u_length, v_length = float(np.linalg.norm(u_axis)), float(np.linalg.norm(v_axis))
    u0, u1, u_share = _cuts(u_length, repeat_u or u_length)
    v0, v1, v_share = _cuts(v_length, repeat_v or repeat_u or v_length)
    u0, u1, v0, v1 = u0 / u_length, u1 / u_length, v0 / v_length, v1 / v_length
    corners_u, corners_v = (0, 1, 1, 0), (0, 0, 1, 1)
    us = np.stack([(u0, u1)[k] for k in corners_u], -1)[None, :, :, None]  # [1 u 4 1]
    vs = np.stack([(v0, v1)[k] for k in corners_v], -1)[:, None, :, None]  # [v 1 4 1]
    vertices = (corner + us * u_axis + vs * v_axis).reshape(-1, 3)
    cells = (len(v0), len(u0), 4)
    uvs = np.stack(
        [
            np.broadcast_to(u_share[None, :, None] * corners_u, cells),
            np.broadcast_to(v_share[:, None, None] * corners_v, cells),
        ],
        -1,
    ).reshape(-1, 2)
    (a, b, c), (d, e, f) = u_axis, v_axis
    normal = np.array([b * f - c * e, c * d - a * f, a * e - b * d])  # np.cross is slow
    normals = np.broadcast_to(normal / np.linalg.norm(normal), vertices.shape)
    quads = 4 * np.arange(len(vertices) // 4)[:, None, None]
    faces = (quads + np.array([[0, 1, 2], [0, 2, 3]])).reshape(-1, 3)
    return Mesh(vertices, normals, uvs, faces)


def _box_sides(x: float, y: float, z: float, repeat_m: float | None) -> list[Mesh]:
    a, b, c = x / 2, y / 2, z / 2
    return [
        panel((-a, -b, -c), (x, 0, 0), (0, 0, z), repeat_m),  # faces -y
        panel((a, b, -c), (-x, 0, 0), (0, 0, z), repeat_m),  # faces +y
        panel((-a, b, -c), (0, -y, 0), (0, 0, z), repeat_m),  # faces -x
        panel((a, -b, -c), (0, y, 0), (0, 0, z), repeat_m),  # faces +x
        panel((-a, -b, c), (x, 0, 0), (0, y, 0), repeat_m),  # faces +z
        panel((-a, b, -c), (x, 0, 0), (0, -y, 0), repeat_m),  # faces -z
    ]


_UNIT_BOX = merge(_box_sides(1.0, 1.0, 1.0, None))


def box(x: float, y: float, z: float, repeat_m: float | None = None) -> Mesh:
    """A box; the texture fits once on each side, or repeats every `repeat_m`."""
    if repeat_m is not None:
        return merge(_box_sides(x, y, z, repeat_m))
    unit = _UNIT_BOX
    return Mesh(unit.vertices * np.array([x, y, z]), unit.normals, unit.uvs, unit.faces)


def block(x: float, y: float, z: float, repeat_m: float | None = None) -> Mesh:
    """A box that stands on z = 0."""
    return box(x, y, z, repeat_m).moved(0, 0, z / 2)


def boxes(centres_m: FloatArray, sizes_m: FloatArray) -> Mesh:
    """Many boxes at once: `centres_m`, `sizes_m` [n 3]; the texture fits once on each side."""
    centres_m, sizes_m = np.atleast_2d(centres_m), np.atleast_2d(sizes_m)
    count, unit = len(centres_m), _UNIT_BOX
    vertices = unit.vertices[None] * sizes_m[:, None] + centres_m[:, None]
    offsets = (len(unit.vertices) * np.arange(count))[:, None, None]
    return Mesh(
        vertices.reshape(-1, 3),
        np.tile(unit.normals, (count, 1)),
        np.tile(unit.uvs, (count, 1)),
        (unit.faces[None] + offsets).reshape(-1, 3),
    )


def revolve(radii: FloatArray, heights: FloatArray, segments: int = 20) -> Mesh:
    """A surface of revolution about z through (radius, height) rings, listed upwards, smooth."""
    slope = np.stack([np.gradient(heights), -np.gradient(radii)], -1)  # outward in (r, z)
    slope /= np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-12)
    circle, uvs, faces = _ring_grid(len(radii), segments + 1)

    def sweep(radial: FloatArray, axial: FloatArray) -> FloatArray:
        points = np.empty((len(radii), segments + 1, 3))
        points[..., :2] = radial[:, None, None] * circle
        points[..., 2] = axial[:, None]
        return points.reshape(-1, 3)

    return Mesh(sweep(radii, heights), sweep(slope[:, 0], slope[:, 1]), uvs, faces)


@functools.cache
def _ring_grid(rings: int, columns: int) -> tuple[FloatArray, FloatArray, NDArray[np.integer]]:
    """A circle of points [columns 2], and uvs and faces of a grid whose last column closes it."""
    angles = np.linspace(0, 2 * np.pi, columns)
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rings))
    index = np.arange(rings - 1)[:, None] * columns + np.arange(columns - 1)
    lower = np.stack([index, index + 1, index + columns + 1], -1)
    upper = np.stack([index, index + columns + 1, index + columns], -1)
    faces = np.concatenate([lower.reshape(-1, 3), upper.reshape(-1, 3)])
    circle = np.stack([np.cos(angles), np.sin(angles)], -1)
    return circle, np.stack([u, v], -1).reshape(-1, 2), faces


def _disc(radius: float, height: float, segments: int, up: bool) -> Mesh:
    angles = np.linspace(0, 2 * np.pi, segments + 1)[:-1]
    rim = np.stack([np.cos(angles), np.sin(angles)], -1)
    vertices = np.concatenate([[[0, 0, height]], np.c_[radius * rim, np.full(segments, height)]])
    uvs = np.concatenate([[[0.5, 0.5]], 0.5 + 0.5 * rim])
    k = np.arange(segments)
    faces = np.stack([0 * k, 1 + k, 1 + (k + 1) % segments], -1)
    normals = np.tile([0.0, 0.0, 1.0 if up else -1.0], (segments + 1, 1))
    return Mesh(vertices, normals, uvs, faces if up else faces[:, ::-1])


def cylinder(
    radius: float, height: float, segments: int = 16, top_radius: float | None = None
) -> Mesh:
    """A capped cylinder (or cone, with `top_radius`) that stands on z = 0."""
    if top_radius is None:
        unit = _unit_cylinder(segments)
        scale = np.array([radius, radius, height])
        return Mesh(unit.vertices * scale, unit.normals, unit.uvs, unit.faces)
    side = revolve(np.array([radius, top_radius]), np.array([0.0, height]), segments)
    caps = [_disc(radius, 0.0, segments, up=False)]
    if top_radius > 0:
        caps.append(_disc(top_radius, height, segments, up=True))
    return merge([side, *caps])


@functools.cache
def _unit_cylinder(segments: int) -> Mesh:
    return cylinder(1.0, 1.0, segments, top_radius=1.0)


def rod(start: Vector, end: Vector, radius: float, segments: int = 8) -> Mesh:
    """A cylinder from `start` to `end`."""
    first = np.asarray(start, float)
    x, y, z = np.asarray(end, float) - first
    length, level = math.sqrt(x * x + y * y + z * z), math.hypot(x, y)
    if level < 1e-9 * length:
        rotation = np.diag([1.0, np.sign(z), np.sign(z)])
    else:
        axis = np.array([x, y, z]) / length
        side = np.array([-y, x, 0]) / level
        third = np.array([-axis[2] * side[1], axis[2] * side[0], level / length])
        rotation = np.stack([side, third, axis], axis=1)
    return cylinder(radius, length, segments).rotated(rotation).moved(*first)


def tube(path_m: FloatArray, radius: float, segments: int = 6) -> Mesh:
    """Rods along the points `path_m` [n 3]: cables, rails, branches."""
    return merge(rod(a, b, radius, segments) for a, b in pairwise(path_m))


def sphere(radius: float, segments: int = 24) -> Mesh:
    unit = _unit_sphere(segments)
    return Mesh(unit.vertices * radius, unit.normals, unit.uvs, unit.faces)


@functools.cache
def _unit_sphere(segments: int) -> Mesh:
    polar = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    mesh = revolve(np.cos(polar), np.sin(polar), segments)
    return Mesh(mesh.vertices, mesh.vertices, mesh.uvs, mesh.faces)


def torus(radius: float, thickness: float, segments: int = 24) -> Mesh:
    turn = np.linspace(-np.pi, np.pi, segments // 2 + 1)
    radii, heights = radius + thickness * np.cos(turn), thickness * np.sin(turn)
    mesh = revolve(radii, heights, segments)
    around = np.stack([np.cos(turn), np.sin(turn)], -1).repeat(segments + 1, 0)
    angles = np.tile(np.linspace(0, 2 * np.pi, segments + 1), len(turn))
    normals = np.c_[around[:, :1] * np.c_[np.cos(angles), np.sin(angles)], around[:, 1:]]
    return Mesh(mesh.vertices, normals, mesh.uvs, mesh.faces)


def vase(rng: np.random.Generator, radius: float, height: float) -> Mesh:
    """A turned body of random profile that stands on z = 0."""
    level = np.linspace(0, 1, 18)
    waves = rng.integers(1, 4) * 0.5
    profile = 0.55 + 0.3 * np.sin(2 * np.pi * (waves * level + rng.random()))
    profile += 0.12 * np.sin(2 * np.pi * (1.5 * level + rng.random()))
    radii = radius * profile / profile.max()
    closed = np.concatenate([[0.0], radii, [0.0]])
    return revolve(closed, height * np.concatenate([[0.0], level, [0.999]]), 20)


def blob(
    rng: np.random.Generator, radius: float, roughness: float = 0.1, segments: int = 24
) -> Mesh:
    """A smooth lump around the origin."""
    ball = sphere(1.0, segments)
    swell = np.ones(len(ball.vertices))
    for _ in range(5):
        wave = rng.normal(size=3) * rng.uniform(1, 4)
        swell += (
            roughness * rng.uniform(0.3, 1.2) * np.sin(ball.vertices @ wave + rng.uniform(0, 6.3))
        )
    return smoothed(
        Mesh(ball.vertices * swell[:, None] * radius, ball.normals, ball.uvs, ball.faces),
        segments // 2 + 1,
        segments + 1,
    )


def smoothed(mesh: Mesh, rings: int, columns: int) -> Mesh:
    """`mesh` (a closed ring grid, as from `revolve`) with normals recomputed from its shape."""
    grid = mesh.vertices.reshape(rings, columns, 3)
    open_grid = grid[:, :-1]
    du = np.roll(open_grid, -1, 1) - np.roll(open_grid, 1, 1)
    dv = np.gradient(open_grid, axis=0)
    normals = np.cross(du, dv)
    normals[0], normals[-1] = mesh.normals[0], mesh.normals[-1]
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    normals = np.concatenate([normals, normals[:, :1]], 1)
    return Mesh(mesh.vertices, normals.reshape(-1, 3), mesh.uvs, mesh.faces)


def flat_shaded(vertices: FloatArray, faces: Sequence[Sequence[int]]) -> Mesh:
    """Triangles with face normals; each shows the lower half of its texture."""
    corners = vertices[np.asarray(faces)]  # [f 3 3]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    uvs = np.tile(np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]]), (len(faces), 1))
    index = np.arange(3 * len(faces)).reshape(-1, 3)
    return Mesh(corners.reshape(-1, 3), normals.repeat(3, 0), uvs, index)


def prism(outline_m: FloatArray, depth: float) -> Mesh:
    """A convex outline [n 2] in the x-z plane swept over y ± depth / 2.

    The outline is counter-clockwise seen from -y.
    """
    count = len(outline_m)
    front = np.c_[outline_m[:, 0], np.full(count, -depth / 2), outline_m[:, 1]]
    back = front + np.array([0, depth, 0])
    fan = [(0, k, k + 1) for k in range(1, count - 1)]
    caps = merge([flat_shaded(front, fan), flat_shaded(back, [(a, c, b) for a, b, c in fan])])
    sides = [
        panel(front[k], back[k] - front[k], front[(k + 1) % count] - front[k]) for k in range(count)
    ]
    return merge([caps, *sides])


def random_rotation(rng: np.random.Generator) -> FloatArray:
    """Uniform rotation [3 3] (normalised Gaussian quaternion)."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
