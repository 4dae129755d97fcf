"""Rooms: walls with windows and doors, ceilings, and where furniture still fits."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from e2eft.scenes import fittings, materials, textures
from e2eft.scenes.materials import Style
from e2eft.scenes.meshes import block, box, boxes, cylinder, merge, panel, prism, rod
from e2eft.scenes.props import Items, bounds, placed
from e2eft.scenes.scene import Light, LookAt, Mesh, MeshItem, Surface, ViewZone
from e2eft.scenes.textures import Rng

_WALL = 0.2


@dataclass(frozen=True)
class Opening:
    """A hole in a wall: `centre` along it, from `bottom` to `top`, metres."""

    centre: float
    width: float
    bottom: float
    top: float


@dataclass(eq=False)
class Room:
    """A rectangular room under construction, centred on the origin, floor at z = 0.

    Walls 0..3 stand at +y, -x, -y, +x. A wall's own frame has x along it, y outwards, y = 0 on its
    inner face; furniture is made with its back to +y, so it goes to a wall as it is.
    """

    rng: Rng
    style: Style
    width: float
    depth: float
    height: float
    items: Items = field(default_factory=list)
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def wall_length(self, wall: int) -> float:
        return self.width if wall % 2 == 0 else self.depth

    def at_wall(self, items: Items, wall: int, along: float = 0.0, off: float = 0.0) -> Items:
        """`items` of a wall's frame put at `along` it and `off` metres in front of it."""
        turn = wall * np.pi / 2
        reach = (self.depth if wall % 2 == 0 else self.width) / 2 - off
        cosine, sine = np.cos(turn), np.sin(turn)
        return placed(items, along * cosine - reach * sine, along * sine + reach * cosine, 0, turn)

    def _fits(self, items: Items, margin: float) -> bool:
        low, high = bounds(items)
        half = np.array([self.width / 2, self.depth / 2]) + 1e-3
        if (np.abs(np.concatenate([low[:2], high[:2]])) > np.tile(half, 2)).any() or high[
            2
        ] > self.height:
            return False
        x0, y0, x1, y1 = low[0] - margin, low[1] - margin, high[0] + margin, high[1] + margin
        return all(x1 < a or x0 > c or y1 < b or y0 > d for a, b, c, d in self.taken)

    def _claim(self, items: Items) -> None:
        low, high = bounds(items)
        self.taken.append((low[0], low[1], high[0], high[1]))
        self.items += items

    def put_at_wall(self, items: Items, tries: int = 8) -> bool:
        """With the back to a wall, if there is room."""
        low, high = bounds(items)
        for _ in range(tries):
            wall = int(self.rng.integers(4))
            spare = self.wall_length(wall) / 2 - max(high[0], -low[0])
            if spare < 0:
                continue
            there = self.at_wall(
                items, wall, self.rng.uniform(-spare, spare), float(high[1]) + 0.02
            )
            if self._fits(there, 0.05):
                self._claim(there)
                return True
        return False

    def put(self, items: Items, tries: int = 8, square: float = 0.5, margin: float = 0.15) -> bool:
        """Anywhere; parallel to the walls with probability `square`."""
        for _ in range(tries):
            straight = self.rng.random() < square
            turn = self.rng.integers(4) * np.pi / 2 if straight else self.rng.uniform(0, 2 * np.pi)
            x, y = self.rng.uniform(-0.5, 0.5, 2) * np.array([self.width, self.depth])
            there = placed(items, x, y, 0, turn)
            if self._fits(there, margin):
                self._claim(there)
                return True
        return False

    def zone(
        self,
        heights: tuple[float, float] = (0.7, 1.9),
        hfov_deg: tuple[float, float] = (45.0, 92.0),
        weight: float = 1.0,
    ) -> ViewZone:
        """Photographs from anywhere inside towards the furniture."""
        a, b = self.width / 2 - 0.3, self.depth / 2 - 0.3
        low, high = (
            (-0.35 * self.width, -0.35 * self.depth, 0.1),
            (0.35 * self.width, 0.35 * self.depth, 1.5),
        )
        top = min(heights[1], self.height - 0.3)
        return ViewZone(
            (-a, -b, heights[0]), (a, b, top), LookAt(low, high), hfov_deg, weight=weight
        )


