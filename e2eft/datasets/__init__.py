"""One file a dataset: its configuration, facts about it, its reader, what protocols say of it.

A dataset is known once its configuration stands in `SOURCES`. How one is added:
docs/extending/dataset.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, Union

from e2eft.datasets.base import Dataset, DepthRules, FrameSource, NormalsRules, Source
from e2eft.datasets.diode import DiodeSource
from e2eft.datasets.diode_normals import DiodeNormalsSource
from e2eft.datasets.eth3d import Eth3dSource
from e2eft.datasets.hypersim import HypersimSource
from e2eft.datasets.ibims import Ibims1Source
from e2eft.datasets.kitti_eigen import KittiEigenSource
from e2eft.datasets.normal_maps import NormalMapSource
from e2eft.datasets.nyuv2 import Nyuv2Source
from e2eft.datasets.scannet import ScanNetSource
from e2eft.datasets.sintel import SintelSource
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.datasets.virtual_kitti import VirtualKittiSource

if TYPE_CHECKING:
    from e2eft.storage import Store

__all__ = [
    "DATASETS",
    "SOURCES",
    "Dataset",
    "DepthRules",
    "FrameSource",
    "NormalsRules",
    "Source",
    "SourceConfig",
    "dataset_of",
    "located",
    "open_source",
]

SOURCES = (
    SyntheticSource,
    HypersimSource,
    VirtualKittiSource,
    Nyuv2Source,
    KittiEigenSource,
    Eth3dSource,
    ScanNetSource,
    DiodeSource,
    Ibims1Source,
    SintelSource,
    NormalMapSource,
    DiodeNormalsSource,
)
"""The configuration of every dataset."""
DATASETS = {dataset.name: dataset for source in SOURCES for dataset in source.datasets}
"""Every dataset by its name, as `Sample.source` has it."""

if TYPE_CHECKING:
    SourceConfig = Source
else:
    SourceConfig = Union[SOURCES]  # noqa: UP007
"""Any of `SOURCES`, told apart by `kind` where one is parsed."""

AnySource = TypeVar("AnySource", bound=Source)


def dataset_of(name: str) -> Dataset:
    """What is known of the dataset of that name; of one that is not in `DATASETS`, only that."""
    return DATASETS.get(name) or Dataset(name=name)


def located(config: AnySource) -> AnySource:
    """The same with relative paths resolved, so that they mean the same in another process."""
    from e2eft.storage import absolute

    names = [name for name in config.places if getattr(config, name) is not None]
    return config.model_copy(update={name: absolute(getattr(config, name)) for name in names})


def open_source(config: Source, index: Store | None = None) -> FrameSource:
    """The dataset that a configuration names.

    Args:
        index: where the dataset keeps what `write_index` writes.

    Raises:
        ValueError: (and its subclasses) for tables that are not there or not what they should be.
    """
    return config.open(index)
