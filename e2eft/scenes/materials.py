"""Materials, and the few of them that one scene shares so that its things look chosen together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from e2eft.scenes import textures
from e2eft.scenes.scene import FloatArray, Glass, Light, Material, Surface, Texture
from e2eft.scenes.textures import Rng, colour

_METALS = (
    (1.0, 0.86, 0.57),
    (0.97, 0.96, 0.94),
    (0.82, 0.83, 0.85),
    (0.95, 0.72, 0.6),
    (0.55, 0.56, 0.58),
)


def of(texture: Texture, roughness: float = 0.7) -> Surface:
    return Surface(texture, roughness)


def flat(
    tint: FloatArray | tuple[float, float, float], roughness: float = 0.6, metallic: float = 0.0
) -> Surface:
    """One colour, sRGB in [0, 1]."""
    pixel = (np.clip(np.asarray(tint, float), 0, 1) * 255).astype(np.uint8)
    return Surface(np.broadcast_to(pixel, (4, 4, 3)), roughness, metallic)


def painted(rng: Rng, roughness: float = 0.5) -> Surface:
    return flat(colour(rng, (0.0, 0.8), (0.15, 0.95)), roughness)


def metal(rng: Rng, roughness: tuple[float, float] = (0.2, 0.5)) -> Surface:
    return flat(_METALS[int(rng.integers(len(_METALS)))], float(rng.uniform(*roughness)), 1.0)


def steel(rng: Rng) -> Surface:
    return flat(np.full(3, rng.uniform(0.35, 0.85)), float(rng.uniform(0.25, 0.5)), 1.0)


def mirror() -> Surface:
    return flat((0.95, 0.95, 0.95), 0.03, 1.0)


def anything(rng: Rng, glass: float = 0.06) -> Material:
    """What a small object may be made of."""
    chance = rng.random()
    if chance < glass:
        return Glass()
    if chance < glass + 0.1:
        return metal(rng, (0.05, 0.45))
    if chance < glass + 0.45:
        return painted(rng, float(rng.uniform(0.15, 0.8)))
    return Surface(textures.pick(rng), float(rng.uniform(0.2, 0.9)))


def warm_light(rng: Rng, strength: float) -> Light:
    """`strength` times the colour of a lamp, from warm to daylight."""
    warmth = rng.random()
    return Light((strength, strength * (0.97 - 0.25 * warmth), strength * (0.93 - 0.5 * warmth)))


@dataclass(frozen=True, eq=False)
class Style:
    """Shared by the things of a scene: two woods, a metal, three fabrics, a paint for joinery, and
    the light of its lamps and of its small bulbs.
    """

    wood: Surface
    dark_wood: Surface
    metal: Surface
    fabrics: tuple[Surface, ...]
    paint: Surface
    porcelain: Surface
    lamp: Light
    bulb: Light

    def fabric(self, rng: Rng) -> Surface:
        return self.fabrics[int(rng.integers(len(self.fabrics)))]

    def joinery(self, rng: Rng) -> Surface:
        return (self.wood, self.wood, self.dark_wood, self.paint)[int(rng.integers(4))]


def make_style(rng: Rng) -> Style:
    joinery = (
        colour(rng, (0.0, 0.5), (0.25, 0.95)) if rng.random() < 0.5 else textures.pale_colour(rng)
    )
    return Style(
        wood=of(textures.wood(rng), 0.55),
        dark_wood=of(textures.wood(rng, tint=textures.wood_colour(rng) * 0.5), 0.5),
        metal=steel(rng) if rng.random() < 0.6 else flat(np.full(3, rng.uniform(0.05, 0.2)), 0.5),
        fabrics=tuple(of(textures.pick(rng, textures.FABRIC), 0.95) for _ in range(3)),
        paint=flat(joinery, 0.45),
        porcelain=flat((0.93, 0.93, 0.91), 0.2),
        lamp=warm_light(rng, float(rng.uniform(5, 14))),
        bulb=warm_light(rng, float(rng.uniform(15, 40))),
    )
