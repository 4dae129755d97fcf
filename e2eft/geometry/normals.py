"""Surface normals: axes, flips, normals of a depth map, angles."""

from __future__ import annotations

import math
from typing import Literal, overload

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from e2eft.geometry.camera import Intrinsics, pixel_rays, unproject
from e2eft.geometry.planes import neighbours_planes, own_planes

Axes = Literal["opencv", "right-up-viewer", "left-up-viewer", "right-down-viewer"]
"""Camera axes in which normals are written, named by where x, y and z point.

``opencv``: right, down, forward; this project's. ``right-up-viewer``: Hypersim's camera axes and
those of Marigold v1-1 and diffusers' MarigoldNormalsPipeline. ``left-up-viewer``: "LUB", those of
arXiv 2409.11355's models and of DSINE. ``right-down-viewer``: OASIS's annotations.
"""

Planes = Literal["own", "neighbours"]
"""Which plane gives a pixel its normal: see `surface_normals`."""
_CURVED_SLANT, _NEIGHBOURS_CURVING = 0.1, 0.01
_ROUNDING, _NOT_UNIT = 0.02, 0.1
"""How far from 1 the length of a normal of 8 bits is at most, and that of no normal."""

_SIGNS_TO_OPENCV: dict[Axes, tuple[int, int, int]] = {
    "opencv": (1, 1, 1),
    "right-up-viewer": (1, -1, -1),
    "left-up-viewer": (-1, -1, -1),
    "right-down-viewer": (1, 1, -1),
}


@overload
def convert_axes(
    normals: Float[np.ndarray, "h w 3"], source: Axes, target: Axes
) -> Float[np.ndarray, "h w 3"]: ...
@overload
def convert_axes(
    normals: Float[Tensor, "n 3 h w"], source: Axes, target: Axes
) -> Float[Tensor, "n 3 h w"]: ...
def convert_axes(
    normals: Float[np.ndarray, "h w 3"] | Float[Tensor, "n 3 h w"], source: Axes, target: Axes
) -> Float[np.ndarray, "h w 3"] | Float[Tensor, "n 3 h w"]:
    """The same vectors written in other axes. NaN stays NaN."""
    signs = np.multiply(_SIGNS_TO_OPENCV[source], _SIGNS_TO_OPENCV[target])
    if isinstance(normals, Tensor):
        # Not a product with a new tensor, whose copy to the device would stall it.
        flipped = [
            channel * int(sign) for channel, sign in zip(normals.unbind(1), signs, strict=True)
        ]
        return torch.stack(flipped, dim=1)
    return normals * signs.astype(normals.dtype)


def why_not_normals(vectors: Float[np.ndarray, "h w 3"]) -> str:
    """What the lengths of vectors say against their being unit normals; "" if nothing. Vectors that
    are not finite or of no length are unknown, and say nothing.

    Half of all must be about 1 long; a few are not at edges, where maps were resized. Normals that
    were stored as (n + 1) / 2 may be so where they face sideways, but have no negative component.
    """
    length = lengths_of(vectors)
    known = np.isfinite(vectors).all(axis=-1) & (length > 0)
    if not known.any():
        return ""
    off = float(np.median(np.abs(length[known] - 1)))
    is_shifted = False
    if _ROUNDING < off <= _NOT_UNIT and vectors[known].min() >= 0:
        is_shifted = float(np.median(np.abs(lengths_of(2 * vectors - 1)[known] - 1))) < off
    if off <= _NOT_UNIT and not is_shifted:
        return ""
    about = f"lengths about {np.median(length[known]):.3g}, half of them {off:.2g} or more from 1"
    return f"{about}: not unit normals; were they stored as (n + 1) / 2?"


def lengths_of(vectors: Float[np.ndarray, "h w 3"]) -> Float64[np.ndarray, "h w"]:
    """Lengths in float64; NaN where a component is, inf where it is or where they are too long."""
    with np.errstate(over="ignore"):
        return np.linalg.norm(vectors.astype(np.float64), axis=-1)


