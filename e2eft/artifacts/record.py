"""What a claim says, and whether a manifest is its."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from e2eft.artifacts.manifest import (
    CLAIM,
    FORMAT,
    MANIFEST,
    Artifact,
    ArtifactError,
    Parent,
    digest_of,
    is_of,
    newest_generation,
    parse_manifest,
    read_json,
    sha256,
)
from e2eft.errors import DamagedError, E2eftError, MissingError
from e2eft.storage import Store

CLAIM_VERSION = 2


@dataclass(frozen=True)
class Record:
    """What `_claim.json` says. Version 1 has neither an identity of its own nor inputs."""

    kind: str
    config: dict[str, Any]
    id: str
    identity_version: int
    inputs: tuple[Parent, ...] = ()
    rounding: dict[str, Any] = field(default_factory=dict)
    apart: bool = False

    @property
    def digest(self) -> str:
        """Of the configuration as it was recorded."""
        return digest_of(self.config)

    def encode(self) -> bytes:
        content = {
            "format": FORMAT,
            "format_version": CLAIM_VERSION,
            "identity_version": self.identity_version,
            "id": self.id,
            "kind": self.kind,
            "config": self.config,
            "inputs": [vars(parent) for parent in self.inputs],
            "rounding": self.rounding,
            **({"apart": True} if self.apart else {}),
        }
        return json.dumps(content, indent=1, sort_keys=True).encode()

    @staticmethod
    def decode(content: bytes, where: str) -> "Record":
        """Raises ArtifactError for a claim of a newer version, DamagedError for no claim."""
        tree = read_json(content, where)
        try:
            if (version := int(tree.get("format_version", 1))) > CLAIM_VERSION:
                raise ArtifactError(f"{where} has version {version}; upgrade e2eft")
            record = Record(
                kind=str(tree["kind"]),
                config=dict(tree["config"]),
                id=tree.get("id") or sha256(content)[:16],
                identity_version=tree.get("identity_version", 1),
                inputs=tuple(Parent(**parent) for parent in tree.get("inputs", ())),
                rounding=tree.get("rounding") or {},
                apart=bool(tree.get("apart")),
            )
            if not re.fullmatch(r"[0-9a-f]+", record.id):  # it becomes a part of paths
                raise DamagedError(f"{where} has the id {record.id!r}; put back what was there")
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, E2eftError):
                raise
            raise DamagedError(f"{where} is no claim ({error}); put back what was there") from None
        return record


def finished_of(store: Store, record: Record) -> Artifact | None:
    """The artifact of this claim, in its newest generation: a manifest of another configuration is
    not one."""
    try:
        there = parse_manifest(store.uri, store.uri, store.read(MANIFEST))
    except MissingError:
        return None
    return newest_generation(there) if is_artifact_of(there, record) else None


def recorded(store: Store) -> Record | None:
    """The claim that is there."""
    try:
        return Record.decode(store.read(CLAIM), f"{store.uri}/{CLAIM}")
    except MissingError:
        return None


def is_artifact_of(artifact: Artifact, record: Record) -> bool:
    return is_of(artifact, record.kind, record.config, record.id)


def is_there(store: Store, record: Record) -> bool:
    """Whether the folder is still this claim's."""
    there = recorded(store)
    return there is not None and there.id == record.id
