"""ScanNet (Dai et al., CVPR 2017), images sampled from its validation scans.

Facts that this module relies on: the exporter of the dataset's .sens files writes depth as 16-bit
PNG in millimetres, 0 where nothing was measured, 640 x 480. Colour is 1296 x 968 there, but resized
to the depth in Marigold's evaluation files; a frame whose sizes differ is rejected. Those files
have no cameras.
"""

from __future__ import annotations

from e2eft.config import ScanNetSource
from e2eft.data.sample import DEPTH, Sample, unknown_intrinsics, unknown_normals
from e2eft.datasets.listed import (
    ConfiguredLayout,
    FrameEntry,
    Listing,
    of_one_frame,
    read_listing,
)
from e2eft.datasets.pixels import measured_depth, read_codes, read_rgb
from e2eft.datasets.roots import RootFiles

METRES_PER_CODE = 0.001
_COLUMNS = [rf"(?P<folder>(?:.*/)?){kind}/(?P<number>\d+)\.\w+" for kind in ("color", "depth")]


class ScanNetLayout(ConfiguredLayout[ScanNetSource]):
    """`sceneNNNN_MM/{color/N.jpg,depth/N.png}`."""

    name, promise, from_files = "scannet", DEPTH, False

    def listing(self, files: RootFiles) -> Listing:
        return read_listing(
            self.config.frame_list,
            lambda words: FrameEntry(words[0], (of_one_frame(words, *_COLUMNS)[1],)),
            "an image and its depth",
            "scene0406_02/color/000300.jpg scene0406_02/depth/000300.png",
        )

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        rgb = read_rgb(files, entry.image)
        height, width = rgb.shape[:2]
        codes = read_codes(files, entry.truth[0], (height, width))
        return Sample(
            key=entry.key,
            source=self.name,
            scene=scene_of(entry.image),
            rgb=rgb,
            depth_m=measured_depth(codes, METRES_PER_CODE),
            normals_cam=unknown_normals(height, width),
            intrinsics_px=unknown_intrinsics(),
        )


def scene_of(path: str) -> str:
    """`sceneNNNN` of a path: what follows the underscore numbers the scans of one room."""
    return path.split("/")[0].split("_")[0]
