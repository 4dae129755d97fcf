"""The preparation stage: raw files or procedural scenes to shards.

`stage` makes the parts, one Ray task each, and commits them; `latents` encodes their colour images
in between, if asked to, in actors that hold a VAE.
"""

from e2eft.prepare.stage import run

__all__ = ["run"]
