"""Hypersim (Roberts et al., ICCV 2021, arXiv 2011.02523) as it is published: HDF5 files, raw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

import tyro
from pydantic import model_validator

from e2eft.config.base import PLACEMENT, RESULT, ByRecipe, flag, require_multiple
from e2eft.datasets.base import Dataset, FrameSource, SidePx, Size, Source

if TYPE_CHECKING:
    from e2eft.storage import Store

HYPERSIM = Dataset(name="hypersim", supervised_range_m=65.0, dense=True)


class HypersimSource(Source):
    """Hypersim's raw release: HDF5 frames, scenes as folders or as the published zip files, which
    are read in place. Where they are is not part of the configuration's identity."""

    datasets = (HYPERSIM,)
    places = ("root", "split_csv", "camera_csv", "keep_list")

    kind: Annotated[ByRecipe[Literal["hypersim"]], RESULT] = "hypersim"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds ai_VVV_NNN folders or ai_VVV_NNN.zip files: a folder, file:// or s3:// URI."""
    split_csv: Annotated[str, RESULT, flag("split-csv")]
    """metadata_images_split_scene_v1.csv of the dataset's repository: a file or its URI."""
    camera_csv: Annotated[str | None, RESULT, flag("camera-csv")] = None
    """metadata_camera_parameters.csv of the dataset's repository: every scene's own camera. Needed
    unless --intrinsics is marigold."""
    split: Annotated[Literal["train", "val", "test"], RESULT, flag("split")] = "train"
    """Part of the published split by scenes."""
    keep_list: Annotated[str | None, RESULT, flag("keep-list")] = None
    """Text file with one frame a line, to keep only those: Marigold's filtered lists, for
    example."""
    scenes: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], RESULT, flag("scene")] = ()
    """Only these scenes (ai_VVV_NNN). Repeat for several. Default: all of the split."""
    intrinsics: Annotated[Literal["exact", "marigold"], RESULT, flag("intrinsics")] = "exact"
    """exact: each scene's own camera, tilted lenses included. marigold: focal length 886.81 for
    all, as in that preprocessing, with depth up to 18 % off in some scenes."""
    height: Annotated[SidePx | None, RESULT, flag("height")] = None
    """Resize to this height in pixels, a multiple of 8, with --width. Default: as released, 768 x
    1024. Another shape than 3 : 4 stretches the image, and the intrinsics with it."""
    width: Annotated[SidePx | None, RESULT, flag("width")] = None
    """Resize to this width in pixels, a multiple of 8, with --height."""

    @model_validator(mode="after")
    def _resized_in_both_directions(self) -> Self:
        if (self.height is None) != (self.width is None):
            raise ValueError(
                f"--height {self.height} and --width {self.width}: give both, or neither"
            )
        require_multiple("height", self.height or 0)
        require_multiple("width", self.width or 0)
        return self

    @property
    def size(self) -> Size | None:
        """(height, width) to resize to, or None: as released."""
        return None if self.height is None or self.width is None else (self.height, self.width)

    def open(self, index: Store | None) -> FrameSource:
        from e2eft.datasets.reading.hypersim import HypersimFrames

        return HypersimFrames(self)
