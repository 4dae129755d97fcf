"""What interiors have in common: shells with openings, daylight, rugs, partitions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from e2eft.scenes import greenery, materials, textures
from e2eft.scenes.materials import make_style
from e2eft.scenes.meshes import block
from e2eft.scenes.props import Items, placed
from e2eft.scenes.room import (
    Opening,
    Room,
    build_shell,
    door_items,
    niche_items,
    window_items,
)
from e2eft.scenes.scene import Light, MeshItem, Range, Scene, ViewZone
from e2eft.scenes.sky import even_lighting, outdoor_lighting
from e2eft.scenes.textures import Painter, Rng

FLOORS: tuple[Painter, ...] = (
    textures.parquet,
    textures.parquet,
    textures.tiles,
    textures.carpet,
    textures.marble,
    textures.terrazzo,
    textures.checker,
)


WALLS: tuple[Painter, ...] = (
    textures.plaster,
    textures.plaster,
    textures.plaster,
    textures.plain,
    textures.stripes,
    textures.bricks,
    textures.dots,
    textures.clouded,
)


TILED: tuple[Painter, ...] = (textures.tiles,)


def start_room(rng: Rng, width: Range, depth: Range, height: Range) -> Room:
    return Room(
        rng, make_style(rng), rng.uniform(*width), rng.uniform(*depth), rng.uniform(*height)
    )


def _holes(
    rng: Rng, room: Room, windows: tuple[int, int], doors: tuple[int, int]
) -> tuple[dict[int, list[Opening]], dict[int, list[Opening]]]:
    """Windows and doors per wall, none overlapping."""
    spots: dict[int, list[Opening]] = {k: [] for k in range(4)}
    found: tuple[dict[int, list[Opening]], ...] = ({}, {})
    wanted = [0] * int(rng.integers(windows[0], windows[1] + 1)) + [1] * int(
        rng.integers(doors[0], doors[1] + 1)
    )
    for kind in wanted:
        for _ in range(6):
            wall = int(rng.integers(4))
            width = (
                rng.uniform(0.8, 1.1)
                if kind
                else rng.uniform(0.7, min(2.6, 0.6 * room.wall_length(wall)))
            )
            spare = room.wall_length(wall) / 2 - width / 2 - 0.15
            if spare < 0:
                continue
            centre = rng.uniform(-spare, spare)
            if any(abs(centre - o.centre) < (width + o.width) / 2 + 0.25 for o in spots[wall]):
                continue
            top = min(rng.uniform(1.95, 2.2), room.height - 0.15)
            bottom = 0.0 if kind else rng.uniform(0.4, 1.0)
            opening = Opening(centre, width, bottom, top)
            spots[wall].append(opening)
            found[kind].setdefault(wall, []).append(opening)
            break
    return found[0], found[1]


def enclose(
    room: Room,
    floors: Sequence[Painter] = FLOORS,
    walls: Sequence[Painter] = WALLS,
    windows: tuple[int, int] = (0, 3),
    doors: tuple[int, int] = (0, 2),
    ceiling: bool = True,
    open_air: bool = False,
) -> None:
    """Shell, windows, doors. `open_air` leaves windows open onto the outdoors."""
    rng, style = room.rng, room.style
    floor = materials.of(textures.pick(rng, tuple(floors)), rng.uniform(0.15, 0.8))
    wall = materials.of(textures.pick(rng, tuple(walls)), 0.85)
    accent = materials.of(textures.pick(rng, tuple(walls)), 0.85) if rng.random() < 0.35 else wall
    sides = [wall] * 4
    sides[int(rng.integers(4))] = accent
    top = materials.of(textures.plaster(rng, np.full(3, rng.uniform(0.8, 0.97))), 0.95)
    glazed, passages = _holes(rng, room, windows, doors)
    openings = {k: glazed.get(k, []) + passages.get(k, []) for k in range(4)}
    build_shell(room, floor, sides, top if ceiling else None, openings)
    daylight = rng.uniform(3, 12)
    glow = None if open_air else Light((0.85 * daylight, 0.95 * daylight, 1.08 * daylight))
    for k, group in glazed.items():
        for hole in group:
            room.items += room.at_wall(window_items(rng, style, hole, glow), k)
    for k, group in passages.items():
        for hole in group:
            ajar = door_items(rng, style, hole) if rng.random() < 0.65 else []
            room.items += room.at_wall(ajar + niche_items(rng, style, hole, wall, floor), k)
            _reserve(room, k, hole)


def _reserve(room: Room, wall: int, hole: Opening) -> None:
    mat = [MeshItem(block(hole.width, 0.9, 0.01).moved(0, -0.45), room.style.paint)]
    x0, y0 = (v := room.at_wall(mat, wall, hole.centre)[0].mesh.vertices).min(0)[:2]
    room.taken.append((x0, y0, v[:, 0].max(), v[:, 1].max()))


def finish(room: Room, kind: str, zones: Sequence[ViewZone] = (), open_air: bool = False) -> Scene:
    lighting = outdoor_lighting(room.rng) if open_air else even_lighting()
    if open_air:
        room.items += _outdoors(room)
    return Scene("indoor", kind, tuple(room.items), lighting, tuple(zones) or (room.zone(),))


def _outdoors(room: Room) -> Items:
    """Ground and a few trees and blocks beyond the windows."""
    rng = room.rng
    drop = float(rng.choice([0.3, 3.5, 9.0]))
    items: Items = [
        MeshItem(
            block(160, 160, 0.2, 8.0).moved(0, 0, -0.2), materials.of(textures.grass(rng), 0.95)
        )
    ]
    for _ in range(int(rng.integers(6, 14))):
        angle, away = rng.uniform(0, 6.28), rng.uniform(10, 50) + room.width
        thing = (
            greenery.tree(rng)
            if rng.random() < 0.6
            else [
                MeshItem(block(*rng.uniform(5, 14, 3)), materials.of(textures.bay_grid(rng), 0.8))
            ]
        )
        items += placed(thing, away * np.cos(angle), away * np.sin(angle))
    return placed(items, 0, 0, -drop)


def lay_rug(room: Room) -> None:
    rng = room.rng
    w, d = rng.uniform(0.4, 0.7) * np.array([room.width, room.depth])
    rug = block(w, d, 0.012).moved(*(rng.uniform(-0.1, 0.1, 2) * [room.width, room.depth]))
    room.items.append(MeshItem(rug, materials.of(textures.rug(rng), 0.95)))


def partition(room: Room) -> None:
    """A wall part of the way across, or a filled corner that makes the plan an L."""
    rng = room.rng
    surface = materials.of(textures.pick(rng, WALLS), 0.9)
    x_side, y_side = rng.choice([-1, 1], 2)
    if rng.random() < 0.5:
        w, d = rng.uniform(0.25, 0.45) * room.width, rng.uniform(0.25, 0.45) * room.depth
    else:
        w, d = rng.uniform(0.3, 0.55) * room.width, 0.12
    x, y = (
        x_side * (room.width - w) / 2,
        y_side * (room.depth - d) / 2 if d > 0.2 else rng.uniform(-0.2, 0.2) * room.depth,
    )
    height = room.height if rng.random() < 0.8 else rng.uniform(1.0, 2.0)
    room.items.append(MeshItem(block(w, d, height, 1.5).moved(x, y), surface))
    room.taken.append((x - w / 2, y - d / 2, x + w / 2, y + d / 2))
