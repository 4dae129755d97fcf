"""Protocols for depth in unknown scale and shift: they differ in the space of the fit, in ranges
and in masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image

from e2eft.config import EvaluateConfig
from e2eft.data.sample import Sample
from e2eft.datasets import DepthRules, dataset_of
from e2eft.evaluate.protocols import alignment
from e2eft.evaluate.protocols.base import Departure, Means, Metric, images_of, with_departures
from e2eft.evaluate.protocols.means import mean_over_images
from e2eft.evaluate.protocols.windows import in_window
from e2eft.metrics.boundaries import (
    boundary_f1,
    log_fitted_soft_edge_error,
    soft_edge_error,
)
from e2eft.metrics.depth import MIN_ALIGNED_DEPTH_M, capped_inverse_rmse, depth_errors
from e2eft.targets import LINEAR, DepthTarget, LogDepth
from e2eft.tasks.depth.task import MIN_DEPTH_M
from e2eft.views.sheets import depth_panel

SEE_WINDOW_PX = 3
LOG = LogDepth(eps_m=0.0)
INVERSE_FLOOR = 1e-3
"""Of datasets without rules, `DepthRules.inverse_floor_m` as a part of the range."""
DEPTH_METRICS = {
    "abs_rel": Metric(),
    "sq_rel": Metric("m"),
    "rmse": Metric("m", decimals=3),
    "rmse_log": Metric(),
    "i_rmse": Metric("1/m"),
    "i_rmse_capped": Metric("1/m"),
    "log10": Metric(),
    "silog": Metric(decimals=2),
    "delta1": Metric(lower_is_better=False),
    "delta2": Metric(lower_is_better=False),
    "delta3": Metric(lower_is_better=False),
    "boundary_f1": Metric(lower_is_better=False),
    "see3": Metric("m", decimals=3),
}
LOG_DEPTH_METRICS = DEPTH_METRICS | {"see3_log_fit": Metric("m", decimals=3)}
"""With Marigold V2's SEE_3, which has an alignment of its own."""


