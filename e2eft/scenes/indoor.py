"""Kinds of interior."""

from __future__ import annotations

from collections.abc import Callable

from e2eft.scenes.halls import cafe, corridor, library, office, stairs, store
from e2eft.scenes.homes import bathroom, bedroom, kitchen, living_room
from e2eft.scenes.scene import Scene
from e2eft.scenes.still_lifes import clutter, studio, tabletop
from e2eft.scenes.textures import Rng

KINDS: tuple[Callable[[Rng], Scene], ...] = (
    living_room,
    living_room,
    bedroom,
    bedroom,
    office,
    corridor,
    kitchen,
    kitchen,
    bathroom,
    tabletop,
    tabletop,
    tabletop,
    clutter,
    clutter,
    library,
    store,
    cafe,
    stairs,
    studio,
)


def make_indoor(rng: Rng) -> Scene:
    """One interior of a random kind."""
    return KINDS[int(rng.integers(len(KINDS)))](rng)
