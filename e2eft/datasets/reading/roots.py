"""Where a dataset lies: a folder, or an uncompressed tar file that is read in place."""

from __future__ import annotations

import difflib
from functools import cached_property

from e2eft.datasets.reading.archives import (
    Folder,
    RawFiles,
    TarArchive,
    digest_of,
    digest_of_head,
    index_tar,
    kept_tar_index,
)
from e2eft.datasets.reading.archives import names_in as names_in_store
from e2eft.storage import Store, join, open_store

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
PROBES = 8
"""Files looked for before a job starts; a folder that has none of them is the wrong one."""


class RootFiles:
    """The files at `--root`, by relative path.

    Args:
        index: keeps a tar file's directory, which takes one reading of the file to find out.
            Without it the directory is made anew by every process.
    """

    def __init__(self, root: str, index: Store | None) -> None:
        self.root, self._index = root, index
        self.is_tar = root.endswith(".tar")
        folder, _, self._name = root.rpartition("/") if self.is_tar else (root, "", "")
        self._store = open_store(folder or ("/" if root.startswith("/") else "."))

    @cached_property
    def _members(self) -> dict[str, tuple[int, int]]:
        if self._index is None:
            return index_tar(self._store, self._name)
        return kept_tar_index(self._store, self._name, self._index)

    @cached_property
    def _files(self) -> RawFiles:
        if self.is_tar:
            return TarArchive(self._store, self._name, self._members)
        return Folder(self._store, "")

    def read(self, path: str) -> bytes:
        return self._files.read(path)

    @property
    def tar_name(self) -> str:
        return self._name

    def digest(self, path: str) -> str:
        """SHA-256 of a file, of the tar file itself its beginning; "" if it is not there, or could
        only be found by reading all of a tar file."""
        if not self.is_tar:
            return digest_of(self._files, path)
        return digest_of_head(self._store, path) if path == self._name else ""

    def open_index(self) -> None:
        """Makes a tar file's directory, if it is not there."""
        if self.is_tar:
            _ = self._members

    def exists(self, path: str) -> bool:
        return path in self._members if self.is_tar else self._store.exists(path)

    def paths(self, prefix: str = "") -> list[str]:
        """Every file whose path starts with `prefix`, sorted."""
        if self.is_tar:
            return sorted(path for path in self._members if path.startswith(prefix))
        return sorted(path for path, _ in self._store.list(prefix))

    def names_in(self, folder: str) -> list[str]:
        """Names of the files and folders directly in a folder ("" for the root), sorted."""
        if not self.is_tar:
            return names_in_store(open_store(join(self.root, folder) if folder else self.root))
        prefix = f"{folder}/" if folder else ""
        inside = (path[len(prefix) :] for path in self._members if path.startswith(prefix))
        return sorted({path.split("/")[0] for path in inside})

    def require_root(self) -> None:
        """Raises ValueError if there is nothing at `--root`, or nothing that can be read."""
        if self.root.endswith(_COMPRESSED):
            raise ValueError(
                f"--root {self.root} is compressed and cannot be read in place: unpack it, or make "
                "an uncompressed .tar of it"
            )
        if self.is_tar and not self._store.exists(self._name):
            beside = ", ".join(names_in_store(self._store)[:5]) or "nothing"
            raise ValueError(f"--root {self.root} is not there; beside it there is {beside}")
        if not self.is_tar and not names_in_store(self._store):
            raise ValueError(f"--root {self.root} is empty or not there")

    def require_any(self, paths: list[str], what: str) -> None:
        """Raises ValueError if some of `paths`, spread evenly, are tried and none is there.

        Args:
            what: names the files, e.g. "images of --list l.txt".
        """
        step = max(1, len(paths) // PROBES)
        if any(self.exists(path) for path in paths[::step]):
            return
        raise ValueError(
            f"--root {self.root} has none of the {what}: expected for example {paths[0]}, "
            f"found {self._resembling(paths[0])}"
        )

    def _resembling(self, path: str) -> str:
        """What is there instead of `path`, and what --root would have to be, where that is seen."""
        steps = path.split("/")
        here = self.names_in("")
        for depth in range(1, len(steps)):
            if self.exists(rest := "/".join(steps[depth:])):
                folder = "/".join(steps[:depth])
                must = "paths must begin with" if self.is_tar else "--root must be what holds"
                return f"{rest}; {must} {folder}"
        for name in here[:50]:
            if self.exists(f"{name}/{path}"):
                hint = "" if self.is_tar else f"; did you mean --root {join(self.root, name)}?"
                return f"{name}/{path}{hint}"
        folder = ""
        for step in steps:
            names = self.names_in(folder)
            if step not in names:
                near = difflib.get_close_matches(step, names, n=1, cutoff=0.0)
                return "/".join(filter(None, [folder, *near])) or "nothing"
            folder = f"{folder}/{step}" if folder else step
        return folder