@dataclass(frozen=True)
class DepthProtocol:
    """What the depth protocols have in common. The prediction is fitted to each image's own scored
    pixels; errors are averaged over an image's pixels, then over images.

    max_depth_m: range of datasets that it has no `rules` for.
    benchmarks_only: whether it has rules for all of the data, so that the range above is no part of
        its full name.
    departures: see `ScoringProtocol`.
    """

    max_depth_m: float
    benchmarks_only: bool = False
    departures: tuple[Departure, ...] = ()

    name: ClassVar[str]
    rules_like: ClassVar[str] = ""
    """The protocol whose rules hold for datasets that declare none under this one's name."""
    kinds: ClassVar[tuple[str, ...]] = ("affine_depth",)
    ratio_eps_m: ClassVar[float] = 0.0
    task: ClassVar[str] = "depth"
    is_published: ClassVar[bool] = True
    primary_metric: ClassVar[str] = "abs_rel"
    printed: ClassVar[tuple[str, ...]] = ("abs_rel", "delta1")
    upside_down: ClassVar[tuple[str, str]] = ("far is near", "disparity")
    metrics: ClassVar[dict[str, Metric]] = DEPTH_METRICS
    least_pixels: ClassVar[int] = 20
    """A fit of two numbers takes 2 / n of the squared error of n pixels: all of two, a tenth of
    20."""
    statistics: ClassVar[dict[str, type]] = {}
    fits_baseline: ClassVar[bool] = False

    @classmethod
    def of(
        cls, config: EvaluateConfig, sources: Sequence[str], departures: tuple[Departure, ...]
    ) -> Self:
        known = bool(sources) and all(cls.rules(source) for source in sources)
        return cls(config.max_depth_m, known, departures)

    @classmethod
    def rules(cls, source: str) -> DepthRules | None:
        declared = dataset_of(source).rules
        rules = declared.get(cls.name) or declared.get(cls.rules_like)
        return rules if isinstance(rules, DepthRules) else None

    @property
    def full_name(self) -> str:
        named = self.name if self.benchmarks_only else f"{self.name} to {self.max_depth_m:g} m"
        return with_departures(named, self.departures)

    def rules_of(self, source: str) -> DepthRules:
        """A benchmark's rules, or those of any other dataset."""
        return self.rules(source) or DepthRules(
            min_depth_m=MIN_DEPTH_M,
            max_depth_m=self.max_depth_m,
            processing_px=None,
            inverse_floor_m=INVERSE_FLOOR * self.max_depth_m,
        )

    def remark(self, source: str) -> str:
        return self.rules_of(source).remark

    def expected(self, source: str) -> int | None:
        return images_of(source, self.rules(source))

    def processing_px(self, source: str) -> int | None:
        return self.rules_of(source).processing_px

    def view(self, sample: Sample) -> Sample:
        rules = self.rules_of(sample.source)
        in_window(rules.window, sample)
        if rules.sobel_limit_m is not None:
            sample = replace(sample, depth_m=_without_edges(sample.depth_m, rules.sobel_limit_m))
        if rules.scored_size is None or rules.scored_size == sample.size:
            return sample
        return _nearest(sample, rules.scored_size)

    def truth(self, sample: Sample) -> np.ndarray:
        return sample.depth_m

    def scored(self, sample: Sample) -> np.ndarray:
        rules, depth_m = self.rules_of(sample.source), sample.depth_m
        known = np.isfinite(depth_m) & (depth_m > 0) & in_window(rules.window, sample)
        if rules.range_masks:
            known &= (depth_m > rules.min_depth_m) & (depth_m < rules.max_depth_m)
        return known

    def fitted(self, prediction: np.ndarray, sample: Sample) -> np.ndarray:
        """bool `[h w]`: scored pixels that take part in the fit (of large images, some columns)."""
        return self.scored(sample)

    def why_not(self, prediction: np.ndarray, sample: Sample) -> str:
        return ""

    def is_inverted(self, prediction: np.ndarray, sample: Sample) -> bool:
        """By the sign of least squares, whatever the fit: RANSAC's own has no other."""
        fitted = self.fitted(prediction, sample)
        predicted = prediction[fitted].astype(np.float64)
        truth = self.space(sample.depth_m[fitted].astype(np.float64))
        return bool((predicted - predicted.mean()) @ (truth - truth.mean()) < 0)

    def reading(self, target: DepthTarget) -> Self:
        return self

    def space(self, depth_m: np.ndarray) -> np.ndarray:
        """What the prediction is fitted to: depth, or another function of it."""
        return depth_m

    def aligned(self, prediction: np.ndarray, sample: Sample) -> np.ndarray:
        """float64 `[h w]` metres as they are scored."""
        raise NotImplementedError

    def errors(self, prediction: np.ndarray, sample: Sample) -> dict[str, Any]:
        scored, aligned_m = self.scored(sample), self.aligned(prediction, sample)
        truth_m = sample.depth_m.astype(np.float64)
        batch = [torch.from_numpy(array)[None] for array in (aligned_m, truth_m, scored)]
        found = {
            name: float(value)
            for name, value in depth_errors(*batch, ratio_eps_m=self.ratio_eps_m).items()
        }
        rules = self.rules_of(sample.source)
        if rules.inverse_floor_m is not None:
            capped = capped_inverse_rmse(*batch, floor_m=rules.inverse_floor_m)
            found["i_rmse_capped"] = float(capped)
            del found["i_rmse"]
        if dataset_of(sample.source).dense:
            found |= self.edge_errors(prediction, aligned_m, sample)
        return {name: found.get(name, float("nan")) for name in self.metrics}

    def edge_errors(
        self, prediction: np.ndarray, aligned_m: np.ndarray, sample: Sample
    ) -> dict[str, float]:
        """What is measured where the truth is dense."""
        truth_m, scored = sample.depth_m.astype(np.float64), self.scored(sample)
        return {
            "boundary_f1": boundary_f1(aligned_m, truth_m, scored),
            "see3": soft_edge_error(aligned_m, truth_m, scored, SEE_WINDOW_PX),
        }

    def summarize(self, rows: list[dict[str, Any]], prefix: str, resamples: int) -> Means:
        return mean_over_images(rows, self.metrics, prefix, resamples)

    def sampled_pixels(self, sample: Sample, count: int) -> np.ndarray:
        return np.empty((0, 3), np.float32)

    def fit_baseline(self, pixels: list[np.ndarray]) -> list[float]:
        return []

    def baseline_prediction(self, baseline: list[float], sample: Sample) -> np.ndarray:
        """Any number does: aligned, it is each image's own mean, in the space of the fit."""
        return np.full(sample.size, 0.5, np.float32)

    def panel(self, prediction: np.ndarray, sample: Sample, caption: str) -> Image.Image:
        aligned_m = self.aligned(prediction, sample)
        with np.errstate(invalid="ignore"):
            relative = np.abs(aligned_m - sample.depth_m) / sample.depth_m
        error = np.where(self.scored(sample), relative, np.nan)
        return depth_panel(sample.rgb, sample.depth_m, aligned_m, error, caption)


