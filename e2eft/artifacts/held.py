"""A folder that a job has taken: what it may write there, and the commit."""

import json
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from e2eft.artifacts.manifest import (
    GENERATION,
    MANIFEST,
    SCHEMA_VERSION,
    Artifact,
    FileEntry,
    Parent,
    follows,
    manifest_path,
    parse_manifest,
    work_name,
)
from e2eft.artifacts.ownership import DisplacedError, Epochs, Heart
from e2eft.artifacts.record import Record, finished_of, is_artifact_of, is_there
from e2eft.artifacts.writing import Writer
from e2eft.errors import MissingError, StorageError

if TYPE_CHECKING:
    from e2eft.artifacts.claims import Place


class Claim:
    """A folder that is ours: the right to write there, until another job takes over.

    finished: the artifact, if the job that was waited for has finished it.
    """

    def __init__(self, place: "Place", record: Record, epochs: Epochs, writer: Writer) -> None:
        self.place, self.record, self.epochs, self.writer = place, record, epochs, writer
        self.epoch = writer.epoch
        self.store = place.store
        self.heart = Heart(epochs, writer.epoch)
        self.finished: Artifact | None = None

    def begin(self, doing: str) -> None:
        """Lets everybody know that its owner is alive, and what he does."""
        self.heart.start(doing)
        try:
            self.finished = finished_of(self.store, self.record)
        except BaseException:
            self.release("failed")
            raise

    @property
    def digest(self) -> str:
        """Of the configuration as it was claimed: the same for every run of the job."""
        return self.record.digest

    @property
    def work(self) -> str:
        """As `Artifact.work` of what will be committed."""
        record = self.record
        return work_name(
            record.kind, record.identity_version, record.digest, record.id, self.store.uri
        )

    @property
    def is_resumed(self) -> bool:
        return self.epoch > 1 or self.record.identity_version == 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release("finished" if kind is None else f"failed: {kind.__name__}")
        if isinstance(error, StorageError) and self.heart.displaced_by:
            # What it misses has been deleted by the other job.
            raise DisplacedError(self.heart.displacement) from error

    def release(self, ended: str) -> None:
        """Lets the next job of this folder begin without waiting."""
        self.heart.stop(ended)

    def require_owner(self, *, fresh: bool = False) -> None:
        """Raises DisplacedError if another job has taken over (`fresh`: asks the store now)."""
        self.heart.require_owner(fresh=fresh)

    def put(self, name: str, content: bytes) -> FileEntry:
        """See `Writer.put`."""
        return self.writer.put(name, content)

    def commit(
        self,
        *,
        files: list[FileEntry],
        counts: dict[str, int],
        parents: tuple[Parent, ...] = (),
        details: dict[str, Any] | None = None,
        after: Artifact | None = None,
    ) -> Artifact:
        """Writes the manifest: from now on the artifact exists. Committing twice returns the first
        one.

        Args:
            after: the generation of the artifact that this one adds to.

        Raises:
            DisplacedError: if another job has taken over.
        """
        self.require_owner(fresh=True)
        record, path = self.record, MANIFEST
        if after is not None:
            path = manifest_path(after.generation + 1)
            parents = (*parents, after.as_parent(GENERATION))
            details = {**(details or {}), GENERATION: after.generation + 1}
        artifact = Artifact(
            uri=self.store.uri,
            kind=record.kind,
            schema_version=SCHEMA_VERSION,
            config=record.config,
            config_digest=record.digest,
            parents=parents,
            counts=counts,
            files=tuple(sorted(files, key=lambda entry: entry.called)),
            details=details or {},
            identity_version=record.identity_version,
            made={
                "claim": record.id,
                "epoch": self.epoch,
                "rounding": self.place.config.rounding(),
            },
        )
        content = json.dumps(artifact.body(), indent=1, sort_keys=True).encode()
        while not self.writer.create(path, content):
            there = finished_of(self.store, record)
            if there is not None and there.generation >= artifact.generation:
                return there
            # Of a job with another configuration, which this one has replaced.
            self._remove_foreign(path, after)
        self._require_committed(path, content)
        return artifact

    def _remove_foreign(self, path: str, after: Artifact | None) -> None:
        try:
            content = self.store.read(path)
        except MissingError:
            return
        self.require_owner(fresh=True)
        there = parse_manifest(self.store.uri, self.store.uri, content, name=path)
        is_next = after is None or follows(there, after)
        if not (is_next and is_artifact_of(there, self.record)):
            self.store.delete_exactly(path, content)

    def _require_committed(self, path: str, content: bytes) -> None:
        """Takes the manifest back if the folder was given to another claim just before."""
        try:
            self.require_owner(fresh=True)
        except DisplacedError:
            if not is_there(self.store, self.record):
                self.store.delete_exactly(path, content)
            raise


def rounding_changes(claim: Claim) -> list[str]:
    """Settings that round otherwise than when the folder was claimed, for a person."""
    from e2eft.config.identity import rounding_differences

    recorded = claim.record.rounding or claim.record.config
    return [str(change) for change in rounding_differences(recorded, claim.place.config)]
