"""What a protocol is: a named way from a prediction and a frame to numbers.

A protocol scores one prediction against one frame, in float64, so that the numbers depend neither
on batches nor on workers. Its name stands beside every number; numbers of two protocols are never
compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from PIL import Image

from e2eft.config import EvaluateConfig
from e2eft.data.sample import Sample
from e2eft.datasets import DepthRules, NormalsRules, dataset_of
from e2eft.targets import DepthTarget


@dataclass(frozen=True)
class Metric:
    """How a number is read: its unit, which way is better, and decimals worth printing."""

    unit: str = ""
    lower_is_better: bool = True
    decimals: int = 4

    @property
    def arrow(self) -> str:
        return "↓" if self.lower_is_better else "↑"

    def written(self, value: float, *, unit: bool = True) -> str:
        """The number as it is printed, with its unit: 0.338 1/m, 35.06°."""
        space = "" if self.unit in ("", "°", "%") else " "
        return f"{value:.{self.decimals}f}" + (f"{space}{self.unit}" if unit else "")


@dataclass(frozen=True)
class Departure:
    """A benchmark whose data are prepared otherwise than for published scores, and how."""

    source: str
    how: str

    def __str__(self) -> str:
        return f"{self.source} {self.how}"


def with_departures(name: str, departures: tuple[Departure, ...]) -> str:
    """A protocol's name with what the data depart from."""
    return f"{name} ({', '.join(map(str, departures))})" if departures else name


def images_of(source: str, rules: DepthRules | NormalsRules | None) -> int | None:
    """Images of a whole dataset, as a protocol with these rules for it counts them; None without
    rules."""
    return None if rules is None else rules.images or dataset_of(source).images


Means = dict[str, dict[str, float]]
"""By metric: `mean`, `low`, `high` (its 95 % bootstrap interval; one image has none), `images` (on
which it is defined) and `constant` (the mean that the constant baseline has)."""


class ScoringProtocol(Protocol):
    """What `evaluate` asks of a protocol. Predictions are float `[h w]` or `[h w 3]`, as labels."""

    name: ClassVar[str]
    task: ClassVar[str]
    primary_metric: ClassVar[str]
    """The metric by which images are ranked and models promoted."""
    metrics: ClassVar[dict[str, Metric]]
    printed: ClassVar[tuple[str, ...]]
    """What papers print."""
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of label that it can score."""
    upside_down: ClassVar[tuple[str, str]]
    """What `is_inverted` says of an image, and the --labels-kind that such predictions may be."""
    is_published: ClassVar[bool]
    """Whether there are published scores under it; else it is for comparing models of one's own."""
    least_pixels: ClassVar[int]
    """An image with fewer scored pixels gets no score."""
    statistics: ClassVar[dict[str, type]]
    """Further columns of the table, from which `summarize` makes means; bytes or float."""
    fits_baseline: ClassVar[bool]
    """Whether the constant baseline has to be fitted, which takes a pass over the truth."""

    @classmethod
    def of(
        cls, config: EvaluateConfig, sources: Sequence[str], departures: tuple[Departure, ...]
    ) -> Self:
        """The protocol as a configuration has it, on the data of these datasets.

        Args:
            sources: as `Sample.source` calls them.
        """
        ...

    @classmethod
    def rules(cls, source: str) -> DepthRules | NormalsRules | None:
        """What the protocol says of a dataset, if it does."""
        ...

    def reading(self, target: DepthTarget) -> Self:
        """The same for labels of depth that are affine in this."""
        ...

    @property
    def departures(self) -> tuple[Departure, ...]:
        """Benchmarks of which the data are not those that published scores are of."""
        ...

    @property
    def full_name(self) -> str:
        """Name, parameters and departures: what must be equal for two numbers to be comparable."""
        ...

    def remark(self, source: str) -> str:
        """How scores of a dataset differ from what the published code computes, if they do."""
        ...

    def expected(self, source: str) -> int | None:
        """Images of a whole dataset, if the protocol knows it."""
        ...

    def processing_px(self, source: str) -> int | None:
        """Longest side at which a model sees the dataset's images; None: as the model says."""
        ...

    def view(self, sample: Sample) -> Sample:
        """The frame at the size at which it is scored; the same frame for most datasets.

        Raises:
            UnfitFrameError: if the frame cannot be of the dataset that it says it is of.
        """
        ...

    def truth(self, sample: Sample) -> np.ndarray:
        """What of a frame it scores against: float `[h w]` or `[h w 3]`, not finite if unknown."""
        ...

    def scored(self, sample: Sample) -> np.ndarray:
        """bool `[h w]`: pixels of a view whose truth takes part."""
        ...

    def why_not(self, prediction: np.ndarray, sample: Sample) -> str:
        """Why a prediction for a view has no score under this protocol alone; "" if it has one."""
        ...

    def is_inverted(self, prediction: np.ndarray, sample: Sample) -> bool:
        """Whether the fit turns a prediction for a view upside down: far into near."""
        ...

    def errors(self, prediction: np.ndarray, sample: Sample) -> dict[str, Any]:
        """Every metric and statistic of one view, over its scored pixels; NaN where a metric is
        not defined."""
        ...

    def summarize(self, rows: list[dict[str, Any]], prefix: str, resamples: int) -> Means:
        """`mean`, `low`, `high`, `images` of each metric over scored rows; those without any are
        left out.

        Args:
            prefix: of the columns to be summarized.
            resamples: of the bootstrap; 0: only `mean`.
        """
        ...

    def sampled_pixels(self, sample: Sample, count: int) -> np.ndarray:
        """What one image contributes to the fit of the baseline: float32 `[k 3]`, k <= `count`."""
        ...

    def fit_baseline(self, pixels: list[np.ndarray]) -> list[float]:
        """The constant that any model must beat, fitted to the pixels of a domain's images."""
        ...

    def baseline_prediction(self, baseline: list[float], sample: Sample) -> np.ndarray:
        """The constant as a prediction for one image."""
        ...

    def panel(self, prediction: np.ndarray, sample: Sample, caption: str) -> Image.Image:
        """Image, truth, prediction and error side by side."""
        ...
