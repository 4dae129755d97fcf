"""Interiors that are about objects rather than rooms."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import furniture, materials, storage, textures
from e2eft.scenes.interior import (
    FLOORS,
    WALLS,
    enclose,
    finish,
    start_room,
)
from e2eft.scenes.materials import make_style
from e2eft.scenes.meshes import block, box, cylinder, merge, panel, rod
from e2eft.scenes.props import DESKWARE, PROPS, TABLEWARE, Items, Maker, placed, primitive, scatter
from e2eft.scenes.room import (
    ceiling_lights,
    wall_decor,
)
from e2eft.scenes.scene import LookAt, MeshItem, Scene, Surface, ViewZone
from e2eft.scenes.sky import even_lighting
from e2eft.scenes.textures import Rng


def tabletop(rng: Rng) -> Scene:
    """Close-ups of things on a table; the room is the background."""
    room = start_room(rng, (3.0, 5.0), (3.0, 5.0), (2.3, 2.9))
    enclose(room, windows=(1, 2), doors=(0, 1))
    w, d, h = rng.uniform(0.9, 1.8), rng.uniform(0.7, 1.1), rng.uniform(0.45, 0.8)
    makers: tuple[Maker, ...] = (PROPS, TABLEWARE, DESKWARE, PROPS)[int(rng.integers(4))]
    top = scatter(rng, room.style, w * 0.95, d * 0.95, h, int(rng.integers(10, 26)), makers)
    x, y = rng.uniform(-0.4, 0.4, 2)
    cloth = Surface(textures.pick(rng), float(rng.uniform(0.2, 0.9)))
    board = [MeshItem(block(w + 0.02, d + 0.02, 0.008).moved(0, 0, h - 0.006), cloth)]
    things = furniture.table(rng, room.style, w, d, h) + top + (board if rng.random() < 0.6 else [])
    room.items += placed(things, x, y)
    room.taken.append((x - w, y - d, x + w, y + d))
    for maker in (storage.shelf, storage.sideboard, storage.wardrobe, furniture.sofa):
        room.put_at_wall(maker(rng, room.style))
    wall_decor(room, 4)
    ceiling_lights(room)
    aim = LookAt((x - w / 3, y - d / 3, h), (x + w / 3, y + d / 3, h + 0.12))
    zones = tuple(
        ViewZone(
            (x + sx * 0.7 * w - 0.2, y + sy * 0.7 * d - 0.2, h + low),
            (x + sx * 0.7 * w + 0.2, y + sy * 0.7 * d + 0.2, h + high),
            aim,
            hfov,
            roll_sigma_deg=4.0,
        )
        for sx, sy, low, high, hfov in (
            (0, -1, 0.1, 0.5, (40.0, 75.0)),
            (1, -1, 0.15, 0.7, (40.0, 80.0)),
            (-1, 1, 0.1, 0.9, (45.0, 85.0)),
            (0, -0.2, 0.4, 0.9, (45.0, 70.0)),
        )
    )
    return finish(room, "tabletop", zones)


def clutter(rng: Rng) -> Scene:
    """Primitives of all sizes, stacked, leaning and hanging, in a room or a studio."""
    room = start_room(rng, (3, 9), (3, 9), (2.6, 5.0))
    enclose(room, (*FLOORS, textures.clouded), (*WALLS, textures.clouded), (0, 2), (0, 1))
    for _ in range(int(rng.integers(12, 32))):
        size = float(np.exp(rng.uniform(np.log(0.2), np.log(1.3))))
        pile = [MeshItem(primitive(rng, size), materials.anything(rng))]
        if rng.random() < 0.35:
            level = float(pile[0].mesh.vertices[:, 2].max())
            pile += placed(
                [MeshItem(primitive(rng, size * 0.6), materials.anything(rng))], 0, 0, level
            )
        room.put(pile, square=0.1, margin=0.05)
    for _ in range(int(rng.integers(0, 7))):
        x, y = rng.uniform(-0.4, 0.4, 2) * [room.width, room.depth]
        drop = rng.uniform(0.3, 0.6) * room.height
        hung = primitive(rng, rng.uniform(0.15, 0.5)).moved(x, y, drop)
        cord = cylinder(0.006, room.height - drop - 0.1, 6).moved(x, y, drop + 0.1)
        room.items += [MeshItem(hung, materials.anything(rng)), MeshItem(cord, room.style.metal)]
    for _ in range(int(rng.integers(0, 5))):
        ends = rng.uniform(-0.45, 0.45, (2, 2)) * [room.width, room.depth]
        stick = rod(
            (*ends[0], 0.03), (*ends[1], rng.uniform(0.5, room.height)), rng.uniform(0.01, 0.05)
        )
        room.items.append(MeshItem(stick, materials.painted(rng)))
    ceiling_lights(room)
    return finish(room, "clutter", (room.zone((0.3, 2.4), (45, 95)),))


def studio(rng: Rng) -> Scene:
    """A few objects on a curved or plain backdrop: product photographs."""
    style = make_style(rng)
    ground = (
        materials.of(textures.pick(rng), 0.8)
        if rng.random() < 0.5
        else materials.flat(textures.pale_colour(rng), 0.9)
    )
    turn = np.linspace(0, np.pi / 2, 8)
    ys = np.concatenate([[-3], 1.0 + 1.0 * np.sin(turn), [2.0]])
    zs = np.concatenate([[0], 1.0 - 1.0 * np.cos(turn), [4.0]])
    sweep = [
        panel((-4, ys[k], zs[k]), (8, 0, 0), (0, ys[k + 1] - ys[k], zs[k + 1] - zs[k]), 2.0)
        for k in range(len(ys) - 1)
    ]
    items: Items = [MeshItem(merge(sweep), ground)]
    for _ in range(int(rng.integers(3, 9))):
        size = rng.uniform(0.15, 0.6)
        item = (
            [MeshItem(primitive(rng, size), materials.anything(rng))]
            if rng.random() < 0.6
            else scatter(rng, style, 0.5, 0.5, 0, 1)
        )
        x, y, turn = rng.uniform((-0.9, -0.9, 0.0), (0.9, 0.9, 6.3))
        items += placed(item, x, y, 0, turn)
    for _ in range(int(rng.integers(1, 4))):
        lamp = box(1.2, 1.2, 0.05).moved(
            rng.uniform(-2.5, 2.5), rng.uniform(-2, 1), rng.uniform(2.2, 3.0)
        )
        items.append(MeshItem(lamp, materials.warm_light(rng, rng.uniform(3, 9))))
    aim = LookAt((-0.3, -0.3, 0.05), (0.3, 0.3, 0.35))
    zone = ViewZone((-1.2, -2.2, 0.3), (1.2, -0.8, 1.4), aim, (40, 70), roll_sigma_deg=3.0)
    lighting = even_lighting(rng.uniform(0.1, 0.6), 1.0)
    return Scene("indoor", "studio", tuple(items), lighting, (zone,))
