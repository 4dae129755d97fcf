"""What a place is that holds no images although it was given for a folder of them."""

import difflib
from itertools import islice
from pathlib import PurePosixPath

from e2eft.corpora.listing import SUFFIXES, UNREAD
from e2eft.errors import StorageError
from e2eft.storage import open_store

ARCHIVES = frozenset((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"))
LISTS = frozenset((".txt", ".lst", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx"))
NEIGHBOURS = 1000
"""At most so many names beside a missing folder are compared with its own."""


def what_else(uri: str, wanted: str = "images") -> str | None:
    """What to say of a file, or of a folder that is not there; None for a folder.

    Args:
        wanted: what the folder was to hold.
    """
    parent, _, name = uri.rstrip("/").rpartition("/")
    if not parent or parent.endswith(":/"):
        return None
    try:
        beside = open_store(parent)
        if beside.exists(name):
            return f"{uri} is {_kind(name, wanted)}"
        names = {entry.split("/")[0] for entry in islice(beside.names(), NEIGHBOURS)}
    except StorageError:
        return None
    if name in names:
        return None
    close = difflib.get_close_matches(name, sorted(names), 1)
    return f"{uri} is not there" + (f"; did you mean {parent}/{close[0]}?" if close else "")


def _kind(name: str, wanted: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in ARCHIVES:
        return "an archive; unpack it and give the folder"
    if suffix in LISTS:
        return f"a list; give the folder that holds the {wanted}"
    if suffix in SUFFIXES or suffix in UNREAD:
        return "a single image; give the folder that holds it"
    return f"a file; give a folder of {wanted}"
