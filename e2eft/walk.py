"""Every file below a local folder, links followed; what cannot be followed is an error, no gap."""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from e2eft.errors import DamagedError, DeniedError, MissingError, StorageError


@dataclass(frozen=True)
class WalkedFile:
    """A file: `name` below the folder that was walked, with forward slashes; where it lies; size in
    bytes; when it was modified, in nanoseconds since 1970."""

    name: str
    path: Path
    size: int
    modified_ns: int


def walk_files(
    folder: Path, prefix: str = "", problems: list[StorageError] | None = None
) -> Iterator[WalkedFile]:
    """A stream of the files below `folder` whose names start with `prefix`, in no order.

    Links are followed, to files and to folders; what two links lead to comes twice. Folders that
    cannot hold such a name are not entered. What vanishes meanwhile is left out.

    Args:
        problems: collects what would be raised once there is a folder, and the walk goes on.

    Raises:
        MissingError: if `folder` is not there or is no folder.
        DamagedError: for a link that leads nowhere or to a folder that it lies in, and for what is
            neither file nor folder.
        DeniedError: for what may not be looked at.
        StorageError: for what cannot be read for another reason.
    """
    if not _is_folder(folder):
        raise MissingError(f"{folder} is not there, or no folder")
    base = prefix.rpartition("/")[0]
    walk = _Walk(problems)
    if not walk.can_enter(folder, base):
        return
    try:
        walk.enter(folder / base, base)
        while walk.levels:
            entry = walk.next_entry()
            if entry is None:
                continue
            name = f"{walk.name}/{entry.name}" if walk.name else entry.name
            if not f"{name}/".startswith(prefix) and not prefix.startswith(f"{name}/"):
                continue
            status = walk.status(entry)
            if status is None:
                continue
            if stat.S_ISDIR(status.st_mode):
                walk.enter(Path(entry.path), name)
            elif not stat.S_ISREG(status.st_mode):
                walk.report(DamagedError(f"{entry.path} is neither a file nor a folder"))
            elif name.startswith(prefix):
                yield WalkedFile(name, Path(entry.path), status.st_size, status.st_mtime_ns)
    finally:
        walk.close()


def digest_files(files: Mapping[str, Path]) -> str:
    """SHA-256 over the lines `name sha256`, sorted by name, hexadecimal."""
    digests: dict[str, str] = {}
    for name, path in files.items():
        with path.open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digest_lines(digests)


def digest_lines(digests: Mapping[str, str]) -> str:
    """The same of files whose digests are known."""
    lines = (f"{name} {digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass
class _Level:
    """A folder that is being read: (device, inode), its name below the top, what is left of it."""

    identity: tuple[int, int]
    name: str
    entries: "os._ScandirIterator[str]"


class _Walk:
    """The folders between the top and where the walk is, and what becomes of problems."""

    def __init__(self, problems: list[StorageError] | None) -> None:
        self.levels: list[_Level] = []
        self._problems = problems

    @property
    def name(self) -> str:
        return self.levels[-1].name

    def report(self, problem: StorageError) -> None:
        if self._problems is None:
            raise problem
        self._problems.append(problem)

    def can_enter(self, top: Path, name: str) -> bool:
        """Whether `name` below `top` is a folder; a link that leads nowhere is reported."""
        try:
            if (top / name).is_dir():
                return True
        except OSError as error:
            self.report(_explained(top / name, error))
            return False
        parts = name.split("/")
        for step in (top.joinpath(*parts[:count]) for count in range(1, len(parts) + 1)):
            if step.is_symlink() and not step.exists():
                self._report_dangling(step)
                break
        return False

    def enter(self, folder: Path, name: str) -> None:
        try:
            status = folder.stat()
            identity = status.st_dev, status.st_ino
            if any(level.identity == identity for level in self.levels):
                self.report(DamagedError(f"{folder} is a link to a folder that it lies in"))
                return
            self.levels.append(_Level(identity, name, os.scandir(folder)))
        except FileNotFoundError:
            return
        except OSError as error:
            self.report(_explained(folder, error))

    def next_entry(self) -> "os.DirEntry[str] | None":
        """The next one of the innermost folder; None at its end, which leads one level up."""
        try:
            entry = next(self.levels[-1].entries, None)
        except OSError as error:
            self.report(_explained(self.levels[-1].name, error))
            entry = None
        if entry is None:
            self.levels.pop().entries.close()
        return entry

    def status(self, entry: "os.DirEntry[str]") -> os.stat_result | None:
        """Of what a link leads to; None if it has vanished or was reported."""
        try:
            return entry.stat()
        except FileNotFoundError:
            if entry.is_symlink():
                self._report_dangling(Path(entry.path))
        except OSError as error:
            self.report(_explained(entry.path, error))
        return None

    def _report_dangling(self, link: Path) -> None:
        with suppress(FileNotFoundError):  # vanished meanwhile
            problem = f"{link} is a link to {os.readlink(link)}, which is not there"
            self.report(DamagedError(problem))

    def close(self) -> None:
        for level in self.levels:
            level.entries.close()


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise _explained(path, error) from error


def _explained(path: Path | str, error: OSError) -> StorageError:
    if error.errno == errno.ELOOP:
        return DamagedError(f"{path} is a link that leads back to itself")
    if isinstance(error, PermissionError):
        return DeniedError(f"{path} may not be read; check its permissions")
    return StorageError(f"{path} cannot be read: {error.strerror}")
