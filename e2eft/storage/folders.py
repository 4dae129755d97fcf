"""Whole folders between a local disk and a store."""

from pathlib import Path

from e2eft.errors import MissingError
from e2eft.storage.base import Store, inside, join
from e2eft.walk import walk_files


def upload_folder(folder: Path, store: Store, prefix: str) -> list[str]:
    """Copies every file under a local folder into the store below `prefix`; returns their paths.

    Raises:
        StorageError: as `walk_files`, before anything is copied.
    """
    paths: list[str] = []
    for file in sorted(walk_files(folder), key=lambda file: file.name):
        path = "/".join(filter(None, [prefix, file.name]))
        store.upload(file.path, path)
        paths.append(path)
    return paths


def download_folder(store: Store, prefix: str, folder: Path) -> Path:
    """Copies every file below `prefix` of the store into a local folder.

    Raises:
        MissingError: if there is none.
        StorageError: if one of them would lie outside that folder.
    """
    count = 0
    base = f"{prefix.rstrip('/')}/" if prefix else ""
    for path, size in store.list(base):
        if path.endswith("/") and not size:
            continue  # an object store's mark for a folder
        store.download(path, inside(folder, path[len(base) :]))
        count += 1
    if not count:
        raise MissingError(f"{join(store.uri, prefix)} is empty or not there")
    return folder