def hflip_normals(normals_cam: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    """The mirrored image's normals, in any of `Axes`: columns reversed and x negated."""
    return normals_cam[:, ::-1] * np.array([-1, 1, 1], normals_cam.dtype)


def normals_from_depth(
    depth_m: Float[np.ndarray, "h w"], intrinsics_px: Intrinsics
) -> Float32[np.ndarray, "h w 3"]:
    """Normals of the surface through the pixels' points, facing the camera.

    Exact on planes. Central differences, one-sided at the image's border; they bridge depth edges,
    where the result means nothing. NaN at and beside pixels whose depth is unknown or sky.

    Raises:
        ValueError: if the image has fewer than two rows or columns.
    """
    points_m = unproject(depth_m, intrinsics_px)
    down_m, right_m = np.gradient(points_m, axis=(0, 1))
    outward = np.cross(down_m, right_m)  # y cross x = -z: towards the camera
    length = np.linalg.norm(outward, axis=-1)
    # A central difference does not read its own pixel, whose depth may be unknown.
    known = np.isfinite(depth_m) & (length > 0)
    return (outward / np.where(known, length, np.nan)[..., None]).astype(np.float32)


def surface_normals(
    depth_m: Float[np.ndarray, "h w"],
    intrinsics_px: Intrinsics,
    quantum_m: float = 0.0,
    planes: Planes = "own",
) -> Float32[np.ndarray, "h w 3"]:
    """Normals of the surface that each pixel lies on, not bridging depth edges, facing the camera.

    They are the normals of planes fitted to inverse depth (`e2eft.geometry.planes`), in which a
    plane is linear at any slant: all that takes a pixel off its plane is noise. Of that, rounding
    the depth gives half a `quantum_m` to the pixel and about as much to the plane, so together
    ``quantum_m / z^2`` of inverse depth; and a surface may be curved by ``0.1 / (f z)`` there, f
    being the focal length in pixels: as much as one pixel to the next changes the inverse depth of
    a plane that is slanted by 0.1.

    Args:
        quantum_m: step in which the depth is stored, e.g. 0.01 where it is in whole centimetres.
        planes: `own`: the plane that the pixel lies on itself. `neighbours`: the one that most
            pixels around it lie on, beside a depth edge often another surface's.

    Returns:
        NaN where depth is unknown or sky, where too few neighbours agree for a plane, and, of `own`
        planes, where the pixel is off its plane by more than the noise.
    """
    known = np.isfinite(depth_m) & (depth_m > 0)
    height, width = depth_m.shape
    x, y = np.arange(width, dtype=np.float64) + 0.5, np.arange(height, dtype=np.float64) + 0.5
    y = y[:, None]
    tilt: Float64[np.ndarray, " 3"] = np.linalg.inv(intrinsics_px)[2]
    depth_per_w = tilt[0] * x + tilt[1] * y + tilt[2]
    inverse = np.where(known, depth_per_w / np.where(known, depth_m, 1), 0).astype(np.float32)
    if planes == "own":
        curving, fitted = _CURVED_SLANT / abs(intrinsics_px[0, 0]), own_planes
    else:
        curving, fitted = _NEIGHBOURS_CURVING, neighbours_planes
    noise = np.maximum(curving * inverse, quantum_m * inverse**2) + np.float32(1e-9)
    noise = np.where(known, noise, np.float32(1))
    offset, along_x, along_y = fitted(inverse, known, noise).astype(np.float64)
    constant = inverse + offset - along_x * x - along_y * y
    normals = np.stack([along_x, along_y, constant], axis=-1) @ intrinsics_px
    length = np.linalg.norm(normals, axis=-1)
    toward = (normals * pixel_rays(intrinsics_px, height, width)).sum(axis=-1)
    signed = np.copysign(np.where(known & (length > 0), length, np.nan), -toward)
    return (normals / signed[..., None]).astype(np.float32)


def normalize(vectors: Float[Tensor, "n 3 h w"], eps: float = 0.0) -> Float[Tensor, "n 3 h w"]:
    """``x / (|x| + eps)``: unit vectors.

    A zero vector becomes NaN with `eps` = 0; otherwise it stays 0 and has a finite gradient.
    """
    return vectors / (_lengths(vectors)[:, None] + eps)


def angular_error(
    prediction: Float[Tensor, "n 3 h w"], target: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, "n h w"]:
    """Angle between unit vectors, radians in [0, pi], with a finite gradient everywhere.

    ``atan2(|a x b|, a . b)``: exact where arccos has lost half its digits and has an infinite
    slope, at 0 and pi. A pair with ``|a| |b| < 1/2`` is no pair of unit vectors: it has no angle
    worth the name and gets ``pi/2 - a . b``, arccos's own tangent at a zero vector, so that the
    gradient stays bounded.
    """
    cosine = (prediction * target).sum(1)
    sine = _lengths(torch.cross(prediction, target, dim=1))
    short = cosine.square() + sine.square() < 0.25
    angle_rad = torch.atan2(sine.where(~short, 0), cosine.where(~short, 1))
    return angle_rad.where(~short, math.pi / 2 - cosine)


def _lengths(vectors: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n h w"]:
    """Euclidean norms; the gradient at 0 is 0, not NaN."""
    squared = vectors.square().sum(1)
    zero = squared == 0
    return squared.masked_fill(zero, 1).sqrt().masked_fill(zero, 0)
