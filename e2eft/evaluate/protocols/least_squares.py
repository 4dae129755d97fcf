"""Depth fitted by least squares: the protocols differ in the space of the fit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from e2eft.data.sample import Sample
from e2eft.datasets import DepthRules
from e2eft.evaluate.protocols import alignment
from e2eft.evaluate.protocols.depth import DepthProtocol
from e2eft.metrics.depth import MIN_ALIGNED_DEPTH_M
from e2eft.targets import LINEAR, DepthTarget, LogDepth

LOG = LogDepth(eps_m=0.0)


class LeastSquaresProtocol(DepthProtocol):
    """Scale and shift by least squares in some space, then the clip to the dataset's range."""

    def in_metres(
        self, prediction: np.ndarray, target_m: np.ndarray, scored: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        """float64 `[h w]` metres before the clip; see `alignment`."""
        raise NotImplementedError

    def aligned(self, prediction: np.ndarray, sample: Sample) -> np.ndarray:
        rules = self.rules_of(sample.source)
        columns = alignment.fit_columns(sample.size, rules.fit_longest_px)
        depth_m = self.in_metres(prediction, sample.depth_m, self.scored(sample), columns)
        clipped = np.clip(depth_m, rules.min_depth_m, rules.max_depth_m)
        return np.maximum(clipped, MIN_ALIGNED_DEPTH_M)


class LeastSquaresDepth(LeastSquaresProtocol):
    """``least-squares-depth``: Marigold's, GeoWizard's and arXiv 2409.11355's; fitted to metric
    *depth*."""

    name = "least-squares-depth"

    def in_metres(
        self, prediction: np.ndarray, target_m: np.ndarray, scored: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        return alignment.by_least_squares(prediction, target_m, scored, columns)


class LapisLeastSquaresDepth(LeastSquaresDepth):
    """``least-squares-depth-lapis``: Lapis's (arXiv 2608.30129, appendix B.1), Marigold's but for
    ETH3D at 2048 x 1360 and DIODE without its depth edges; each model sees images at its own size.
    """

    name = "least-squares-depth-lapis"
    rules_like = LeastSquaresDepth.name
    unlike: ClassVar[dict[str, dict[str, Any]]] = {
        "eth3d": {
            "scored_size": (1360, 2048),
            "remark": "the published code's way to 2048 x 1360 is not known; here it is the "
            "nearest pixel",
        },
        "diode": {
            "sobel_limit_m": 0.3,
            "remark": "unknown depth counts as 0 in the filter that drops depth edges; what the "
            "published code filters there is not known",
        },
    }
    """What its rules for a dataset say otherwise than Marigold's."""

    @classmethod
    def rules(cls, source: str) -> DepthRules | None:
        rules = super().rules(source)
        return rules and replace(rules, processing_px=None, **cls.unlike.get(source, {}))


class LeastSquaresDisparity(LeastSquaresProtocol):
    """``least-squares-disparity``: that of Lotus's disparity models and of Depth Anything; fitted
    to 1 / depth, and inverted.

    Scores labels that are affine in disparity only: fitted to disparity, depth would come out
    upside down.
    """

    name = "least-squares-disparity"
    rules_like = LeastSquaresDepth.name
    kinds = ("affine_disparity",)
    upside_down = ("near is far", "depth")

    def in_metres(
        self, prediction: np.ndarray, target_m: np.ndarray, scored: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        return alignment.by_disparity(prediction, target_m, scored, columns)

    def space(self, depth_m: np.ndarray) -> np.ndarray:
        return 1 / depth_m

    def fitted(self, prediction: np.ndarray, sample: Sample) -> np.ndarray:
        return self.scored(sample) & (prediction > 0)

    def why_not(self, prediction: np.ndarray, sample: Sample) -> str:
        values = prediction[self.fitted(prediction, sample)]
        scored = int(self.scored(sample).sum())
        if len(values) < self.least_pixels:
            return (
                f"{len(values)} of {scored} scored pixels are positive, to which alone disparity "
                f"is fitted; a fit needs {self.least_pixels}"
            )
        if values.min() == values.max():
            return f"every scored pixel that is positive is {values[0]:g}"
        return ""


@dataclass(frozen=True)
class LeastSquaresInSpace(LeastSquaresProtocol):
    """Fitted to a target's values, and brought to metres by its inverse."""

    target: DepthTarget = LINEAR

    rules_like: ClassVar[str] = LeastSquaresDepth.name
    is_published: ClassVar[bool] = False

    def space(self, depth_m: np.ndarray) -> np.ndarray:
        return self.target.of_depth(depth_m)

    def in_metres(
        self, prediction: np.ndarray, target_m: np.ndarray, scored: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        return alignment.in_space(self.target, prediction, target_m, scored, columns)


@dataclass(frozen=True)
class LeastSquaresLogDepth(LeastSquaresInSpace):
    """``least-squares-log-depth``: fitted to the logarithm of depth, as models of log depth are
    meant; otherwise as `LeastSquaresDepth`."""

    target: DepthTarget = LOG

    name: ClassVar[str] = "least-squares-log-depth"
    kinds: ClassVar[tuple[str, ...]] = ("affine_log_depth",)


class LeastSquaresOwnSpace(LeastSquaresInSpace):
    """``least-squares-own-space``: fitted to what the labels say that they are affine in, whatever
    that is; otherwise as `LeastSquaresDepth`. So models of different targets are each scored in the
    space in which they were trained: part of what a target gains in other protocols is their fit.
    """

    name = "least-squares-own-space"
    kinds = (
        "affine_depth", "affine_log_depth", "affine_shifted_log_depth", "affine_disparity",
        "affine_sqrt_disparity",
    )  # fmt: skip

    def reading(self, target: DepthTarget) -> Self:
        return replace(self, target=target)
