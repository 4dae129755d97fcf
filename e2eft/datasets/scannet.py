"""ScanNet (Dai et al., CVPR 2017), images sampled from its validation scans.

Facts that this module relies on: the exporter of the dataset's .sens files writes depth as 16-bit
PNG in millimetres, 0 where nothing was measured, 640 x 480. Colour is 1296 x 968 there, but resized
to the depth in Marigold's evaluation files; a frame whose sizes differ is rejected. Those files
have no cameras.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from e2eft.config.base import PLACEMENT, RESULT, ByRecipe, flag
from e2eft.datasets.base import Dataset, DepthRules, FrameSource, Source
from e2eft.datasets.listed import (
    FrameEntry,
    Layout,
    ListedFrames,
    Listing,
    of_one_frame,
    read_listing,
)

if TYPE_CHECKING:
    from e2eft.data.sample import Sample
    from e2eft.datasets.reading.roots import RootFiles
    from e2eft.storage import Store

SCANNET = Dataset(
    name="scannet",
    images=800,
    frame_size=(480, 640),
    rules={
        "least-squares-depth": DepthRules(min_depth_m=1e-3, max_depth_m=10),
        "ransac-log-depth": DepthRules(min_depth_m=0.01, max_depth_m=10),
    },
)
METRES_PER_CODE = 0.001
_COLUMNS = [rf"(?P<folder>(?:.*/)?){kind}/(?P<number>\d+)\.\w+" for kind in ("color", "depth")]


class ScanNetSource(Source):
    """Images sampled from ScanNet's validation scans, 800, as in Marigold's evaluation files."""

    datasets = (SCANNET,)
    places = ("root", "frame_list")

    kind: Annotated[ByRecipe[Literal["scannet"]], RESULT] = "scannet"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds scene0406_02/color/... and scene0406_02/depth/...: a folder or an uncompressed
    .tar, which is read in place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str, RESULT, flag("list")]
    """Text file or its URI, a frame a line: image and depth, relative to --root, as in Marigold's
    data_split/scannet_depth/scannet_val_sampled_list_800_1.txt."""

    def open(self, index: Store | None) -> FrameSource:
        return ListedFrames(ScanNetLayout(self), self.root, index)


class ScanNetLayout(Layout[ScanNetSource]):
    """`sceneNNNN_MM/{color/N.jpg,depth/N.png}`."""

    def listing(self, files: RootFiles) -> Listing:
        return read_listing(
            self.config.frame_list,
            lambda words: FrameEntry(words[0], (of_one_frame(words, *_COLUMNS)[1],)),
            "an image and its depth",
            "scene0406_02/color/000300.jpg scene0406_02/depth/000300.png",
        )

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        from e2eft.data.sample import Sample, unknown_intrinsics, unknown_normals
        from e2eft.datasets.reading.pixels import measured_depth, read_codes, read_rgb

        rgb = read_rgb(files, entry.image)
        height, width = rgb.shape[:2]
        codes = read_codes(files, entry.truth[0], (height, width))
        return Sample(
            key=entry.key,
            source=self.dataset.name,
            scene=scene_of(entry.image),
            rgb=rgb,
            depth_m=measured_depth(codes, METRES_PER_CODE),
            normals_cam=unknown_normals(height, width),
            intrinsics_px=unknown_intrinsics(),
        )


def scene_of(path: str) -> str:
    """`sceneNNNN` of a path: what follows the underscore numbers the scans of one room."""
    return path.split("/")[0].split("_")[0]
