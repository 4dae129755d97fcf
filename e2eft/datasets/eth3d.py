"""ETH3D (Schoeps et al., CVPR 2017), high-resolution multi-view images with laser depth.

Facts that this module relies on, from the dataset's documentation of its formats: a file of ground
truth is called as its image, .JPG, but holds little-endian float32, row by row, as many as the
image has pixels; planar metres, +inf where nothing was measured. The images are those of the lens,
a thin-prism fisheye, so no pinhole camera describes them.
"""

from __future__ import annotations

import math
from dataclasses import replace
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

LEAST_SQUARES = DepthRules(
    min_depth_m=1e-5, max_depth_m=math.inf, fit_longest_px=1024, processing_px=756
)
ETH3D = Dataset(
    name="eth3d",
    images=454,
    frame_size=(4032, 6048),
    rules={
        "least-squares-depth": LEAST_SQUARES,
        "least-squares-disparity": replace(LEAST_SQUARES, processing_px=768),
        "ransac-log-depth": DepthRules(
            min_depth_m=0.01,
            max_depth_m=math.inf,
            # Of 2048 x 1360, what Pixel-Perfect Depth's area of 1024 x 768 makes.
            processing_px=1088,
            scored_size=(1360, 2048),
        ),
    },
)
_COLUMNS = [
    rf"(?:.*/)?(?P<scene>[^/]+)/{kind}/(?P<name>[^/]+/[^/]+)"
    for kind in ("images", "ground_truth_depth")
]


class Eth3dSource(Source):
    """ETH3D's high-resolution training images with laser depth, 454 of 6048 x 4032 pixels, as in
    Marigold's evaluation files."""

    datasets = (ETH3D,)
    places = ("root", "frame_list")

    kind: Annotated[ByRecipe[Literal["eth3d"]], RESULT] = "eth3d"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds rgb/office/images/... and depth/office_dslr_depth/...: a folder or an uncompressed
    .tar, which is read in place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str, RESULT, flag("list")]
    """Text file or its URI, a frame a line: image and depth, relative to --root, as in Marigold's
    data_split/eth3d_depth/eth3d_filename_list.txt."""

    def open(self, index: Store | None) -> FrameSource:
        return ListedFrames(Eth3dLayout(self), self.root, index)


class Eth3dLayout(Layout[Eth3dSource]):
    """`rgb/SCENE/images/dslr_images/DSC_N.JPG` and
    `depth/SCENE_dslr_depth/SCENE/ground_truth_depth/dslr_images/DSC_N.JPG`."""

    def listing(self, files: RootFiles) -> Listing:
        return read_listing(
            self.config.frame_list,
            lambda words: FrameEntry(words[0], (of_one_frame(words, *_COLUMNS)[1],)),
            "an image and its depth",
            "rgb/office/images/dslr_images/DSC_0219.JPG "
            "depth/office_dslr_depth/office/ground_truth_depth/dslr_images/DSC_0219.JPG",
        )

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        import numpy as np

        from e2eft.data.sample import (
            Sample,
            SampleError,
            storable_depth,
            unknown_intrinsics,
            unknown_normals,
        )
        from e2eft.datasets.reading.pixels import read_rgb

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
            source=self.dataset.name,
            scene=steps[1] if steps[0] == "rgb" else steps[0],
            rgb=rgb,
            depth_m=storable_depth(np.where(np.isfinite(depth_m), depth_m, np.float32(np.nan))),
            normals_cam=unknown_normals(height, width),
            intrinsics_px=unknown_intrinsics(),
        )
