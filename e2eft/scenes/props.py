"""Small things that stand on tables, shelves and floors: lists of items resting on z = 0."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from e2eft.scenes import materials, textures
from e2eft.scenes.materials import Style
from e2eft.scenes.meshes import (
    blob,
    block,
    box,
    boxes,
    cylinder,
    merge,
    random_rotation,
    revolve,
    rod,
    sphere,
    torus,
    tube,
    vase,
)
from e2eft.scenes.scene import FloatArray, Glass, Mesh, MeshItem, Surface
from e2eft.scenes.textures import Rng, colour

Items = list[MeshItem]


def placed(
    items: Iterable[MeshItem], x: float, y: float, z: float = 0.0, turn: float = 0.0
) -> Items:
    """`items` turned about their origin by `turn` radians, then moved."""
    return [
        MeshItem(i.mesh.turned(turn).moved(x, y, z) if turn else i.mesh.moved(x, y, z), i.material)
        for i in items
    ]


def bounds(items: Iterable[MeshItem]) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest corner [3] of all `items`."""
    items = list(items)
    low = np.min([item.mesh.vertices.min(0) for item in items], axis=0)
    high = np.max([item.mesh.vertices.max(0) for item in items], axis=0)
    return low, high


def grounded(mesh: Mesh) -> Mesh:
    """Moved so that its lowest point is at z = 0."""
    return mesh.moved(0, 0, -float(mesh.vertices[:, 2].min()))


def primitive(rng: Rng, size: float) -> Mesh:
    """A random solid about `size` metres across that stands on z = 0."""
    kind = rng.integers(8)
    a, b, c = size * rng.uniform(0.5, 1.2, 3)
    if kind == 0:
        return block(a, b, c)
    if kind == 1:
        return grounded(sphere(0.5 * size))
    if kind == 2:
        return cylinder(0.45 * a, 1.4 * c)
    if kind == 3:
        return vase(rng, 0.4 * a, 1.5 * c)
    if kind == 4:
        return grounded(torus(0.4 * size, 0.14 * size))
    if kind == 5:
        return grounded(blob(rng, 0.5 * size))
    if kind == 6:
        return cylinder(0.5 * a, 1.2 * c, top_radius=0.0)
    return grounded(box(a, b, c).rotated(random_rotation(rng)))


def _one(mesh: Mesh, material: Surface | Glass) -> Items:
    return [MeshItem(mesh, material)]


def mug(rng: Rng, style: Style) -> Items:
    radius, height = rng.uniform(0.03, 0.05), rng.uniform(0.07, 0.12)
    outer = np.array([0.0, radius, radius, radius * 0.9, radius * 0.9, 0.0])
    levels = np.array([0.0, 0.0, height, height, 0.01, 0.01])
    handle = torus(0.3 * height, 0.006, 12).tilted(np.pi / 2)
    body = merge([revolve(outer, levels, 16), handle.moved(radius + 0.2 * height, 0, height / 2)])
    return _one(body, materials.painted(rng, 0.25))


def bottle(rng: Rng, style: Style) -> Items:
    radius, height = rng.uniform(0.025, 0.05), rng.uniform(0.18, 0.34)
    share = np.array([0, 0.999, 1, 1, 0.8, 0.35, 0.35, 0.42, 0.42, 0])
    level = np.array([0, 0, 0.02, 0.6, 0.7, 0.8, 0.93, 0.93, 0.999, 1])
    body = revolve(radius * share, height * level, 16)
    return _one(body, Glass() if rng.random() < 0.3 else materials.painted(rng, 0.15))


def bowl(rng: Rng, style: Style) -> Items:
    radius, depth = rng.uniform(0.07, 0.15), rng.uniform(0.04, 0.09)
    arc = np.linspace(0.2, 1, 7)
    outer, inner = radius * arc, 0.92 * radius * arc[::-1]
    rise = depth * (arc**2.2)
    radii = np.concatenate([[0.0], outer, inner, [0.0]])
    levels = np.concatenate([[0.0], rise, rise[::-1] + 0.005, [0.012]])
    items = _one(revolve(radii, levels, 20), materials.painted(rng, 0.3))
    for _ in range(int(rng.integers(0, 6))):
        fruit = grounded(blob(rng, rng.uniform(0.03, 0.045), 0.04, 12))
        angle, away = rng.uniform(0, 6.28), rng.uniform(0, 0.5) * radius
        tint = colour(rng, (0.6, 0.95), (0.5, 0.95), (0.0, 0.3))
        items += placed(
            _one(fruit, materials.flat(tint, 0.4)), away * np.cos(angle), away * np.sin(angle), 0.03
        )
    return items


def plate(rng: Rng, style: Style) -> Items:
    radius = rng.uniform(0.08, 0.14)
    profile = np.array([0.0, 0.6, 1.0, 0.98, 0.6, 0.0]) * radius
    levels = np.array([0.0, 0.0, 0.02, 0.025, 0.008, 0.008])
    return _one(
        revolve(profile, levels, 24),
        style.porcelain if rng.random() < 0.6 else materials.painted(rng, 0.2),
    )


