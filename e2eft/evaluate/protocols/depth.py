"""What protocols for depth in unknown scale and shift have in common: ranges, masks, errors. They
differ in the fit: `least_squares`, `ransac`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image

from e2eft.config import EvaluateConfig
from e2eft.data.sample import Sample
from e2eft.datasets import DepthRules, dataset_of
from e2eft.evaluate.protocols.base import Departure, Means, Metric, images_of, with_departures
from e2eft.evaluate.protocols.means import mean_over_images
from e2eft.evaluate.protocols.windows import in_window
from e2eft.metrics.boundaries import boundary_f1, soft_edge_error
from e2eft.metrics.depth import capped_inverse_rmse, depth_errors
from e2eft.targets import DepthTarget
from e2eft.tasks.depth.task import MIN_DEPTH_M
from e2eft.views.sheets import depth_panel

SEE_WINDOW_PX = 3
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
