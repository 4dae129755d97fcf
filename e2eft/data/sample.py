"""One frame in physical units: the type every source produces and every shard stores."""

from dataclasses import dataclass

import numpy as np

from e2eft.data.modalities import DEPTH, Modalities
from e2eft.errors import E2eftError
from e2eft.geometry.camera import has_rays, pixel_rays

MIN_DEPTH_M = 0.01
MAX_DEPTH_M = 655.36
"""Finite depth outside [MIN_DEPTH_M, MAX_DEPTH_M] cannot be stored; sources convert it or drop the
frame."""


class SampleError(E2eftError):
    """A frame that breaks the contract of `Sample`. `reason` is a short code that is counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class RejectedFrame:
    """A frame that could not be decoded; `reason` is a short code that is counted."""

    key: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Sample:
    """One frame. Axes are OpenCV's camera frame: x right, y down, z forward.

    key: unique in its dataset, a relative path without extension.
    source: the dataset, e.g. `synthetic-indoor`.
    scene: what must not be split between training and evaluation.
    rgb: uint8 `[h w 3]`, sRGB.
    depth_m: float32 `[h w]`, planar z in metres; NaN unknown, +inf sky. All NaN where the dataset
        has normals only.
    normals_cam: float32 `[h w 3]`, unit length, facing the camera (a wall seen head-on is (0, 0,
        -1)); NaN unknown. All NaN where the dataset has depth only.
    intrinsics_px: float64 `[3 3]`, camera points to homogeneous pixels; the centre of pixel (column
        i, row j) is at (i + 0.5, j + 0.5). The last row is (0, 0, 1) unless the lens is tilted. All
        NaN where the camera is not known, or is no pinhole.
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

    @property
    def nbytes(self) -> int:
        """What the arrays take in memory; what is unknown takes nothing."""
        arrays = (self.rgb, self.depth_m, self.normals_cam)
        return sum(0 if is_constant(array) else array.nbytes for array in arrays)


def storable_depth(depth_m: np.ndarray) -> np.ndarray:
    """float32 metres: what is too far to be stored counts as sky, what is too near as unknown."""
    far = np.where(depth_m > MAX_DEPTH_M, np.inf, depth_m)
    return np.where(far < MIN_DEPTH_M, np.nan, far).astype(np.float32)


def unknown_depth(height: int, width: int) -> np.ndarray:
    """Depth of a frame that has none: float32 `[h w]`, NaN, read-only, of no size in memory."""
    return np.broadcast_to(np.float32(np.nan), (height, width))


def unknown_normals(height: int, width: int) -> np.ndarray:
    """Normals of a frame that has none: float32 `[h w 3]`, NaN, read-only, of no size in memory."""
    return np.broadcast_to(np.float32(np.nan), (height, width, 3))


def is_constant(array: np.ndarray) -> bool:
    """Whether it is one number in memory, as `unknown_depth` and `unknown_normals` are."""
    return not any(array.strides)


def unknown_intrinsics() -> np.ndarray:
    """The matrix of a camera that is not known: float64 `[3 3]`, NaN."""
    return np.full((3, 3), np.nan)


def check_sample(sample: Sample, modalities: Modalities = DEPTH) -> Sample:
    """The sample, if it keeps the contract, and the modalities of its dataset.

    Raises:
        SampleError: with reason `wrong_shape`, `wrong_dtype`, `no_valid_depth`, `no_valid_normal`,
            `depth_out_of_range`, `camera_half_known`, `camera_without_rays`, `normals_not_unit` or
            `normals_face_away`.
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
    known = bool(np.isfinite(sample.intrinsics_px).all())
    if not known and not np.isnan(sample.intrinsics_px).all():
        raise SampleError("camera_half_known", "intrinsics_px must be all finite or all NaN")
    if known and not has_rays(sample.intrinsics_px, height, width):
        raise SampleError(
            "camera_without_rays",
            f"intrinsics_px {sample.intrinsics_px.tolist()} has no ray through every pixel",
        )
    _check_depth(sample.depth_m, modalities)
    _check_normals(sample, modalities)
    return sample


def _check_depth(depth_m: np.ndarray, modalities: Modalities) -> None:
    finite = depth_m[np.isfinite(depth_m)]
    if not finite.size:
        if modalities.depth:
            raise SampleError("no_valid_depth", "no pixel has a finite depth")
        return
    if finite.min() < MIN_DEPTH_M or finite.max() > MAX_DEPTH_M or np.isneginf(depth_m).any():
        raise SampleError(
            "depth_out_of_range",
            f"{finite.min():.4g} .. {finite.max():.4g} m, allowed {MIN_DEPTH_M} .. {MAX_DEPTH_M} m",
        )


def _check_normals(sample: Sample, modalities: Modalities) -> None:
    # NaN, which an unknown normal has for its length, compares as false.
    length = np.sqrt(np.einsum("hwc,hwc->hw", sample.normals_cam, sample.normals_cam))
    known = int(np.isfinite(length).sum())
    if not known:
        if modalities.normals:
            raise SampleError("no_valid_normal", "no pixel has a normal")
        return
    if (np.abs(length - 1) > 1e-3).any():
        raise SampleError("normals_not_unit", "a normal's length differs from 1 by more than 1e-3")
    if not modalities.away_share and (away := count_away(sample)):
        raise SampleError(
            "normals_face_away", f"{away / known:.2%} of the normals point away from the camera"
        )


def count_away(sample: Sample, stride: int = 1) -> int:
    """Normals that point away from the camera, among every n-th pixel of every n-th row; none
    without a camera."""
    if not np.isfinite(sample.intrinsics_px).all():
        return 0
    rays = pixel_rays(sample.intrinsics_px, *sample.size)[::stride, ::stride]
    towards = np.einsum("hwc,hwc->hw", sample.normals_cam[::stride, ::stride], rays)
    return int((towards > 1e-3).sum())
