"""Virtual KITTI 2 (Cabon et al. 2020, arXiv 2001.10773) as it is published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tyro

from e2eft.config.base import PLACEMENT, RESULT, BeforeIt, ByRecipe, Positive, flag
from e2eft.datasets.base import Dataset, FrameSource, Source

if TYPE_CHECKING:
    from e2eft.storage import Store

VIRTUAL_KITTI = Dataset(name="virtual-kitti-2", supervised_range_m=80.0, dense=True)
VirtualKittiScene = Literal["Scene01", "Scene02", "Scene06", "Scene18", "Scene20"]
VirtualKittiVariation = Literal[
    "clone", "fog", "morning", "overcast", "rain", "sunset",
    "15-deg-left", "15-deg-right", "30-deg-left", "30-deg-right",
]  # fmt: skip


class VirtualKittiSource(Source):
    """Virtual KITTI 2 as it is published: tar files, read in place, or what was unpacked of them.
    Where they are is not part of the configuration's identity."""

    datasets = (VIRTUAL_KITTI,)
    places = ("root",)

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

    @property
    def not_encodable(self) -> str:
        if self.benchmark_crop:
            return ""
        return "Virtual KITTI has 375 x 1242 pixels: use --benchmark-crop"

    def settled(self, begun: Mapping[str, Any]) -> Self:
        if self.normal_planes is not None:
            return self
        # Records that lack the field are of when there was no other way.
        is_older = begun.get("kind") == self.kind and begun.get("normal_planes") != "own"
        return self.model_copy(update={"normal_planes": "neighbours" if is_older else "own"})

    def open(self, index: Store | None) -> FrameSource:
        from e2eft.datasets.reading.virtual_kitti import VirtualKittiFrames

        return VirtualKittiFrames(self, index)
