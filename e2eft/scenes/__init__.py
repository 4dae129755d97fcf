"""Procedural scenes and their renderer: the only door to Mitsuba.

Importing this package doesn't import Mitsuba; rendering, and sampling cameras (which looks at the
geometry), does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np

from e2eft.scenes.indoor import make_indoor
from e2eft.scenes.render import RenderedFrame, SceneRenderer
from e2eft.scenes.scene import Camera, Family, Scene
from e2eft.scenes.street import make_street
from e2eft.scenes.variant import renderer_provenance, select_variant
from e2eft.scenes.viewpoints import sample_camera

__all__ = [
    "Camera",
    "Family",
    "RenderedFrame",
    "Scene",
    "SceneRenderer",
    "make_scene",
    "renderer_provenance",
    "sample_camera",
    "select_variant",
]


def make_scene(family: Family, seed: int, scene_index: int) -> Scene:
    """Scene number `scene_index` of the stream `seed`: a pure function of its arguments.

    Raises ValueError for an unknown family.
    """

    makers = {"indoor": make_indoor, "street": make_street}
    if family not in makers:
        raise ValueError(f"family {family!r}: expected one of {', '.join(get_args(Family))}")
    scene = makers[family](np.random.Generator(np.random.Philox(key=[seed, scene_index])))
    return replace(scene, identity=(seed, scene_index))
