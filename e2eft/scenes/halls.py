"""Larger and public interiors."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import fittings, furniture, materials, storage, textures
from e2eft.scenes.interior import (
    enclose,
    finish,
    start_room,
)
from e2eft.scenes.meshes import block, box, boxes, cylinder, merge, rod
from e2eft.scenes.props import TABLEWARE, placed, scatter
from e2eft.scenes.room import (
    Opening,
    beams,
    ceiling_lights,
    door_items,
    wall_decor,
)
from e2eft.scenes.scene import Glass, LookAt, MeshItem, Scene, ViewZone
from e2eft.scenes.textures import Rng


def office(rng: Rng) -> Scene:
    room = start_room(rng, (4.5, 11), (4.5, 11), (2.5, 3.6))
    enclose(
        room,
        (textures.carpet, textures.parquet, textures.terrazzo),
        (textures.plaster, textures.plain),
        (1, 4),
        (0, 2),
    )
    desk = [furniture.desk(rng, room.style) for _ in range(3)]
    for k in range(int(rng.integers(3, 10))):
        room.put(desk[k % 3], square=0.95, margin=0.1)
    for maker in (
        storage.shelf,
        storage.shelf,
        storage.sideboard,
        storage.wardrobe,
        fittings.radiator,
    ):
        if rng.random() < 0.7:
            room.put_at_wall(maker(rng, room.style))
    if rng.random() < 0.5:
        w = rng.uniform(0.3, 0.5) * room.width
        pane = box(w, 0.02, room.height * 0.8).moved(0, 0, room.height * 0.4)
        posts = [
            block(0.04, 0.05, room.height * 0.8).moved(x, 0) for x in np.linspace(-w / 2, w / 2, 4)
        ]
        room.put(
            [MeshItem(pane, Glass(thin=True)), MeshItem(merge(posts), room.style.metal)], square=1.0
        )
    for _ in range(3):
        room.put(fittings.big_plant(rng, room.style))
    wall_decor(room, int(rng.integers(1, 5)))
    ceiling_lights(room)
    return finish(room, "office")


def corridor(rng: Rng) -> Scene:
    room = start_room(rng, (1.4, 2.6), (8, 22), (2.3, 3.2))
    enclose(room, windows=(0, 1), doors=(0, 0))
    style = room.style
    for wall in (1, 3):
        y = -room.depth / 2 + rng.uniform(0.8, 2)
        while y < room.depth / 2 - 1:
            hole = Opening(0.0, rng.uniform(0.8, 1.0), 0.0, 2.05)
            room.items += room.at_wall(
                placed(door_items(rng, style, hole), 0, -0.12), wall, y * (1 if wall == 1 else -1)
            )
            y += rng.uniform(1.6, 4.5)
    for maker in (
        storage.sideboard,
        fittings.radiator,
        storage.shelf,
        fittings.big_plant,
        furniture.chair,
        storage.crates,
    ):
        for _ in range(2):
            if rng.random() < 0.5:
                room.put_at_wall(maker(rng, style))
    wall_decor(room, int(rng.integers(3, 9)))
    ceiling_lights(room)
    if rng.random() < 0.35:
        beams(room)
    end = room.depth / 2
    aim = LookAt((-room.width / 3, end * 0.3, 0.6), (room.width / 3, end, 1.7))
    half = room.width / 2 - 0.3
    along = ViewZone((-half, -end + 0.4, 0.6), (half, 0.0, 2.0), aim, (50, 95), weight=2.0)
    return finish(room, "corridor", (along, room.zone()))


def library(rng: Rng) -> Scene:
    room = start_room(rng, (4, 9), (5, 12), (2.6, 4.0))
    enclose(room, windows=(0, 2), doors=(0, 1))
    shelves = [storage.shelf(rng, room.style) for _ in range(4)]
    pitch = rng.uniform(1.5, 2.2)
    for y in np.arange(-room.depth / 2 + 1.2, room.depth / 2 - 0.8, pitch):
        x = -room.width / 2 + 0.9
        while x < room.width / 2 - 1.0:
            if rng.random() < 0.85:
                room.items += placed(
                    shelves[int(rng.integers(4))], x, y, 0, float(rng.integers(2)) * np.pi
                )
            x += 1.65 if rng.random() < 0.8 else 2.6
    for _ in range(2):
        room.put(fittings.ladder(rng, room.style))
        room.put(furniture.dining_set(rng, room.style), square=1.0)
    ceiling_lights(room)
    return finish(room, "library")


def store(rng: Rng) -> Scene:
    """A warehouse or garage: racks, crates, ladders, pipes and cables."""
    room = start_room(rng, (5, 12), (6, 12), (3.0, 5.5))
    enclose(
        room,
        (textures.asphalt, textures.carpet),
        (textures.bricks, textures.corrugated, textures.plaster),
        (0, 3),
        (0, 1),
    )
    racks = [storage.rack(rng, room.style) for _ in range(3)]
    for k in range(int(rng.integers(3, 9))):
        if rng.random() < 0.6:
            room.put_at_wall(racks[k % 3])
        else:
            room.put(racks[k % 3], square=1.0)
    for _ in range(int(rng.integers(4, 12))):
        room.put(storage.crates(rng, room.style))
    room.put_at_wall(fittings.ladder(rng, room.style))
    pipes = [
        rod(
            (x, -room.depth / 2, room.height - 0.25),
            (x, room.depth / 2, room.height - 0.25),
            rng.uniform(0.03, 0.09),
        )
        for x in rng.uniform(-0.45, 0.45, 4) * room.width
    ]
    cables = [
        fittings.hanging_cable(
            rng,
            (-room.width / 2, y, room.height - 0.3),
            (room.width / 2, y + rng.normal(), room.height - 0.4),
        )
        for y in rng.uniform(-0.4, 0.4, 3) * room.depth
    ]
    room.items += [
        MeshItem(merge(pipes), room.style.metal),
        MeshItem(merge(cables), materials.flat((0.1, 0.1, 0.1))),
    ]
    if rng.random() < 0.5:
        beams(room)
    ceiling_lights(room)
    return finish(room, "store")


def cafe(rng: Rng) -> Scene:
    room = start_room(rng, (5, 10), (5, 10), (2.8, 4.0))
    open_air = rng.random() < 0.4
    enclose(room, windows=(2, 4), doors=(0, 1), open_air=open_air)
    sets = [furniture.dining_set(rng, room.style) for _ in range(3)]
    bar = storage.cabinet(rng, room.style, rng.uniform(2, 3.5), 0.6, 1.1)
    room.put_at_wall(bar + scatter(rng, room.style, 2, 0.5, 1.1, 6, TABLEWARE))
    for k in range(9):
        room.put(sets[k % 3], square=0.6, margin=0.25)
    for maker in (storage.shelf, fittings.big_plant, fittings.big_plant, fittings.coat_stand):
        room.put(maker(rng, room.style))
    wall_decor(room, 5)
    ceiling_lights(room)
    return finish(room, "cafe", open_air=open_air)


def stairs(rng: Rng) -> Scene:
    """A hall with a straight flight up to a gallery with railings."""
    room = start_room(rng, (3.5, 7), (6, 9), (4.5, 6.0))
    enclose(room, windows=(1, 3), doors=(0, 2))
    style, steps, rise, run = room.style, int(rng.integers(12, 17)), 0.175, 0.28
    w, x = rng.uniform(0.9, 1.4), -room.width / 2
    top, length = steps * rise, steps * run
    y0 = room.depth / 2 - 1.3 - length
    k = np.arange(steps)
    sizes = np.c_[np.full(steps, w), np.full(steps, run + 0.03), np.full(steps, 0.05)]
    treads = boxes(
        np.c_[np.full(steps, x + w / 2), y0 + run * (k + 0.5), rise * (k + 1) - 0.025], sizes
    )
    stringer = [rod((x + w, y0, 0.0), (x + w, y0 + length, top - 0.1), 0.06)]
    rail = [rod((x + w, y0, 0.95), (x + w, y0 + length, top + 0.95), 0.03)]
    balusters = [
        cylinder(0.012, 0.95, 6).moved(x + w, y0 + run * (i + 0.5), rise * (i + 1) - 0.05)
        for i in range(steps)
    ]
    gallery = block(room.width, 1.3, 0.2, 1.5).moved(0, room.depth / 2 - 0.65, top - 0.2)
    edge = fittings.railing(room.width - w - 0.1).moved(w / 2, room.depth / 2 - 1.28, top)
    room.items += [
        MeshItem(merge([treads, *stringer, gallery]), style.joinery(rng)),
        MeshItem(merge([*rail, *balusters, edge]), style.metal),
    ]
    room.taken += [(x, y0 - 0.5, x + w + 0.1, room.depth / 2)]
    for maker in (
        furniture.sofa,
        fittings.big_plant,
        furniture.low_table,
        furniture.chair,
        furniture.dining_set,
        fittings.floor_lamp,
    ):
        room.put(maker(rng, style))
    wall_decor(room, 6)
    ceiling_lights(room)
    a, b = room.width / 2 - 0.4, room.depth / 2 - 0.4
    aim = LookAt((x, y0, 0.3), (a / 2, b, top))
    below = ViewZone((-a, -b, 0.6), (a, 0, 2.2), aim, (55, 95))
    above = ViewZone(
        (-a, b - 0.6, top + 1.0),
        (a, b, top + 1.7),
        LookAt((-a / 2, -b, 0), (a / 2, 0, 1)),
        (55, 95),
        weight=0.5,
    )
    return finish(room, "stairs", (below, above, room.zone()))
