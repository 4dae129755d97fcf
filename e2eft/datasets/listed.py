"""Datasets of which a list, or what is in their folders, says which frames there are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from e2eft.datasets.base import Dataset, Source

if TYPE_CHECKING:
    from e2eft.data.sample import RejectedFrame, Sample
    from e2eft.datasets.reading.roots import RootFiles
    from e2eft.storage import Store

KEPT_LISTING = "frames.json"
NO_TRUTH = "None"
"""What a list says in place of a file that does not exist."""


@dataclass(frozen=True)
class FrameEntry:
    """One line of a list: the image, the files with its truth, and what else the line says.

    image, truth: paths relative to the root.
    """

    image: str
    truth: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The image's path without extension: where predictions are kept in a tree like it."""
        return str(PurePosixPath(self.image).with_suffix(""))


@dataclass(frozen=True)
class Listing:
    """The frames of a dataset that have ground truth.

    listed: how many there are with those that have none.
    digest: SHA-256 of the list, or None if the frames are those that are there.
    """

    frames: tuple[FrameEntry, ...]
    listed: int
    digest: str | None = None


AnySource = TypeVar("AnySource", bound=Source)


class Layout(Generic[AnySource]):
    """How the files of one dataset are laid out."""

    def __init__(self, config: AnySource) -> None:
        self.config = config

    @property
    def dataset(self) -> Dataset:
        return self.config.described

    @property
    def from_files(self) -> bool:
        """The frames are those that are there; no list names them."""
        return getattr(self.config, "frame_list", None) is None

    def listing(self, files: RootFiles) -> Listing:
        """Raises ValueError for a list that cannot be read as one, or a folder without frames."""
        raise NotImplementedError

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        """Raises SampleError, MissingError or CorruptArchiveError for a frame that is rejected."""
        raise NotImplementedError

    def provenance(self) -> dict[str, Any]:
        """What the bytes depend on besides the configuration."""
        return {}


class ListedFrames:
    """The frames of a dataset, in the order of its list."""

    def __init__(self, layout: Layout[Any], root: str, index: Store | None) -> None:
        from e2eft.datasets.reading.roots import RootFiles

        self.layout, self._index = layout, index
        self._files = RootFiles(root, index)

    @property
    def dataset(self) -> Dataset:
        return self.layout.dataset

    @cached_property
    def listing(self) -> Listing:
        """Of frames that are those that are there, as they were when they were first asked for: a
        file that comes or goes later must not give the others new numbers."""
        if self._index is None or not self.layout.from_files:
            return self.layout.listing(self._files)
        if not self._index.exists(KEPT_LISTING):
            found = self.layout.listing(self._files)
            self._index.write(KEPT_LISTING, json.dumps(asdict(found)).encode())
        kept = json.loads(self._index.read(KEPT_LISTING))
        frames = (
            FrameEntry(entry["image"], tuple(entry["truth"]), tuple(entry["notes"]))
            for entry in kept["frames"]
        )
        return Listing(tuple(frames), kept["listed"])

    def __len__(self) -> int:
        return len(self.listing.frames)

    def check_present(self, *, thorough: bool = False) -> None:
        self._files.require_root()
        # A tar file is looked into, and found frames are kept, once there is a place for it.
        if thorough or not self._files.is_tar:
            self._require_files(self.layout.listing(self._files))
        elif not self.layout.from_files:
            _ = self.listing

    def telling(self) -> list[str]:
        from e2eft.datasets.reading.archives import spread

        if self._files.is_tar:
            return [self._files.tar_name]
        frames = spread(self.layout.listing(self._files).frames)
        return [path for frame in frames for path in (frame.image, *frame.truth)]

    def raw_digest(self, name: str) -> str:
        return self._files.digest(name)

    def write_index(self) -> None:
        """Where the members of a tar file are."""
        self._files.open_index()
        if self._files.is_tar:
            self._require_files(self.listing)

    def _require_files(self, listing: Listing) -> None:
        frames = listing.frames
        self._files.require_any([frame.image for frame in frames], "images")
        truth = [frame.truth[0] for frame in frames if frame.truth]
        if truth:
            self._files.require_any(truth, "files with ground truth")

    def decode(self, numbers: range) -> Iterator[Sample | RejectedFrame]:
        from e2eft.datasets.reading.decoding import decode_each

        entries = [self.listing.frames[number] for number in numbers]
        return decode_each(entries, lambda entry: self.layout.sample(entry, self._files))

    def provenance(self) -> dict[str, Any]:
        """Besides what the layout says: frames listed, those of them without ground truth, and the
        list's digest."""
        listing = self.listing
        counts = {
            "listed": listing.listed,
            "without_truth": listing.listed - len(listing.frames),
        }
        digest = {"list_sha256": listing.digest} if listing.digest else {}
        return counts | digest | self.layout.provenance()


