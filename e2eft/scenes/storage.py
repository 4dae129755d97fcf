"""Cabinets, shelves and boxes that stand on z = 0, their backs towards +y."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import materials, textures
from e2eft.scenes.materials import Style
from e2eft.scenes.meshes import block, boxes, merge
from e2eft.scenes.props import Items, books_upright, placed, scatter
from e2eft.scenes.scene import MeshItem
from e2eft.scenes.textures import Rng


def cabinet(rng: Rng, style: Style, width: float, depth: float, height: float) -> Items:
    """Doors or drawers with handles towards -y; a wardrobe when high."""
    body, front = style.joinery(rng), style.joinery(rng)
    columns = max(1, round(width / 0.5))
    rows = 1 if height > 1.2 else int(rng.integers(1, 4))
    cell_w, cell_h = width / columns, (height - 0.08) / rows
    spots = [
        (-width / 2 + cell_w * (i + 0.5), 0.08 + cell_h * (k + 0.5))
        for i in range(columns)
        for k in range(rows)
    ]
    doors = boxes(
        np.array([[x, -depth / 2 - 0.01, z] for x, z in spots]),
        np.tile([cell_w - 0.012, 0.02, cell_h - 0.012], (len(spots), 1)),
    )
    knobs = boxes(
        np.array([[x + cell_w * 0.35 * (rows == 1), -depth / 2 - 0.03, z] for x, z in spots]),
        np.tile([0.012, 0.02, 0.12] if rows == 1 else [0.14, 0.02, 0.012], (len(spots), 1)),
    )
    carcass = merge(
        [
            block(width, depth, height - 0.06).moved(0, 0, 0.06),
            block(width - 0.06, depth - 0.08, 0.06),
        ]
    )
    return [MeshItem(carcass, body), MeshItem(doors, front), MeshItem(knobs, style.metal)]


def sideboard(rng: Rng, style: Style) -> Items:
    w, d, h = rng.uniform(0.5, 1.8), rng.uniform(0.35, 0.5), rng.uniform(0.4, 1.0)
    return cabinet(rng, style, w, d, h) + scatter(rng, style, w, d, h, int(rng.integers(1, 6)))


def wardrobe(rng: Rng, style: Style) -> Items:
    return cabinet(rng, style, rng.uniform(0.8, 2.0), rng.uniform(0.5, 0.6), rng.uniform(1.8, 2.2))


def shelf(rng: Rng, style: Style) -> Items:
    """Books and things on boards, open towards -y; with or without a back."""
    w, d, h = rng.uniform(0.6, 1.6), rng.uniform(0.25, 0.38), rng.uniform(0.9, 2.1)
    count = max(2, round(h / rng.uniform(0.3, 0.4)))
    step = (h - 0.05) / count
    boards = boxes(
        np.array([[0, 0, 0.04 + k * step] for k in range(count + 1)]),
        np.tile([w, d, 0.025], (count + 1, 1)),
    )
    sides = boxes(np.array([[s * w / 2, 0, h / 2] for s in (-1, 1)]), np.tile([0.03, d, h], (2, 1)))
    parts = [boards, sides] + ([block(w, 0.015, h).moved(0, d / 2)] if rng.random() < 0.7 else [])
    items = [MeshItem(merge(parts), style.joinery(rng))]
    covers = [materials.painted(rng) for _ in range(4)]
    for k in range(count):
        level = 0.055 + k * step
        contents = (
            books_upright(rng, w - 0.08, d, step - 0.05, covers)
            if rng.random() < 0.7
            else scatter(rng, style, w - 0.08, d, 0.0, 3)
        )
        items += [
            i
            for i in placed(contents, 0, 0, level)
            if i.mesh.vertices[:, 2].max() < level + step - 0.03
        ]
    return items


def rack(rng: Rng, style: Style) -> Items:
    """Open metal shelving with crates, for stores and garages."""
    w, d, h, levels = (
        rng.uniform(1.2, 2.5),
        rng.uniform(0.45, 0.8),
        rng.uniform(1.8, 2.6),
        int(rng.integers(3, 5)),
    )
    posts = boxes(
        np.array([[x, y, h / 2] for x in (-w / 2, w / 2) for y in (-d / 2, d / 2)]),
        np.tile([0.04, 0.04, h], (4, 1)),
    )
    step = (h - 0.3) / (levels - 1)
    heights = 0.15 + step * np.arange(levels)
    boards = boxes(np.array([[0, 0, z] for z in heights]), np.tile([w, d, 0.03], (levels, 1)))
    items = [MeshItem(merge([posts, boards]), style.metal)]
    for z in heights:
        x = -w / 2 + 0.05
        while x < w / 2 - 0.35:
            a, tall = rng.uniform(0.2, 0.5), rng.uniform(0.3, 0.85) * step
            if rng.random() < 0.75 and x + a < w / 2:
                items += placed(
                    crate(rng, style, a * 0.95, d * rng.uniform(0.6, 0.95), tall),
                    x + a / 2,
                    0,
                    z + 0.015,
                )
            x += a
    return items


def crate(rng: Rng, style: Style, x: float, y: float, z: float) -> Items:
    """A cardboard box with tape, or a crate."""
    if rng.random() < 0.6:
        card = materials.flat(textures.colour(rng, (0.25, 0.5), (0.5, 0.75), (0.07, 0.1)), 0.9)
        tape = block(0.06, y * 1.002, z * 1.004)
        return [
            MeshItem(block(x, y, z), card),
            MeshItem(tape, materials.flat((0.75, 0.7, 0.55), 0.3)),
        ]
    return [MeshItem(block(x, y, z), materials.anything(rng, glass=0.0))]


def crates(rng: Rng, style: Style) -> Items:
    """A small stack of boxes."""
    items: Items = []
    level = 0.0
    size = rng.uniform(0.35, 0.7)
    for _ in range(int(rng.integers(1, 4))):
        tall = size * rng.uniform(0.5, 1.0)
        items += placed(
            crate(rng, style, size, size * rng.uniform(0.7, 1.0), tall),
            0,
            0,
            level,
            rng.normal() * 0.2,
        )
        level, size = level + tall, size * rng.uniform(0.7, 0.95)
    return items
