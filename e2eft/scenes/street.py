"""Kinds of outdoor scene."""

from __future__ import annotations

from collections.abc import Callable

from e2eft.scenes.open_places import car_park, park, square
from e2eft.scenes.roads import alley, canyon, country_road, pavement, suburban
from e2eft.scenes.scene import Scene
from e2eft.scenes.textures import Rng

KINDS: tuple[Callable[[Rng], Scene], ...] = (
    canyon,
    canyon,
    suburban,
    suburban,
    square,
    alley,
    country_road,
    park,
    car_park,
    pavement,
)


def make_street(rng: Rng) -> Scene:
    """One outdoor scene of a random kind."""
    return KINDS[int(rng.integers(len(KINDS)))](rng)
