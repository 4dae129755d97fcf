"""Taking a folder for a configuration, and what may be written there.

`look` only reads: whether the folder is free, finished, begun, or another configuration's. What
else a stage can check, it checks then. `Place.take` claims the folder and an epoch in it; from then
on its `Claim` writes. Nothing that it writes can overwrite what another epoch wrote: files and
registrations are created exclusively, and a file that finds another content under its name lies
beside it. So a driver that was stopped, replaced and continued does no harm.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from e2eft.artifacts.deletion import (
    Owned,
    delete_artifact,
    first_foreign,
    is_empty_of_results,
    is_interrupted_deletion,
    require_deletable,
)
from e2eft.artifacts.held import Claim
from e2eft.artifacts.manifest import CLAIM, Artifact, ArtifactError, Parent
from e2eft.artifacts.ownership import (
    DELETING,
    WORKING,
    Epochs,
    OccupiedError,
    epoch_content,
    this_owner,
)
from e2eft.artifacts.record import Record, finished_of, is_there, recorded
from e2eft.artifacts.writing import Writer, require_exclusive_creation
from e2eft.errors import MissingError, StorageError
from e2eft.storage import Store

if TYPE_CHECKING:
    from e2eft.config import StageConfig

SHOWN = 12
"""Characters of a digest that people are shown."""


@dataclass(frozen=True)
class Place:
    """An output folder as it was found; nothing is written yet.

    record: the claim that is there. finished: the artifact, if it is and is of this configuration.
    replaces: the claim is another configuration's and is to be deleted with what belongs to it.
    """

    store: Store
    kind: str
    config: StageConfig
    inputs: tuple[Parent, ...]
    owned: Owned
    record: Record | None = None
    finished: Artifact | None = None
    replaces: bool = False

    def take(self) -> Claim:
        """Claims the folder, deletes what it `replaces`, and begins an epoch in it.

        Raises:
            OccupiedError: if another job is at work there.
            StorageError: if it cannot be written, or if the store cannot create exclusively.
        """
        if not self.config.single_writer:
            require_exclusive_creation(self.store)
        place = self
        # What has come since is nothing that `overwrite` was said of.
        config = self.config.model_copy(update={"overwrite": False})
        while (claim := place._take()) is None:
            place = look(self.store, self.kind, config, self.inputs, self.owned)
        return claim

    def _take(self) -> Claim | None:
        """None if what was found is no longer there: another job has come between."""
        if self.record is None:
            return self._create()
        claim = self._enter(self.record)
        if claim is None:
            return None
        epochs, epoch = claim.epochs, claim.epoch
        may_replace = self.config.overwrite or is_empty_of_results(self.store, self.owned)
        if self.replaces and not may_replace:
            # It had come to nothing when it was looked at, but not any more.
            epochs.delete(epoch)
            return None
        if not self.replaces and not epochs.is_condemned(epoch):
            claim.begin(WORKING)
            return claim
        endangered = epochs.may_still_be_deleted(epoch)
        self._delete(claim)
        new = self._create(apart=endangered)
        # Only now: until there is another claim, it says that what is left there is nobody's.
        with suppress(StorageError):
            epochs.delete(epoch)
        return new

    def _delete(self, claim: Claim) -> None:
        claim.begin(DELETING)
        mine = claim.epochs.path(claim.epoch, "")
        try:
            delete_artifact(self.store, self.owned, mine, lambda: claim.require_owner(fresh=True))
        except BaseException:
            claim.release("failed")
            raise
        claim.release("replaced")

    def _create(self, *, apart: bool = False) -> Claim | None:
        from e2eft.config import IDENTITY_VERSION

        record = Record(
            kind=self.kind,
            config=self.config.identity(),
            id=secrets.token_hex(8),
            identity_version=IDENTITY_VERSION,
            inputs=self.inputs,
            rounding=self.config.rounding(),
            apart=apart,
        )
        writer = Writer(self.store.uri, record.id, 0, self.config.single_writer)
        if not writer.create(CLAIM, record.encode()):
            return None
        if claim := self._enter(record):
            claim.begin(WORKING)
        return claim

    def _enter(self, record: Record) -> Claim | None:
        """The next epoch of a claim; None if that is no longer there."""
        epochs = Epochs(self.store, record.id)
        try:
            epoch = epochs.vacate(self.config.take_over)
            content = epoch_content(record.id, epoch, this_owner())
            single = self.config.single_writer
            writer = Writer(self.store.uri, record.id, epoch, single, record.apart)
            if not writer.create(epochs.path(epoch), content):
                raise OccupiedError(
                    f"{self.store.uri} has just been taken by {epochs.owner(epoch)}; wait for it, "
                    "or use another --out"
                )
        except MissingError:
            return None
        # Only now nobody else may delete this claim; somebody has perhaps.
        if not is_there(self.store, record):
            epochs.delete(epoch)
            return None
        return Claim(self, record, epochs, writer)


def look(
    store: Store,
    kind: str,
    config: StageConfig,
    inputs: tuple[Parent, ...],
    owned: Owned,
) -> Place:
    """What is at a stage's --out. Reads only.

    Args:
        inputs: what the configuration's URIs hold now, by digest.
        owned: which files a stage of this kind writes, so that no other is ever deleted.

    Raises:
        ArtifactError: if it holds another configuration, kind or inputs and `overwrite` is not set,
            or files that no claim covers, or is no place for an artifact.
        StorageError: if it cannot be read.
    """
    place = Place(store, kind, config, inputs, owned)
    require_deletable(store)
    record = recorded(store)
    if record is None:
        if (foreign := first_foreign(store)) and not is_interrupted_deletion(store):
            raise ArtifactError(
                f"{store.uri} is not empty ({foreign}) and no claim says whose it is; use an empty "
                "--out"
            )
        return place
    finished = finished_of(store, record)
    found = _differences(record, finished, kind, config, inputs)
    if not found:
        return Place(store, kind, config, inputs, owned, record, finished)
    if config.overwrite or _is_void(store, record, owned):
        return Place(store, kind, config, inputs, owned, record, replaces=True)
    raise ArtifactError(
        f"{store.uri} was made with another configuration ({found}); use another --out, or "
        "--overwrite to delete what is there"
    )


def _differences(
    record: Record,
    finished: Artifact | None,
    kind: str,
    config: StageConfig,
    inputs: tuple[Parent, ...],
) -> str:
    if record.kind != kind:
        return f"kind: {record.kind!r} -> {kind!r}"
    from e2eft.config import differences, refusal

    found = differences(record.config, config, record.identity_version)
    lines = [refusal(found)] if found else []
    known = record.inputs
    if not known and finished:
        # Version 1 recorded none. Its models had a digest of another kind, or none.
        known = tuple(p for p in finished.parents if p.role not in ("model", "base"))
    for role in dict.fromkeys(parent.role for parent in inputs):
        then, now = (
            [parent for parent in group if parent.role == role] for group in (known, inputs)
        )
        changed = list(filter(None, map(_change, then, now)))
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        lines += [line + more for line in changed[:1]]
    return "; ".join(lines)


def _change(old: Parent, new: Parent) -> str:
    """What is another input, for a person; "" if it is the same, as far as that is known."""
    if old.digest and new.digest and old.digest != new.digest:
        return (
            f"{new.role} {new.uri} holds something else than {old.uri} held when this was begun: "
            f"digest {old.digest[:SHOWN]} -> {new.digest[:SHOWN]}"
        )
    if not (old.digest and new.digest) and old.uri != new.uri:
        return f"{new.role}: {old.uri} -> {new.uri}"
    return ""


def _is_void(store: Store, record: Record, owned: Owned) -> bool:
    """A claim that came to nothing: its job is over, and nothing in the folder is a result."""
    epochs = Epochs(store, record.id)
    newest = epochs.newest()
    if newest and not epochs.is_over(newest):
        return False
    if not newest and record.identity_version == 1:
        return False  # Version 1 does not tell whether its job is over.
    return is_empty_of_results(store, owned)