def book_stack(rng: Rng, style: Style) -> Items:
    items: Items = []
    height = 0.0
    for _ in range(int(rng.integers(1, 6))):
        w, d, h = rng.uniform(0.12, 0.2), rng.uniform(0.18, 0.28), rng.uniform(0.012, 0.05)
        turn = rng.normal() * 0.2
        cover = [MeshItem(block(w, d, h), materials.painted(rng, 0.5))]
        paper = [MeshItem(block(w * 0.96, d * 1.004, h * 0.8).moved(0.04 * w, 0, 0.1 * h), _PAPER)]
        items += placed(cover + paper, rng.normal() * 0.01, rng.normal() * 0.01, height, turn)
        height += h
    return items


_PAPER = materials.flat((0.9, 0.88, 0.8), 0.9)
_BLACK = materials.flat((0.04, 0.04, 0.05), 0.35)


def books_upright(
    rng: Rng, width: float, depth: float, height: float, covers: Sequence[Surface]
) -> Items:
    """A row of books of `width`, some leaning, some missing, between x = ± width / 2."""
    per_cover: list[list[tuple[FloatArray, FloatArray]]] = [[] for _ in covers]
    x = -width / 2
    while x < width / 2 - 0.06:
        thick, tall, deep = (
            rng.uniform(0.015, 0.055),
            height * rng.uniform(0.6, 0.95),
            depth * rng.uniform(0.6, 0.9),
        )
        if rng.random() < 0.06:
            x += rng.uniform(0.05, 0.3)
            continue
        place = np.array([x + thick / 2, -depth / 2 + deep / 2 + rng.uniform(0.01, 0.04), tall / 2])
        per_cover[int(rng.integers(len(covers)))].append(
            (place, np.array([thick * 0.94, deep, tall]))
        )
        x += thick
    return [
        MeshItem(boxes(*(np.array(a) for a in zip(*group, strict=True))), cover)
        for group, cover in zip(per_cover, covers, strict=True)
        if group
    ]


def monitor(rng: Rng, style: Style) -> Items:
    w, h = rng.uniform(0.4, 0.7), rng.uniform(0.28, 0.4)
    screen = materials.of(
        textures.page(rng) if rng.random() < 0.5 else textures.painting(rng), 0.25
    )
    case = merge(
        [
            box(w, 0.03, h).moved(0, 0, 0.12 + h / 2),
            block(0.05, 0.03, 0.15).moved(0, 0.03),
            block(0.25, 0.18, 0.012),
        ]
    )
    return [
        MeshItem(case, _BLACK),
        MeshItem(box(w * 0.95, 0.004, h * 0.92).moved(0, -0.017, 0.12 + h / 2), screen),
    ]


def laptop(rng: Rng, style: Style) -> Items:
    w, d = rng.uniform(0.28, 0.36), rng.uniform(0.2, 0.26)
    lean = rng.uniform(0.1, 0.6)
    lid = box(w, 0.008, d).moved(0, 0, d / 2).tilted(-lean).moved(0, d / 2, 0.016)
    glow = (
        box(w * 0.94, 0.002, d * 0.88).moved(0, -0.0055, d / 2).tilted(-lean).moved(0, d / 2, 0.016)
    )
    keys = block(w * 0.85, d * 0.45, 0.001).moved(0, 0.03, 0.016)
    case = materials.steel(rng) if rng.random() < 0.6 else _BLACK
    return [
        MeshItem(merge([block(w, d, 0.016), lid]), case),
        MeshItem(keys, _BLACK),
        MeshItem(glow, materials.of(textures.page(rng), 0.2)),
    ]


def picture_frame(rng: Rng, style: Style) -> Items:
    """Stands, leaning back, facing -y."""
    w, h, rim = rng.uniform(0.1, 0.25), rng.uniform(0.12, 0.3), 0.015
    frame = boxes(
        np.array([[-w / 2, 0, h / 2], [w / 2, 0, h / 2], [0, 0, 0], [0, 0, h]]),
        np.array([[rim, rim, h + rim], [rim, rim, h + rim], [w, rim, rim], [w, rim, rim]]),
    )
    picture = box(w, 0.004, h).moved(0, 0, h / 2)
    parts = [
        MeshItem(frame, style.joinery(rng)),
        MeshItem(picture, materials.of(textures.painting(rng))),
    ]
    return [MeshItem(grounded(p.mesh.tilted(-0.2)), p.material) for p in parts]


def pot_plant(rng: Rng, style: Style, size: float | None = None) -> Items:
    """A pot with a crown of leaves or of blades; `size` is about its height."""
    size = float(rng.uniform(0.2, 0.5)) if size is None else size
    pot = cylinder(0.13 * size, 0.28 * size, top_radius=0.18 * size)
    green = materials.of(textures.foliage(rng), 0.8)
    leaves: list[Mesh] = []
    for _ in range(int(rng.integers(9, 22))):
        angle, lean, reach = (
            rng.uniform(0, 6.28),
            rng.uniform(0.1, 1.2),
            size * rng.uniform(0.4, 0.75),
        )
        out = np.array([np.cos(angle) * np.sin(lean), np.sin(angle) * np.sin(lean), np.cos(lean)])
        base = np.array([0, 0, 0.26 * size])
        bend = base + 0.6 * reach * out
        tip = bend + 0.4 * reach * np.array([out[0], out[1], out[2] * 0.3 - 0.2])
        side = np.cross(out, [0, 0, 1.0]) * size * 0.05 / max(np.sin(lean), 0.1)
        leaves.append(_leaf(base, bend, tip, side))
    return [MeshItem(pot, materials.painted(rng)), MeshItem(merge(leaves), green)]


