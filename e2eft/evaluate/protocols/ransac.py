"""Depth fitted by RANSAC."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from e2eft.data.sample import Sample
from e2eft.evaluate.protocols import alignment
from e2eft.evaluate.protocols.base import Metric
from e2eft.evaluate.protocols.depth import DEPTH_METRICS, SEE_WINDOW_PX, DepthProtocol
from e2eft.metrics.boundaries import log_fitted_soft_edge_error

LOG_DEPTH_METRICS = DEPTH_METRICS | {"see3_log_fit": Metric("m", decimals=3)}
"""With Marigold V2's SEE_3, which has an alignment of its own."""


class RansacLogDepth(DepthProtocol):
    """``ransac-log-depth``: Pixel-Perfect Depth's (its code at 427a86f, but seeded).

    Scale and shift by RANSAC to ln(depth + 1), whether the prediction is affine in that or in
    depth; clipped to the image's own largest true depth. DIODE without its depth edges, which
    include all that borders on unknown depth; ETH3D at 2048 x 1360, and seen by a model at a
    longest side of 1088 pixels.

    Marigold V2's is another, though its paper calls it this one: NYUv2 inside Eigen's window, ETH3D
    seen at 1008 x 672 and brought to 2048 x 1360 by nearest neighbour, another seed. What was
    published under it is `ransac-log-depth-marigold-v2` in `published.toml`; nothing here scores by
    it.
    """

    name = "ransac-log-depth"
    kinds = ("affine_depth", "affine_log_depth")
    metrics: ClassVar[dict[str, Metric]] = LOG_DEPTH_METRICS
    ratio_eps_m = 1e-5

    def space(self, depth_m: np.ndarray) -> np.ndarray:
        return np.log1p(depth_m)

    def aligned(self, prediction: np.ndarray, sample: Sample) -> np.ndarray:
        scored = self.scored(sample)
        return alignment.by_ransac_in_log_depth(prediction, sample.depth_m, scored)

    def edge_errors(
        self, prediction: np.ndarray, aligned_m: np.ndarray, sample: Sample
    ) -> dict[str, float]:
        rules, truth_m = self.rules_of(sample.source), sample.depth_m.astype(np.float64)
        range_m = rules.min_depth_m, rules.max_depth_m
        see = log_fitted_soft_edge_error(
            prediction, truth_m, self.scored(sample), SEE_WINDOW_PX, range_m
        )
        return super().edge_errors(prediction, aligned_m, sample) | {"see3_log_fit": see}
