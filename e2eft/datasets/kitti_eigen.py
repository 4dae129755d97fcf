"""KITTI (Geiger et al., IJRR 2013), the Eigen split's test images with improved ground truth (Uhrig
et al., 3DV 2017).

Facts that this module relies on: depth is planar, 16-bit PNG in 1/256 m, 0 where nothing was
measured. Of 697 images 45 have no ground truth; Marigold's list says `None` for them, and the focal
length of each. Rectified images of one day have one camera, in `calib_cam_to_cam.txt` of the raw
recordings (`P_rect_02`), with pixel centres at whole numbers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from e2eft.config.base import PLACEMENT, RESULT, ByRecipe, flag
from e2eft.datasets.base import Dataset, DepthRules, FrameSource, Source
from e2eft.datasets.listed import (
    NO_TRUTH,
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
    from e2eft.geometry.camera import Intrinsics
    from e2eft.storage import Store

BENCHMARK_SIZE = (352, 1216)
"""KITTI's benchmark crop (height, width): the bottom rows, the middle columns."""
KITTI_EIGEN = Dataset(
    name="kitti-eigen",
    images=652,
    frame_size=BENCHMARK_SIZE,
    scored_as={"benchmark_crop": (True, "without the benchmark crop")},
    rules={
        "least-squares-depth": DepthRules(min_depth_m=1e-5, max_depth_m=80, window="kitti-eigen"),
        "ransac-log-depth": DepthRules(min_depth_m=0.1, max_depth_m=80, window="kitti-eigen"),
    },
)
METRES_PER_CODE = 1 / 256
CAMERAS = {
    "2011_09_26": (721.5377, 609.5593, 172.8540),
    "2011_09_28": (707.0493, 604.0814, 180.5066),
    "2011_09_29": (718.3351, 600.3891, 181.5122),
    "2011_09_30": (707.0912, 601.8873, 183.1104),
    "2011_10_03": (718.8560, 607.1928, 185.2157),
}
"""Focal length and principal point (x, y) of the left colour camera, by day."""
_DRIVE = re.compile(r"(\d{4}_\d{2}_\d{2})_drive_\d{4}(?:_sync)?")
_IMAGE, _DEPTH = (
    r"(?:.*/)?(?P<drive>\d{4}_\d{2}_\d{2}_drive_\d{4})(?:_sync)?/"
    rf"{folder}(?P<number>\d+)\.\w+"
    for folder in (
        r"(?P<camera>image_\d{2})/data/",
        r"proj_depth/groundtruth/(?P<camera>image_\d{2})/",
    )
)


class KittiEigenSource(Source):
    """KITTI's images of the Eigen split that have improved ground truth, 652 of 697: the raw
    recordings and their annotated depth, as in Marigold's evaluation files."""

    datasets = (KITTI_EIGEN,)
    places = ("root", "frame_list")

    kind: Annotated[ByRecipe[Literal["kitti-eigen"]], RESULT] = "kitti-eigen"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds 2011_09_26/2011_09_26_drive_0002_sync/image_02/... and
    2011_09_26_drive_0002_sync/proj_depth/...: a folder or an uncompressed .tar, which is read in
    place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str, RESULT, flag("list")]
    """Text file or its URI, a frame a line: image, depth (None where there is none: such a frame
    is left out) and focal length in pixels, relative to --root, as in Marigold's
    data_split/kitti_depth/eigen_test_files_with_gt.txt."""
    benchmark_crop: Annotated[bool, RESULT, flag("benchmark-crop")] = True
    """Crop to KITTI's 1216 x 352 pixels: the bottom rows, the middle columns. Published scores are
    of these; predictions must be of the same size."""

    def open(self, index: Store | None) -> FrameSource:
        return ListedFrames(KittiEigenLayout(self), self.root, index)


def benchmark_corner(height: int, width: int) -> tuple[int, int]:
    """(top, left) of KITTI's benchmark crop in an image of this size.

    Raises:
        SampleError: `wrong_shape` if it does not fit.
    """
    from e2eft.data.sample import SampleError

    top, left = height - BENCHMARK_SIZE[0], (width - BENCHMARK_SIZE[1]) // 2
    if min(top, left) < 0:
        raise SampleError("wrong_shape", f"{width} x {height} pixels are too few to crop")
    return top, left


class KittiEigenLayout(Layout[KittiEigenSource]):
    """The raw recordings' tree, and the annotated depth's beside it."""

    def listing(self, files: RootFiles) -> Listing:
        return read_listing(
            self.config.frame_list,
            _entry,
            f"an image, its depth or {NO_TRUTH}, and perhaps the focal length",
            "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png "
            "2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png 721.5377",
        )

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        import numpy as np

        from e2eft.data.sample import Sample, unknown_normals
        from e2eft.datasets.reading.pixels import measured_depth, read_codes, read_rgb
        from e2eft.geometry.camera import crop_intrinsics

        rgb = read_rgb(files, entry.image)
        codes = read_codes(files, entry.truth[0], rgb.shape[:2])
        height, width = codes.shape
        top = left = 0
        if self.config.benchmark_crop:
            top, left = benchmark_corner(height, width)
            height, width = BENCHMARK_SIZE
        window = np.s_[top : top + height, left : left + width]
        drive = _DRIVE.search(entry.image)
        assert drive is not None, entry
        return Sample(
            key=entry.key,
            source=self.dataset.name,
            scene=drive[0],
            rgb=np.ascontiguousarray(rgb[window]),
            depth_m=measured_depth(codes[window], METRES_PER_CODE),
            normals_cam=unknown_normals(height, width),
            intrinsics_px=crop_intrinsics(_camera(drive[1], entry), top, left),
        )


def _entry(words: list[str]) -> FrameEntry | None:
    from e2eft.datasets.reading.numerals import number_of

    known = words[1] != NO_TRUTH
    image, depth, *focal = of_one_frame(words, _IMAGE, _DEPTH if known else NO_TRUTH, ".*")
    if focal and number_of(focal[0]) <= 0:
        raise ValueError(f"{focal[0]} is no focal length")
    return FrameEntry(image, (depth,), tuple(focal)) if known else None


def _camera(day: str, entry: FrameEntry) -> Intrinsics:
    """The day's camera, unless the list says another focal length."""
    import numpy as np

    from e2eft.data.sample import unknown_intrinsics

    focal, x, y = CAMERAS.get(day, (np.nan, np.nan, np.nan))
    if np.isnan(focal) or (entry.notes and abs(float(entry.notes[0]) - focal) > 0.01):
        return unknown_intrinsics()
    return np.array([[focal, 0, x + 0.5], [0, focal, y + 0.5], [0, 0, 1]])
