"""Lamps, railings, cables and what else a room is fitted with, on z = 0 unless said otherwise."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import materials, textures
from e2eft.scenes.materials import Style
from e2eft.scenes.meshes import blob, boxes, cylinder, merge, revolve, rod, sphere, tube
from e2eft.scenes.props import Items, pot_plant
from e2eft.scenes.scene import Mesh, MeshItem
from e2eft.scenes.textures import Rng


def floor_lamp(rng: Rng, style: Style) -> Items:
    height, light = rng.uniform(1.2, 1.8), style.lamp
    stand = merge([cylinder(0.14, 0.025), cylinder(0.012, height)])
    if rng.random() < 0.5:
        return [
            MeshItem(stand, style.metal),
            MeshItem(sphere(rng.uniform(0.1, 0.16), 16).moved(0, 0, height + 0.08), light),
        ]
    shade = revolve(np.array([0.2, 0.12]), np.array([height - 0.1, height + 0.18]), 20)
    return [
        MeshItem(stand, style.metal),
        MeshItem(shade, materials.flat(textures.pale_colour(rng), 0.9)),
        MeshItem(sphere(0.06, 12).moved(0, 0, height + 0.03), light),
    ]


def pendant(rng: Rng, style: Style, ceiling: float) -> Items:
    """A lamp on a cable from `ceiling`."""
    drop = rng.uniform(0.3, 0.9)
    level, light = ceiling - drop, style.lamp
    cable = cylinder(0.006, drop, 6).moved(0, 0, level)
    if rng.random() < 0.5:
        return [
            MeshItem(cable, style.metal),
            MeshItem(sphere(rng.uniform(0.1, 0.2), 16).moved(0, 0, level - 0.1), light),
        ]
    shade = revolve(np.array([0.25, 0.05]), np.array([level - 0.2, level]), 20)
    return [
        MeshItem(merge([cable, shade]), style.metal),
        MeshItem(sphere(0.06, 12).moved(0, 0, level - 0.12), light),
    ]


def ladder(rng: Rng, style: Style) -> Items:
    """Leans towards +y."""
    height, lean, half = rng.uniform(1.8, 2.4), rng.uniform(0.4, 0.8), 0.2
    rungs = np.linspace(0.1, 0.92, 8)
    parts = [rod((s * half, 0, 0), (s * half, lean, height), 0.02) for s in (-1, 1)]
    parts += [
        rod((-half, lean * t, height * t), (half, lean * t, height * t), 0.013) for t in rungs
    ]
    return [MeshItem(merge(parts), style.metal)]


def radiator(rng: Rng, style: Style) -> Items:
    count, h = int(rng.integers(6, 16)), rng.uniform(0.5, 0.7)
    x = (np.arange(count) - count / 2) * 0.07
    fins = boxes(
        np.c_[x, np.zeros(count), np.full(count, 0.12 + h / 2)],
        np.tile([0.045, 0.09, h], (count, 1)),
    )
    pipes = [rod((x[0], 0, z), (x[-1], 0, z), 0.02) for z in (0.16, 0.08 + h)]
    return [MeshItem(merge([fins, *pipes]), materials.flat((0.9, 0.9, 0.88), 0.4))]


def coat_stand(rng: Rng, style: Style) -> Items:
    height = rng.uniform(1.6, 1.9)
    arms = [
        rod((0, 0, height - 0.25), (0.2 * np.cos(a), 0.2 * np.sin(a), height), 0.012)
        for a in np.arange(5) * 1.2566
    ]
    feet = [
        rod((0, 0, 0.12), (0.28 * np.cos(a), 0.28 * np.sin(a), 0.01), 0.015)
        for a in np.arange(4) * 1.5708
    ]
    items = [MeshItem(merge([cylinder(0.02, height), *arms, *feet]), style.joinery(rng))]
    coat = blob(rng, 0.3, 0.08, 16).stretched(0.55, 0.45, 1.6).moved(0.16, 0, height - 0.45)
    return items + ([MeshItem(coat, style.fabric(rng))] if rng.random() < 0.6 else [])


def railing(length: float, height: float = 1.0, spacing: float = 0.12) -> Mesh:
    """Along x, centred: posts, balusters, and two rails."""
    xs = np.arange(-length / 2, length / 2 + 1e-6, spacing)
    bars = boxes(
        np.c_[xs, 0 * xs, np.full(len(xs), height / 2)],
        np.tile([0.015, 0.015, height], (len(xs), 1)),
    )
    rails = boxes(
        np.array([[0, 0, height], [0, 0, 0.1]]),
        np.array([[length, 0.05, 0.04], [length, 0.03, 0.03]]),
    )
    return merge([bars, rails])


def hanging_cable(
    rng: Rng, start: tuple[float, float, float], end: tuple[float, float, float]
) -> Mesh:
    """A sagging wire."""
    share = np.linspace(0, 1, 9)[:, None]
    path = np.asarray(start) * (1 - share) + np.asarray(end) * share
    path[:, 2] -= 4 * rng.uniform(0.05, 0.25) * (share * (1 - share))[:, 0]
    return tube(path, 0.008)


def big_plant(rng: Rng, style: Style) -> Items:
    return pot_plant(rng, style, float(rng.uniform(0.7, 1.6)))
