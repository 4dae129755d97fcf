"""NYU Depth v2 (Silberman et al., ECCV 2012), its 654 labelled test images with depth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from e2eft.config.base import PLACEMENT, RESULT, ByRecipe, flag
from e2eft.datasets.base import Dataset, DepthRules, FrameSource, Source
from e2eft.datasets.listed import ListedFrames

if TYPE_CHECKING:
    from e2eft.storage import Store

FRAME_SIZE = (480, 640)
NYUV2 = Dataset(
    name="nyuv2",
    images=654,
    frame_size=FRAME_SIZE,
    scored_as={"depth": ("raw", "with filled-in depth")},
    rules={
        "least-squares-depth": DepthRules(min_depth_m=1e-3, max_depth_m=10, window="nyu-eigen"),
        "ransac-log-depth": DepthRules(min_depth_m=0.1, max_depth_m=10),
    },
)


class Nyuv2Source(Source):
    """NYUv2's labelled test images, 654: Marigold's evaluation files with their list, or the two
    published .mat files."""

    datasets = (NYUV2,)
    places = ("root", "frame_list")

    kind: Annotated[ByRecipe[Literal["nyuv2"]], RESULT] = "nyuv2"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds the files of --list: a folder or an uncompressed .tar, which is read in place; a
    path, file:// or s3:// URI. Without --list: what holds nyu_depth_v2_labeled.mat and
    splits.mat."""
    frame_list: Annotated[str | None, RESULT, flag("list")] = None
    """Text file or its URI, a frame a line: image, measured depth and filled-in depth, relative to
    --root, as in Marigold's data_split/nyu_depth/labeled/filename_list_test.txt."""
    depth: Annotated[Literal["raw", "filled"], RESULT, flag("depth")] = "raw"
    """raw: what was measured, with holes, on which Marigold and E2E-FT are scored. filled: the
    holes painted in."""

    def open(self, index: Store | None) -> FrameSource:
        from e2eft.datasets.reading.nyuv2 import Nyuv2Layout, Nyuv2MatlabFrames

        if self.frame_list is None:
            return Nyuv2MatlabFrames(self)
        return ListedFrames(Nyuv2Layout(self), self.root, index)
