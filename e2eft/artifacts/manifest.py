"""The commit: what a finished artifact says of itself."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from e2eft import __version__
from e2eft.errors import DamagedError, E2eftError, MissingError
from e2eft.storage import Store, check_relative, open_store

MANIFEST = "manifest.json"
CLAIM = "_claim.json"
GENERATION = "generation"
"""Role of a later generation's parent, which is the one before it; and where `details` says how
many there are."""
FORMAT = "e2eft-artifact"
SCHEMA_VERSION = 2
"""Version of the manifest; an artifact of a newer one is refused. 1: identity by groups of
settings, files under their own names only, nothing of who made it."""


class ArtifactError(E2eftError):
    """An artifact that is missing, of the wrong kind, too new, or made with another
    configuration."""


@dataclass(frozen=True)
class FileEntry:
    """One file of an artifact: path inside it, size in bytes, SHA-256 (hexadecimal).

    name: what it is called, where that is not its path: something else lay there already.
    """

    path: str
    size: int
    sha256: str
    name: str = ""

    @property
    def called(self) -> str:
        return self.name or self.path


@dataclass(frozen=True)
class Parent:
    """An artifact, model or other input this one was made from. digest: of what it held; "" if that
    is not known."""

    role: str
    uri: str
    digest: str


@dataclass(frozen=True)
class Artifact:
    """What a manifest says.

    identity_version: of `config`.
    made: by whom, in which epoch of which claim, and with which settings that only round. Not part
        of the digest: the same content made elsewhere is the same artifact.
    """

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
    identity_version: int = 1
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        """The store the artifact lies in."""
        return open_store(self.uri)

    def body(self) -> dict[str, Any]:
        """The manifest's content: everything but the place it lies at."""
        content = json.loads(json.dumps(asdict(self)))
        del content["uri"]
        for entry in content["files"]:
            if not entry["name"]:
                del entry["name"]
        if self.schema_version == 1:
            del content["identity_version"], content["made"]
        return {"format": FORMAT, **content}

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest without its place and without who made it."""
        body = {name: value for name, value in self.body().items() if name != "made"}
        return digest_of(body)

    @property
    def generation(self) -> int:
        """1 for an artifact as it was committed; more for what has been added since."""
        return int(self.details.get(GENERATION, 1))

    @property
    def work(self) -> str:
        """The name of the job that made it: its MLflow run is found by that. What replaces it, or
        is copied from it, is another job's."""
        claim = str(self.made.get("claim", ""))
        return work_name(self.kind, self.identity_version, self.config_digest, claim, self.uri)

    def as_parent(self, role: str) -> Parent:
        """A reference to this artifact for another one's lineage."""
        return Parent(role=role, uri=self.uri, digest=self.digest)

    def path(self, name: str) -> str:
        """Where the file of that name lies in the artifact.

        Raises:
            ArtifactError: if it has none.
        """
        for entry in self.files:
            if entry.called == name:
                return entry.path
        raise ArtifactError(f"{self.uri} has no file {name}; its {MANIFEST} lists what it has")


def work_name(kind: str, identity_version: int, config_digest: str, claim_id: str, uri: str) -> str:
    """See `Artifact.work`. Version 1 told jobs apart by their configuration."""
    return f"{kind}:{config_digest if identity_version == 1 else claim_id}:{uri}"


