"""One module a dataset: list its frames, decode one frame into a Sample."""

from collections.abc import Iterator
from typing import Any, Protocol

from e2eft.config import (
    BenchmarkSource,
    DiodeSource,
    Eth3dSource,
    HypersimSource,
    Ibims1Source,
    KittiEigenSource,
    Nyuv2Source,
    ScanNetSource,
    SintelSource,
    SourceConfig,
    SyntheticSource,
    VirtualKittiSource,
)
from e2eft.data.sample import Promise, RejectedFrame, Sample
from e2eft.storage import Store, absolute

SUPERVISED_RANGE_M = {"hypersim": 65.0, "virtual-kitti-2": 80.0}
"""Depth in metres beyond which a dataset is not trained on, by the name of its source: arXiv
2409.11355's ranges."""
OTHERS_RANGE_M = 80.0


def supervised_range_m(source: str) -> float:
    """The range of the source of that name, unless a run asks for another."""
    return SUPERVISED_RANGE_M.get(source, OTHERS_RANGE_M)


class FrameSource(Protocol):
    """A dataset: its frames have numbers and keys that follow from the configuration alone."""

    @property
    def name(self) -> str:
        """What `Sample.source` says; a dataset with a range of its own for training has it in
        `SUPERVISED_RANGE_M`."""
        ...

    @property
    def promise(self) -> Promise:
        """What every frame has."""
        ...

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


def located(config: SourceConfig) -> SourceConfig:
    """The same with relative paths resolved, so that they mean the same in another process."""
    names = [name for name in config.places if getattr(config, name) is not None]
    return config.model_copy(update={name: absolute(getattr(config, name)) for name in names})


def open_source(config: SourceConfig, index: Store | None = None) -> FrameSource:
    """The dataset that a configuration names.

    Args:
        index: where the dataset keeps what `write_index` writes.

    Raises:
        ValueError: (and its subclasses) for tables that are not there or not what they should be.
    """
    if isinstance(config, SyntheticSource):
        from e2eft.datasets.synthetic import SyntheticFrames

        return SyntheticFrames(config)
    if isinstance(config, HypersimSource):
        from e2eft.datasets.hypersim import HypersimFrames

        return HypersimFrames(config)
    if isinstance(config, VirtualKittiSource):
        from e2eft.datasets.virtual_kitti import VirtualKittiFrames

        return VirtualKittiFrames(config, index)
    return _open_benchmark(config, index)


def _open_benchmark(config: BenchmarkSource, index: Store | None) -> FrameSource:
    if isinstance(config, Nyuv2Source) and config.frame_list is None:
        from e2eft.datasets.nyuv2 import Nyuv2MatlabFrames

        return Nyuv2MatlabFrames(config)
    from e2eft.datasets.listed import ListedFrames

    return ListedFrames(_layout_of(config), config.root, index)


def _layout_of(config: BenchmarkSource) -> Any:
    """The `e2eft.datasets.listed.Layout` of an evaluation set."""
    if isinstance(config, Nyuv2Source):
        from e2eft.datasets.nyuv2 import Nyuv2Layout as Layout
    elif isinstance(config, KittiEigenSource):
        from e2eft.datasets.kitti_eigen import KittiEigenLayout as Layout
    elif isinstance(config, Eth3dSource):
        from e2eft.datasets.eth3d import Eth3dLayout as Layout
    elif isinstance(config, ScanNetSource):
        from e2eft.datasets.scannet import ScanNetLayout as Layout
    elif isinstance(config, DiodeSource):
        from e2eft.datasets.diode import DiodeLayout as Layout
    elif isinstance(config, Ibims1Source):
        from e2eft.datasets.ibims import Ibims1Layout as Layout
    elif isinstance(config, SintelSource):
        from e2eft.datasets.sintel import SintelLayout as Layout
    else:
        from e2eft.datasets.normal_maps import NormalMapLayout as Layout
    return Layout(config)  # type: ignore[arg-type]
