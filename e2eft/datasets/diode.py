"""DIODE (Vasiljevic et al., arXiv 1908.00463), indoors and outdoors, laser depth.

Facts that this module relies on, from the dataset's tools: `X_depth.npy` is float32 `[h w 1]` in
metres, `X_depth_mask.npy` `[h w]` is 1 where it counts; one camera for all images, its focal
lengths and principal point in `intrinsics.txt`, the latter in the middle of the image's edges.
Whether depth is planar is not documented there; it is taken for planar, as by the benchmarks.
"""

from __future__ import annotations

import numpy as np

from e2eft.config import DiodeSource
from e2eft.data.sample import DEPTH, Sample, storable_depth, unknown_normals
from e2eft.datasets.listed import (
    ConfiguredLayout,
    FrameEntry,
    Listing,
    of_one_frame,
    read_listing,
    require_frames,
)
from e2eft.datasets.pixels import read_array, read_rgb, require
from e2eft.datasets.roots import RootFiles
from e2eft.geometry.camera import Intrinsics, resize_intrinsics

SIZE = (768, 1024)
CAMERA: Intrinsics = np.array([[886.81, 0, 512.0], [0, 927.06, 384.0], [0, 0, 1]])
PLACES = ("indoors", "outdoor")
_COLUMNS = [rf"(?P<image>.+){ending}" for ending in (r"\.png", r"_depth\.npy", r"_depth_mask\.npy")]


class DiodeLayout(ConfiguredLayout[DiodeSource]):
    """`{indoors,outdoor}/scene_N/scan_N/X{.png,_depth.npy,_depth_mask.npy}`."""

    name, promise = "diode", DEPTH

    @property
    def from_files(self) -> bool:
        return self.config.frame_list is None

    def listing(self, files: RootFiles) -> Listing:
        if self.config.frame_list is None:
            found = [
                _entry(path)
                for place in PLACES
                for path in files.paths(f"{place}/")
                if path.endswith(".png")
            ]
            return require_frames(found, files, "images such as indoors/scene_*/scan_*/*.png")
        return read_listing(
            self.config.frame_list,
            _listed,
            "an image, its depth and its mask",
            "indoors/scene_00019/scan_00183/00019_00183_indoors_000_010.png "
            "..._depth.npy ..._depth_mask.npy",
        )

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        rgb = read_rgb(files, entry.image)
        height, width = rgb.shape[:2]
        depth_m, mask = (_map(files, path, (height, width)) for path in entry.truth)
        known = (mask != 0) & (depth_m > 0)
        return Sample(
            key=entry.key,
            source=self.name,
            scene="/".join(entry.image.split("/")[:2]),
            rgb=rgb,
            depth_m=storable_depth(np.where(known, depth_m, np.float32(np.nan))),
            normals_cam=unknown_normals(height, width),
            intrinsics_px=resize_intrinsics(CAMERA, SIZE, (height, width)),
        )


def _entry(path: str) -> FrameEntry:
    stem = path.removesuffix(".png")
    return FrameEntry(path, (f"{stem}_depth.npy", f"{stem}_depth_mask.npy"))


def _listed(words: list[str]) -> FrameEntry:
    image, depth, mask = (of_one_frame(words, *_COLUMNS)[column] for column in range(3))
    return FrameEntry(image, (depth, mask))


def _map(files: RootFiles, path: str, size: tuple[int, int]) -> np.ndarray:
    """`[h w]` of an array that may have a third axis of one."""
    array = read_array(files, path)
    squeezed = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    require(
        squeezed.shape == size, path, array, f"the image's {size}, with or without an axis of 1"
    )
    return squeezed
