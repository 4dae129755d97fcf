"""Plants outdoors, standing on z = 0."""

from __future__ import annotations

import numpy as np

from e2eft.scenes import materials, textures
from e2eft.scenes.meshes import blob, block, cylinder, merge, rod
from e2eft.scenes.props import Items
from e2eft.scenes.scene import FloatArray, Mesh, MeshItem
from e2eft.scenes.textures import Rng


def tree(rng: Rng) -> Items:
    """Broad-leaved, conifer, or bare."""
    height = rng.uniform(3.5, 9)
    kind = rng.random()
    bark = materials.flat(textures.colour(rng, (0.2, 0.5), (0.2, 0.45), (0.05, 0.1)), 0.95)
    if kind < 0.2:
        return [
            MeshItem(
                merge(
                    _branches(rng, np.zeros(3), np.array([0, 0, 0.35 * height]), 0.02 * height, 4)
                ),
                bark,
            )
        ]
    green = materials.of(textures.foliage(rng), 0.95)
    if kind < 0.4:
        levels = int(rng.integers(3, 6))
        cones = [
            cylinder(
                height * 0.24 * (1 - 0.7 * k / levels), height * 0.9 / levels * 1.5, 12, 0.0
            ).moved(0, 0, height * (0.12 + 0.78 * k / levels))
            for k in range(levels)
        ]
        return [
            MeshItem(cylinder(0.02 * height, 0.3 * height, 8), bark),
            MeshItem(merge(cones), green),
        ]
    trunk = height * rng.uniform(0.3, 0.5)
    spread = height * rng.uniform(0.16, 0.26)
    crown: list[Mesh] = []
    for _ in range(int(rng.integers(6, 13))):
        offset = rng.normal(size=3) * np.array([0.7, 0.7, 0.5]) * spread
        lump = blob(rng, spread * rng.uniform(0.4, 0.8), 0.16, 12)
        crown.append(lump.moved(offset[0], offset[1], trunk + spread + offset[2]))
    wood = [cylinder(0.025 * height, trunk + 0.5 * spread, 8, 0.014 * height)]
    wood += [
        rod(
            (0, 0, trunk * 0.8),
            (spread * np.cos(a), spread * np.sin(a), trunk + spread),
            0.008 * height,
            6,
        )
        for a in rng.uniform(0, 6.28, 4)
    ]
    return [MeshItem(merge(wood), bark), MeshItem(merge(crown), green)]


def _branches(
    rng: Rng, base: FloatArray, step: FloatArray, radius: float, depth: int
) -> list[Mesh]:
    """A limb and, at its end, thinner ones."""
    tip = base + step
    limbs = [rod(base, tip, radius, 6 if depth > 2 else 4)]
    if depth == 0:
        return limbs
    length = float(np.linalg.norm(step))
    for _ in range(int(rng.integers(2, 4))):
        way = step / length + rng.normal(size=3) * 0.55
        way[2] = max(way[2], -0.1)
        limbs += _branches(
            rng,
            tip,
            way / np.linalg.norm(way) * length * rng.uniform(0.6, 0.85),
            radius * 0.6,
            depth - 1,
        )
    return limbs


def bush(rng: Rng, size: float) -> Items:
    lumps = [
        blob(rng, size * rng.uniform(0.35, 0.6), 0.14, 12).moved(
            rng.normal() * size * 0.3, rng.normal() * size * 0.3, size * 0.35
        )
        for _ in range(int(rng.integers(2, 5)))
    ]
    return [MeshItem(merge(lumps), materials.of(textures.foliage(rng), 0.95))]


def hedge(rng: Rng, length: float, height: float) -> Items:
    """Along y, centred, clipped."""
    return [
        MeshItem(
            block(rng.uniform(0.5, 0.9), length, height, 0.8),
            materials.of(textures.foliage(rng), 0.95),
        )
    ]
