"""One module a dataset: list its frames, decode one frame into a Sample."""

from collections.abc import Iterator
from typing import Any, Protocol

from e2eft.config import HypersimSource, SourceConfig, SyntheticSource, VirtualKittiSource
from e2eft.data.sample import RejectedFrame, Sample
from e2eft.storage import Store, absolute


class FrameSource(Protocol):
    """A dataset: its frames have numbers and keys that follow from the configuration alone."""

    @property
    def name(self) -> str:
        """What `Sample.source` says."""
        ...

    def __len__(self) -> int: ...
    def check_present(self) -> None:
        """Raises ValueError unless the dataset is where it should be, before any task starts."""
        ...

    def write_index(self) -> None:
        """Writes what tasks need to find frames, if it takes long to find out and is not there."""
        ...

    def decode(self, numbers: range) -> Iterator[Sample | RejectedFrame]:
        """The frames of these numbers, in order, one for each."""
        ...

    def provenance(self) -> dict[str, Any]:
        """What the bytes depend on besides the configuration."""
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
        from e2eft.data.sources.synthetic import SyntheticFrames

        return SyntheticFrames(config)
    if isinstance(config, HypersimSource):
        from e2eft.data.sources.hypersim import HypersimFrames

        return HypersimFrames(config)
    assert isinstance(config, VirtualKittiSource)
    from e2eft.data.sources.virtual_kitti import VirtualKittiFrames

    return VirtualKittiFrames(config, index)
