"""Named protocols: what one image's scores are, and which constant a model must beat.

A protocol scores one prediction against one frame, in float64, so that the numbers depend neither
on batches nor on workers. Its name stands beside every number; numbers of two protocols are never
compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from e2eft.config import EvaluateConfig
from e2eft.data.sample import Sample
from e2eft.geometry.depth import align_scale_shift, apply_scale_shift, least_squares_depth_errors
from e2eft.geometry.direction import median_direction
from e2eft.geometry.normals import angular_error, angular_summary
from e2eft.tasks.depth import MIN_DEPTH_M
from e2eft.views.sheets import depth_panel, normals_panel


@dataclass(frozen=True)
class Metric:
    """How a number is read: its unit, which way is better, and decimals worth printing."""

    unit: str = ""
    lower_is_better: bool = True
    decimals: int = 4

    @property
    def arrow(self) -> str:
        return "↓" if self.lower_is_better else "↑"


DEPTH_METRICS = {
    "abs_rel": Metric(),
    "sq_rel": Metric("m"),
    "rmse": Metric("m", decimals=3),
    "rmse_log": Metric(),
    "log10": Metric(),
    "silog": Metric(decimals=2),
    "delta1": Metric(lower_is_better=False),
    "delta2": Metric(lower_is_better=False),
    "delta3": Metric(lower_is_better=False),
}
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


class ScoringProtocol(Protocol):
    """What `evaluate` asks of a protocol. Predictions are float `[h w]` or `[h w 3]`, as labels."""

    name: str
    task: str
    headline: str
    """The metric by which images are ranked and models promoted."""
    metrics: dict[str, Metric]
    fits_constant: bool
    """Whether the constant has to be fitted, which takes a pass over the truth."""

    @property
    def terms(self) -> str:
        """Name and parameters: what must be equal for two numbers to be comparable."""
        ...

    def scored(self, sample: Sample) -> np.ndarray:
        """bool `[h w]`: pixels whose truth takes part."""
        ...

    def errors(self, prediction: np.ndarray, sample: Sample) -> dict[str, float]:
        """Every metric of one image, over its scored pixels."""
        ...

    def evidence(self, sample: Sample, pixels: int) -> np.ndarray:
        """What one image contributes to the fit of the constant: float32 `[k 3]`, k <= `pixels`."""
        ...

    def constant(self, evidence: list[np.ndarray]) -> list[float]:
        """The constant that any model must beat, fitted to the evidence of a domain's images."""
        ...

    def spread(self, constant: list[float], sample: Sample) -> np.ndarray:
        """The constant as a prediction for one image."""
        ...

    def panel(self, prediction: np.ndarray, sample: Sample, caption: str) -> Image.Image:
        """Image, truth, prediction and error side by side."""
        ...


@dataclass(frozen=True)
class LeastSquaresDepth:
    """``least-squares-depth``: Marigold's and arXiv 2409.11355's, for affine-invariant depth.

    Each prediction is fitted to the metric depth of its own scored pixels by scale and shift, then
    clipped to the range; errors are averaged over an image's pixels, then over images.
    """

    max_depth_m: float

    name = "least-squares-depth"
    task = "depth"
    headline = "abs_rel"
    metrics = DEPTH_METRICS
    fits_constant = False

    @property
    def terms(self) -> str:
        return f"{self.name} to {self.max_depth_m:g} m"

    def scored(self, sample: Sample) -> np.ndarray:
        depth_m = sample.depth_m
        return np.isfinite(depth_m) & (depth_m > MIN_DEPTH_M) & (depth_m < self.max_depth_m)

    def errors(self, prediction: np.ndarray, sample: Sample) -> dict[str, float]:
        fitted, truth_m = _batched(prediction), _batched(sample.depth_m)
        scored = torch.from_numpy(self.scored(sample))[None]
        errors = least_squares_depth_errors(fitted, truth_m, scored, MIN_DEPTH_M, self.max_depth_m)
        return {name: float(errors[name]) for name in self.metrics}

    def evidence(self, sample: Sample, pixels: int) -> np.ndarray:
        return np.empty((0, 3), np.float32)

    def constant(self, evidence: list[np.ndarray]) -> list[float]:
        return []

    def spread(self, constant: list[float], sample: Sample) -> np.ndarray:
        """Any number does: aligned by least squares it is each image's own mean depth."""
        return np.full(sample.size, 0.5, np.float32)

    def panel(self, prediction: np.ndarray, sample: Sample, caption: str) -> Image.Image:
        scored = self.scored(sample)
        fitted, truth_m = _batched(prediction), _batched(sample.depth_m)
        scale_shift = align_scale_shift(fitted, truth_m, torch.from_numpy(scored)[None])
        aligned_m = apply_scale_shift(fitted, *scale_shift)
        aligned_m = aligned_m[0].numpy().clip(MIN_DEPTH_M, self.max_depth_m)
        with np.errstate(invalid="ignore"):
            relative = np.abs(aligned_m - sample.depth_m) / sample.depth_m
        error = np.where(scored, relative, np.nan)
        return depth_panel(sample.rgb, sample.depth_m, aligned_m, error, caption)