def sha256(content: bytes) -> str:
    """SHA-256 of bytes, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_of(tree: Any) -> str:
    """SHA-256 of the canonical JSON of a tree, hexadecimal."""
    return sha256(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode())


def load_artifact(uri: str, *kinds: str) -> Artifact:
    """The committed artifact at `uri`.

    Raises:
        ArtifactError: if there is no manifest, it is of another kind, or newer than this program.
        DamagedError: if the manifest cannot be read as one.
    """
    store = open_store(uri)
    try:
        content = store.read(MANIFEST)
    except MissingError:
        hint = (
            "; its stage was started but has not finished: run it again"
            if store.exists(CLAIM)
            else ""
        )
        raise ArtifactError(
            f"{uri} has no {MANIFEST}, so it is not a finished artifact{hint}"
        ) from None
    artifact = newest_generation(parse_manifest(uri, store.uri, content, kinds))
    if not _is_claimed(artifact):
        raise ArtifactError(
            f"{uri} holds the {MANIFEST} of a job that was replaced; its stage was started again "
            "but has not finished: run it again"
        )
    return artifact


def manifest_path(generation: int) -> str:
    """Where the manifest of a generation lies. The first is the artifact as it was committed."""
    return MANIFEST if generation == 1 else f"manifest-{generation}.json"


def newest_generation(first: Artifact) -> Artifact:
    """What has been added to an artifact since it was committed: it and everything that it lists
    stay, and the newest of its generations is what counts.

    Raises:
        DamagedError: if the manifest of one cannot be read.
    """
    newest = first
    while True:
        path = manifest_path(newest.generation + 1)
        try:
            content = newest.store.read(path)
        except MissingError:
            return newest
        following = parse_manifest(newest.uri, newest.store.uri, content, name=path)
        if not follows(following, newest):
            return newest  # left by a job that was replaced
        newest = following


def follows(later: Artifact, earlier: Artifact) -> bool:
    """Whether an artifact is the next generation of another one."""
    before = {parent.digest for parent in later.parents if parent.role == GENERATION}
    return earlier.digest in before and later.made.get("claim") == earlier.made.get("claim")


def _is_claimed(artifact: Artifact) -> bool:
    """Whether the claim beside a manifest is its own, or there is none."""
    try:
        claim = read_json(artifact.store.read(CLAIM), f"{artifact.uri}/{CLAIM}")
    except MissingError:
        return True
    return is_of(artifact, claim.get("kind"), claim.get("config"), claim.get("id"))


def is_of(artifact: Artifact, kind: Any, config: Any, claim_id: Any) -> bool:
    """Whether an artifact is what that claim was for: by id, and where version 1 recorded none, by
    kind and configuration."""
    by = artifact.made.get("claim")
    is_same = not by or not claim_id or by == claim_id
    return is_same and artifact.kind == kind and artifact.config_digest == digest_of(config)


def parse_manifest(
    shown: str, uri: str, content: bytes, kinds: tuple[str, ...] = (), name: str = MANIFEST
) -> Artifact:
    """A manifest's content. Raises as `load_artifact`; `shown` is what messages call its folder."""
    body = read_json(content, f"{shown}/{name}")
    if body.get("format") != FORMAT:
        raise ArtifactError(f"{shown}/{name} is not a manifest of this project")
    try:
        if (version := int(body["schema_version"])) > SCHEMA_VERSION:
            raise ArtifactError(
                f"{shown} has manifest version {version}, this program reads up to "
                f"{SCHEMA_VERSION}; upgrade e2eft"
            )
        if kinds and body["kind"] not in kinds:
            raise ArtifactError(
                f"{shown} is a {body['kind']!r} artifact; expected {' or '.join(kinds)}"
            )
        del body["format"]
        body["parents"] = tuple(Parent(**parent) for parent in body["parents"])
        body["files"] = tuple(FileEntry(**entry) for entry in body["files"])
        for entry in body["files"]:
            check_relative(entry.path)
            check_relative(entry.name)
        return Artifact(uri=uri, **body)
    except (AttributeError, KeyError, TypeError) as error:
        raise DamagedError(f"{shown}/{name} lacks or adds fields ({error})") from None


def read_json(content: bytes, where: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DamagedError: if the content is none, with the place it was read from.
    """
    try:
        tree = json.loads(content)
    except ValueError as error:
        raise DamagedError(f"{where} is not JSON ({error}); put back what was there") from None
    if not isinstance(tree, dict):
        raise DamagedError(f"{where} is not a JSON object; put back what was there")
    return tree


def is_gone(uri: str) -> bool:
    """Whether there is nothing at all at `uri`, which is no answer to what it holds now."""
    return next(iter(open_store(uri).list()), None) is None


def left_of(uri: str, role: str, kind: str) -> Parent:
    """An artifact as an input of finished work; without a digest if it is gone.

    Raises:
        ArtifactError: if something else is there.
    """
    return Parent(role, uri, "") if is_gone(uri) else load_artifact(uri, kind).as_parent(role)


def entries(store: Store, paths: list[str]) -> list[FileEntry]:
    """Sizes and digests of files already in the store, read in parallel, a chunk at a time."""

    def entry(path: str) -> FileEntry:
        found = store.digest(path)
        return FileEntry(path=path, size=found.size, sha256=found.sha256)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(entry, paths))


def verify(artifact: Artifact) -> list[str]:
    """Reads every file again; returns the paths that are missing or changed."""
    store = artifact.store

    def is_good(entry: FileEntry) -> bool:
        try:
            found = store.digest(entry.path)
        except MissingError:
            return False
        return (found.size, found.sha256) == (entry.size, entry.sha256)

    with ThreadPoolExecutor(8) as pool:
        good = list(pool.map(is_good, artifact.files))
    return [entry.path for entry, is_it in zip(artifact.files, good, strict=True) if not is_it]
