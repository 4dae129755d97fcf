"""The preparation stage: raw files or procedural scenes to shards.

`stage` makes the parts, one Ray task each, and commits them; `latents` encodes their colour images
in between, if asked to, in actors that hold a VAE.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2eft.prepare.config import PrepareConfig

if TYPE_CHECKING:
    from e2eft.artifacts import Artifact

__all__ = ["PrepareConfig", "run"]


def run(config: PrepareConfig) -> Artifact:
    """See `stage.run`; the command line needs the configuration without what a run needs."""
    from e2eft.prepare import stage

    return stage.run(config)