@dataclass(frozen=True)
class PerImageAngular:
    """``per-image-angular``: the angle between normals, averaged over each image, then over images.

    Not the protocol of DSINE's and the paper's tables, which pool the pixels of all images.
    """

    name = "per-image-angular"
    task = "normals"
    headline = "mean_deg"
    metrics = NORMALS_METRICS
    fits_constant = True

    @property
    def terms(self) -> str:
        return self.name

    def scored(self, sample: Sample) -> np.ndarray:
        return np.asarray(np.isfinite(sample.normals_cam).all(axis=-1))

    def errors(self, prediction: np.ndarray, sample: Sample) -> dict[str, float]:
        error_rad = torch.from_numpy(_angles_rad(prediction, sample.normals_cam))[None]
        summary = angular_summary(error_rad, torch.from_numpy(self.scored(sample))[None])
        return {name: float(summary[name]) for name in self.metrics}

    def evidence(self, sample: Sample, pixels: int) -> np.ndarray:
        """Normals of `pixels` scored pixels, evenly spaced in reading order: float32 `[k 3]`."""
        known = sample.normals_cam[self.scored(sample)]
        take = np.linspace(0, len(known) - 1, min(pixels, len(known))).round().astype(int)
        return known[take]

    def constant(self, evidence: list[np.ndarray]) -> list[float]:
        """The normal of least mean angle to the evidence, every image weighing the same."""
        seen = [normals for normals in evidence if len(normals)]
        if not seen:
            return [0.0, 0.0, -1.0]
        weights = np.concatenate([np.full(len(normals), 1 / len(normals)) for normals in seen])
        return median_direction(np.concatenate(seen), weights).tolist()

    def spread(self, constant: list[float], sample: Sample) -> np.ndarray:
        return np.broadcast_to(np.asarray(constant, np.float32), sample.normals_cam.shape)

    def panel(self, prediction: np.ndarray, sample: Sample, caption: str) -> Image.Image:
        error_deg = np.rad2deg(_angles_rad(prediction, sample.normals_cam))
        error_deg = np.where(self.scored(sample), error_deg, np.nan)
        return normals_panel(sample.rgb, sample.normals_cam, prediction, error_deg, caption)


def _batched(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.float64))[None]


def _angles_rad(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    pair = [_batched(normals).permute(0, 3, 1, 2) for normals in (prediction, truth)]  # [1 3 h w]
    return angular_error(pair[0], pair[1])[0].numpy()


def protocol_of(config: EvaluateConfig) -> ScoringProtocol:
    """The protocol that a configuration names, or its task's own.

    Raises:
        ValueError: if the named protocol belongs to another task.
    """
    known: dict[str, ScoringProtocol] = {
        LeastSquaresDepth.name: LeastSquaresDepth(config.max_depth_m),
        PerImageAngular.name: PerImageAngular(),
    }
    fitting = [protocol for protocol in known.values() if protocol.task == config.task]
    chosen = known[config.protocol] if config.protocol else fitting[0]
    if chosen not in fitting:
        names = " or ".join(protocol.name for protocol in fitting)
        raise ValueError(f"--protocol {chosen.name} does not score {config.task}; use {names}")
    return chosen
