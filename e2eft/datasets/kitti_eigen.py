"""KITTI (Geiger et al., IJRR 2013), the Eigen split's test images with improved ground truth (Uhrig
et al., 3DV 2017).

Facts that this module relies on: depth is planar, 16-bit PNG in 1/256 m, 0 where nothing was
measured. Of 697 images 45 have no ground truth; Marigold's list says `None` for them, and the focal
length of each. Rectified images of one day have one camera, in `calib_cam_to_cam.txt` of the raw
recordings (`P_rect_02`), with pixel centres at whole numbers.
"""

from __future__ import annotations

import re

import numpy as np

from e2eft.config import KittiEigenSource
from e2eft.data.sample import DEPTH, Sample, unknown_intrinsics, unknown_normals
from e2eft.datasets.listed import (
    NO_TRUTH,
    ConfiguredLayout,
    FrameEntry,
    Listing,
    of_one_frame,
    read_listing,
)
from e2eft.datasets.numerals import number_of
from e2eft.datasets.pixels import (
    BENCHMARK_SIZE,
    benchmark_corner,
    measured_depth,
    read_codes,
    read_rgb,
)
from e2eft.datasets.roots import RootFiles
from e2eft.geometry.camera import Intrinsics, crop_intrinsics

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


class KittiEigenLayout(ConfiguredLayout[KittiEigenSource]):
    """The raw recordings' tree, and the annotated depth's beside it."""

    name, promise, from_files = "kitti-eigen", DEPTH, False

    def listing(self, files: RootFiles) -> Listing:
        return read_listing(
            self.config.frame_list,
            _entry,
            f"an image, its depth or {NO_TRUTH}, and perhaps the focal length",
            "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png "
            "2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png 721.5377",
        )

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
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
            source=self.name,
            scene=drive[0],
            rgb=np.ascontiguousarray(rgb[window]),
            depth_m=measured_depth(codes[window], METRES_PER_CODE),
            normals_cam=unknown_normals(height, width),
            intrinsics_px=crop_intrinsics(_camera(drive[1], entry), top, left),
        )


def _entry(words: list[str]) -> FrameEntry | None:
    known = words[1] != NO_TRUTH
    image, depth, *focal = of_one_frame(words, _IMAGE, _DEPTH if known else NO_TRUTH, ".*")
    if focal and number_of(focal[0]) <= 0:
        raise ValueError(f"{focal[0]} is no focal length")
    return FrameEntry(image, (depth,), tuple(focal)) if known else None


def _camera(day: str, entry: FrameEntry) -> Intrinsics:
    """The day's camera, unless the list says another focal length."""
    focal, x, y = CAMERAS.get(day, (np.nan, np.nan, np.nan))
    if np.isnan(focal) or (entry.notes and abs(float(entry.notes[0]) - focal) > 0.01):
        return unknown_intrinsics()
    return np.array([[focal, 0, x + 0.5], [0, focal, y + 0.5], [0, 0, 1]])
