"""Scenes along a road or lane."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import fittings, materials, roadside, storage, textures, vehicles
from e2eft.scenes.buildings import block_of_flats, house, tower
from e2eft.scenes.greenery import bush, hedge, tree
from e2eft.scenes.meshes import block, box, cylinder, merge
from e2eft.scenes.props import placed
from e2eft.scenes.scene import LookAt, MeshItem, Scene, ViewZone
from e2eft.scenes.streetscape import (
    KERBSIDE,
    frontage,
    ground,
    heading_zone,
    pavements,
    people,
    road_surface,
    street_scene,
    things_along,
    traffic,
)
from e2eft.scenes.textures import Rng


def canyon(rng: Rng) -> Scene:
    """A city street between tall houses."""
    road, walk = rng.uniform(6, 13), rng.uniform(1.8, 4.5)
    tall = rng.uniform(8, 28)
    edge = road / 2 + walk
    items = ground(rng, textures.asphalt) + road_surface(rng, road) + pavements(rng, road, walk)
    for s in (-1, 1):
        items += frontage(rng, s * (edge + 0.1), -30, 170, (0.6 * tall, 1.2 * tall))
        items += things_along(rng, s * (road / 2 + 0.7), -10, 110, (7, 18), KERBSIDE)
    if rng.random() < 0.5:
        items += placed(
            block_of_flats(rng, 24, 12, tall * rng.uniform(0.6, 1.3)), 0, rng.uniform(80, 190)
        )
    items += traffic(rng, road, 110, rng.uniform(0, 0.8), rng.uniform(0, 0.4))
    items += people(rng, (road / 2 + 1, 2), (edge - 0.3, 45), 4) + people(
        rng, (-edge + 0.3, 2), (-road / 2 - 1, 45), 4
    )
    if rng.random() < 0.35:
        wires = [
            fittings.hanging_cable(
                rng, (-edge, y, rng.uniform(5, 8)), (edge, y + rng.normal(), rng.uniform(5, 8))
            )
            for y in np.arange(5, 70, 11.0)
        ]
        items.append(MeshItem(merge(wires), materials.flat((0.05, 0.05, 0.05))))
    lane = heading_zone((-road / 3, -5, 1.1), (road / 3, 40, 2.4))
    walkers = [
        heading_zone(
            (s * (road / 2 + 0.5) - 0.4, -5, 1.2), (s * (road / 2 + 0.5) + 0.4, 40, 1.9), yaw
        )
        for s, yaw in ((1, (75, 150)), (-1, (30, 105)))
    ]
    above = heading_zone((-edge + 0.3, 0, 4), (edge - 0.3, 20, 9), (60, 120), (-30, -5), 0.4)
    return street_scene(rng, "canyon", items, [lane, *walkers, above])


def suburban(rng: Rng) -> Scene:
    """Houses with gardens, hedges, fences and driveways."""
    road, walk = rng.uniform(5.5, 8), rng.uniform(1.2, 2.0)
    edge = road / 2 + walk + 0.3
    items = ground(rng) + road_surface(rng, road) + pavements(rng, road, walk)
    drive = materials.of(textures.paving(rng), 0.9)
    for s in (-1, 1):
        y = -20.0
        while y < 130:
            plot, back = rng.uniform(13, 20), rng.uniform(4, 9)
            w, d = rng.uniform(7, 11), rng.uniform(6, 9)
            items += placed(
                house(rng, w, d), s * (edge + back + d / 2), y + plot / 2, 0, -s * np.pi / 2
            )
            lane = y + rng.uniform(1.5, 2.5)
            items.append(
                MeshItem(block(back + 3, 2.8, 0.04).moved(s * (edge + back / 2 + 1.5), lane), drive)
            )
            if rng.random() < 0.6:
                items += placed(
                    vehicles.car(rng),
                    s * (edge + rng.uniform(3, back + 1)),
                    lane,
                    0.02,
                    s * np.pi / 2,
                )
            border = (
                hedge(rng, plot - 5, rng.uniform(0.6, 1.8))
                if rng.random() < 0.5
                else roadside.picket_fence(rng, plot - 5)
            )
            items += placed(border, s * (edge + 0.3), y + plot / 2 + 2)
            for _ in range(int(rng.integers(1, 5))):
                green = tree(rng) if rng.random() < 0.5 else bush(rng, rng.uniform(0.6, 1.5))
                items += placed(
                    green, s * (edge + rng.uniform(1.2, back + 0.5)), y + rng.uniform(4, plot - 1)
                )
            y += plot
        items += things_along(
            rng,
            s * (road / 2 + 0.6),
            -5,
            90,
            (14, 30),
            (roadside.street_lamp, tree, roadside.bin_, roadside.road_sign),
        )
    items += traffic(rng, road, 90, rng.uniform(0, 0.3), rng.uniform(0, 0.15)) + people(
        rng, (-edge, 3), (edge, 40), 3, 0.05
    )
    if rng.random() < 0.4:
        items += placed(roadside.utility_poles(rng, 160, rng.uniform(25, 40)), edge - 0.3, 60)
    lane = heading_zone((-edge, -8, 1.1), (edge, 50, 2.2), (55, 125))
    garden = [
        heading_zone((s * (edge - 0.6) - 0.3, 0, 1.0), (s * (edge - 0.6) + 0.3, 60, 2.0), yaw)
        for s, yaw in ((1, (100, 200)), (-1, (-20, 80)))
    ]
    return street_scene(rng, "suburban", items, [lane, *garden])


def alley(rng: Rng) -> Scene:
    """A narrow lane: walls close by, pipes, steps, washing lines, bins."""
    half = rng.uniform(1.3, 2.8)
    items = ground(rng, textures.paving, 1.0)
    tall = rng.uniform(5, 13)
    for s in (-1, 1):
        items += frontage(rng, s * half, -15, 60, (0.7 * tall, 1.3 * tall), 0.04)
        makers = (
            roadside.bin_,
            roadside.planter,
            vehicles.bicycle,
            lambda r: bush(r, 0.5),
            roadside.bench,
        )
        items += things_along(rng, s * (half - 0.4), 1, 45, (2.5, 9), makers, -0.05, -s * np.pi / 2)
        ys = rng.uniform(-2, 45, 5)
        pipes = merge([cylinder(0.06, tall, 8).moved(s * (half - 0.05), y) for y in ys])
        items.append(MeshItem(pipes, materials.steel(rng)))
    for _ in range(int(rng.integers(1, 7))):
        y, z = rng.uniform(4, 35), rng.uniform(3, 6)
        items.append(
            MeshItem(
                fittings.hanging_cable(rng, (-half, y, z), (half, y, z)),
                materials.flat((0.1, 0.1, 0.1)),
            )
        )
        for x in rng.uniform(-half + 0.3, half - 0.3, 3):
            items.append(
                MeshItem(
                    box(rng.uniform(0.3, 0.6), 0.02, 0.6).moved(x, y, z - 0.65),
                    materials.painted(rng, 0.9),
                )
            )
    if rng.random() < 0.4:
        y = rng.uniform(12, 30)
        items.append(
            MeshItem(
                block(2 * half + 0.4, 2.5, 2.5, 1.5).moved(0, y, 3.2),
                materials.of(textures.plaster(rng), 0.9),
            )
        )
    steps = (
        [block(2 * half, 0.4, 0.16 * (k + 1)).moved(0, 20 + 0.4 * k) for k in range(6)]
        if rng.random() < 0.4
        else []
    )
    if steps:
        items.append(
            MeshItem(
                merge([*steps, block(2 * half, 40, 0.96).moved(0, 42.2)]),
                materials.of(textures.paving(rng), 0.9),
            )
        )
    items += people(rng, (-half + 0.4, 4), (half - 0.4, 18), 2, -0.05)
    items += placed(block_of_flats(rng, 15, 8, tall), 0, rng.uniform(55, 70))
    zone = heading_zone((-half + 0.4, -4, 0.7), (half - 0.4, 14, 2.2), (60, 120), (-18, 18))
    return street_scene(rng, "alley", items, [zone])


def country_road(rng: Rng) -> Scene:
    """Fields, fences, hedgerows, poles with wires, a farm, hills."""
    road = rng.uniform(4.5, 8)
    items = ground(rng) + road_surface(rng, road)
    edge = road / 2 + rng.uniform(0.8, 2.0)
    for s in (-1, 1):
        border = (
            lambda r: roadside.picket_fence(r, 150),
            lambda r: roadside.guard_rail(r, 150),
            lambda r: hedge(r, 150, 1.3),
        )[int(rng.integers(3))]
        if rng.random() < 0.8:
            items += placed(border(rng), s * edge, 50)
        for _ in range(int(rng.integers(6, 20))):
            green = tree(rng) if rng.random() < 0.7 else bush(rng, rng.uniform(0.8, 2.0))
            items += placed(green, s * (edge + rng.uniform(1.5, 40)), rng.uniform(0, 140), -0.05)
        if rng.random() < 0.6:
            items += placed(
                house(rng, rng.uniform(8, 16), rng.uniform(7, 10)),
                s * rng.uniform(20, 45),
                rng.uniform(25, 110),
                -0.05,
                rng.uniform(0, 6.3),
            )
        items += things_along(
            rng,
            s * (road / 2 + 0.4),
            5,
            90,
            (18, 45),
            (roadside.road_sign, roadside.cones, roadside.street_lamp),
            0.0,
        )
    if rng.random() < 0.6:
        items += placed(
            roadside.utility_poles(rng, 220, rng.uniform(25, 45)),
            (edge + 1.5) * rng.choice([-1, 1]),
            70,
        )
    hill = materials.of(textures.grass(rng), 0.95)
    for _ in range(int(rng.integers(0, 6))):
        reach = rng.uniform(60, 150)
        mound = cylinder(reach, rng.uniform(8, 40), 20, reach * 0.2).moved(
            rng.uniform(-300, 300), rng.uniform(280, 420), -1
        )
        items.append(MeshItem(mound, hill))
    if rng.random() < 0.3:
        items += placed(tower(rng), rng.uniform(-60, 60), rng.uniform(120, 250))
    items += traffic(rng, road, 120, 0.03, rng.uniform(0, 0.3))
    lane = heading_zone((-edge + 0.4, -8, 0.9), (edge - 0.4, 50, 2.4), (55, 125))
    return street_scene(rng, "country_road", items, [lane])


def pavement(rng: Rng) -> Scene:
    """Close to things: depth from tens of centimetres to a façade across the street."""
    base = canyon(rng)
    items = list(base.items)
    kit = (
        vehicles.bicycle,
        roadside.planter,
        roadside.bench,
        roadside.parasol_table,
        roadside.cones,
        roadside.bin_,
        roadside.traffic_light,
        roadside.road_sign,
        lambda r: bush(r, 0.6),
        lambda r: storage.crates(r, materials.make_style(r)),
    )
    places = [
        (float(rng.uniform(-2, 2)), float(rng.uniform(2, 20)))
        for _ in range(int(rng.integers(10, 20)))
    ]
    for x, y in places:
        items += placed(kit[int(rng.integers(len(kit)))](rng), x, y, 0.0, rng.uniform(0, 6.3))
    zones = [
        ViewZone(
            (x - 1.2, y - 1.6, 0.35),
            (x + 1.2, y - 0.7, 1.5),
            LookAt((x - 0.3, y - 0.2, 0.2), (x + 0.3, y + 0.4, 1.0)),
            (45, 85),
            4.0,
        )
        for x, y in places
    ]
    return street_scene(rng, "pavement", items, zones)
