"""Pinhole cameras: pixel rays, points, and how intrinsics follow a cropped or resized image.

All arrays are numpy, one image at a time; the pixel convention is stated in `e2eft.geometry`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float64

Intrinsics = Float64[np.ndarray, "3 3"]


def intrinsics_from_hfov(hfov_deg: float, height: int, width: int) -> Intrinsics:
    """Square pixels, principal point in the middle of the image.

    Args:
        hfov_deg: angle between the image's left and right *edges*, not its outer pixel centres.

    Raises:
        ValueError: if `hfov_deg` is not between 0 and 180.
    """
    if not 0 < hfov_deg < 180:
        raise ValueError(f"hfov_deg={hfov_deg}: expected an angle between 0 and 180 degrees")
    focal_px = width / 2 / math.tan(math.radians(hfov_deg) / 2)
    return np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]], np.float64)


def pixel_rays(intrinsics_px: Intrinsics, height: int, width: int) -> Float64[np.ndarray, "h w 3"]:
    """Rays through the pixel centres with z = 1: a point is its ray times its planar depth.

    The last row of `intrinsics_px` need not be (0, 0, 1): a tilted lens has another. The result is
    kept for the next image of the same camera, and may not be written to.
    """
    return _pixel_rays(np.ascontiguousarray(intrinsics_px, np.float64).tobytes(), height, width)


@lru_cache(maxsize=2)
def _pixel_rays(intrinsics: bytes, height: int, width: int) -> Float64[np.ndarray, "h w 3"]:
    intrinsics_px = np.frombuffer(intrinsics, np.float64).reshape(3, 3)
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    homogeneous = np.stack([columns, rows, np.ones_like(rows)], axis=-1)  # [h w 3]
    rays = homogeneous @ np.linalg.inv(intrinsics_px).T
    rays /= rays[..., 2:]
    rays.setflags(write=False)
    return rays


def has_rays(intrinsics_px: Intrinsics, height: int, width: int) -> bool:
    """Whether there is a ray through every pixel of an image: the finite matrix can be inverted,
    and what it shows lies all on one side of the camera."""
    if np.linalg.matrix_rank(intrinsics_px) < 3:
        return False
    corners = np.array([[x, y, 1.0] for x in (0, width) for y in (0, height)])
    towards = corners @ np.linalg.inv(intrinsics_px)[2]
    return bool((towards > 0).all() or (towards < 0).all())


def unproject(
    depth_m: Float[np.ndarray, "h w"], intrinsics_px: Intrinsics
) -> Float64[np.ndarray, "h w 3"]:
    """Points in camera axes, metres. NaN where depth is unknown, and at the sky."""
    finite_m = np.where(np.isfinite(depth_m), depth_m.astype(np.float64), np.nan)
    return pixel_rays(intrinsics_px, *depth_m.shape) * finite_m[..., None]


def planar_depth(
    ray_distance_m: Float[np.ndarray, "h w"], intrinsics_px: Intrinsics
) -> Float64[np.ndarray, "h w"]:
    """Planar z in metres from the distance to the camera's centre. NaN and +inf stay."""
    return ray_distance_m / _ray_lengths(intrinsics_px, *ray_distance_m.shape)


def ray_distance(
    depth_m: Float[np.ndarray, "h w"], intrinsics_px: Intrinsics
) -> Float64[np.ndarray, "h w"]:
    """Distance to the camera's centre in metres from planar z. NaN and +inf stay."""
    return depth_m * _ray_lengths(intrinsics_px, *depth_m.shape)


def crop_intrinsics(intrinsics_px: Intrinsics, top: int, left: int) -> Intrinsics:
    """Intrinsics of ``image[top:, left:]``; where the crop ends does not matter."""
    return np.array([[1, 0, -left], [0, 1, -top], [0, 0, 1]], np.float64) @ intrinsics_px


def resize_intrinsics(
    intrinsics_px: Intrinsics, old_size: tuple[int, int], new_size: tuple[int, int]
) -> Intrinsics:
    """Intrinsics of an image resized edge to edge (``align_corners=False``).

    Args:
        old_size, new_size: (height, width).
    """
    (old_height, old_width), (new_height, new_width) = old_size, new_size
    return np.diag([new_width / old_width, new_height / old_height, 1.0]) @ intrinsics_px


def hflip_intrinsics(intrinsics_px: Intrinsics, width: int) -> Intrinsics:
    """Intrinsics of the image mirrored left to right, which shows the world mirrored in x.

    Normals and points must be mirrored too (x negated): see `e2eft.geometry.normals.hflip_normals`.
    """
    mirror_px = np.array([[-1, 0, width], [0, 1, 0], [0, 0, 1]], np.float64)
    return mirror_px @ intrinsics_px @ np.diag([-1.0, 1.0, 1.0])


def _ray_lengths(intrinsics_px: Intrinsics, height: int, width: int) -> Float64[np.ndarray, "h w"]:
    return _lengths(np.ascontiguousarray(intrinsics_px, np.float64).tobytes(), height, width)


@lru_cache(maxsize=2)
def _lengths(intrinsics: bytes, height: int, width: int) -> Float64[np.ndarray, "h w"]:
    lengths = np.linalg.norm(_pixel_rays(intrinsics, height, width), axis=-1)
    lengths.setflags(write=False)
    return lengths
