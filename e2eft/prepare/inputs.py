"""What shards are made from: the lists that name frames, and a few of the raw files."""

from e2eft.artifacts import Parent, recorded, sha256
from e2eft.config.identity import differences
from e2eft.datasets import FrameSource, open_source
from e2eft.datasets.reading.archives import read_uri
from e2eft.prepare.config import PrepareConfig
from e2eft.storage import MissingError, StorageError, Store

RAW = "raw file"
"""Role of the files that tell a dataset from another one that is laid out alike."""


def inputs_of(config: PrepareConfig, store: Store) -> tuple[Parent, ...]:
    """All of it, as it is now; `store` is that of --out."""
    return (*_lists(config), *_raw_files(config, store))


def _lists(config: PrepareConfig) -> tuple[Parent, ...]:
    """What the lists hold that name the frames; one that is gone meanwhile is not known."""
    inputs: list[Parent] = []
    for name in config.source.places:
        uri = getattr(config.source, name)
        if name != "root" and uri:
            try:
                inputs.append(Parent(name, uri, sha256(read_uri(uri))))
            except MissingError:
                inputs.append(Parent(name, uri, ""))
    return tuple(inputs)


def _raw_files(config: PrepareConfig, store: Store) -> tuple[Parent, ...]:
    """A few of the dataset's files, which tell it from another one that is laid out alike.

    Compared are those that the job was begun with. As long as at most one in four differs, it is
    the same dataset, of which a broken file has been mended. Without any, when the dataset has been
    deleted after it was prepared, nothing is compared.
    """
    begun = recorded(store)
    if begun and differences(begun.config, config, begun.identity_version):
        begun = None
    known = tuple(parent for parent in begun.inputs if parent.role == RAW) if begun else ()
    try:
        source = open_source(config.source, None)
        found = _digests(source, [parent.uri for parent in known] or source.telling())
    except (ValueError, StorageError):
        return ()  # What is wrong is said before anything is claimed.
    if not known:
        return found
    pairs = [(old, new) for old, new in zip(known, found, strict=True) if old.digest and new.digest]
    is_another = 4 * sum(old.digest != new.digest for old, new in pairs) > len(pairs)
    return found if is_another or config.overwrite else known


def _digests(source: FrameSource, names: list[str]) -> tuple[Parent, ...]:
    return tuple(Parent(RAW, name, source.raw_digest(name)) for name in names)
