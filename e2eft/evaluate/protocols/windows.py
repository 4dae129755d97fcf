"""Parts of an image that alone are scored, by the names that `DepthRules.window` has for them."""

from __future__ import annotations

import numpy as np

from e2eft.data.sample import Sample
from e2eft.datasets.base import Window
from e2eft.datasets.nyuv2 import FRAME_SIZE as NYU_SIZE
from e2eft.errors import E2eftError

NYU_WINDOW = np.s_[45:471, 41:601]
KITTI_ROWS, KITTI_COLUMNS = (0.3324324, 0.91351351), (0.0359477, 0.96405229)
"""Eigen's window as fractions of the benchmark crop."""


class UnfitFrameError(E2eftError):
    """A frame that cannot be of the dataset that it says it is of."""


def in_window(window: Window | None, sample: Sample) -> np.ndarray:
    """bool `[h w]`: the part of the image that is scored.

    Raises:
        UnfitFrameError: if the image is not of the size that the window is meant for.
    """
    height, width = sample.size
    if window is None:
        return np.ones((height, width), bool)
    mask = np.zeros((height, width), bool)
    if window == "nyu-eigen":
        if sample.size != NYU_SIZE:
            raise UnfitFrameError(
                f"{sample.key} has {width} x {height} pixels; NYUv2's window is for "
                f"{NYU_SIZE[1]} x {NYU_SIZE[0]}"
            )
        mask[NYU_WINDOW] = True
        return mask
    rows = slice(*(int(fraction * height) for fraction in KITTI_ROWS))
    columns = slice(*(int(fraction * width) for fraction in KITTI_COLUMNS))
    mask[rows, columns] = True
    return mask
