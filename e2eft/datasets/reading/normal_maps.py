"""Images with surface normals, as DSINE (Bae and Davison, CVPR 2024) and Marigold evaluate on them.

Facts that this module relies on. DSINE's folders: `X_normal.png` is 8 bits a channel, v / 255 * 2 -
1, unknown where all channels are 0; `X_normal.exr` is float, unknown where shorter than 1/2; both
in the axes left, up, towards the viewer. `X_normal.pkl`, OASIS's own annotation, is a dictionary
with the region `min_y` .. `max_y`, `min_x` .. `max_x` (its last row and column included) and the
normals in it, unknown where 0, in the axes right, down, towards the viewer, of which DSINE's loader
negates the first two. `X_intrins.npy` is the camera. Marigold's folders: `X_normal.npy` `[h w 3]`
in its own axes, right, up, towards the viewer, unknown where 0; no camera.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from e2eft.data.sample import (
    Sample,
    SampleError,
    unknown_depth,
    unknown_intrinsics,
)
from e2eft.datasets import ibims, scannet
from e2eft.datasets.listed import (
    FrameEntry,
    Layout,
    Listing,
    of_one_frame,
    read_listing,
    require_frames,
)
from e2eft.datasets.normal_maps import NormalMapSet, NormalMapSource
from e2eft.datasets.reading.pickles import load_arrays
from e2eft.datasets.reading.pixels import (
    read_array,
    read_exr,
    read_picture,
    read_rgb,
    require,
    unit_normals,
)
from e2eft.datasets.reading.roots import RootFiles
from e2eft.geometry.camera import Intrinsics
from e2eft.geometry.normals import Axes, convert_axes, why_not_normals

DSINE_ENDINGS: dict[NormalMapSet, str] = {
    "nyuv2": ".png", "scannet": ".png", "ibims-1": ".exr", "sintel": ".exr", "oasis": ".pkl",
}  # fmt: skip
MARIGOLD_ENDING = ".npy"
_IMAGE = re.compile(r"(.+)_img\.\w+")
_COLUMNS = r"(?P<frame>(?:(?!_img\.).)+)_img\.\w+", r"(?P<frame>.+)_normal\.\w+"
_Size = tuple[int, int]


class NormalMapLayout(Layout[NormalMapSource]):
    """`X_img.png` beside its normals."""

    def listing(self, files: RootFiles) -> Listing:
        if self.config.frame_list is None:
            found = [FrameEntry(path, ()) for path in files.paths() if _IMAGE.fullmatch(path)]
            return require_frames(found, files, "images named *_img.png")
        return read_listing(
            self.config.frame_list, _entry, "an image, and perhaps its normals",
            "000000_img.png 000000_normal.npy",
        )  # fmt: skip

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        rgb = read_rgb(files, entry.image)
        size = rgb.shape[0], rgb.shape[1]
        stem = entry.key.removesuffix("_img")
        return Sample(
            key=entry.key,
            source=self.dataset.name,
            scene=_scene(self.config.dataset, entry.key),
            rgb=rgb,
            depth_m=unknown_depth(*size),
            normals_cam=read_normals(files, self._truth(entry, stem, files), size),
            intrinsics_px=_camera(files, f"{stem}_intrins.npy"),
        )

    def _truth(self, entry: FrameEntry, stem: str, files: RootFiles) -> str:
        """The file that is named, else DSINE's, else Marigold's where only that is there."""
        if entry.truth:
            return entry.truth[0]
        dsine = f"{stem}_normal{DSINE_ENDINGS[self.config.dataset]}"
        marigold = f"{stem}_normal{MARIGOLD_ENDING}"
        return marigold if not files.exists(dsine) and files.exists(marigold) else dsine


def _entry(words: list[str]) -> FrameEntry:
    image, *normals = of_one_frame(words, *_COLUMNS)
    return FrameEntry(image, tuple(normals))


def _scene(dataset: NormalMapSet, key: str) -> str:
    """What is known of where an image was taken; else the image alone."""
    if dataset == "scannet":
        return scannet.scene_of(key)
    if dataset == "ibims-1":
        return ibims.scene_of(key)
    return key.split("/")[0] if dataset == "sintel" else key


def read_normals(files: RootFiles, path: str, size: _Size) -> np.ndarray:
    """float32 `[h w 3]` unit vectors in a `Sample`'s axes, NaN unknown.

    Raises:
        SampleError: `corrupt_file`, `wrong_shape`, `unsafe_pickle`, `unknown_format`,
            `normals_not_unit`.
    """
    if path.endswith(".npy"):
        vectors = _vectors(path, read_array(files, path), size)
        return _checked(path, vectors, np.any(vectors != 0, axis=-1), "right-up-viewer")
    if path.endswith(".exr"):
        vectors = _vectors(path, read_exr(files, path), size)
        known = np.einsum("hwc,hwc->hw", vectors, vectors) > 0.25
        return _checked(path, vectors, known, "left-up-viewer")
    if path.endswith(".png"):
        codes = np.asarray(read_picture(files, path))
        require(codes.dtype == np.uint8, path, codes, "8 bits a channel")
        vectors = _vectors(path, codes.astype(np.float32) / 255 * 2 - 1, size)
        return _checked(path, vectors, np.any(codes > 0, axis=-1), "left-up-viewer")
    if path.endswith(".pkl"):
        vectors = _region(path, load_arrays(files.read(path), path), size)
        return _checked(path, vectors, np.any(vectors != 0, axis=-1), "right-down-viewer")
    raise SampleError("unknown_format", f"{path}: expected .npy, .exr, .png or .pkl")


def _checked(path: str, vectors: np.ndarray, known: np.ndarray, axes: Axes) -> np.ndarray:
    if reason := why_not_normals(np.where(known[..., None], vectors, 0)):
        raise SampleError("normals_not_unit", f"{path}: {reason}")
    return convert_axes(unit_normals(vectors, known), axes, "opencv")


def _vectors(path: str, array: np.ndarray, size: _Size) -> np.ndarray:
    require(array.dtype.kind == "f" and array.shape == (*size, 3), path, array, f"{(*size, 3)}")
    return array.astype(np.float32)


def _region(path: str, annotation: Any, size: _Size) -> np.ndarray:
    """OASIS's annotation laid into an image of zeros: float32 `[h w 3]`."""
    try:
        top, bottom, left, right = (
            int(annotation[name]) for name in ("min_y", "max_y", "min_x", "max_x")
        )
        region = np.asarray(annotation["normal"], np.float32)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise SampleError(
            "corrupt_file", f"{path} has no min_y, max_y, min_x, max_x and normal: {error!r}"
        ) from error
    height, width = size
    if not (0 <= top <= bottom < height and 0 <= left <= right < width):
        raise SampleError(
            "wrong_shape",
            f"{path}: rows {top} .. {bottom}, columns {left} .. {right} leave the image's {size}",
        )
    expected = (bottom - top + 1, right - left + 1, 3)
    require(region.shape == expected, path, region, f"{expected}")
    vectors = np.zeros((height, width, 3), np.float32)
    vectors[top : bottom + 1, left : right + 1] = region
    return vectors


def _camera(files: RootFiles, path: str) -> Intrinsics:
    """Of DSINE's folders; pixel centres are at whole numbers there."""
    if not files.exists(path):
        return unknown_intrinsics()
    matrix = read_array(files, path)
    known = matrix.shape == (3, 3) and bool(np.isfinite(matrix).all())
    require(known, path, matrix, "(3, 3) finite numbers")
    return np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]) @ matrix.astype(np.float64)
