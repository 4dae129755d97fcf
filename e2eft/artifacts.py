"""The commit protocol: what lies between two stages.

    claim     `_claim.json`, created exclusively: this folder belongs to this configuration
    parts     written whole under names that follow from the plan, in any order, by anyone
    commit    `manifest.json`, written last: the artifact exists

A re-run with the same configuration finds the claim, skips the parts that are there and commits;
with another configuration it refuses and names the field that differs. A committed artifact is
never edited.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from e2eft import __version__
from e2eft.config import Config
from e2eft.errors import E2eftError
from e2eft.storage import MissingError, Store, open_store

MANIFEST = "manifest.json"
CLAIM = "_claim.json"
FORMAT = "e2eft-artifact"
SCHEMA_VERSION = 1
"""Version of the manifest; an artifact of a newer one is refused."""


class ArtifactError(E2eftError):
    """An artifact that is missing, of the wrong kind, too new, or made with another
    configuration."""


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: path inside it, size in bytes, SHA-256 (hexadecimal)."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Parent:
    """An artifact (or model) this one was made from."""

    role: str
    uri: str
    digest: str


@dataclass(frozen=True)
class Artifact:
    """What a manifest says. `digest` is the SHA-256 of the manifest without its URI."""

    uri: str
    kind: str
    schema_version: int
    config: dict[str, Any]
    config_digest: str
    parents: tuple[Parent, ...]
    counts: dict[str, int]
    files: tuple[FileEntry, ...]
    details: dict[str, Any] = field(default_factory=dict)
    created_by: str = f"e2eft {__version__}"

    @property
    def store(self) -> Store:
        """The store the artifact lies in."""
        return open_store(self.uri)

    def body(self) -> dict[str, Any]:
        """The manifest's content: everything but the place it lies at."""
        content = asdict(self)
        del content["uri"]
        return {"format": FORMAT, **json.loads(json.dumps(content))}

    @property
    def digest(self) -> str:
        canonical = json.dumps(self.body(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def as_parent(self, role: str) -> Parent:
        """A reference to this artifact for another one's lineage."""
        return Parent(role=role, uri=self.uri, digest=self.digest)


def sha256(content: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def differing_fields(old: Any, new: Any, prefix: str = "") -> list[str]:
    """'field: old -> new' for every leaf in which two JSON trees differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines: list[str] = []
        for name in sorted({*old, *new}):
            lines += differing_fields(old.get(name), new.get(name), f"{prefix}{name}.")
        return lines
    return [] if old == new else [f"{prefix.rstrip('.')}: {old!r} -> {new!r}"]


def claim(store: Store, kind: str, config: Config, overwrite: bool = False) -> Artifact | None:
    """Takes the folder for this configuration, or finds it taken by the same one.

    Returns:
        The committed artifact if the work was already finished, else None: do what is missing.

    Raises:
        ArtifactError: if the folder holds another configuration or kind and `overwrite` is not set.
        StorageError: if it cannot be written.
    """
    mine = {"format": FORMAT, "kind": kind, "config": config.identity()}
    content = json.dumps(mine, indent=1, sort_keys=True).encode()
    if not store.create(CLAIM, content):
        theirs = json.loads(store.read(CLAIM))
        lines = differing_fields(
            {"kind": theirs.get("kind"), "config": theirs.get("config")},
            {"kind": kind, "config": mine["config"]},
        )
        if lines and not overwrite:
            raise ArtifactError(
                f"{store.uri} was made with another configuration ({'; '.join(lines)}); "
                "use another --out, or --overwrite to delete what is there"
            )
        if lines:
            store.delete_many([path for path, _ in store.list()])
            store.write(CLAIM, content)
    return load_artifact(store.uri, kind) if store.exists(MANIFEST) else None


def commit(
    store: Store,
    kind: str,
    config: Config,
    *,
    files: list[FileEntry],
    counts: dict[str, int],
    parents: tuple[Parent, ...] = (),
    details: dict[str, Any] | None = None,
) -> Artifact:
    """Writes the manifest: from now on the artifact exists. Committing twice returns the first
    one."""
    artifact = Artifact(
        uri=store.uri,
        kind=kind,
        schema_version=SCHEMA_VERSION,
        config=config.identity(),
        config_digest=config.digest(),
        parents=parents,
        counts=counts,
        files=tuple(sorted(files, key=lambda entry: entry.path)),
        details=details or {},
    )
    store.create(MANIFEST, json.dumps(artifact.body(), indent=1, sort_keys=True).encode())
    return load_artifact(store.uri, kind)


def load_artifact(uri: str, *kinds: str) -> Artifact:
    """The committed artifact at `uri`.

    Raises:
        ArtifactError: if there is no manifest, it is of another kind, or newer than this program.
    """
    store = open_store(uri)
    try:
        body = json.loads(store.read(MANIFEST))
    except MissingError:
        hint = (
            "; its stage was started but has not finished: run it again"
            if store.exists(CLAIM)
            else ""
        )
        raise ArtifactError(
            f"{uri} has no {MANIFEST}, so it is not a finished artifact{hint}"
        ) from None
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{uri}/{MANIFEST} is not JSON ({error})") from None
    if body.get("format") != FORMAT:
        raise ArtifactError(f"{uri}/{MANIFEST} is not a manifest of this project")
    if body["schema_version"] > SCHEMA_VERSION:
        raise ArtifactError(
            f"{uri} has manifest version {body['schema_version']}, this program reads up to "
            f"{SCHEMA_VERSION}; upgrade e2eft"
        )
    if kinds and body["kind"] not in kinds:
        raise ArtifactError(f"{uri} is a {body['kind']!r} artifact; expected {' or '.join(kinds)}")
    del body["format"]
    body["parents"] = tuple(Parent(**parent) for parent in body["parents"])
    body["files"] = tuple(FileEntry(**entry) for entry in body["files"])
    return Artifact(uri=store.uri, **body)


def entries(store: Store, paths: list[str]) -> list[FileEntry]:
    """Sizes and digests of files already in the store, read in parallel."""

    def entry(path: str) -> FileEntry:
        content = store.read(path)
        return FileEntry(path=path, size=len(content), sha256=sha256(content))

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(entry, paths))


def verify(artifact: Artifact) -> list[str]:
    """Reads every file again; returns the paths that are missing or changed."""
    present = dict(artifact.store.list())
    missing = [entry.path for entry in artifact.files if entry.path not in present]
    there = [entry for entry in artifact.files if entry.path in present]
    again = entries(artifact.store, [entry.path for entry in there])
    return missing + [old.path for old, new in zip(there, again, strict=True) if old != new]
