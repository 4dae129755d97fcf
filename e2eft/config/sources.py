"""Datasets: where their raw files are, and which of their frames are wanted."""

from typing import Annotated, ClassVar, Literal, Self

import tyro
from pydantic import Field, model_validator

from e2eft.config.base import (
    PLACEMENT,
    RESULT,
    BeforeIt,
    ByRecipe,
    Config,
    Count,
    Positive,
    flag,
    require_multiple,
)

SidePx = Annotated[int, Field(gt=0, le=16_384)]


class SyntheticSource(Config):
    """Scenes rendered with Mitsuba 3: a pure function of these fields."""

    places: ClassVar[tuple[str, ...]] = ()

    kind: Annotated[ByRecipe[Literal["synthetic"]], RESULT] = "synthetic"
    family: Annotated[ByRecipe[Literal["indoor", "street"]], RESULT]
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


class HypersimSource(Config):
    """Hypersim's raw release: HDF5 frames, scenes as folders or as the published zip files, which
    are read in place. Where they are is not part of the configuration's identity."""

    places: ClassVar[tuple[str, ...]] = ("root", "split_csv", "camera_csv", "keep_list")

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
    def size(self) -> tuple[int, int] | None:
        """(height, width) to resize to, or None: as released."""
        return None if self.height is None or self.width is None else (self.height, self.width)


VirtualKittiScene = Literal["Scene01", "Scene02", "Scene06", "Scene18", "Scene20"]
VirtualKittiVariation = Literal[
    "clone", "fog", "morning", "overcast", "rain", "sunset",
    "15-deg-left", "15-deg-right", "30-deg-left", "30-deg-right",
]  # fmt: skip


class VirtualKittiSource(Config):
    """Virtual KITTI 2 as it is published: tar files, read in place, or what was unpacked of them.
    Where they are is not part of the configuration's identity."""

    places: ClassVar[tuple[str, ...]] = ("root",)

    kind: Annotated[ByRecipe[Literal["virtual-kitti-2"]], RESULT] = "virtual-kitti-2"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds vkitti_2.0.3_rgb.tar, _depth.tar and _textgt.tar.gz, or folders of that name, or
    rgb, depth and textgt, or all together: a folder, file:// or s3:// URI."""
    selection: Annotated[ByRecipe[Literal["all", "paper", "marigold", "marigold-val"]], RESULT] = (
        "all"
    )
    scenes: Annotated[
        tyro.conf.UseAppendAction[tuple[VirtualKittiScene, ...]], RESULT, flag("scene")
    ] = ()
    """Only these scenes of the selection. Repeat for several. Default: all of them."""
    variations: Annotated[
        tyro.conf.UseAppendAction[tuple[VirtualKittiVariation, ...]], RESULT, flag("variation")
    ] = ()
    """Only this weather, time of day, or turn of the camera. Repeat for several. Default: all of
    the selection."""
    frames_per_sequence: Annotated[Positive | None, RESULT, flag("frames-per-sequence")] = None
    """Only the first frames of every sequence of a scene. Default: all."""
    benchmark_crop: Annotated[bool, RESULT, flag("benchmark-crop")] = True
    """Crop to KITTI's 1216 x 352 pixels: the bottom rows, the middle columns."""
    normal_planes: Annotated[
        Literal["own", "neighbours"] | None,
        RESULT,
        BeforeIt("neighbours"),
        flag("normal-planes"),
    ] = None
    """own: a pixel's normal is that of the plane that it lies on itself, unknown where there is
    none. neighbours: of the plane that most pixels around it lie on, beside a depth edge often
    another surface's. Default: own; what was begun with the second, as all was once, is finished
    with it."""


TrainingSource = SyntheticSource | HypersimSource | VirtualKittiSource
