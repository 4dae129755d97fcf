"""Protocols for surface normals: the angle between prediction and truth, averaged in two ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image

from e2eft.config import EvaluateConfig
from e2eft.data.sample import Sample
from e2eft.datasets import NormalsRules, dataset_of
from e2eft.evaluate.protocols.base import Departure, Means, Metric, images_of, with_departures
from e2eft.evaluate.protocols.means import mean_over_images
from e2eft.evaluate.protocols.pooling import angle_histogram, pooled_over_pixels
from e2eft.geometry.direction import median_direction
from e2eft.geometry.normals import angular_error
from e2eft.metrics.normals import angular_summary
from e2eft.targets import DepthTarget
from e2eft.views.sheets import normals_panel

NORMALS_METRICS = {
    "mean_deg": Metric("°", decimals=2),
    "median_deg": Metric("°", decimals=2),
    "rmse_deg": Metric("°", decimals=2),
    "pct_5": Metric("%", lower_is_better=False, decimals=2),
    "pct_7_5": Metric("%", lower_is_better=False, decimals=2),
    "pct_11_25": Metric("%", lower_is_better=False, decimals=2),
    "pct_22_5": Metric("%", lower_is_better=False, decimals=2),
    "pct_30": Metric("%", lower_is_better=False, decimals=2),
}


@dataclass(frozen=True)
class NormalsProtocol:
    """What the normals protocols have in common: the angle, over all pixels with a true normal.

    departures: see `ScoringProtocol`.
    """

    departures: tuple[Departure, ...] = ()

    name: ClassVar[str]
    kinds: ClassVar[tuple[str, ...]] = ("normals",)
    task: ClassVar[str] = "normals"
    is_published: ClassVar[bool] = True
    primary_metric: ClassVar[str] = "mean_deg"
    printed: ClassVar[tuple[str, ...]] = ("mean_deg", "pct_11_25")
    upside_down: ClassVar[tuple[str, str]] = ("", "")
    metrics: ClassVar[dict[str, Metric]] = NORMALS_METRICS
    least_pixels: ClassVar[int] = 1
    statistics: ClassVar[dict[str, type]] = {}
    fits_baseline: ClassVar[bool] = True

    @classmethod
    def of(
        cls, config: EvaluateConfig, sources: Sequence[str], departures: tuple[Departure, ...]
    ) -> Self:
        return cls(departures)

    def reading(self, target: DepthTarget) -> Self:
        return self

    @classmethod
    def rules(cls, source: str) -> NormalsRules | None:
        rules = dataset_of(source).rules.get(cls.name)
        return rules if isinstance(rules, NormalsRules) else None

    @property
    def full_name(self) -> str:
        return with_departures(self.name, self.departures)

    def remark(self, source: str) -> str:
        return ""

    def expected(self, source: str) -> int | None:
        return images_of(source, self.rules(source))

    def processing_px(self, source: str) -> int | None:
        rules = self.rules(source)
        return None if rules is None else rules.processing_px

    def view(self, sample: Sample) -> Sample:
        return sample

    def truth(self, sample: Sample) -> np.ndarray:
        return sample.normals_cam

    def scored(self, sample: Sample) -> np.ndarray:
        return np.asarray(np.isfinite(sample.normals_cam).all(axis=-1))

    def why_not(self, prediction: np.ndarray, sample: Sample) -> str:
        return ""

    def is_inverted(self, prediction: np.ndarray, sample: Sample) -> bool:
        return False

    def errors(self, prediction: np.ndarray, sample: Sample) -> dict[str, Any]:
        error_rad = torch.from_numpy(_angles_rad(prediction, sample.normals_cam))[None]
        summary = angular_summary(error_rad, torch.from_numpy(self.scored(sample))[None])
        return {name: float(summary[name]) for name in self.metrics}

    def summarize(self, rows: list[dict[str, Any]], prefix: str, resamples: int) -> Means:
        return mean_over_images(rows, self.metrics, prefix, resamples)

    def sampled_pixels(self, sample: Sample, count: int) -> np.ndarray:
        """Normals of `count` scored pixels, evenly spaced in reading order: float32 `[k 3]`."""
        known = sample.normals_cam[self.scored(sample)]
        take = np.linspace(0, len(known) - 1, min(count, len(known))).round().astype(int)
        return known[take]

    def fit_baseline(self, pixels: list[np.ndarray]) -> list[float]:
        """The normal of least mean angle to the pixels, every image weighing the same."""
        seen = [normals for normals in pixels if len(normals)]
        if not seen:
            return [0.0, 0.0, -1.0]
        weights = np.concatenate([np.full(len(normals), 1 / len(normals)) for normals in seen])
        return median_direction(np.concatenate(seen), weights).tolist()

    def baseline_prediction(self, baseline: list[float], sample: Sample) -> np.ndarray:
        return np.broadcast_to(np.asarray(baseline, np.float32), sample.normals_cam.shape)

    def panel(self, prediction: np.ndarray, sample: Sample, caption: str) -> Image.Image:
        error_deg = np.rad2deg(_angles_rad(prediction, sample.normals_cam))
        error_deg = np.where(self.scored(sample), error_deg, np.nan)
        return normals_panel(sample.rgb, sample.normals_cam, prediction, error_deg, caption)


class PerImageMean(NormalsProtocol):
    """``per-image-mean``: Marigold v1-1's; averaged over each image, then over images."""

    name = "per-image-mean"


class PooledPixels(NormalsProtocol):
    """``pooled-pixels``: DSINE's and arXiv 2409.11355's; over the pixels of all images at once.

    Every image's row keeps a histogram of its angles, so that the median of any set of images
    follows from the table (see `pooling`).
    """

    name = "pooled-pixels"
    statistics: ClassVar[dict[str, type]] = {"histogram": bytes}

    def errors(self, prediction: np.ndarray, sample: Sample) -> dict[str, Any]:
        angles_rad = _angles_rad(prediction, sample.normals_cam)[self.scored(sample)]
        histogram = angle_histogram(np.rad2deg(angles_rad))
        return super().errors(prediction, sample) | {"histogram": histogram}

    def summarize(self, rows: list[dict[str, Any]], prefix: str, resamples: int) -> Means:
        return pooled_over_pixels(rows, self.metrics, prefix, resamples)


def _angles_rad(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    pair = [
        torch.from_numpy(normals.astype(np.float64))[None].permute(0, 3, 1, 2)  # [1 3 h w]
        for normals in (prediction, truth)
    ]
    return angular_error(pair[0], pair[1])[0].numpy()
