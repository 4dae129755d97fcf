"""Things of the street, standing on z = 0: poles reach over -x, faces look along -y."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import materials, textures
from e2eft.scenes.greenery import bush
from e2eft.scenes.meshes import (
    block,
    box,
    boxes,
    cylinder,
    merge,
    revolve,
    rod,
    sphere,
    tube,
)
from e2eft.scenes.props import Items, placed
from e2eft.scenes.scene import Glass, MeshItem
from e2eft.scenes.textures import Rng

_DARK = materials.flat((0.05, 0.05, 0.06), 0.6)


def person(rng: Rng) -> Items:
    """A plain figure, walking or standing."""
    tall, stride = rng.uniform(1.5, 1.9), rng.uniform(0.0, 0.25)
    hip, shoulder = 0.5 * tall, 0.82 * tall
    legs = [rod((s * 0.09, s * stride, 0.02), (s * 0.07, 0, hip), 0.075, 8) for s in (-1, 1)]
    trunk = revolve(
        np.array([0.0, 0.15, 0.17, 0.15, 0.19, 0.1, 0.05]),
        np.array(
            [
                hip - 0.05,
                hip,
                hip + 0.08,
                0.65 * tall,
                shoulder - 0.04,
                shoulder + 0.03,
                shoulder + 0.06,
            ]
        ),
        12,
    )
    arms = [
        rod((s * 0.22, -s * stride, hip - 0.05), (s * 0.19, 0, shoulder - 0.03), 0.05, 8)
        for s in (-1, 1)
    ]
    skin = materials.flat(textures.colour(rng, (0.25, 0.55), (0.35, 0.9), (0.04, 0.09)), 0.7)
    head = sphere(0.11, 14).moved(0, 0, tall - 0.12)
    hair = sphere(0.115, 14).stretched(1, 1, 0.8).moved(0, -0.02, tall - 0.08)
    return [
        MeshItem(merge(legs), materials.painted(rng, 0.9)),
        MeshItem(merge([trunk.stretched(1, 0.7, 1), *arms]), materials.painted(rng, 0.9)),
        MeshItem(head, skin),
        MeshItem(
            hair, materials.flat(textures.colour(rng, (0.1, 0.5), (0.05, 0.5), (0.03, 0.12)), 0.9)
        ),
    ]


def street_lamp(rng: Rng) -> Items:
    height, arm = rng.uniform(3.5, 8), rng.uniform(0.0, 1.8)
    parts = [cylinder(0.09, height, 10, 0.05), cylinder(0.14, 0.5, 10)]
    if arm > 0.4:
        parts += [
            rod((0, 0, height - 0.1), (-arm, 0, height + 0.25), 0.04),
            box(0.6, 0.22, 0.1).moved(-arm - 0.25, 0, height + 0.25),
        ]
    else:
        parts += [
            revolve(
                np.array([0.02, 0.2, 0.25, 0.05, 0.0]),
                height + np.array([0.0, 0.05, 0.35, 0.5, 0.5]),
                12,
            )
        ]
    return [MeshItem(merge(parts), materials.flat(textures.colour(rng, (0, 0.3), (0.1, 0.6)), 0.5))]


def road_sign(rng: Rng) -> Items:
    """A disc, triangle, or board on a pole, facing -y."""
    height = rng.uniform(1.8, 2.6)
    face = materials.of(textures.painting(rng), 0.4)
    kind = int(rng.integers(3))
    plate = [
        cylinder(0.32, 0.02, 24).tilted(np.pi / 2),
        cylinder(0.4, 0.02, 3).turned(np.pi / 6 * 5).tilted(np.pi / 2),
        box(rng.uniform(0.5, 1.2), 0.03, rng.uniform(0.4, 0.8)),
    ][kind]
    return [
        MeshItem(cylinder(0.035, height + 0.3, 8), materials.steel(rng)),
        MeshItem(plate.moved(0, -0.05, height), face),
    ]


def traffic_light(rng: Rng) -> Items:
    lit = int(rng.integers(3))
    shades = ((0.9, 0.1, 0.05), (0.95, 0.65, 0.05), (0.1, 0.85, 0.3))
    lenses = [
        MeshItem(
            cylinder(0.1, 0.05, 14).tilted(np.pi / 2).moved(0, -0.14, 3.15 - 0.28 * k),
            materials.flat(np.array(c) * (1.0 if k == lit else 0.25), 0.3),
        )
        for k, c in enumerate(shades)
    ]
    return [
        MeshItem(merge([cylinder(0.06, 2.5, 10), block(0.32, 0.26, 0.95).moved(0, 0, 2.4)]), _DARK),
        *lenses,
    ]


def bollards(rng: Rng, length: float) -> Items:
    """A row along y."""
    post = merge([cylinder(0.07, 0.85, 10), sphere(0.08, 10).moved(0, 0, 0.88)])
    row = [post.moved(0, y) for y in np.arange(-length / 2, length / 2, rng.uniform(1.2, 2.5))]
    return [MeshItem(merge(row), materials.flat(textures.colour(rng, (0, 0.6), (0.1, 0.7)), 0.5))]


def bench(rng: Rng) -> Items:
    slats = [box(1.7, 0.08, 0.035).moved(0, y, 0.45) for y in (-0.2, -0.1, 0.0, 0.1)]
    slats += [box(1.7, 0.035, 0.08).moved(0, 0.2, z) for z in (0.6, 0.72, 0.84)]
    legs = [block(0.05, 0.45, 0.44).moved(s * 0.7, -0.02) for s in (-1, 1)] + [
        block(0.05, 0.05, 0.9).moved(s * 0.7, 0.23) for s in (-1, 1)
    ]
    return [
        MeshItem(merge(slats), materials.of(textures.wood(rng, 64), 0.8)),
        MeshItem(merge(legs), _DARK),
    ]


def bin_(rng: Rng) -> Items:
    return [
        MeshItem(cylinder(0.22, 0.85, 14, 0.26), materials.painted(rng)),
        MeshItem(cylinder(0.27, 0.08, 14).moved(0, 0, 0.85), _DARK),
    ]


def bus_stop(rng: Rng) -> Items:
    """Open towards -y, walls of glass."""
    frame = [block(0.08, 0.08, 2.4).moved(x, y) for x in (-1.9, 1.9) for y in (-0.6, 0.6)] + [
        block(4.2, 1.6, 0.1).moved(0, 0, 2.4)
    ]
    panes = [block(3.6, 0.02, 1.9).moved(0, 0.6, 0.25), block(0.02, 1.1, 1.9).moved(1.9, 0, 0.25)]
    poster = block(0.06, 1.1, 1.9).moved(-1.9, 0, 0.25)
    return [
        MeshItem(merge([*frame, box(2.6, 0.35, 0.06).moved(0, 0.35, 0.5)]), materials.steel(rng)),
        MeshItem(merge(panes), Glass(thin=True)),
        MeshItem(poster, materials.of(textures.painting(rng), 0.3)),
    ]


def picket_fence(rng: Rng, length: float) -> Items:
    """Along y, centred: pickets, or posts with rails or wires, or a low wall."""
    kind = rng.random()
    ys = np.arange(-length / 2, length / 2, 0.16 if kind < 0.45 else 2.0)
    count, zero = len(ys), np.zeros(len(ys))
    if kind < 0.45:
        h = rng.uniform(0.7, 1.2)
        parts = [boxes(np.c_[zero, ys, zero + h / 2], np.tile([0.03, 0.09, h], (count, 1)))]
        parts += [box(0.04, length, 0.08).moved(0.04, 0, z * h) for z in (0.25, 0.75)]
        return [
            MeshItem(
                merge(parts),
                materials.flat(textures.pale_colour(rng), 0.8)
                if rng.random() < 0.6
                else materials.of(textures.wood(rng, 64)),
            )
        ]
    if kind < 0.75:
        h = rng.uniform(0.9, 1.3)
        parts = [boxes(np.c_[zero, ys, zero + h / 2], np.tile([0.09, 0.09, h], (count, 1)))]
        levels = np.linspace(0.3, 0.95, int(rng.integers(2, 5))) * h
        thick = rng.choice([0.012, 0.1])
        parts += [
            box(0.03 if thick > 0.05 else thick, length, thick).moved(0, 0, z) for z in levels
        ]
        return [MeshItem(merge(parts), materials.of(textures.wood(rng, 64), 0.9))]
    h = rng.uniform(0.6, 1.8)
    wall = merge([block(0.3, length, h, 1.2), block(0.4, length, 0.08).moved(0, 0, h)])
    return [MeshItem(wall, materials.of(textures.bricks(rng), 0.9))]


def guard_rail(rng: Rng, length: float) -> Items:
    """Along y: a corrugated rail on posts."""
    ys = np.arange(-length / 2, length / 2, 2.0)
    posts = boxes(np.c_[0 * ys + 0.08, ys, 0 * ys + 0.35], np.tile([0.1, 0.1, 0.7], (len(ys), 1)))
    return [
        MeshItem(
            merge(
                [
                    posts,
                    box(0.05, length, 0.12).moved(0, 0, 0.68),
                    box(0.05, length, 0.12).moved(0, 0, 0.5),
                    box(0.02, length, 0.2).moved(0.02, 0, 0.59),
                ]
            ),
            materials.steel(rng),
        )
    ]


def utility_poles(rng: Rng, length: float, pitch: float) -> Items:
    """Poles along y with cross arms and sagging wires."""
    height = rng.uniform(6, 9)
    ys = np.arange(-length / 2, length / 2, pitch)
    wood = [
        merge(
            [cylinder(0.13, height, 8, 0.09), box(1.6, 0.1, 0.12).moved(0, 0, height - 0.5)]
        ).moved(0, y)
        for y in ys
    ]
    share = np.linspace(0, 1, 9)
    wires = [
        tube(
            np.c_[np.full(9, x), y + pitch * share, height - 0.4 - 2.4 * share * (1 - share)],
            0.015,
            4,
        )
        for y in ys[:-1]
        for x in (-0.7, 0, 0.7)
    ]
    bark = materials.flat(textures.colour(rng, (0.2, 0.4), (0.25, 0.45), (0.06, 0.1)), 0.95)
    return [MeshItem(merge(wood), bark), MeshItem(merge(wires), _DARK)]


def parasol_table(rng: Rng) -> Items:
    """A round table with stools under a parasol."""
    wood = [
        cylinder(0.45, 0.03, 20).moved(0, 0, 0.72),
        cylinder(0.03, 2.3, 8),
        cylinder(0.3, 0.05, 14),
    ]
    stools = [
        merge(
            [
                cylinder(0.18, 0.04, 14).moved(0, 0, 0.44),
                cylinder(0.02, 0.44, 6),
                cylinder(0.14, 0.02, 12),
            ]
        ).moved(0.75 * np.cos(a), 0.75 * np.sin(a))
        for a in np.arange(int(rng.integers(2, 5))) * 1.6 + rng.uniform(0, 6)
    ]
    shade = cylinder(1.4, 0.5, 8, 0.03).moved(0, 0, 2.1)
    return [
        MeshItem(merge(wood + stools), materials.painted(rng)),
        MeshItem(shade, materials.of(textures.stripes(rng, 64), 0.9)),
    ]


def fountain(rng: Rng) -> Items:
    r = rng.uniform(1.5, 3.0)
    stone = materials.of(textures.plaster(rng, textures.colour(rng, (0, 0.15), (0.5, 0.85))), 0.8)
    basin = revolve(
        np.array([0.0, r, r, r * 0.88, r * 0.86, 0.0]), np.array([0.0, 0.0, 0.6, 0.6, 0.4, 0.4]), 28
    )
    bowl = revolve(
        np.array([0.12, 0.12, 0.5 * r, 0.52 * r, 0.0]), np.array([0.3, 1.3, 1.6, 1.7, 1.55]), 24
    )
    figure = revolve(
        np.array([0.2, 0.1, 0.25, 0.15, 0.22, 0.08, 0.12, 0.0]), 1.6 + 0.15 * np.arange(8), 16
    )
    return [
        MeshItem(merge([basin, bowl, figure]), stone),
        MeshItem(
            cylinder(r * 0.87, 0.05, 24).moved(0, 0, 0.42), materials.flat((0.15, 0.3, 0.35), 0.05)
        ),
    ]


def monument(rng: Rng) -> Items:
    """Steps, a pedestal, and an obelisk or a figure."""
    stone = materials.of(textures.plaster(rng, textures.colour(rng, (0, 0.15), (0.5, 0.85))), 0.8)
    w = rng.uniform(1.5, 3)
    steps = [
        block(w * (1.6 - 0.3 * k), w * (1.6 - 0.3 * k), 0.2).moved(0, 0, 0.2 * k) for k in range(3)
    ]
    base = block(0.6 * w, 0.6 * w, 0.8 * w).moved(0, 0, 0.6)
    top = (
        cylinder(0.3 * w, rng.uniform(3, 8), 4, 0.12 * w)
        .turned(np.pi / 4)
        .moved(0, 0, 0.6 + 0.8 * w)
    )
    if rng.random() < 0.5:
        return [MeshItem(merge([*steps, base, top]), stone)]
    figure = placed(person(rng), 0, 0, 0.6 + 0.8 * w)
    return [
        MeshItem(merge([*steps, base]), stone),
        *(MeshItem(i.mesh, materials.flat((0.2, 0.3, 0.25), 0.4, 1.0)) for i in figure),
    ]


def cones(rng: Rng) -> Items:
    row = [
        merge([block(0.4, 0.4, 0.04), cylinder(0.15, 0.7, 12, 0.03)]).moved(
            rng.normal() * 0.3, k * 1.3
        )
        for k in range(int(rng.integers(2, 6)))
    ]
    return [MeshItem(merge(row), materials.flat((0.95, 0.35, 0.08), 0.6))]


def planter(rng: Rng) -> Items:
    return [
        MeshItem(block(1.2, 0.5, 0.5), materials.painted(rng)),
        *placed(bush(rng, 0.5), 0, 0, 0.4),
    ]