def _leaf(base: FloatArray, bend: FloatArray, tip: FloatArray, side: FloatArray) -> Mesh:
    """A narrow two-sided blade of three triangles, thin as paper."""
    vertices = np.array([base, bend - side, bend + side, tip])
    faces = np.array([[0, 1, 2], [1, 3, 2]])
    normal = np.cross(vertices[2] - vertices[1], vertices[3] - vertices[0])
    normals = np.tile(normal / np.linalg.norm(normal), (4, 1))
    uvs = np.array([[0.5, 0.0], [0.0, 0.6], [1.0, 0.6], [0.5, 1.0]])
    return Mesh(vertices, normals, uvs, faces[:, ::-1])


def desk_lamp(rng: Rng, style: Style) -> Items:
    reach, height = rng.uniform(0.15, 0.3), rng.uniform(0.3, 0.5)
    path = np.array([[0, 0, 0.02], [-0.1, 0, 0.6 * height], [reach, 0, height]])
    shade = cylinder(0.08, 0.1, top_radius=0.03).moved(reach, 0, height - 0.08)
    bulb = sphere(0.025, 10).moved(reach, 0, height - 0.09)
    return [
        MeshItem(merge([cylinder(0.08, 0.02), tube(path, 0.008), shade]), style.metal),
        MeshItem(bulb, style.bulb),
    ]


def candle(rng: Rng, style: Style) -> Items:
    height = rng.uniform(0.08, 0.25)
    wax = materials.flat(colour(rng, (0, 0.4), (0.8, 1.0)), 0.6)
    return [
        MeshItem(cylinder(0.04, 0.015), style.metal),
        MeshItem(merge([cylinder(0.015, height, 12), cylinder(0.001, height + 0.01, 5)]), wax),
    ]


def toy_blocks(rng: Rng, style: Style) -> Items:
    items: Items = []
    side = rng.uniform(0.03, 0.06)
    for level in range(int(rng.integers(2, 6))):
        items += placed(
            [MeshItem(block(side, side, side), materials.painted(rng))],
            rng.normal() * 0.006,
            rng.normal() * 0.006,
            level * side,
            rng.uniform(0, 6.3),
        )
    return items


def carton(rng: Rng, style: Style) -> Items:
    """A packet with print, or an open cardboard box's worth of one."""
    a, b, c = rng.uniform(0.05, 0.2, 3)
    return _one(block(a, b, c * 1.4), materials.of(textures.painting(rng), 0.5))


def pencil_cup(rng: Rng, style: Style) -> Items:
    items = [MeshItem(cylinder(0.04, 0.1), materials.painted(rng))]
    for _ in range(int(rng.integers(3, 9))):
        x, y = rng.normal(size=2) * 0.02
        stick = rod((x, y, 0.02), (2.2 * x, 2.2 * y, rng.uniform(0.13, 0.19)), 0.004, 6)
        items.append(MeshItem(stick, materials.painted(rng)))
    return items


def _solid(rng: Rng, style: Style) -> Items:
    mesh = primitive(rng, float(rng.uniform(0.06, 0.25)))
    return [MeshItem(mesh, materials.anything(rng))]


Maker = Callable[[Rng, Style], Items]
TABLEWARE: tuple[Maker, ...] = (mug, bottle, bowl, plate, candle, carton, pot_plant, _solid)
DESKWARE: tuple[Maker, ...] = (
    mug,
    book_stack,
    laptop,
    monitor,
    pencil_cup,
    desk_lamp,
    carton,
    picture_frame,
)
PROPS: tuple[Maker, ...] = (
    mug,
    bottle,
    bowl,
    plate,
    book_stack,
    picture_frame,
    pot_plant,
    candle,
    toy_blocks,
    carton,
    pencil_cup,
    _solid,
    _solid,
    _solid,
)


def scatter(
    rng: Rng,
    style: Style,
    width: float,
    depth: float,
    height: float,
    count: int,
    makers: Sequence[Maker] = PROPS,
) -> Items:
    """Up to `count` props that do not touch, on a rectangle width x depth at `height`."""
    items: Items = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(count):
        prop = makers[int(rng.integers(len(makers)))](rng, style)
        low, high = bounds(prop)
        radius = float(np.abs(np.concatenate([low[:2], high[:2]])).max())
        room = np.array([width / 2 - radius, depth / 2 - radius])
        if (room < 0).any():
            continue
        for _attempt in range(6):
            x, y = rng.uniform(-room, room)
            if all(np.hypot(x - a, y - b) > radius + r for a, b, r in taken):
                taken.append((x, y, radius))
                items += placed(prop, x, y, height, rng.normal() * 0.5)
                break
    return items
