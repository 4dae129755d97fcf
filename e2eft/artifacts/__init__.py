"""The commit protocol: what lies between two stages.

    claim     `_claim.json`, created exclusively: this folder belongs to this configuration, with
              these inputs
    epoch     `_epochs/CLAIM/NNNNNN.json`, created exclusively: who works in it, alive as long as
              the file beside it beats
    parts     written whole under names that follow from the plan, in any order, by anyone, and
              never over another content
    commit    `manifest.json`, written last: the artifact exists

A re-run with the same configuration finds the claim, skips the parts that are there and commits;
with another configuration it refuses and names the field that differs. A committed artifact is
never edited. What could not be made the first time is added by a later generation:
`manifest-2.json`, whose parent is the first manifest; readers take the newest, and what is made
from it names it by its digest.
"""

from e2eft.artifacts.claims import Place, look
from e2eft.artifacts.deletion import Owned
from e2eft.artifacts.held import Claim, rounding_changes
from e2eft.artifacts.manifest import (
    CLAIM,
    FORMAT,
    GENERATION,
    MANIFEST,
    SCHEMA_VERSION,
    Artifact,
    ArtifactError,
    FileEntry,
    Parent,
    entries,
    is_gone,
    left_of,
    load_artifact,
    read_json,
    sha256,
    verify,
)
from e2eft.artifacts.ownership import DisplacedError, OccupiedError
from e2eft.artifacts.record import Record, finished_of, recorded
from e2eft.artifacts.writing import Writer

__all__ = [
    "CLAIM",
    "FORMAT",
    "GENERATION",
    "MANIFEST",
    "SCHEMA_VERSION",
    "Artifact",
    "ArtifactError",
    "Claim",
    "DisplacedError",
    "FileEntry",
    "OccupiedError",
    "Owned",
    "Parent",
    "Place",
    "Record",
    "Writer",
    "entries",
    "finished_of",
    "is_gone",
    "left_of",
    "load_artifact",
    "look",
    "read_json",
    "recorded",
    "rounding_changes",
    "sha256",
    "verify",
]
