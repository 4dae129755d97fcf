"""One frame in physical units: the type every source produces and every shard stores."""

from dataclasses import dataclass

import numpy as np

MIN_DEPTH_M = 0.01
MAX_DEPTH_M = 655.36
"""Finite depth outside [MIN_DEPTH_M, MAX_DEPTH_M] cannot be stored; sources convert it or drop the
frame."""


class SampleError(ValueError):
    """A frame that breaks the contract of `Sample`. `reason` is a short code that is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class Sample:
    """One frame. Axes are OpenCV's camera frame: x right, y down, z forward.

    key: unique in its dataset, a relative path without extension.
    source: the dataset, e.g. `synthetic-indoor`.
    scene: what must not be split between training and evaluation.
    rgb: uint8 `[h w 3]`, sRGB.
    depth_m: float32 `[h w]`, planar z in metres; NaN unknown, +inf sky.
    normals_cam: float32 `[h w 3]`, unit length, facing the camera (a wall seen head-on is (0, 0,
    -1));
        NaN unknown.
    intrinsics_px: float64 `[3 3]`; the centre of pixel (column i, row j) is at (i + 0.5, j + 0.5).
    """

    key: str
    source: str
    scene: str
    rgb: np.ndarray
    depth_m: np.ndarray
    normals_cam: np.ndarray
    intrinsics_px: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


def check_sample(sample: Sample) -> Sample:
    """The sample, if it keeps the contract.

    Raises:
        SampleError: with reason `wrong_shape`, `wrong_dtype`, `depth_out_of_range`,
        `no_valid_depth`,
            `normals_not_unit` or `normals_face_away`.
    """
    height, width = sample.size
    expected = {
        "rgb": (sample.rgb, (height, width, 3), np.uint8),
        "depth_m": (sample.depth_m, (height, width), np.float32),
        "normals_cam": (sample.normals_cam, (height, width, 3), np.float32),
        "intrinsics_px": (sample.intrinsics_px, (3, 3), np.float64),
    }
    for name, (array, shape, dtype) in expected.items():
        if array.shape != shape:
            raise SampleError("wrong_shape", f"{name} is {array.shape}, expected {shape}")
        if array.dtype != dtype:
            raise SampleError("wrong_dtype", f"{name} is {array.dtype}, expected {np.dtype(dtype)}")
    finite = sample.depth_m[np.isfinite(sample.depth_m)]
    if not finite.size:
        raise SampleError("no_valid_depth", "no pixel has a finite depth")
    if (
        finite.min() < MIN_DEPTH_M
        or finite.max() > MAX_DEPTH_M
        or np.isneginf(sample.depth_m).any()
    ):
        raise SampleError(
            "depth_out_of_range",
            f"{finite.min():.4g} .. {finite.max():.4g} m, allowed {MIN_DEPTH_M} .. {MAX_DEPTH_M} m",
        )
    _check_normals(sample)
    return sample


def _check_normals(sample: Sample) -> None:
    known = np.isfinite(sample.normals_cam).all(axis=-1)
    if np.abs(np.linalg.norm(sample.normals_cam[known], axis=-1) - 1).max(initial=0) > 1e-3:
        raise SampleError("normals_not_unit", "a normal's length differs from 1 by more than 1e-3")
    height, width = sample.size
    (fx, _, cx), (_, fy, cy), _ = sample.intrinsics_px
    x = (np.arange(width) + 0.5 - cx) / fx
    y = (np.arange(height) + 0.5 - cy) / fy
    normals = sample.normals_cam
    toward = normals[..., 0] * x + normals[..., 1] * y[:, None] + normals[..., 2]
    if (toward[known] > 1e-3).any():
        share = float((toward[known] > 1e-3).mean())
        raise SampleError(
            "normals_face_away", f"{share:.2%} of the normals point away from the camera"
        )
