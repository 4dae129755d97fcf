"""Deleting an artifact, and nothing else: what the protocol wrote, in an order that can be cut
short.

The manifest goes first, so that nothing that is half gone is taken for finished; the claim goes
last, so that until then the folder is nobody else's. The epoch of who deletes outlives the claim,
so that nobody else takes the claim meanwhile.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from e2eft.artifacts.manifest import CLAIM, MANIFEST, ArtifactError
from e2eft.artifacts.ownership import EPOCHS, is_deleting
from e2eft.errors import MissingError, StorageError
from e2eft.storage import LocalStore, S3Store, Store

LATER = r"manifest-\d+\.json"
"""Names of the manifests of later generations."""
BATCH = 1000
"""Files that are deleted at once where that is one request."""
_BESIDE = re.compile(r"\.([0-9a-f]{8})(\.[^./]*)?$")
PASSES = 3
"""A listing may leave out some files of a folder that is emptied meanwhile."""


@dataclass(frozen=True)
class Owned:
    """Which paths a kind of artifact writes, as themselves or as `name.DIGEST.ending`.

    patterns: regular expressions, matched whole. results: those of them that hold finished work: a
    job that is over and left none of these came to nothing. also: paths that only the artifact
    itself tells, by what is in the files that go `last`.
    """

    patterns: tuple[str, ...]
    results: tuple[str, ...]
    last: tuple[str, ...] = ()
    also: Callable[[str], bool] = lambda _: False

    def __contains__(self, path: str) -> bool:
        return self.names(path) or self.names(_BESIDE.sub(r"\2", path))

    def names(self, path: str) -> bool:
        """Whether a path is one of these as itself."""
        return _matches(self.patterns + self.results + self.last, {path}) or self.also(path)

    def is_result(self, path: str) -> bool:
        return _matches(self.results, {path})

    def goes_last(self, path: str) -> bool:
        return _matches(self.last, {path})


def _matches(patterns: tuple[str, ...], names: set[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in patterns for name in names)


def require_deletable(store: Store) -> None:
    """Raises ArtifactError for what is never an artifact's folder: a bucket's root, a disk's, a
    home, a file."""
    what = ""
    if isinstance(store, S3Store) and not store.prefix:
        what = "a whole bucket"
    elif isinstance(store, LocalStore):
        folder = Path(os.path.realpath(store.folder))  # not by resolve(): it dislikes loops
        if folder == folder.parent:
            what = "a whole disk"
        elif folder == Path(os.path.realpath(os.path.expanduser("~"))):
            what = "a home folder"
        elif folder.is_file():
            raise ArtifactError(f"--out {store.uri} is a file; give a folder")
    if what:
        raise ArtifactError(f"--out {store.uri} is {what}; give a folder of its own in it")


def first_foreign(store: Store) -> str | None:
    """A file in the folder that is neither the protocol's own nor another artifact's; None if there
    is none."""
    found = (path for path, _ in store.list() if not is_protocols(path))
    first = next(found, None)
    if first is None:
        return None
    others = _artifacts_below(store)
    return next((path for path in chain([first], found) if not _lies_in(path, others)), None)


def is_empty_of_results(store: Store, owned: Owned) -> bool:
    """Whether nothing that a claim's job wrote is finished work, and nothing is anybody else's."""
    return all(
        is_protocols(path) or (path in owned and not owned.is_result(path))
        for path, _ in store.list()
    )


def is_protocols(path: str) -> bool:
    """Whether a file says who works in the folder, and nothing of what is made there."""
    return path == CLAIM or path.startswith(f"{EPOCHS}/") or path.endswith("/")


def is_interrupted_deletion(store: Store) -> bool:
    """Whether somebody has deleted a claim here and has not come to make another one: then what is
    left was there beside the artifact."""
    beats = (path for path, _ in store.list(f"{EPOCHS}/") if path.endswith(".beat"))
    return any(is_deleting(_content(store, path) or b"") for path in beats)


def delete_artifact(
    store: Store, owned: Owned, kept: str, require_owner: Callable[[], None]
) -> None:
    """Deletes the artifact of a claim, finished or not: manifest, files, epochs, claim. What a
    stage of its kind does not write stays, and so do artifacts in folders below.

    Args:
        kept: how the paths of the epoch that deletes begin; the caller deletes those afterwards.
        require_owner: raises if that epoch is not the newest one; asked before every deletion, for
            names that were listed before it.

    Raises:
        StorageError: if something could not be deleted.
    """
    ended = [path for path, _ in store.list(f"{EPOCHS}/") if not path.startswith(kept)]
    claim, manifest = _content(store, CLAIM), _content(store, MANIFEST)
    require_owner()
    if manifest is not None:
        store.delete_exactly(MANIFEST, manifest)
    for later in [name for name in store.names() if re.fullmatch(LATER, name)]:
        require_owner()
        store.delete_many([later])
    # One by one on a disk, where a stop between any two has to be noticed.
    size = 1 if isinstance(store, LocalStore) else BATCH
    left, passes = next(_files(store, owned), None), 0
    while left is not None and passes < PASSES:
        first = (path for path in _files(store, owned) if not owned.goes_last(path))
        for paths in (first, _files(store, owned)):
            for batch in _batches(paths, size):
                require_owner()
                store.delete_many(batch)
        left, passes = next(_files(store, owned), None), passes + 1
    if left is not None:
        raise StorageError(
            f"{store.uri}/{left} is there again after it was deleted; who writes it?"
        )
    store.delete_many(ended)
    require_owner()
    if claim is not None:
        store.delete_exactly(CLAIM, claim)


def _content(store: Store, path: str) -> bytes | None:
    try:
        return store.read(path)
    except MissingError:
        return None


def _batches(paths: Iterator[str], size: int) -> Iterator[list[str]]:
    while batch := list(islice(paths, size)):
        yield batch


def _files(store: Store, owned: Owned) -> Iterator[str]:
    others = _artifacts_below(store)
    for path, _ in store.list():
        is_ours = path in owned and path != MANIFEST and not is_protocols(path)
        if is_ours and not _lies_in(path, others) and not _is_dated(store, owned, path):
            yield path


def _is_dated(store: Store, owned: Owned, path: str) -> bool:
    """Whether what could be a digest in a name is none: a user's copy, with the date of eight
    digits."""
    found = _BESIDE.search(path)
    if owned.names(path) or found is None or not found[1].isdigit():
        return False
    try:
        return not store.digest(path).sha256.startswith(found[1])
    except MissingError:
        return True


def _artifacts_below(store: Store) -> set[str]:
    """Folders in the folder that have a claim or a manifest of their own."""
    return {
        path.rpartition("/")[0]
        for path, _ in store.list()
        if path.rpartition("/")[2] in (CLAIM, MANIFEST) and "/" in path
    }


def _lies_in(path: str, folders: set[str]) -> bool:
    return any(path.startswith(f"{folder}/") for folder in folders)