def build_shell(
    room: Room,
    floor: Surface,
    walls: list[Surface],
    ceiling: Surface | None,
    openings: dict[int, list[Opening]],
) -> None:
    """Floor, four walls with their openings, skirting, and a flat ceiling unless None."""
    w, d = room.width + 2 * _WALL, room.depth + 2 * _WALL
    room.items.append(
        MeshItem(block(w, d, 0.1, repeat_m=room.rng.uniform(1.2, 2.5)).moved(0, 0, -0.1), floor)
    )
    if ceiling:
        room.items.append(
            MeshItem(block(w, d, 0.1, repeat_m=3.0).moved(0, 0, room.height), ceiling)
        )
    skirt_height = room.rng.choice([0.0, 0.06, 0.1, 0.15])
    repeat = room.rng.uniform(0.8, 2.0)
    for wall, surface in enumerate(walls):
        length = room.wall_length(wall)
        holes = sorted(openings.get(wall, []), key=lambda o: o.centre)
        mesh = _pierced(length + 2 * _WALL * (wall % 2 == 0), room.height, holes, repeat)
        room.items += room.at_wall([MeshItem(mesh, surface)], wall)
        if skirt_height:
            doors = [o for o in holes if o.bottom < skirt_height]
            skirting = _pierced(length, skirt_height, doors, 10.0, 0.03).moved(0, -0.015)
            room.items += room.at_wall([MeshItem(skirting, room.style.paint)], wall)


def _pierced(
    length: float, height: float, holes: list[Opening], repeat_m: float, thick: float = _WALL
) -> Mesh:
    """A wall in its own frame with rectangular holes."""
    parts: list[Mesh] = []

    def piece(x0: float, x1: float, z0: float, z1: float) -> None:
        if x1 - x0 > 1e-3 and z1 - z0 > 1e-3:
            parts.append(
                block(x1 - x0, thick, z1 - z0, repeat_m).moved((x0 + x1) / 2, thick / 2, z0)
            )

    edge = -length / 2
    for hole in holes:
        left, right = hole.centre - hole.width / 2, hole.centre + hole.width / 2
        piece(edge, left, 0, height)
        piece(left, right, 0, hole.bottom)
        piece(left, right, hole.top, height)
        edge = right
    piece(edge, length / 2, 0, height)
    return merge(parts)


def window_items(rng: Rng, style: Style, hole: Opening, glow: Light | None) -> Items:
    """Frame, bars, sill, and sometimes blinds or curtains, in the wall's frame.

    With `glow`, a bright pane closes the hole at the outer face; without, one sees the outdoors.
    """
    w, h, rim = hole.width, hole.top - hole.bottom, 0.05
    bars = [
        (0, h - rim / 2, w, rim),
        (0, rim / 2, w, rim),
        (-w / 2 + rim / 2, h / 2, rim, h),
        (w / 2 - rim / 2, h / 2, rim, h),
    ]
    bars += [
        (x, h / 2, 0.03, h) for x in np.linspace(-w / 2, w / 2, int(rng.integers(1, 4)) + 1)[1:-1]
    ]
    bars += [(0, z, w, 0.03) for z in np.linspace(0, h, int(rng.integers(1, 4)) + 1)[1:-1]]
    frame = boxes(
        np.array([[x, 0.1, z] for x, z, _, _ in bars]),
        np.array([[a, 0.05, b] for _, _, a, b in bars]),
    )
    items = [MeshItem(merge([frame, box(w + 0.1, 0.18, 0.03).moved(0, -0.02, 0)]), style.paint)]
    if glow:
        items.append(MeshItem(box(w, 0.02, h).moved(0, 0.19, h / 2), glow))
    covering = rng.random()
    if covering < 0.25:
        spacing = rng.uniform(0.035, 0.06)
        z = np.arange(rng.uniform(0, 0.6) * h, h, spacing)
        slats = boxes(np.c_[0 * z, 0 * z - 0.03, z], np.tile([w, 0.035, 0.004], (len(z), 1)))
        cords = boxes(
            np.array([[s * w * 0.35, -0.03, (z[0] + h) / 2] for s in (-1, 1)]),
            np.tile([0.006, 0.006, h - z[0]], (2, 1)),
        )
        items.append(MeshItem(merge([slats, cords]), style.paint))
    elif covering < 0.6:
        items += _curtains(rng, style, w, h, hole.bottom)
    return placed(items, hole.centre, 0, hole.bottom)


