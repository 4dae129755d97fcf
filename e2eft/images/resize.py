"""Between an image's own size, which is its label's too, and the size at which a model sees it.

Bilinear with a support that grows when shrinking (Pillow's; the same as an antialiased bilinear
interpolation in PyTorch), so nothing aliases.
"""

import numpy as np
from PIL import Image

STRIP_ROWS = 64
"""Of normals that are worked on at a time, so that a large map needs little more than itself."""
_BILINEAR = Image.Resampling.BILINEAR


def fitted_size(height: int, width: int, longest_px: int | None) -> tuple[int, int]:
    """(height, width) with the longer side at `longest_px`, be it more or less than now.

    The aspect ratio is kept to the pixel; None keeps the size.
    """
    if longest_px is None:
        return height, width
    scale = longest_px / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_rgb(rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 `[h w 3]` at (height, width)."""
    if rgb.shape[:2] == size:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((size[1], size[0]), _BILINEAR))


def resize_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 `[h w]`, all finite, at (height, width)."""
    if depth.shape == size:
        return depth
    return np.asarray(Image.fromarray(depth).resize((size[1], size[0]), _BILINEAR))


def resize_normals(normals_cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """float32 `[h w 3]` unit vectors at (height, width), made unit again.

    NaN counts for nothing, and stays where there is nothing else.
    """
    if normals_cam.shape[:2] == size:
        return normals_cam
    known = np.nan_to_num(normals_cam)
    resized = np.empty((*size, 3), np.float32)
    for axis in range(3):
        resized[..., axis] = resize_depth(np.ascontiguousarray(known[..., axis]), size)
    for top in range(0, size[0], STRIP_ROWS):
        rows = resized[top : top + STRIP_ROWS]
        length = np.linalg.norm(rows, axis=-1, keepdims=True)
        rows[...] = np.where(length > 1e-6, rows / np.maximum(length, 1e-6), np.float32(np.nan))
    return resized
