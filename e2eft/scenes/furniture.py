"""Tables, seats and beds that stand on z = 0, their backs towards +y."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import materials, textures
from e2eft.scenes.materials import Style
from e2eft.scenes.meshes import blob, block, box, boxes, cylinder, merge, rod
from e2eft.scenes.props import DESKWARE, TABLEWARE, Items, placed, scatter
from e2eft.scenes.scene import Mesh, MeshItem
from e2eft.scenes.storage import cabinet
from e2eft.scenes.textures import Rng


def _legs(
    width: float, depth: float, height: float, thick: float, round_legs: bool, splay: float = 0.0
) -> Mesh:
    a, b = width / 2 - thick, depth / 2 - thick
    corners = [(x, y) for x in (-a, a) for y in (-b, b)]
    if round_legs or splay:
        return merge(
            rod((x * (1 + splay), y * (1 + splay), 0), (x, y, height), thick / 2)
            for x, y in corners
        )
    return boxes(
        np.array([[x, y, height / 2] for x, y in corners]), np.tile([thick, thick, height], (4, 1))
    )


def table(rng: Rng, style: Style, width: float, depth: float, height: float) -> Items:
    """Four legs, or trestles, or a pedestal under a round top."""
    top, frame = style.joinery(rng), style.joinery(rng) if rng.random() < 0.6 else style.metal
    slab = 0.03 if rng.random() < 0.6 else 0.06
    kind = rng.random()
    if kind < 0.2:
        radius = min(width, depth) / 2
        base = merge([cylinder(0.6 * radius, 0.03, 24), cylinder(0.05, height - slab)])
        return [
            MeshItem(base, frame),
            MeshItem(cylinder(radius, slab, 28).moved(0, 0, height - slab), top),
        ]
    legs = _legs(
        width, depth, height - slab, rng.uniform(0.03, 0.08), kind < 0.5, 0.1 if kind < 0.4 else 0.0
    )
    parts = [
        MeshItem(legs, frame),
        MeshItem(block(width, depth, slab).moved(0, 0, height - slab), top),
    ]
    if kind > 0.75:
        apron = boxes(
            np.array([[0, s * (depth / 2 - 0.06), height - slab - 0.05] for s in (-1, 1)]),
            np.tile([width - 0.15, 0.02, 0.1], (2, 1)),
        )
        parts.append(MeshItem(apron, frame))
    return parts


def chair(rng: Rng, style: Style) -> Items:
    """Faces -y."""
    w, d, seat, back = (
        rng.uniform(0.38, 0.5),
        rng.uniform(0.4, 0.5),
        rng.uniform(0.42, 0.48),
        rng.uniform(0.35, 0.55),
    )
    frame = style.joinery(rng) if rng.random() < 0.7 else style.metal
    thick = rng.uniform(0.025, 0.045)
    parts = [_legs(w, d, seat, thick, rng.random() < 0.5, rng.choice([0.0, 0.12]))]
    parts += [
        rod(
            (s * (w / 2 - thick), d / 2 - thick, seat),
            (s * (w / 2 - thick), d / 2, seat + back),
            thick / 2,
        )
        for s in (-1, 1)
    ]
    if rng.random() < 0.5:
        count = int(rng.integers(2, 5))
        parts += [
            box(w - thick, 0.02, 0.05).moved(0, d / 2 - 0.005, seat + back * (k + 1) / count)
            for k in range(count)
        ]
    else:
        count = int(rng.integers(3, 7))
        parts += [
            rod((x, d / 2 - thick, seat), (x, d / 2, seat + back), 0.008)
            for x in np.linspace(-w / 2 + 0.08, w / 2 - 0.08, count)
        ]
        parts.append(box(w, 0.025, 0.06).moved(0, d / 2, seat + back))
    cushion = style.fabric(rng) if rng.random() < 0.5 else frame
    return [
        MeshItem(merge(parts), frame),
        MeshItem(block(w, d, 0.04).moved(0, 0, seat - 0.01), cushion),
    ]


def office_chair(rng: Rng, style: Style) -> Items:
    spokes = [
        rod((0, 0, 0.08), (0.3 * np.cos(a), 0.3 * np.sin(a), 0.05), 0.02)
        for a in np.arange(5) * 2 * np.pi / 5
    ]
    frame = merge([*spokes, cylinder(0.03, 0.42), rod((0, 0.2, 0.45), (0, 0.27, 0.65), 0.02)])
    cloth = style.fabric(rng)
    return [
        MeshItem(frame, style.metal),
        MeshItem(block(0.5, 0.48, 0.08).moved(0, 0, 0.42), cloth),
        MeshItem(box(0.46, 0.06, 0.5).moved(0, 0.27, 0.85), cloth),
    ]


def stool(rng: Rng, style: Style) -> Items:
    height, radius = rng.uniform(0.45, 0.75), rng.uniform(0.15, 0.2)
    legs = [
        rod(
            (1.3 * radius * np.cos(a), 1.3 * radius * np.sin(a), 0),
            (0.6 * radius * np.cos(a), 0.6 * radius * np.sin(a), height),
            0.013,
        )
        for a in np.arange(3) * 2.0944
    ]
    return [
        MeshItem(merge(legs), style.metal),
        MeshItem(cylinder(radius, 0.04).moved(0, 0, height), style.joinery(rng)),
    ]


def cushion(rng: Rng, size: float) -> Mesh:
    """A pillow lying in the x-y plane, resting on z = 0."""
    shape = blob(rng, 0.5, 0.03, 16)
    squared = np.sign(shape.vertices) * np.abs(2 * shape.vertices) ** 0.6 / 2
    pillow = Mesh(squared * [size, size, size * 0.35], shape.normals, shape.uvs, shape.faces)
    return pillow.moved(0, 0, 0.17 * size)


def sofa(rng: Rng, style: Style) -> Items:
    """Faces -y; seats one to three."""
    seats = int(rng.integers(1, 4))
    w, d, seat, back, arm = (
        0.65 * seats + 0.3,
        rng.uniform(0.8, 0.95),
        0.4,
        rng.uniform(0.7, 0.95),
        0.15,
    )
    cloth = style.fabric(rng)
    body = [block(w, d, 0.25).moved(0, 0, 0.08), block(w, 0.2, back).moved(0, d / 2 - 0.1)]
    body += [block(arm, d, rng.uniform(0.5, 0.65)).moved(s * (w / 2 - arm / 2), 0) for s in (-1, 1)]
    pitch = (w - 2 * arm) / seats
    body += [
        block(pitch * 0.96, d - 0.22, seat - 0.3).moved(
            -w / 2 + arm + pitch * (k + 0.5), -0.1, 0.32
        )
        for k in range(seats)
    ]
    items = [MeshItem(merge(body), cloth)]
    for _ in range(int(rng.integers(0, seats + 2))):
        pillow = cushion(rng, rng.uniform(0.35, 0.48)).tilted(1.27)
        items += placed(
            [MeshItem(pillow, style.fabric(rng))],
            rng.uniform(-1, 1) * (w / 2 - 0.35),
            d / 2 - 0.25,
            0.62,
        )
    return items


def bed(rng: Rng, style: Style) -> Items:
    """Its head at +y."""
    w, length, frame = rng.uniform(0.9, 1.8), rng.uniform(1.9, 2.1), style.joinery(rng)
    board = rng.uniform(0.7, 1.2)
    parts = [
        block(w, length, 0.2).moved(0, 0, 0.1),
        block(w + 0.06, 0.06, board).moved(0, length / 2 + 0.03),
        _legs(w, length, 0.12, 0.08, False),
    ]
    sheet = materials.flat(textures.pale_colour(rng), 0.95)
    blanket = block(w + 0.04, length * 0.68, 0.24).moved(0, -length * 0.15, 0.27)
    items = [
        MeshItem(merge(parts), frame),
        MeshItem(block(w - 0.02, length - 0.04, 0.2).moved(0, 0, 0.28), sheet),
        MeshItem(blanket, style.fabric(rng)),
    ]
    for x in (-w / 4, w / 4) if w > 1.3 else (0.0,):
        items += placed([MeshItem(cushion(rng, 0.55), sheet)], x, length / 2 - 0.3, 0.47)
    return items


def desk(rng: Rng, style: Style) -> Items:
    """With things on it and a chair, seen from -y."""
    w, d, h = rng.uniform(1.1, 1.8), rng.uniform(0.6, 0.8), rng.uniform(0.7, 0.78)
    seat = office_chair(rng, style) if rng.random() < 0.6 else chair(rng, style)
    top = [
        MeshItem(block(w, d, 0.03).moved(0, 0, h - 0.03), style.joinery(rng)),
        MeshItem(_legs(w, d, h - 0.03, 0.05, False), style.metal),
    ]
    if rng.random() < 0.5:
        top += placed(cabinet(rng, style, 0.4, d - 0.1, h - 0.06), w / 2 - 0.25, 0)
    things = scatter(rng, style, w, d, h, int(rng.integers(3, 8)), DESKWARE)
    return (
        top + things + placed(seat, rng.normal() * 0.2, -d / 2 - 0.2, 0, np.pi + rng.normal() * 0.4)
    )


def dining_set(rng: Rng, style: Style) -> Items:
    """A table with chairs around and things on it."""
    w, d, h = rng.uniform(0.9, 2.0), rng.uniform(0.75, 1.0), rng.uniform(0.7, 0.78)
    items = table(rng, style, w, d, h) + scatter(
        rng, style, w * 0.7, d * 0.7, h, int(rng.integers(2, 8)), TABLEWARE
    )
    seat = stool(rng, style) if rng.random() < 0.2 else chair(rng, style)
    for x in np.linspace(-w / 2 + 0.35, w / 2 - 0.35, max(1, int(w / 0.65))):
        for side in (-1, 1):
            if rng.random() < 0.85:
                turn = (np.pi if side < 0 else 0.0) + rng.normal() * 0.2
                items += placed(seat, x, side * (d / 2 + rng.uniform(0, 0.3)), 0, turn)
    return items


def low_table(rng: Rng, style: Style) -> Items:
    w, d, h = rng.uniform(0.5, 1.2), rng.uniform(0.45, 0.7), rng.uniform(0.3, 0.5)
    return table(rng, style, w, d, h) + scatter(
        rng, style, w * 0.75, d * 0.75, h, int(rng.integers(1, 6))
    )
