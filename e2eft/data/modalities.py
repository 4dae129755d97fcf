"""What the frames of a dataset have: depth, normals, or both."""

from dataclasses import dataclass

MODALITIES = ("depth", "normals")
"""The columns of a shard that a loss may look at, and that are not read if it does not."""


@dataclass(frozen=True)
class Modalities:
    """What every frame of a dataset has; one that has not is rejected.

    depth: a finite depth somewhere.
    normals: a normal somewhere.
    away_share: part of the dataset's normals that may face away from the camera. None where they
        are made from exact geometry: a single one rejects its frame. An evaluation keeps annotated
        ones as they are published, in every frame; more than this share of all frames' together
        means that their axes were mistaken.
    """

    depth: bool = True
    normals: bool = False
    away_share: float = 0.0


DEPTH = Modalities()
ANNOTATED_NORMALS = Modalities(depth=False, normals=True, away_share=0.25)
DRAWN_NORMALS = Modalities(depth=False, normals=True, away_share=1)
"""Drawn on photographs, without regard to a camera: any of them may face away from it."""
