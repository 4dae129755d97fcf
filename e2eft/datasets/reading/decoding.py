"""Decoding frame by frame: a broken one is rejected with a reason, and the next one tried."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from e2eft.data.sample import RejectedFrame, Sample, SampleError
from e2eft.datasets.reading.archives import CorruptArchiveError
from e2eft.storage import MissingError


class Keyed(Protocol):
    """The name of a frame."""

    @property
    def key(self) -> str: ...


Name = TypeVar("Name", bound=Keyed)


def decode_each(
    names: Iterable[Name], sample_of: Callable[[Name], Sample]
) -> Iterator[Sample | RejectedFrame]:
    """`sample_of` each name, or the reason why there is none: `missing_file`, `corrupt_file`, or
    what a `SampleError` says. Anything else, such as a store without an answer, stops the job."""
    for name in names:
        try:
            yield sample_of(name)
        except SampleError as error:
            yield RejectedFrame(name.key, error.reason, error.detail)
        except MissingError as error:
            yield RejectedFrame(name.key, "missing_file", str(error))
        except CorruptArchiveError as error:
            yield RejectedFrame(name.key, "corrupt_file", str(error))
