"""Buildings outdoors, standing on z = 0, their fronts towards -y."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import fittings, materials, textures
from e2eft.scenes.meshes import block, box, boxes, cylinder, merge, panel, prism, rod
from e2eft.scenes.props import Items
from e2eft.scenes.scene import Mesh, MeshItem, Surface
from e2eft.scenes.textures import Rng

_BAY = 3.0  # metres between windows, and between floors


def _walls(width: float, depth: float, height: float, repeat_u: float, repeat_v: float) -> Mesh:
    a, b = width / 2, depth / 2
    corners = [(-a, -b, 0), (a, -b, 0), (a, b, 0), (-a, b, 0)]
    sides = [(width, 0, 0), (0, depth, 0), (-width, 0, 0), (0, -depth, 0)]
    return merge(
        panel(c, s, (0, 0, height), repeat_u, repeat_v) for c, s in zip(corners, sides, strict=True)
    )


def block_of_flats(
    rng: Rng, width: float, depth: float, height: float, face: Surface | None = None
) -> Items:
    """A city house: windows, ledges, balconies, cornice, shopfront, things on the roof."""
    storeys, bays = max(2, round(height / _BAY)), max(2, round(width / _BAY))
    height, width = storeys * _BAY, bays * _BAY
    face = face or materials.of(textures.bay_grid(rng), 0.75)
    trim = materials.flat(textures.colour(rng, (0, 0.3), (0.3, 0.95)), 0.7)
    items = [MeshItem(_walls(width, depth, height, 3 * _BAY, 3 * _BAY), face)]
    roof = [block(width + 0.4, depth + 0.4, 0.5).moved(0, 0, height)]
    roof += [
        block(rng.uniform(1, 3), rng.uniform(1, 3), rng.uniform(1, 2.5)).moved(
            rng.uniform(-0.3, 0.3) * width, rng.uniform(-0.3, 0.3) * depth, height
        )
        for _ in range(int(rng.integers(0, 4)))
    ]
    items.append(MeshItem(merge(roof), trim))
    xs, zs = np.meshgrid((np.arange(bays) + 0.5) * _BAY - width / 2, np.arange(1, storeys) * _BAY)
    xs, zs, front = xs.ravel(), zs.ravel(), -depth / 2
    if rng.random() < 0.7:
        reach = rng.uniform(0.1, 0.25)
        ledges = boxes(
            np.c_[xs, np.full(len(xs), front), zs + rng.uniform(0.5, 0.9)],
            np.tile([1.8, 2 * reach, 0.12], (len(xs), 1)),
        )
        items.append(MeshItem(ledges, trim))
    if rng.random() < 0.55:
        items += _balconies(rng, xs, zs, front, trim)
    if rng.random() < 0.5:
        items += _shopfront(rng, width, front)
    return items


def _balconies(rng: Rng, xs: np.ndarray, zs: np.ndarray, front: float, slab: Surface) -> Items:
    chosen = rng.random(len(xs)) < rng.choice([0.2, 0.5, 1.0])
    if rng.random() < 0.5:
        chosen &= np.isin(xs, rng.choice(xs, 2))
    if not chosen.any():
        return []
    xs, zs = xs[chosen], zs[chosen]
    count, ones = len(xs), np.ones(len(xs))
    slabs = boxes(np.c_[xs, (front - 0.55) * ones, zs + 0.1], np.tile([2.4, 1.1, 0.15], (count, 1)))
    if rng.random() < 0.5:
        fence = boxes(
            np.c_[xs, (front - 1.07) * ones, zs + 0.65], np.tile([2.4, 0.06, 0.95], (count, 1))
        )
        return [MeshItem(merge([slabs, fence]), slab)]
    bars = np.linspace(-1.15, 1.15, 10)
    centres = np.stack([np.c_[xs + b, (front - 1.07) * ones, zs + 0.6] for b in bars]).reshape(
        -1, 3
    )
    rails = np.c_[xs, (front - 1.07) * ones, zs + 1.1]
    mesh = merge(
        [
            boxes(centres, np.tile([0.03, 0.03, 0.95], (len(centres), 1))),
            boxes(rails, np.tile([2.4, 0.06, 0.05], (count, 1))),
        ]
    )
    return [MeshItem(slabs, slab), MeshItem(mesh, materials.flat((0.08, 0.08, 0.09), 0.5))]


def _shopfront(rng: Rng, width: float, front: float) -> Items:
    """Ground floor: panes between pillars, a sign, an awning."""
    dark = materials.flat(textures.colour(rng, (0, 0.3), (0.06, 0.2)), 0.1)
    sign = materials.of(
        textures.painting(rng) if rng.random() < 0.4 else textures.stripes(rng, 64), 0.6
    )
    count = max(2, round(width / 3))
    xs = (np.arange(count + 1) / count - 0.5) * (width - 0.3)
    pillars = boxes(
        np.c_[xs, np.full(count + 1, front - 0.05), np.full(count + 1, 1.35)],
        np.tile([0.25, 0.25, 2.7], (count + 1, 1)),
    )
    items = [
        MeshItem(block(width - 0.1, 0.06, 2.5).moved(0, front, 0.2), dark),
        MeshItem(pillars, materials.painted(rng)),
        MeshItem(box(width, 0.25, 0.55).moved(0, front - 0.08, 2.95), sign),
    ]
    if rng.random() < 0.6:
        outline = np.array([[-1.3, 0.0], [0.0, 0.5], [0.0, 0.56], [-1.3, 0.06]])
        awning = prism(outline, width * 0.8).turned(np.pi / 2).moved(0, front - 0.05, 2.3)
        items.append(MeshItem(awning, materials.of(textures.stripes(rng, 64), 0.9)))
    return items


def house(rng: Rng, width: float, depth: float) -> Items:
    """One or two storeys under a gabled roof, with windows, a door, sometimes a porch."""
    storeys = int(rng.integers(1, 3))
    height, rise, over = 2.8 * storeys, rng.uniform(1.2, 3.0), 0.4
    painter = (textures.bricks, textures.plaster, textures.plaster, textures.wood)[
        int(rng.integers(4))
    ]
    wall = materials.of(
        textures.plaster(rng, textures.colour(rng, (0, 0.45), (0.5, 0.95)))
        if painter is textures.plaster
        else textures.wood(rng, planks=8)
        if painter is textures.wood
        else textures.bricks(rng),
        0.85,
    )
    trim = materials.flat(textures.colour(rng, (0, 0.25), (0.55, 0.97)), 0.6)
    tiles = materials.of(textures.roof_tiles(rng), 0.85)
    gable = prism(np.array([[-width / 2, 0], [width / 2, 0], [0, rise]]), depth - 0.02).moved(
        0, 0, height
    )
    items = [MeshItem(merge([_walls(width, depth, height, 1.6, 1.6), gable]), wall)]
    for side in (-1, 1):
        eave = np.array(
            [
                side * (width / 2 + over),
                -side * (depth / 2 + over),
                height - over * rise / (width / 2),
            ]
        )
        up = np.array([-side * (width / 2 + over), 0, rise + over * rise / (width / 2)])
        top = panel(eave + np.array([0, 0, 0.12]), (0, side * (depth + 2 * over), 0), up, 2.0)
        under = panel(eave, up, (0, side * (depth + 2 * over), 0), 2.0)
        items.append(MeshItem(merge([top, under]), tiles))
    items += _openings(rng, width, depth, storeys, trim)
    if rng.random() < 0.6:
        x = rng.uniform(-0.3, 0.3) * width
        items.append(
            MeshItem(block(0.6, 0.6, rise + 1.0, 0.8).moved(x, 0.15 * depth, height), wall)
        )
    if rng.random() < 0.5:
        posts = [cylinder(0.06, 2.4, 8).moved(x, -depth / 2 - 1.6) for x in (-1.4, 0, 1.4)]
        porch = [
            *posts,
            block(3.2, 1.9, 0.12).moved(0, -depth / 2 - 0.9, 2.4),
            block(3.2, 1.9, 0.15).moved(0, -depth / 2 - 0.9),
        ]
        porch.append(fittings.railing(1.3, 0.9).moved(-0.7, -depth / 2 - 1.6, 0.1))
        items.append(MeshItem(merge(porch), trim))
    return items


def _openings(rng: Rng, width: float, depth: float, storeys: int, trim: Surface) -> Items:
    """Framed windows on all sides and a door in front."""
    spots: list[tuple[float, float, float, bool]] = []
    count = max(2, int(width / 2.6))
    door = int(rng.integers(count))
    for storey in range(storeys):
        for k in range(count):
            x = ((k + 0.5) / count - 0.5) * width
            if storey or k != door:
                spots.append((x, -depth / 2, storey * 2.8 + 1.6, False))
            spots.append((x, depth / 2, storey * 2.8 + 1.6, False))
        spots += [
            (s * width / 2, y * depth, storey * 2.8 + 1.6, True)
            for s in (-1, 1)
            for y in (-0.22, 0.22)
        ]
    wide, tall = rng.uniform(0.8, 1.5), rng.uniform(1.0, 1.5)
    centre = np.array([[x, y, z] for x, y, z, _ in spots])
    turned = np.array([t for *_, t in spots])[:, None]

    def framed(a: float, b: float, thick: float) -> Mesh:
        return boxes(centre, np.where(turned, [thick, a, b], [a, thick, b]))

    glass = materials.flat(textures.colour(rng, (0.1, 0.4), (0.1, 0.3), (0.5, 0.65)), 0.08)
    x = ((door + 0.5) / count - 0.5) * width
    leaf = block(0.95, 0.12, 2.1).moved(x, -depth / 2)
    cross = merge([framed(wide, 0.05, 0.16), framed(0.05, tall, 0.16)])
    return [
        MeshItem(framed(wide + 0.16, tall + 0.16, 0.08), trim),
        MeshItem(framed(wide, tall, 0.1), glass),
        MeshItem(cross, trim),
        MeshItem(leaf, materials.painted(rng)),
    ]


def arcade(rng: Rng, length: float) -> Items:
    """A row of columns carrying a long block, along x."""
    count = max(3, int(length / 3))
    xs = np.linspace(-length / 2 + 0.4, length / 2 - 0.4, count)
    stone = materials.of(textures.plaster(rng, textures.colour(rng, (0, 0.2), (0.6, 0.9))), 0.9)
    columns = [
        merge(
            [
                cylinder(0.28, 3.4, 14, 0.23),
                block(0.7, 0.7, 0.25),
                block(0.65, 0.65, 0.2).moved(0, 0, 3.4),
            ]
        ).moved(x, -1.8)
        for x in xs
    ]
    upper = [
        block(length, 4.4, rng.uniform(3, 7), 3.0).moved(0, 0, 3.6),
        block(length, 0.3, 3.6, 3.0).moved(0, 2.0),
    ]
    return [MeshItem(merge(columns + upper), stone)]


def tower(rng: Rng) -> Items:
    """A church tower or a water tower, far seen."""
    stone = materials.of(textures.bricks(rng), 0.9)
    w, h = rng.uniform(4, 7), rng.uniform(14, 30)
    if rng.random() < 0.6:
        spire = cylinder(0.72 * w, rng.uniform(5, 14), 4, 0.0).turned(np.pi / 4).moved(0, 0, h)
        return [
            MeshItem(block(w, w, h, 2.5), stone),
            MeshItem(spire, materials.of(textures.roof_tiles(rng), 0.8)),
        ]
    legs = [
        rod((0.7 * x * w, 0.7 * y * w, 0), (0.3 * x * w, 0.3 * y * w, h), 0.2)
        for x in (-1, 1)
        for y in (-1, 1)
    ]
    return [
        MeshItem(
            merge([*legs, cylinder(0.6 * w, 0.5 * w, 24).moved(0, 0, h)]), materials.steel(rng)
        )
    ]
