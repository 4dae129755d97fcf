"""Rooms of a home."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import fittings, furniture, materials, storage, textures
from e2eft.scenes.interior import (
    TILED,
    enclose,
    finish,
    lay_rug,
    partition,
    start_room,
)
from e2eft.scenes.meshes import block, box, boxes, cylinder, merge, rod
from e2eft.scenes.props import TABLEWARE, placed, scatter
from e2eft.scenes.room import (
    attic_ceiling,
    beams,
    ceiling_lights,
    wall_decor,
)
from e2eft.scenes.scene import Glass, MeshItem, Scene
from e2eft.scenes.textures import Rng


def living_room(rng: Rng) -> Scene:
    room = start_room(rng, (3.2, 7.5), (3.2, 7.5), (2.3, 3.4))
    open_air = rng.random() < 0.35
    enclose(room, windows=(1, 3), doors=(0, 2), open_air=open_air)
    if rng.random() < 0.35:
        partition(room)
    for maker in (
        furniture.sofa,
        storage.shelf,
        storage.sideboard,
        furniture.sofa,
        fittings.radiator,
    ):
        if rng.random() < 0.8:
            room.put_at_wall(maker(rng, room.style))
    for maker in (
        furniture.low_table,
        furniture.dining_set,
        furniture.sofa,
        fittings.floor_lamp,
        fittings.big_plant,
        fittings.big_plant,
        furniture.chair,
        fittings.coat_stand,
    ):
        if rng.random() < 0.55:
            room.put(maker(rng, room.style), square=0.7)
    if rng.random() < 0.6:
        lay_rug(room)
    wall_decor(room, int(rng.integers(2, 7)))
    ceiling_lights(room)
    if rng.random() < 0.2:
        beams(room)
    return finish(room, "living_room", open_air=open_air)


def bedroom(rng: Rng) -> Scene:
    attic, open_air = rng.random() < 0.45, rng.random() < 0.3
    room = start_room(rng, (3.0, 5.5), (3.0, 5.5), (2.3, 3.0))
    enclose(room, windows=(1, 2), doors=(0, 1), ceiling=not attic, open_air=open_air)
    if attic:
        attic_ceiling(room, rng.uniform(1.1, 1.7), materials.of(textures.wood(rng, planks=6), 0.8))
    room.put_at_wall(furniture.bed(rng, room.style))
    for maker in (
        storage.wardrobe,
        storage.sideboard,
        furniture.desk,
        storage.shelf,
        storage.sideboard,
    ):
        if rng.random() < 0.65:
            room.put_at_wall(maker(rng, room.style))
    for maker in (
        furniture.chair,
        fittings.big_plant,
        fittings.floor_lamp,
        fittings.coat_stand,
        storage.crates,
    ):
        if rng.random() < 0.5:
            room.put(maker(rng, room.style))
    if rng.random() < 0.6:
        lay_rug(room)
    wall_decor(room, int(rng.integers(1, 5)))
    ceiling_lights(room)
    return finish(room, "attic" if attic else "bedroom", open_air=open_air)


def kitchen(rng: Rng) -> Scene:
    room = start_room(rng, (2.6, 5.5), (2.8, 5.5), (2.3, 3.0))
    enclose(
        room,
        (textures.tiles, textures.checker, textures.parquet),
        (textures.tiles, textures.tiles, textures.plaster),
        (1, 2),
        (0, 1),
    )
    style, stone = room.style, materials.of(textures.pick(rng, textures.STONE), 0.25)
    for wall in rng.permutation(4)[: int(rng.integers(1, 4))]:
        run = min(room.wall_length(int(wall)) - 1.3, rng.uniform(1.5, 4.0))
        low = storage.cabinet(rng, style, run, 0.58, 0.86)
        top = [MeshItem(block(run + 0.04, 0.62, 0.04).moved(0, 0, 0.86), stone)]
        things = scatter(rng, style, run, 0.5, 0.9, int(rng.integers(3, 10)), TABLEWARE)
        hob = [
            MeshItem(cylinder(0.08, 0.012).moved(x, y, 0.9), style.metal)
            for x in (-0.12, 0.12)
            for y in (-0.12, 0.12)
        ]
        tap = [
            MeshItem(
                merge([cylinder(0.015, 0.28, 8), rod((0, 0, 0.28), (0, -0.18, 0.24), 0.012)]).moved(
                    run / 3, 0.2, 0.9
                ),
                style.metal,
            )
        ]
        room.put_at_wall(low + top + things + hob + tap)
        upper = placed(
            storage.cabinet(rng, style, run * rng.uniform(0.5, 1), 0.34, 0.62), 0, 0, 1.45
        )
        if rng.random() < 0.8:
            room.items += room.at_wall(upper, int(wall), 0.0, 0.19)
    if rng.random() < 0.7:
        fridge = storage.cabinet(rng, style, 0.62, 0.62, rng.uniform(1.5, 2.0))
        room.put_at_wall([MeshItem(i.mesh, style.porcelain) for i in fridge[:2]] + fridge[2:])
    room.put(furniture.dining_set(rng, style), square=0.9)
    room.put(furniture.stool(rng, style))
    wall_decor(room, int(rng.integers(0, 3)))
    ceiling_lights(room)
    return finish(room, "kitchen")


def bathroom(rng: Rng) -> Scene:
    room = start_room(rng, (2.0, 4.0), (2.2, 4.0), (2.3, 2.9))
    enclose(room, (textures.tiles, textures.marble, textures.terrazzo), TILED, (0, 1), (0, 1))
    style = room.style
    w, d = rng.uniform(1.5, 1.8), rng.uniform(0.7, 0.85)
    rim = boxes(
        np.array(
            [[0, s * (d / 2 - 0.04), 0.3] for s in (-1, 1)]
            + [[s * (w / 2 - 0.04), 0, 0.3] for s in (-1, 1)]
        ),
        np.array([[w, 0.08, 0.6]] * 2 + [[0.08, d - 0.16, 0.6]] * 2),
    )
    room.put_at_wall([MeshItem(merge([rim, block(w, d, 0.2)]), style.porcelain)])
    basin = storage.cabinet(rng, style, 0.8, 0.5, 0.8)
    basin += [
        MeshItem(merge([block(0.84, 0.52, 0.1).moved(0, 0, 0.8)]), style.porcelain),
        MeshItem(box(0.7, 0.02, 0.8).moved(0, 0.24, 1.6), materials.mirror()),
        MeshItem(
            merge([cylinder(0.015, 0.2, 8), rod((0, 0, 0.2), (0, -0.15, 0.18), 0.012)]).moved(
                0, 0.15, 0.9
            ),
            style.metal,
        ),
    ]
    room.put_at_wall(basin)
    bowl = merge(
        [
            cylinder(0.13, 0.2),
            cylinder(0.16, 0.2, 20, 0.21).moved(0, 0, 0.2),
            block(0.4, 0.18, 0.75).moved(0, 0.25),
        ]
    )
    room.put_at_wall([MeshItem(bowl, style.porcelain)])
    if rng.random() < 0.5:
        pane = [
            MeshItem(block(0.9, 0.012, 1.9).moved(0, 0), Glass(thin=True)),
            MeshItem(block(0.03, 0.03, 1.9).moved(0.45, 0), style.metal),
        ]
        room.put(pane, square=1.0)
    for maker in (furniture.stool, fittings.big_plant, storage.sideboard):
        room.put(maker(rng, style))
    wall_decor(room, int(rng.integers(0, 3)))
    ceiling_lights(room)
    return finish(room, "bathroom", (room.zone((0.9, 1.9), (60, 95)),))
