"""Squares, parks, car parks."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import materials, roadside, textures, vehicles
from e2eft.scenes.buildings import arcade, block_of_flats, tower
from e2eft.scenes.greenery import bush, hedge, tree
from e2eft.scenes.meshes import block, boxes
from e2eft.scenes.props import placed
from e2eft.scenes.scene import MeshItem, Scene
from e2eft.scenes.streetscape import (
    frontage,
    ground,
    heading_zone,
    people,
    street_scene,
    things_along,
)
from e2eft.scenes.textures import Rng


def square(rng: Rng) -> Scene:
    """An open place: pavement, a fountain or monument, cafés, trees, houses around."""
    half, deep = rng.uniform(15, 35), rng.uniform(35, 80)
    items = ground(rng, textures.paving, rng.uniform(1.5, 3.0))
    for s in (-1, 1):
        items += frontage(rng, s * half, -15, deep, (6, 18), 0.1)
    items += placed(block_of_flats(rng, half * 1.6, 12, rng.uniform(8, 22)), 0, deep + 8)
    if rng.random() < 0.5:
        items += placed(arcade(rng, half * 1.2), 0, deep - 1.5)
    if rng.random() < 0.6:
        items += placed(tower(rng), rng.uniform(-half, half), deep + 25)
    centre = roadside.fountain(rng) if rng.random() < 0.5 else roadside.monument(rng)
    items += placed(centre, rng.normal() * 3, deep * rng.uniform(0.3, 0.5))
    kit = (
        roadside.parasol_table,
        roadside.parasol_table,
        roadside.bench,
        roadside.planter,
        tree,
        tree,
        roadside.street_lamp,
        roadside.bin_,
        vehicles.bicycle,
    )
    for _ in range(int(rng.integers(14, 40))):
        thing = kit[int(rng.integers(len(kit)))](rng)
        items += placed(
            thing,
            rng.uniform(-0.85, 0.85) * half,
            rng.uniform(1, deep - 5),
            -0.05,
            rng.uniform(0, 6.3),
        )
    items += people(rng, (-0.8 * half, 2), (0.8 * half, deep), int(rng.integers(4, 20)), -0.05)
    zone = heading_zone((-0.7 * half, -10, 1.0), (0.7 * half, deep * 0.4, 2.4), (50, 130))
    above = heading_zone((-0.7 * half, -10, 3), (0.7 * half, 5, 9), (60, 120), (-30, -8), 0.4)
    return street_scene(rng, "square", items, [zone, above])


def park(rng: Rng) -> Scene:
    """Lawn, paths, benches, trees, a pond's fountain; houses beyond."""
    items = ground(rng)
    path = materials.of(
        textures.speckled(rng, np.array([0.5, 0.45, 0.38]), np.array([0.75, 0.7, 0.6])), 0.95
    )
    items.append(MeshItem(block(rng.uniform(2, 4), 160, 0.06, 3.0).moved(0, 60, -0.06), path))
    items.append(
        MeshItem(
            block(120, rng.uniform(2, 3), 0.06, 3.0).moved(0, rng.uniform(10, 25), -0.055), path
        )
    )
    for _ in range(int(rng.integers(20, 45))):
        x, y = rng.uniform(-35, 35), rng.uniform(-8, 75)
        if abs(x) > 2.2:
            items += placed(
                tree(rng) if rng.random() < 0.75 else bush(rng, rng.uniform(0.6, 1.6)), x, y, -0.05
            )
    for s in (-1, 1):
        items += things_along(
            rng,
            s * 2.4,
            0,
            60,
            (6, 16),
            (roadside.bench, roadside.bin_, roadside.street_lamp),
            -0.02,
            -s * np.pi / 2,
        )
        if rng.random() < 0.5:
            items += placed(hedge(rng, 40, rng.uniform(0.5, 1.5)), s * rng.uniform(4, 9), 30, -0.05)
    if rng.random() < 0.6:
        items += placed(
            roadside.fountain(rng) if rng.random() < 0.6 else roadside.monument(rng),
            rng.uniform(-6, 6),
            rng.uniform(25, 40),
        )
    items += frontage(rng, 60, -20, 120, (8, 25)) + frontage(rng, -60, -20, 120, (8, 25))
    items += people(rng, (-6, 3), (6, 50), 7, 0.0)
    zone = heading_zone((-3, -6, 0.8), (3, 35, 2.2), (40, 140))
    return street_scene(rng, "park", items, [zone])


def car_park(rng: Rng) -> Scene:
    """Rows of cars before flats or sheds; lamps, bollards, fences."""
    items = ground(rng, textures.asphalt, 3.0)
    paint = materials.flat((0.85, 0.85, 0.82), 0.8)
    rows = int(rng.integers(2, 5))
    fleet = [vehicles.car(rng) for _ in range(6)]
    for row in range(rows):
        y, xs = 8 + 13 * row, np.arange(-22, 22.1, 2.6)
        items.append(
            MeshItem(
                boxes(
                    np.c_[xs, 0 * xs + y, 0 * xs - 0.05], np.tile([0.1, 4.8, 0.02], (len(xs), 1))
                ),
                paint,
            )
        )
        for x in xs[:-1] + 1.3:
            if rng.random() < 0.6:
                items += placed(
                    fleet[int(rng.integers(6))],
                    x,
                    y,
                    -0.05,
                    rng.choice([0, np.pi]) + rng.normal() * 0.03,
                )
        items += placed(roadside.street_lamp(rng), rng.uniform(-20, 20), y + 3.2, -0.05)
    end = 13 * rows + 12
    shed = [
        MeshItem(
            block(50, 15, rng.uniform(5, 10), 4.0), materials.of(textures.corrugated(rng), 0.6)
        )
    ]
    items += placed(
        shed if rng.random() < 0.4 else block_of_flats(rng, 50, 12, rng.uniform(6, 25)), 0, end + 8
    )
    for s in (-1, 1):
        border = (
            roadside.picket_fence(rng, end + 10)
            if rng.random() < 0.5
            else hedge(rng, end + 10, rng.uniform(1, 2))
        )
        items += placed(border, s * 25, end / 2)
        items += things_along(rng, s * 27, 0, end, (6, 14), (tree,), -0.05) + placed(
            roadside.bollards(rng, 20), s * 23.5, end / 2, -0.05
        )
    items += placed(roadside.bus_stop(rng), rng.uniform(-10, 10), end - 6, -0.05) + people(
        rng, (-15, 2), (15, end - 10), 5, -0.05
    )
    items += placed(roadside.cones(rng), rng.uniform(-8, 8), 3, -0.05)
    zone = heading_zone((-18, -6, 0.9), (18, end * 0.5, 2.6), (40, 140))
    above = heading_zone((-20, -8, 3), (20, 0, 8), (60, 120), (-30, -8), 0.5)
    return street_scene(rng, "car_park", items, [zone, above])
