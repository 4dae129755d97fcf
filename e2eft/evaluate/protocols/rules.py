"""What the protocols say of each benchmark: ranges, windows, sizes, numbers of images.

Read off the protocols' own code: Marigold's and arXiv 2409.11355's for `least-squares-depth`,
Lotus's for `least-squares-disparity`, Pixel-Perfect Depth's for `ransac-log-depth`, DSINE's for
`pooled-pixels`, Marigold v1-1's for `per-image-mean`. Datasets are named as `Sample.source` is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from e2eft.data.sample import Sample
from e2eft.datasets.pixels import BENCHMARK_SIZE
from e2eft.errors import E2eftError
from e2eft.evaluate.protocols.base import NATIVE

Window = Literal["nyu-eigen", "kitti-eigen"]
NYU_SIZE = (480, 640)
NYU_WINDOW = np.s_[45:471, 41:601]
KITTI_ROWS, KITTI_COLUMNS = (0.3324324, 0.91351351), (0.0359477, 0.96405229)
"""Eigen's window as fractions of the benchmark crop."""


@dataclass(frozen=True, kw_only=True)
class DepthRules:
    """One dataset under one depth protocol.

    images: of the whole dataset.
    min_depth_m, max_depth_m: truth outside is not scored (see `range_masks`), and aligned
        predictions are clipped to it.
    range_masks: False if the dataset's own mask alone decides what is scored.
    window: part of the image that is scored.
    fit_longest_px: the fit uses fewer pixels of larger images (see `fit_columns`).
    processing_px: longest side at which a model sees the images; `NATIVE`: their own size; None:
        the model's own.
    scored_size: (height, width) at which the truth, taken from the nearest pixel, is scored.
    sobel_limit_m: pixels where |dx| + |dy| of Sobel's 3 x 3 filters exceeds this are not scored;
        unknown depth counts as 0 in them.
    dense: whether every pixel is measured, so that edges can be judged.
    inverse_floor_m: depth below this counts as this in `i_rmse_capped`, which takes the place of
        `i_rmse`; None: as published.
    remark: how the scores differ from what the published code computes.
    """

    images: int | None = None
    min_depth_m: float
    max_depth_m: float
    range_masks: bool = True
    window: Window | None = None
    fit_longest_px: int | None = None
    processing_px: int | None = NATIVE
    scored_size: tuple[int, int] | None = None
    sobel_limit_m: float | None = None
    dense: bool = False
    inverse_floor_m: float | None = None
    remark: str = ""


LEAST_SQUARES_DEPTH = {
    "nyuv2": DepthRules(images=654, min_depth_m=1e-3, max_depth_m=10, window="nyu-eigen"),
    "kitti-eigen": DepthRules(images=652, min_depth_m=1e-5, max_depth_m=80, window="kitti-eigen"),
    "eth3d": DepthRules(
        images=454, min_depth_m=1e-5, max_depth_m=np.inf, fit_longest_px=1024, processing_px=756
    ),
    "scannet": DepthRules(images=800, min_depth_m=1e-3, max_depth_m=10),
    "diode": DepthRules(
        images=771, min_depth_m=0.6, max_depth_m=350, range_masks=False, processing_px=640
    ),
}
LEAST_SQUARES_DISPARITY = LEAST_SQUARES_DEPTH | {
    "eth3d": replace(LEAST_SQUARES_DEPTH["eth3d"], processing_px=768)
}
RANSAC_LOG_DEPTH = {
    "nyuv2": DepthRules(images=654, min_depth_m=0.1, max_depth_m=10),
    "kitti-eigen": DepthRules(images=652, min_depth_m=0.1, max_depth_m=80, window="kitti-eigen"),
    "eth3d": DepthRules(
        images=454,
        min_depth_m=0.01,
        max_depth_m=np.inf,
        processing_px=1088,  # Of 2048 x 1360, what Pixel-Perfect Depth's area of 1024 x 768 makes.
        scored_size=(1360, 2048),
    ),
    "scannet": DepthRules(images=800, min_depth_m=0.01, max_depth_m=10),
    "diode": DepthRules(
        images=771,
        min_depth_m=0.6,
        max_depth_m=350,
        sobel_limit_m=0.3,
        remark="unknown depth counts as 0 in the filter that drops depth edges; the published "
        "code filters what DIODE's files hold under their masks, which shards do not keep",
    ),
}
DENSE_SOURCES = ("hypersim", "virtual-kitti-2", "sintel", "ibims-1")
"""Besides rendered scenes: truth without holes at edges."""
INVERSE_FLOOR = 1e-3
"""Of other datasets, `inverse_floor_m` as a part of the range."""
SCORED_AS: dict[str, dict[str, tuple[Any, str]]] = {
    "nyuv2": {"depth": ("raw", "with filled-in depth")},
    "kitti-eigen": {"benchmark_crop": (True, "without the benchmark crop")},
}
"""Of a benchmark's source: settings that published scores are of, and what others make of it."""
FRAME_SIZES = {
    "nyuv2": NYU_SIZE,
    "kitti-eigen": BENCHMARK_SIZE,
    "eth3d": (4032, 6048),
    "scannet": (480, 640),
    "diode": (768, 1024),
    "nyuv2-normals": NYU_SIZE,
    "scannet-normals": (480, 640),
    "ibims-1-normals": (480, 640),
    "sintel-normals": (436, 1024),
}
"""(height, width) of every frame of a benchmark, KITTI's after its crop. OASIS's photographs are of
many sizes, all of which are taken."""


@dataclass(frozen=True, kw_only=True)
class NormalsRules:
    """One dataset under one normals protocol; the fields are those of `DepthRules`."""

    images: int | None = None
    processing_px: int | None = None


POOLED_PIXELS = {
    "nyuv2-normals": NormalsRules(images=654, processing_px=NATIVE),
    "scannet-normals": NormalsRules(images=300, processing_px=NATIVE),
    "ibims-1-normals": NormalsRules(images=100, processing_px=NATIVE),
    "sintel-normals": NormalsRules(images=1064, processing_px=NATIVE),
    "oasis-normals": NormalsRules(images=10_000, processing_px=NATIVE),
}
PER_IMAGE_MEAN = {
    "nyuv2-normals": NormalsRules(images=654, processing_px=640),
    "scannet-normals": NormalsRules(images=300, processing_px=640),
    "ibims-1-normals": NormalsRules(images=100, processing_px=640),
    "oasis-normals": NormalsRules(images=9_999, processing_px=768),
}


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