class LeastSquaresProtocol(DepthProtocol):
    """Scale and shift by least squares in some space, then the clip to the dataset's range."""

    fit: ClassVar[Callable[..., np.ndarray]]
    """(prediction, truth, scored, columns) to metres; see `alignment`."""

    def in_metres(
        self, prediction: np.ndarray, target_m: np.ndarray, scored: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        """float64 `[h w]` metres before the clip."""
        return type(self).fit(prediction, target_m, scored, columns)

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
    fit = staticmethod(alignment.by_least_squares)


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
    fit = staticmethod(alignment.by_disparity)

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


class LeastSquaresLogDepth(LeastSquaresProtocol):
    """``least-squares-log-depth``: fitted to the logarithm of depth, as models of log depth are
    meant; otherwise as `LeastSquaresDepth`."""

    name = "least-squares-log-depth"
    rules_like = LeastSquaresDepth.name
    kinds = ("affine_log_depth",)
    is_published = False

    def space(self, depth_m: np.ndarray) -> np.ndarray:
        return LOG.of_depth(depth_m)

    def in_metres(
        self, prediction: np.ndarray, target_m: np.ndarray, scored: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        return alignment.in_space(LOG, prediction, target_m, scored, columns)


@dataclass(frozen=True)
class LeastSquaresOwnSpace(LeastSquaresProtocol):
    """``least-squares-own-space``: fitted to what the labels say that they are affine in, whatever
    that is; otherwise as `LeastSquaresDepth`. So models of different targets are each scored in the
    space in which they were trained: part of what a target gains in other protocols is their fit.
    """

    target: DepthTarget = LINEAR

    name: ClassVar[str] = "least-squares-own-space"
    rules_like: ClassVar[str] = LeastSquaresDepth.name
    kinds: ClassVar[tuple[str, ...]] = (
        "affine_depth", "affine_log_depth", "affine_shifted_log_depth", "affine_disparity",
        "affine_sqrt_disparity",
    )  # fmt: skip
    is_published: ClassVar[bool] = False

    def reading(self, target: DepthTarget) -> Self:
        return replace(self, target=target)

    def space(self, depth_m: np.ndarray) -> np.ndarray:
        return self.target.of_depth(depth_m)

    def in_metres(
        self, prediction: np.ndarray, target_m: np.ndarray, scored: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        return alignment.in_space(self.target, prediction, target_m, scored, columns)


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


def _without_edges(depth_m: np.ndarray, limit_m: float) -> np.ndarray:
    """Depth with NaN where |dx| + |dy| of Sobel's filters exceeds the limit.

    Unknown depth counts as 0, so what borders on it is an edge. (The reference code filters what
    DIODE's files hold under their masks, which is not kept.)
    """
    from scipy import ndimage

    filled = np.where(np.isfinite(depth_m), depth_m, 0).astype(np.float64)
    steepness = sum(np.abs(ndimage.sobel(filled, axis)) for axis in (0, 1))
    return np.where(steepness > limit_m, np.float32(np.nan), depth_m)


def _nearest(sample: Sample, size: tuple[int, int]) -> Sample:
    """Depth, normals and colour of the source pixel in which each target pixel's upper left corner
    lies, which is what PyTorch calls nearest. (OpenCV's rounds: of 1360 rows from ETH3D's 4032, 15
    are those above.) Its camera is not moved along."""
    rows, columns = (
        np.arange(target) * source // target
        for target, source in zip(size, sample.size, strict=True)
    )
    cut = np.ix_(rows, columns)
    return replace(
        sample,
        rgb=sample.rgb[cut],
        depth_m=sample.depth_m[cut],
        normals_cam=sample.normals_cam[cut],
    )
