"""Vehicles that stand on z = 0 and face +y."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import materials, textures
from e2eft.scenes.meshes import (
    block,
    box,
    cylinder,
    merge,
    prism,
    rod,
    torus,
)
from e2eft.scenes.props import Items
from e2eft.scenes.scene import Mesh, MeshItem
from e2eft.scenes.textures import Rng

_DARK = materials.flat((0.05, 0.05, 0.06), 0.6)


_PANE = materials.flat((0.07, 0.09, 0.1), 0.06)


_LYING = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # an upright axis laid along x


def _wheels(
    xs: tuple[float, float], ys: tuple[float, float], radius: float, wide: float
) -> list[Mesh]:
    wheel = cylinder(radius, wide, 16).rotated(_LYING).moved(-wide / 2, 0, radius)
    return [wheel.moved(x, y) for x in xs for y in ys]


def car(rng: Rng) -> Items:
    """A saloon, hatchback, or van."""
    length, width, belt = rng.uniform(3.7, 4.8), rng.uniform(1.65, 1.9), rng.uniform(0.85, 1.0)
    van = rng.random() < 0.2
    top = rng.uniform(1.9, 2.3) if van else rng.uniform(1.38, 1.65)
    half = length / 2
    body = np.array(
        [
            [-half, 0.3],
            [half, 0.3],
            [half, 0.62],
            [half * 0.9, belt - 0.08],
            [half * 0.4, belt],
            [-half * 0.95, belt],
            [-half, 0.7],
        ]
    )
    rear, bonnet = (
        (-half * 0.98, 0.75) if van else (-half * rng.uniform(0.6, 0.95), rng.uniform(0.4, 0.5))
    )
    cabin = np.array(
        [
            [rear, belt],
            [half * bonnet, belt],
            [half * (bonnet - 0.32), top],
            [rear + 0.12 * length * (not van), top],
        ]
    )
    roof = np.array(
        [
            [cabin[3, 0], top],
            [cabin[2, 0], top],
            [cabin[2, 0] - 0.05, top + 0.05],
            [cabin[3, 0] + 0.05, top + 0.05],
        ]
    )
    paint = materials.flat(textures.colour(rng, (0.0, 0.85), (0.08, 0.95)), rng.uniform(0.1, 0.3))

    def along_y(mesh: Mesh) -> Mesh:
        return mesh.turned(np.pi / 2)

    shell = [along_y(prism(body, width)), along_y(prism(roof, width * 0.86))]
    shell += [
        block(width * 0.88, 0.07, top - belt).moved(0, y, belt)
        for y in np.linspace(cabin[3, 0], cabin[2, 0] - 0.1, 3)
    ]
    lamps = [box(0.35, 0.06, 0.14).moved(s * width * 0.34, half * 0.985, 0.66) for s in (-1, 1)]
    bumpers = [box(width * 0.98, 0.1, 0.18).moved(0, s * half, 0.42) for s in (-1, 1)]
    mirrors = [
        box(0.2, 0.1, 0.12).moved(s * (width / 2 + 0.08), half * 0.3, belt + 0.05) for s in (-1, 1)
    ]
    wheels = _wheels((-width / 2 + 0.1, width / 2 - 0.1), (-half * 0.62, half * 0.62), 0.32, 0.2)
    tail = [box(0.3, 0.05, 0.16).moved(s * width * 0.36, -half * 0.995, 0.72) for s in (-1, 1)]
    return [
        MeshItem(merge([*shell, *mirrors]), paint),
        MeshItem(along_y(prism(cabin, width * 0.84)), _PANE),
        MeshItem(merge(wheels + bumpers), _DARK),
        MeshItem(merge(lamps), materials.flat((0.9, 0.9, 0.85), 0.1)),
        MeshItem(merge(tail), materials.flat((0.6, 0.05, 0.04), 0.2)),
    ]


def lorry(rng: Rng) -> Items:
    length, height = rng.uniform(5, 9), rng.uniform(2.6, 3.4)
    load = materials.of(
        textures.corrugated(rng) if rng.random() < 0.5 else textures.painting(rng), 0.6
    )
    cab = (
        prism(np.array([[0, 0.5], [1.9, 0.5], [1.9, 1.4], [1.5, 2.5], [0, 2.5]]), 2.2)
        .turned(np.pi / 2)
        .moved(0, length / 2)
    )
    pane = box(2.0, 0.08, 0.8).tilted(0.35).moved(0, length / 2 + 1.72, 1.95)
    wheels = _wheels((-1.0, 1.0), (-length * 0.35, -length * 0.2), 0.45, 0.3) + _wheels(
        (-1.0, 1.0), (length / 2 + 0.9, length / 2 + 0.9), 0.45, 0.3
    )
    return [
        MeshItem(block(2.3, length, height - 0.9).moved(0, 0, 0.9), load),
        MeshItem(cab, materials.painted(rng, 0.25)),
        MeshItem(pane, _PANE),
        MeshItem(merge([*wheels, block(1.0, length, 0.3).moved(0, 0, 0.6)]), _DARK),
    ]


def bicycle(rng: Rng) -> Items:
    wheel = torus(0.33, 0.018, 20).rotated(_LYING)
    hub, other = np.array([0, -0.5, 0.35]), np.array([0, 0.5, 0.35])
    seat, head, pedal = (
        np.array([0, -0.2, 0.85]),
        np.array([0, 0.38, 0.85]),
        np.array([0, -0.05, 0.3]),
    )
    tubes = [
        rod(a, b, 0.016, 6)
        for a, b in (
            (hub, seat),
            (hub, pedal),
            (pedal, seat),
            (pedal, head),
            (seat, head),
            (head, other),
        )
    ]
    grip, side = head + np.array([0, 0, 0.12]), np.array([0.25, 0, 0])
    tubes += [
        rod(grip - side, grip + side, 0.013, 6),
        rod(head, grip, 0.013, 6),
    ]
    around = [0.32 * np.array([0, np.cos(a), np.sin(a)]) for a in np.arange(5) * 0.628]
    spokes = [rod(c - reach, c + reach, 0.003, 4) for c in (hub, other) for reach in around]
    dark = merge(
        [wheel.moved(*hub), wheel.moved(*other), *spokes, box(0.14, 0.25, 0.06).moved(*seat)]
    )
    return [MeshItem(merge(tubes), materials.painted(rng, 0.3)), MeshItem(dark, _DARK)]