def _curtains(rng: Rng, style: Style, w: float, h: float, sill: float) -> Items:
    share, drop = rng.uniform(0.15, 0.35), (sill - 0.03 if rng.random() < 0.5 else 0.1)
    pleats: list[Mesh] = []
    for side in (-1, 1):
        for k in range(count := int(rng.integers(4, 8))):
            x = side * (w / 2 + 0.1 - share * w * k / count)
            pleats.append(cylinder(0.035, h + drop + 0.1, 8).moved(x, -0.1, -drop))
    pole = rod((-w / 2 - 0.25, -0.1, h + 0.12), (w / 2 + 0.25, -0.1, h + 0.12), 0.012)
    return [MeshItem(merge(pleats), style.fabric(rng)), MeshItem(pole, style.metal)]


def door_items(rng: Rng, style: Style, hole: Opening) -> Items:
    """A leaf, shut or ajar, in a frame, in the wall's frame."""
    w, h = hole.width, hole.top
    jambs = boxes(
        np.array([[-w / 2 + 0.02, 0.08, h / 2], [w / 2 - 0.02, 0.08, h / 2], [0, 0.08, h - 0.02]]),
        np.array([[0.04, 0.26, h], [0.04, 0.26, h], [w, 0.26, 0.04]]),
    )
    leaf_surface = style.joinery(rng)
    leaf = [block(w - 0.08, 0.04, h - 0.05)]
    rows = int(rng.integers(1, 4))
    leaf += [
        box((w - 0.08) * 0.36, 0.055, (h - 0.4) / rows - 0.1).moved(
            s * (w - 0.08) * 0.22, 0, 0.2 + (k + 0.5) * (h - 0.4) / rows
        )
        for k in range(rows)
        for s in (-1, 1)
    ]
    handle = merge([box(0.12, 0.02, 0.02).moved(w * 0.36, s * 0.06, 1.0) for s in (-1, 1)])
    parts = [MeshItem(merge(leaf), leaf_surface), MeshItem(handle, style.metal)]
    swing = rng.uniform(-1.4, -0.3) if rng.random() < 0.3 else 0.0
    hinge = placed(placed(parts, w / 2 - 0.04, 0), -w / 2 + 0.04, 0.1, 0, swing)
    return placed([MeshItem(jambs, style.paint), *hinge], hole.centre, 0)


def niche_items(rng: Rng, style: Style, hole: Opening, wall: Surface, floor: Surface) -> Items:
    """What lies behind an open doorway: a short lit space, in the wall's frame."""
    w, h, deep = hole.width + 1.0, hole.top + 0.3, rng.uniform(1.2, 3.5)
    shell = merge(
        [
            block(0.1, deep, h, 1.5).moved(-w / 2 - 0.05, _WALL + deep / 2),
            block(0.1, deep, h, 1.5).moved(w / 2 + 0.05, _WALL + deep / 2),
            block(w + 0.2, 0.1, h, 1.5).moved(0, _WALL + deep + 0.05),
            block(w + 0.2, deep + 0.3, 0.1, 1.5).moved(0, _WALL + deep / 2, h),
        ]
    )
    items = [
        MeshItem(shell, wall),
        MeshItem(block(w, deep, 0.1, 1.5).moved(0, _WALL + deep / 2, -0.1), floor),
    ]
    lamp = box(0.4, 0.4, 0.02).moved(0, _WALL + deep / 2, h - 0.02)
    items.append(MeshItem(lamp, style.lamp))
    if rng.random() < 0.5:
        items += placed(fittings.big_plant(rng, style), 0, _WALL + deep - 0.5)
    return placed(items, hole.centre, 0)


