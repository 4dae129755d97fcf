"""Labels as files, one at a time: what their numbers mean, and how they are written and read."""

import io

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from e2eft.images.decoder import load_picture
from e2eft.images.resize import resize_depth
from e2eft.views.colour import colour_depth, colour_normals

DEPTH_CODES = 65535
STRIP_ROWS = 64
"""Of a label that are in float64 at a time."""
COMPRESS_LEVEL = 1
"""Pillow's default of 6 takes eight times as long to save 6 %."""
MAX_PIXELS = 2**28
"""Of a label's picture; a header that says more is damaged."""
PREVIEW_SIDE_PX = 1024
PREVIEW_QUALITY = 90

CONVENTIONS: dict[str, dict[str, str]] = {
    "depth": {
        "kind": "affine_depth",
        "encoding": "linear uint16: depth = value / 65535",
        "convention": "0 near, 1 far; linear in depth (not disparity), unknown scale and shift",
        "unit": "none",
        "geometry": "planar z",
        "invalid": "none",
    },
    "normals": {
        "kind": "normals",
        "encoding": "uint8: n = value / 127.5 - 1",
        "convention": "unit vectors facing the camera",
        "axes": "right-up-viewer: x right, y up, z to the viewer",
        "npy_axes": "opencv: x right, y down, z forward",
        "unit": "none",
        "invalid": "0 0 0",
    },
}
"""What the numbers in a label mean, by task: text chunks of the PNG and part of the manifest."""


def _png(pixels: np.ndarray, text: dict[str, str]) -> bytes:
    chunks = PngInfo()
    for name, value in text.items():
        chunks.add_text(name, value)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=COMPRESS_LEVEL, pnginfo=chunks)
    return buffer.getvalue()


def _codes(content: bytes, axes: int, dtype: type) -> np.ndarray:
    codes = np.asarray(load_picture(content, MAX_PIXELS))
    if codes.dtype != dtype or not is_label_shape(codes.shape, axes):
        raise ValueError(f"a picture of {codes.dtype} {codes.shape} is no label")
    return codes


def is_label_shape(shape: tuple[int, ...], axes: int) -> bool:
    """Whether it is `[h w]`, for two axes, or `[h w 3]`."""
    return len(shape) == axes and shape[2:] in ((), (3,))


def encode_depth_png(depth: np.ndarray, text: dict[str, str]) -> bytes:
    """float32 `[h w]` in [0, 1], all finite -> 16-bit PNG, to 1/131070."""
    assert np.isfinite(depth).all()
    codes = np.empty(depth.shape, np.uint16)
    for top in range(0, len(depth), STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        codes[rows] = np.rint(np.clip(depth[rows], 0, 1).astype(np.float64) * DEPTH_CODES)
    return _png(codes, CONVENTIONS["depth"] | text)


def decode_depth_png(content: bytes) -> np.ndarray:
    """The inverse of `encode_depth_png`: float32 `[h w]`.

    Raises:
        ValueError: for another picture, or a damaged one.
    """
    return (_codes(content, 2, np.uint16) / DEPTH_CODES).astype(np.float32)


def encode_normals_png(normals_cam: np.ndarray, text: dict[str, str]) -> bytes:
    """float32 `[h w 3]` in OpenCV axes, NaN unknown -> 8-bit PNG in right-up-viewer axes.

    Rounding costs at most 0.4 degrees.
    """
    codes = np.empty(normals_cam.shape, np.uint8)
    for top in range(0, len(normals_cam), STRIP_ROWS):
        codes[top : top + STRIP_ROWS] = colour_normals(normals_cam[top : top + STRIP_ROWS])
    return _png(codes, CONVENTIONS["normals"] | text)


def decode_normals_png(content: bytes) -> np.ndarray:
    """The inverse of `encode_normals_png`: float32 `[h w 3]` in OpenCV axes, unit, NaN unknown.

    Raises:
        ValueError: for another picture, or a damaged one.
    """
    codes = _codes(content, 3, np.uint8)
    normals = (codes / 127.5 - 1) * (1.0, -1.0, -1.0)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[(codes == 0).all(axis=-1)] = np.nan
    return normals.astype(np.float32)


def encode_npy(array: np.ndarray) -> bytes:
    """An array as an .npy file, for `decode_npy`."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def encode_preview(depth: np.ndarray) -> bytes:
    """Depth in colours over its own 2 % to 98 % range, at most PREVIEW_SIDE_PX a side, as JPEG."""
    height, width = depth.shape
    shrink = min(1.0, PREVIEW_SIDE_PX / max(height, width))
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    buffer = io.BytesIO()
    picture = Image.fromarray(colour_depth(resize_depth(depth, size)))
    picture.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return buffer.getvalue()
