"""How the processes of a job write: exclusively, so that no two jobs can mix."""

import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from e2eft.artifacts.manifest import ArtifactError, FileEntry, sha256
from e2eft.artifacts.ownership import EPOCHS
from e2eft.errors import ConflictError, DamagedError, StorageError, UnsupportedError
from e2eft.storage import LocalStore, Store, Stored, open_store
from e2eft.walk import walk_files

NAMED_BY = 8
"""Characters of its digest in the path of a file whose name was taken."""


@dataclass(frozen=True)
class Writer:
    """The right to write into a claimed folder, for any process of the job.

    single_writer: the user answers for it that nobody else writes there, and the store need not be
    able to create exclusively.
    apart: a job that was displaced while it deleted may still delete one more file under the name
    it had: what is written now is put where nobody has listed it.
    """

    uri: str
    claim_id: str
    epoch: int
    single_writer: bool = False
    apart: bool = False

    @property
    def store(self) -> Store:
        return open_store(self.uri)

    def create(self, path: str, content: bytes) -> bool:
        """Writes unless something is there; False if something was."""
        store = self.store
        if not self.single_writer:
            return store.create(path, content)
        if store.exists(path):
            return False
        store.write(path, content)
        return True

    def put(self, name: str, content: bytes) -> FileEntry:
        """Writes a file of the artifact. If another content lies under its name, left by an
        interrupted or a displaced job, it is written beside that, under a path with its digest."""
        mine = Stored(len(content), sha256(content))
        for path in self._paths(name, mine):
            if self.create(path, content) or self.store.digest(path) == mine:
                return _entry(path, mine, name)
        raise self._wrong(name, mine)

    def put_file(self, name: str, file: Path) -> FileEntry:
        """The same with a local file of any size."""
        if not self.apart and (stored := self._upload(file, name)):
            return _entry(name, stored, name)
        mine = LocalStore(file.parent).digest(file.name)
        for path in self._paths(name, mine):
            if self._upload(file, path) or self.store.digest(path) == mine:
                return _entry(path, mine, name)
        raise self._wrong(name, mine)

    def _paths(self, name: str, mine: Stored) -> tuple[str, ...]:
        """Where a file may lie, first choice first."""
        if not self.apart:
            return name, beside(name, mine.sha256)
        return (beside(name, sha256(f"{self.claim_id} {mine.sha256}".encode())),)

    def _wrong(self, name: str, mine: Stored) -> DamagedError:
        return DamagedError(f"{self.uri}/{self._paths(name, mine)[-1]} is not what its name says")

    def put_folder(self, name: str, folder: Path) -> list[FileEntry]:
        """A local folder whose files belong together: all of them under `name`, or, where others
        lie there, all of them under a name of this epoch's."""
        files = sorted(file.name for file in walk_files(folder))
        targets = (name, f"{name}-{self.epoch:06d}", f"{name}-{secrets.token_hex(4)}")
        for target in targets[2:] if self.apart else targets:
            entries = self._put_all(name, target, folder, files)
            if entries is not None:
                return entries
        raise ConflictError(f"{self.uri}/{name}: others write there at the same time")

    def _put_all(
        self, name: str, target: str, folder: Path, files: list[str]
    ) -> list[FileEntry] | None:
        """None if one of the files finds another in its place."""
        entries: list[FileEntry] = []
        for file in files:
            path = f"{target}/{file}"
            mine = self._upload(folder / file, path)
            if mine is None:
                mine = LocalStore(folder).digest(file)
                if self.store.digest(path) != mine:
                    return None
            entries.append(_entry(path, mine, f"{name}/{file}"))
        return entries

    def _upload(self, file: Path, path: str) -> Stored | None:
        """None if something is there."""
        store = self.store
        if self.single_writer:
            return None if store.exists(path) else store.upload(file, path)
        try:
            return store.upload(file, path, exclusive=True)
        except ConflictError:
            return None


def beside(name: str, sha256: str) -> str:
    """The path of a file whose name another content has."""
    folder, slash, last = name.rpartition("/")
    stem, dot, ending = last.rpartition(".")
    digest = sha256[:NAMED_BY]
    return f"{folder}{slash}{stem}.{digest}{dot}{ending}" if stem else f"{name}.{digest}"


def _entry(path: str, stored: Stored, name: str) -> FileEntry:
    return FileEntry(path, stored.size, stored.sha256, "" if path == name else name)


def require_exclusive_creation(store: Store) -> None:
    """Raises ArtifactError if a store lets two writers create the same file: there, two jobs in one
    folder would not notice each other."""
    said = ""
    try:
        # A second time, since an overwriting job may have deleted the first probe.
        refuses = _refuses_to_create(store) or _refuses_to_create(store)
    except StorageError as error:
        # What S3 servers say of a header they do not know is an error of no kind.
        is_unknown = type(error) is StorageError and not isinstance(store, LocalStore)
        if not (is_unknown or isinstance(error, UnsupportedError)):
            raise
        refuses, said = False, f" ({error})"
    if not refuses:
        raise ArtifactError(
            f"{store.uri}: this store does not refuse to create what is there (If-None-Match), so "
            "two jobs could write there at once; use another store, or --single-writer if you "
            f"answer for it that no other job will{said}"
        )


def _refuses_to_create(store: Store) -> bool:
    probe = f"{EPOCHS}/probe-{secrets.token_hex(8)}"  # where it is no file of the user's
    try:
        return store.create(probe, b"1") and not store.create(probe, b"2")
    finally:
        with suppress(StorageError):
            store.delete(probe)