def wall_decor(room: Room, count: int) -> None:
    """Pictures, mirrors, wall shelves, clocks at eye height."""
    rng = room.rng
    for _ in range(count):
        wall = int(rng.integers(4))
        w, h, rim = rng.uniform(0.25, 1.2), rng.uniform(0.25, 0.9), rng.uniform(0.015, 0.05)
        along = rng.uniform(-0.4, 0.4) * (room.wall_length(wall) - w)
        level = min(rng.uniform(1.2, 1.8), room.height - 0.5)
        if rng.random() < 0.15:
            clock = cylinder(0.16, 0.03, 24).tilted(np.pi / 2).moved(0, 0, level)
            room.items += room.at_wall(
                [MeshItem(clock, materials.flat((0.9, 0.9, 0.88)))], wall, along
            )
            continue
        face = (
            materials.mirror() if rng.random() < 0.12 else materials.of(textures.painting(rng), 0.5)
        )
        frame = boxes(
            np.array([[0, 0, s * h / 2] for s in (-1, 1)] + [[s * w / 2, 0, 0] for s in (-1, 1)]),
            np.array([[w + rim, 0.05, rim]] * 2 + [[rim, 0.05, h + rim]] * 2),
        )
        parts = [MeshItem(frame, room.style.joinery(rng)), MeshItem(box(w, 0.02, h), face)]
        room.items += room.at_wall(placed(parts, 0, 0, level), wall, along, 0.01)


def ceiling_lights(room: Room) -> None:
    """Panels, strips, or lamps on cables."""
    rng, kind = room.rng, room.rng.random()
    count = max(1, round(room.width * room.depth / rng.uniform(8, 20)))
    light = materials.warm_light(rng, rng.uniform(5, 16))
    columns = max(1, round(np.sqrt(count * room.width / room.depth)))
    rows = max(1, round(count / columns))
    spots = [
        ((i + 0.5) / columns - 0.5, (k + 0.5) / rows - 0.5)
        for i in range(columns)
        for k in range(rows)
    ]
    size = (0.6, 0.6) if kind < 0.4 else (1.2, 0.12)
    for x, y in spots:
        if kind < 0.7:
            lamp = box(*size, 0.03).moved(x * room.width, y * room.depth, room.height - 0.02)
            room.items.append(MeshItem(lamp, light))
        else:
            room.items += placed(
                fittings.pendant(rng, room.style, room.height), x * room.width, y * room.depth
            )


def beams(room: Room) -> None:
    """Timber under the ceiling, or columns."""
    rng = room.rng
    if rng.random() < 0.6:
        ys = np.arange(-room.depth / 2 + 0.4, room.depth / 2, rng.uniform(0.7, 1.5))
        mesh = merge([box(room.width, 0.14, 0.18).moved(0, y, room.height - 0.09) for y in ys])
    else:
        x, y = rng.uniform(-0.3, 0.3, 2) * np.array([room.width, room.depth])
        mesh = (
            block(0.35, 0.35, room.height).moved(x, y)
            if rng.random() < 0.5
            else cylinder(0.2, room.height, 20).moved(x, y)
        )
        room.taken.append((x - 0.25, y - 0.25, x + 0.25, y + 0.25))
    room.items.append(MeshItem(mesh, room.style.joinery(rng)))


def attic_ceiling(room: Room, knee: float, surface: Surface) -> None:
    """Two slopes from `knee` height at the ±x walls to a ridge at the room's height."""
    half, d = room.width / 2 + 0.1, room.depth + 2 * _WALL
    for side in (-1, 1):
        low = np.array([side * half, -d / 2 * side, knee])
        slope = panel(low, (-side * half, 0, room.height - knee), (0, d * side, 0), 1.5)
        room.items.append(
            MeshItem(Mesh(slope.vertices, -slope.normals, slope.uvs, slope.faces[:, ::-1]), surface)
        )
    outline = np.array(
        [
            [-half - 0.1, room.height + 0.4],
            [0, room.height + 0.3],
            [half + 0.1, room.height + 0.4],
            [0, room.height + 1.0],
        ]
    )
    room.items.append(MeshItem(prism(outline, d), surface))
