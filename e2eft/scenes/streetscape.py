"""What outdoor scenes have in common. Roads run along +y; the ground is at z = 0."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from e2eft.scenes import materials, roadside, textures, vehicles
from e2eft.scenes.buildings import block_of_flats
from e2eft.scenes.greenery import tree
from e2eft.scenes.meshes import block, box, boxes, merge
from e2eft.scenes.props import Items, placed
from e2eft.scenes.scene import Heading, MeshItem, Point, Range, Scene, ViewZone
from e2eft.scenes.sky import outdoor_lighting
from e2eft.scenes.textures import Rng


def street_scene(rng: Rng, kind: str, items: Items, zones: Sequence[ViewZone]) -> Scene:
    return Scene("street", kind, tuple(items), outdoor_lighting(rng), tuple(zones))


def heading_zone(
    low: Point,
    high: Point,
    yaw_deg: Range = (70, 110),
    pitch_deg: Range = (-14, 10),
    weight: float = 1.0,
    hfov_deg: Range = (45, 95),
) -> ViewZone:
    return ViewZone(low, high, Heading(yaw_deg, pitch_deg), hfov_deg, weight=weight)


def ground(
    rng: Rng, painter: Callable[[Rng], textures.Texture] | None = None, repeat_m: float = 9.0
) -> Items:
    surface = materials.of((painter or textures.grass)(rng), 0.95)
    near = block(160, 240, 1.0, max(repeat_m, 2.0)).moved(0, 80, -1.05)
    return [
        MeshItem(near, surface),
        MeshItem(block(700, 700, 1.0, 20.0).moved(0, 200, -1.1), surface),
    ]


def road_surface(rng: Rng, width: float, start: float = -40.0, end: float = 220.0) -> Items:
    length, middle = end - start, (start + end) / 2
    items = [
        MeshItem(
            block(width, length, 0.3, 5.0).moved(0, middle, -0.3),
            materials.of(textures.asphalt(rng), 0.85),
        )
    ]
    paint = materials.flat(np.full(3, rng.uniform(0.7, 0.95)), 0.7)
    marks = []
    if rng.random() < 0.8:
        ys = np.arange(start, end, rng.uniform(5, 9))
        marks.append(boxes(np.c_[0 * ys, ys, 0 * ys], np.tile([0.14, 2.5, 0.012], (len(ys), 1))))
    if rng.random() < 0.6:
        marks += [box(0.12, length, 0.012).moved(s * (width / 2 - 0.4), middle) for s in (-1, 1)]
    if rng.random() < 0.5:
        y = rng.uniform(4, 30)
        xs = np.arange(-width / 2 + 0.5, width / 2 - 0.3, 1.0)
        marks.append(boxes(np.c_[xs, 0 * xs + y, 0 * xs], np.tile([0.5, 3.0, 0.012], (len(xs), 1))))
    return items + ([MeshItem(merge(marks), paint)] if marks else [])


def pavements(
    rng: Rng, road: float, width: float, start: float = -40.0, end: float = 220.0
) -> Items:
    slab = materials.of(textures.paving(rng), 0.9)
    kerb = materials.flat(textures.colour(rng, (0, 0.1), (0.5, 0.75)), 0.9)
    length, middle = end - start, (start + end) / 2
    items: Items = []
    for s in (-1, 1):
        items.append(
            MeshItem(
                block(width, length, 0.4, 2.0).moved(
                    s * (road / 2 + width / 2 + 0.15), middle, -0.27
                ),
                slab,
            )
        )
        items.append(
            MeshItem(block(0.16, length, 0.42).moved(s * (road / 2 + 0.08), middle, -0.28), kerb)
        )
    return items


def things_along(
    rng: Rng,
    x: float,
    start: float,
    end: float,
    pitch: Range,
    makers: Sequence[Callable[[Rng], Items]],
    level: float = 0.13,
    turn: float | None = None,
) -> Items:
    """Random things along y at `x`; poles reach over the road, faces look down it."""
    items: Items = []
    y = start + rng.uniform(0, pitch[1])
    while y < end:
        thing = makers[int(rng.integers(len(makers)))](rng)
        angle = (0.0 if x > 0 else np.pi) if turn is None else turn
        items += placed(thing, x + rng.normal() * 0.1, y, level, angle)
        y += rng.uniform(*pitch)
    return items


def traffic(rng: Rng, road: float, end: float, parked: float, moving: float) -> Items:
    """Cars at both kerbs and in both lanes."""
    items: Items = []
    fleet = [vehicles.car(rng) for _ in range(4)] + [vehicles.lorry(rng)]
    for side in (-1, 1):
        for x, share in ((side * (road / 2 - 1.1), parked), (side * road / 4, moving)):
            y = rng.uniform(-10, 12)
            while y < end:
                if rng.random() < share:
                    vehicle = fleet[int(rng.choice(5, p=(0.24, 0.24, 0.24, 0.24, 0.04)))]
                    items += placed(
                        vehicle, x, y, 0, (0.0 if side > 0 else np.pi) + rng.normal() * 0.03
                    )
                y += rng.uniform(6.5, 14) + (8 if share == moving else 0)
    return items


def people(rng: Rng, low: Range, high: Range, count: int, level: float = 0.13) -> Items:
    items: Items = []
    for _ in range(count):
        items += placed(
            roadside.person(rng),
            rng.uniform(low[0], high[0]),
            rng.uniform(low[1], high[1]),
            level,
            rng.uniform(0, 6.3),
        )
    return items


def frontage(
    rng: Rng, x: float, start: float, end: float, heights: Range, gap: float = 0.15
) -> Items:
    """City houses side by side along y, their fronts on the line x, facing the road at x = 0."""
    items: Items = []
    faces = [materials.of(textures.bay_grid(rng), 0.75) for _ in range(6)]
    y = start
    while y < end:
        width, depth = rng.uniform(7, 20), rng.uniform(8, 14)
        if rng.random() > gap:
            front = placed(
                block_of_flats(
                    rng, width, depth, rng.uniform(*heights), faces[int(rng.integers(6))]
                ),
                0,
                0,
            )
            width = max(2, round(width / 3.0)) * 3.0
            side = 1 if x > 0 else -1
            items += placed(
                front,
                x + side * (depth / 2 + rng.uniform(0, 0.8)),
                y + width / 2,
                0.0,
                -side * np.pi / 2,
            )
        y += width + (0.0 if rng.random() < 0.8 else rng.uniform(1, 4))
    return items


KERBSIDE: tuple[Callable[[Rng], Items], ...] = (
    roadside.street_lamp,
    roadside.street_lamp,
    tree,
    tree,
    roadside.road_sign,
    roadside.bin_,
    roadside.bench,
    roadside.planter,
    vehicles.bicycle,
)
