"""The labelling stage, and how an estimator samples."""

from typing import Annotated, Literal, Self

import tyro
from pydantic import Field, model_validator

from e2eft.config.base import (
    Config,
    Fraction,
    InitialLatent,
    Positive,
    TaskName,
    TrackingConfig,
    flag,
)

Spacing = Literal["leading", "trailing", "linspace"]


class SamplingConfig(Config):
    """How the estimator walks from the initial latent to the clean one."""

    steps: Annotated[Positive, flag("steps")] = 1
    """Denoising steps. One is what end-to-end fine-tuned models are made for."""
    spacing: Annotated[Spacing, flag("spacing")] = "trailing"
    """Timestep grid. trailing is right; leading shows the flaw the paper found."""
    initial_latent: Annotated[InitialLatent | None, flag("initial-latent")] = None
    """Default: what the model's card says (gaussian for a model without a card)."""
    seed: Annotated[int, flag("noise-seed")] = 0
    """Seeds the initial noise of each image together with the image's own content."""


class LabelConfig(Config):
    """Label a corpus of images with depth or normals."""

    outside_identity = frozenset(
        {"out", "overwrite", "tracking", "batch_size", "actors", "gallery_images", "decode_cpus"}
        | {"max_reject_fraction"}
    )

    model: str
    """Folder, run artifact, packaged name, hub id, or models:/name@alias."""
    images: str
    """A folder of images (searched recursively), or shards whose colour images are labelled."""
    out: str
    """Where labels go: a folder, file:// or s3:// URI."""
    task: tyro.conf.Suppress[TaskName]
    sampling: SamplingConfig = SamplingConfig()
    processing_size: Annotated[Positive | None, flag("processing-size")] = None
    """Longest side in pixels at which the model sees an image. Default: the model's own; 0 is not
    allowed,
    use --native-size."""
    native_size: Annotated[bool, flag("native-size")] = False
    """Process every image at its own size, padded to the VAE's multiple."""
    save_npy: bool = False
    """Also write float32 .npy arrays."""
    save_previews: bool = True
    """Also write colour previews."""
    images_per_part: Positive = 64
    """Images in one part: the unit of work, of commit and of resuming."""
    batch_size: Positive = 8
    """Images of equal size in one forward pass."""
    actors: Annotated[Positive, flag("num-workers")] = 1
    """Model replicas: one GPU each, or one CPU where there is none."""
    decode_cpus: Annotated[float, Field(gt=0)] = 0.25
    """CPUs Ray reserves for one decoding or writing task."""
    max_pixels: Positive = 64_000_000
    """Larger images are rejected before they are decoded."""
    max_reject_fraction: Fraction = 1.0
    """Fail at the end if more than this part of the images is rejected."""
    gallery_images: Annotated[int, Field(ge=0)] = 24
    """Images shown in the HTML gallery. 0: no gallery."""
    overwrite: bool = False
    """Delete what is at --out if it was made with another configuration."""
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.native_size and self.processing_size:
            raise ValueError(
                f"--native-size and --processing-size {self.processing_size} exclude each other"
            )
        return self