def of_one_frame(words: list[str], *columns: str) -> list[str]:
    """The words of a line, each called as its column asks, and all of the same frame.

    Args:
        columns: regular expressions of paths. What two of them have as a group of one name says
            which frame it is, and must be the same text.

    Raises:
        ValueError: for a word too many, one that is called otherwise, or one of another frame.
    """
    if len(words) > len(columns):
        raise ValueError(f"{words[len(columns)]!r} is too much; are these two lines?")
    said: dict[str, str] = {}
    for word, column in zip(words, columns, strict=False):
        match = re.fullmatch(column, word)
        if match is None:
            raise ValueError(
                f"{word!r} is not called like the example's; are the columns in order?"
            )
        for name, text in match.groupdict().items():
            if said.setdefault(name, text) != text:
                raise ValueError(f"{word!r} is of another {name} than {words[0]!r}")
    return words


def read_listing(
    uri: str, entry_of: Callable[[list[str]], FrameEntry | None], columns: str, example: str
) -> Listing:
    """The frames that a list names, a line each, words separated as `words_of` knows it.

    Args:
        entry_of: the frame of a line's words; raises IndexError if they are too few, ValueError
            with a reason if they are wrong, and returns None for a frame without ground truth.
        columns: what a line should hold, in words.
        example: a line as it should be.

    Raises:
        ValueError: for a list that is not there, is empty, names a frame twice or has a line that
            names none, or more than one.
    """
    from e2eft.datasets.reading.tables import read_list
    from e2eft.storage import check_relative

    lines, digest = read_list("--list", uri)
    frames: list[FrameEntry] = []
    named: set[str] = set()
    for line in lines:
        try:
            entry = entry_of(line.words)
            for path in (entry.image, *entry.truth) if entry else ():
                check_relative(path)
        except (IndexError, ValueError) as error:
            said = f" ({error})" if isinstance(error, ValueError) else ""
            raise ValueError(
                f"{line.where}: expected {columns}, for example {example!r}; "
                f"found {line.text!r}{said}"
            ) from None
        image = entry.image if entry else line.words[0]
        if (key := FrameEntry(image, ()).key) in named:
            raise ValueError(f"{line.where}: {image} was named before")
        named.add(key)
        if entry is not None:
            frames.append(entry)
    if not frames:
        raise ValueError(f"--list {uri} names no frame with ground truth; expected {columns}")
    return Listing(tuple(frames), len(lines), digest)


def require_frames(frames: Sequence[FrameEntry], files: RootFiles, expected: str) -> Listing:
    """The listing of frames that were found.

    Raises:
        ValueError: if there are none, or two of one key.
    """
    if not frames:
        here = ", ".join(files.names_in("")[:5]) or "nothing"
        raise ValueError(f"--root {files.root} has no {expected}; found {here}")
    images: dict[str, str] = {}
    for frame in frames:
        if (other := images.setdefault(frame.key, frame.image)) != frame.image:
            raise ValueError(
                f"--root {files.root} has both {other} and {frame.image}; leave one, or name the "
                "frames with --list"
            )
    return Listing(tuple(frames), len(frames))
