"""ETH3D (Schoeps et al., CVPR 2017), high-resolution multi-view images with laser depth.

Facts that this module relies on, from the dataset's documentation of its formats: a file of ground
truth is called as its image, .JPG, but holds little-endian float32, row by row, as many as the
image has pixels; planar metres, +inf where nothing was measured. The images are those of the lens,
a thin-prism fisheye, so no pinhole camera describes them.
"""

from __future__ import annotations

import numpy as np

from e2eft.config import Eth3dSource
from e2eft.data.sample import (
    DEPTH,
    Sample,
    SampleError,
    storable_depth,
    unknown_intrinsics,
    unknown_normals,
)
from e2eft.datasets.listed import (
    ConfiguredLayout,
    FrameEntry,
    Listing,
    of_one_frame,
    read_listing,
)
from e2eft.datasets.pixels import read_rgb
from e2eft.datasets.roots import RootFiles

_COLUMNS = [
    rf"(?:.*/)?(?P<scene>[^/]+)/{kind}/(?P<name>[^/]+/[^/]+)"
    for kind in ("images", "ground_truth_depth")
]


class Eth3dLayout(ConfiguredLayout[Eth3dSource]):
    """`rgb/SCENE/images/dslr_images/DSC_N.JPG` and
    `depth/SCENE_dslr_depth/SCENE/ground_truth_depth/dslr_images/DSC_N.JPG`."""

    name, promise, from_files = "eth3d", DEPTH, False

    def listing(self, files: RootFiles) -> Listing:
        return read_listing(
            self.config.frame_list,
            lambda words: FrameEntry(words[0], (of_one_frame(words, *_COLUMNS)[1],)),
            "an image and its depth",
            "rgb/office/images/dslr_images/DSC_0219.JPG "
            "depth/office_dslr_depth/office/ground_truth_depth/dslr_images/DSC_0219.JPG",
        )

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        rgb = read_rgb(files, entry.image)
        height, width = rgb.shape[:2]
        content = files.read(entry.truth[0])
        if len(content) != 4 * height * width:
            raise SampleError(
                "corrupt_file",
                f"{entry.truth[0]} has {len(content)} bytes, expected {4 * height * width}: "
                f"4 for each of {width} x {height} pixels",
            )
        depth_m = np.frombuffer(content, "<f4").reshape(height, width)
        steps = entry.image.split("/")
        return Sample(
            key=entry.key,
            source=self.name,
            scene=steps[1] if steps[0] == "rgb" else steps[0],
            rgb=rgb,
            depth_m=storable_depth(np.where(np.isfinite(depth_m), depth_m, np.float32(np.nan))),
            normals_cam=unknown_normals(height, width),
            intrinsics_px=unknown_intrinsics(),
        )
