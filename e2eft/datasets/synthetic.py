"""Rendered scenes: rooms and streets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from e2eft.config.base import RESULT, ByRecipe, Count, Positive, flag, require_multiple
from e2eft.datasets.base import Dataset, FrameSource, SidePx, Source

if TYPE_CHECKING:
    from e2eft.storage import Store

Family = Literal["indoor", "street"]
SYNTHETIC: dict[Family, Dataset] = {
    "indoor": Dataset(name="synthetic-indoor", dense=True),
    "street": Dataset(name="synthetic-street", dense=True),
}


class SyntheticSource(Source):
    """Scenes rendered with Mitsuba 3: a pure function of these fields."""

    datasets = tuple(SYNTHETIC.values())
    extra = "render"

    kind: Annotated[ByRecipe[Literal["synthetic"]], RESULT] = "synthetic"
    family: Annotated[ByRecipe[Family], RESULT]
    num_scenes: Annotated[Positive, RESULT, flag("num-scenes")] = 64
    """Scenes to generate."""
    frames_per_scene: Annotated[Positive, RESULT, flag("frames-per-scene")] = 4
    """Viewpoints rendered in each scene."""
    height: Annotated[SidePx, RESULT, flag("height")] = 480
    """Image height in pixels, a multiple of 8."""
    width: Annotated[SidePx, RESULT, flag("width")] = 640
    """Image width in pixels, a multiple of 8."""
    seed: Annotated[Count, RESULT, flag("seed")] = 0
    """Names the scenes: the same seed gives the same bytes. Hold out whole seeds, not frames."""
    samples_per_pixel: Annotated[
        int, RESULT, flag("samples-per-pixel"), Field(gt=0, le=2**31 - 1)
    ] = 32
    """Light paths a pixel of the colour image. Depth and normals always use one ray a pixel
    centre."""

    @model_validator(mode="after")
    def _fits_a_vae(self) -> Self:
        require_multiple("height", self.height)
        require_multiple("width", self.width)
        return self

    @property
    def described(self) -> Dataset:
        return SYNTHETIC[self.family]

    def open(self, index: Store | None) -> FrameSource:
        from e2eft.datasets.reading.synthetic import SyntheticFrames

        return SyntheticFrames(self)
