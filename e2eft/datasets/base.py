"""What a dataset's file declares: its configuration, facts about it, the rules of protocols for it.

Such a file is imported by the command line, so neither it nor this one imports numpy or anything
heavier; what reads frames imports that when it is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field

from e2eft.config.base import Config
from e2eft.data.modalities import DEPTH, Modalities

if TYPE_CHECKING:
    from e2eft.data.sample import RejectedFrame, Sample
    from e2eft.storage import Store

NATIVE = 0
"""As a processing size: every image at its own."""
Size = tuple[int, int]
"""(height, width) in pixels."""
SidePx = Annotated[int, Field(gt=0, le=16_384)]
Window = Literal["nyu-eigen", "kitti-eigen"]


@dataclass(frozen=True, kw_only=True)
class DepthRules:
    """One dataset under one depth protocol.

    min_depth_m, max_depth_m: truth outside is not scored (see `range_masks`), and aligned
        predictions are clipped to it.
    images: of the whole dataset, where the protocol has another number than `Dataset.images`.
    range_masks: False if the dataset's own mask alone decides what is scored.
    window: part of the image that is scored.
    fit_longest_px: the fit uses fewer pixels of larger images (see `fit_columns`).
    processing_px: longest side at which a model sees the images; `NATIVE`: their own size; None:
        the model's own.
    scored_size: size at which the truth, taken from the nearest pixel, is scored.
    sobel_limit_m: pixels where |dx| + |dy| of Sobel's 3 x 3 filters exceeds this are not scored;
        unknown depth counts as 0 in them.
    inverse_floor_m: depth below this counts as this in `i_rmse_capped`, which takes the place of
        `i_rmse`; None: as published.
    remark: how the scores differ from what the published code computes.
    """

    min_depth_m: float
    max_depth_m: float
    images: int | None = None
    range_masks: bool = True
    window: Window | None = None
    fit_longest_px: int | None = None
    processing_px: int | None = NATIVE
    scored_size: Size | None = None
    sobel_limit_m: float | None = None
    inverse_floor_m: float | None = None
    remark: str = ""


@dataclass(frozen=True, kw_only=True)
class NormalsRules:
    """One dataset under one normals protocol; the fields are those of `DepthRules`."""

    images: int | None = None
    processing_px: int | None = None


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """What is known of a dataset, whoever reads it, trains on it or scores on it.

    name: what `Sample.source` says, and what the recipe is called.
    modalities: what every frame has.
    images: of the whole dataset, as benchmarks count them.
    frame_size: of every frame, if all are of one size.
    supervised_range_m: depth in metres beyond which it is not trained on, unless a run says
        otherwise. arXiv 2409.11355 has 65 m for Hypersim and 80 m for Virtual KITTI.
    dense: whether truth has no holes at edges, so that edges can be judged.
    scored_as: settings that published scores are of, and what others make of the dataset.
    rules: what protocols say of it, by the protocol's name, read off the protocols' own code.
    """

    name: str
    modalities: Modalities = DEPTH
    images: int | None = None
    frame_size: Size | None = None
    supervised_range_m: float = 80.0
    dense: bool = False
    scored_as: Mapping[str, tuple[Any, str]] = field(default_factory=dict[str, tuple[Any, str]])
    rules: Mapping[str, DepthRules | NormalsRules] = field(
        default_factory=dict[str, DepthRules | NormalsRules]
    )


class FrameSource(Protocol):
    """A dataset: its frames have numbers and keys that follow from the configuration alone."""

    @property
    def dataset(self) -> Dataset: ...

    def __len__(self) -> int: ...
    def check_present(self, *, thorough: bool = False) -> None:
        """Raises ValueError unless the dataset is where it should be, before any task starts.

        thorough: tar files are looked into, which takes one reading of each.
        """
        ...

    def write_index(self) -> None:
        """Writes what tasks need to find frames, if it takes long to find out and is not there."""
        ...

    def telling(self) -> list[str]:
        """Names of a few raw files that tell this dataset from another one of the same names."""
        ...

    def raw_digest(self, name: str) -> str:
        """SHA-256 of a raw file, of a large archive its beginning; "" if it cannot be read."""
        ...

    def decode(self, numbers: range) -> Iterator[Sample | RejectedFrame]:
        """The frames of these numbers, in order, one for each."""
        ...

    def provenance(self) -> dict[str, Any]:
        """What the bytes depend on besides the configuration; of a dataset that a list names, also
        how many frames are `listed`, and how many of those are `without_truth`."""
        ...


class Source(Config):
    """Base of the configurations of datasets: where the raw files are, and which frames are wanted.

    A subclass has a field `kind`, by which stored configurations are told apart. Where the files
    are is not part of a configuration's identity; which list names the frames is.
    """

    datasets: ClassVar[tuple[Dataset, ...]]
    """What a configuration of this class may be of."""
    extra: ClassVar[str] = "datasets"
    """The extra whose packages read it; see `e2eft.extras`."""
    places: ClassVar[tuple[str, ...]] = ()
    """Fields that hold paths or URIs, or None."""

    @property
    def described(self) -> Dataset:
        """The one of `datasets` that this configuration is of."""
        (dataset,) = self.datasets
        return dataset

    @property
    def not_encodable(self) -> str:
        """Why a VAE cannot encode frames of these settings; "" if nothing is known against it."""
        return ""

    def settled(self, begun: Mapping[str, Any]) -> Self:
        """The same with what was left open decided.

        Args:
            begun: the recorded configuration of the dataset whose preparation is resumed, as JSON;
                empty if it is begun now.
        """
        return self

    def open(self, index: Store | None) -> FrameSource:
        """The frames. See `e2eft.datasets.open_source`."""
        raise NotImplementedError
