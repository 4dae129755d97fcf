"""The preparation stage's configuration: raw files or procedural scenes to shards."""

from typing import Annotated, Self

import tyro
from pydantic import Field, model_validator

from e2eft.config.base import (
    PLACEMENT,
    RESULT,
    ChosenBy,
    Fraction,
    Positive,
    StageConfig,
    TrackingConfig,
)
from e2eft.datasets import SourceConfig


class PrepareConfig(StageConfig):
    """Render or convert a dataset and shard it to object storage."""

    out: Annotated[str, PLACEMENT]
    """Where the shards go: a folder, file:// or s3:// URI."""
    source: Annotated[
        SourceConfig,
        Field(discriminator="kind"),
        tyro.conf.arg(name=""),
        tyro.conf.AvoidSubcommands,
    ]
    frames_per_part: Annotated[Positive, RESULT] = 64
    """Frames in one shard file: the unit of work, of commit and of resuming."""
    max_reject_fraction: Annotated[Fraction, PLACEMENT] = 0.05
    """Fail if more than this part of the frames is rejected."""
    cpus_per_task: Annotated[float, PLACEMENT, Field(gt=0)] = 1.0
    """CPUs Ray reserves for one task, which makes one part."""
    latents_of: Annotated[str | None, PLACEMENT] = None
    """Also encode the colour images with the frozen VAE of this model (packaged name, folder, run
    artifact, or hub id), as they are and mirrored; training on a base model with that VAE is then
    spared it."""
    vae_digest: Annotated[str | None, RESULT, tyro.conf.Suppress, ChosenBy("--latents-of")] = None
    """Set by the stage to the digest of that VAE: what was encoded with it is the same artifact,
    wherever the VAE was found."""
    latent_actors: Annotated[Positive, PLACEMENT] = 1
    """Replicas of that VAE: one GPU each, or one CPU where there is none."""
    overwrite: Annotated[bool, PLACEMENT] = False
    """Delete what is at --out if it was made with another configuration."""
    take_over: Annotated[bool, PLACEMENT] = False
    """Replace a job that holds --out without waiting to see whether it is alive."""
    single_writer: Annotated[bool, PLACEMENT] = False
    """Write to a store that cannot refuse to create what is there. You answer for it that no other
    job writes to --out."""
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _can_be_encoded(self) -> Self:
        if self.latents_of is not None and (why := self.source.not_encodable):
            raise ValueError(
                f"--latents-of needs sides that are multiples of the VAE's factor 8, {why}"
            )
        return self
