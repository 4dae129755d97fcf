"""The labelling stage, and how an estimator samples."""

from typing import Annotated, Literal, Self

import tyro
from pydantic import Field, model_validator

from e2eft.config.base import (
    INPUT,
    INT64_MAX,
    MAX_PROCESSING_PX,
    PLACEMENT,
    RESULT,
    ROUNDING,
    ByRecipe,
    ChosenBy,
    Config,
    Count,
    Fraction,
    InitialLatent,
    Positive,
    StageConfig,
    TaskName,
    TrackingConfig,
    flag,
)

Spacing = Literal["leading", "trailing", "linspace"]
ProcessingPx = Annotated[int, Field(gt=0, le=MAX_PROCESSING_PX)]


class SamplingConfig(Config):
    """How the estimator walks from the initial latent to the clean one."""

    steps: Annotated[Positive | None, RESULT, flag("steps")] = None
    """Denoising steps. Default: the model's own; one is what end-to-end fine-tuned models are made
    for."""
    spacing: Annotated[Spacing | None, RESULT, flag("spacing")] = None
    """Timestep grid. trailing is right, and what models have of their own; leading shows the flaw
    the paper found."""
    initial_latent: Annotated[InitialLatent | None, RESULT, flag("initial-latent")] = None
    """Default: what the model's card says (gaussian for a model without a card)."""
    seed: Annotated[int, RESULT, flag("noise-seed"), Field(ge=-INT64_MAX - 1, le=INT64_MAX)] = 0
    """Seeds the initial noise of each image together with the image's own content."""


class LabelConfig(StageConfig):
    """Label a corpus of images with depth or normals."""

    model: Annotated[str, PLACEMENT, INPUT]
    """Folder, run artifact, packaged name, hub id, or models:/name@alias."""
    model_card: Annotated[str | None, PLACEMENT, flag("model-card")] = None
    """JSON file that says what the model is and how it is run (task, axes, steps, …), instead of
    the model's own e2eft.json or of what its layout implies."""
    card_digest: Annotated[str | None, RESULT, tyro.conf.Suppress, ChosenBy("--model-card")] = None
    """Set by the stage to the digest of what that file says."""
    images: Annotated[str, RESULT]
    """A folder of images (searched recursively), or shards whose colour images are labelled."""
    out: Annotated[str, PLACEMENT]
    """Where labels go: a folder, file:// or s3:// URI."""
    task: Annotated[ByRecipe[TaskName], RESULT]
    sampling: SamplingConfig = SamplingConfig()
    processing_size: Annotated[ProcessingPx | None, RESULT, flag("processing-size")] = None
    """Longest side in pixels at which the model sees an image, 4096 at most. Default: the model's
    own; 0 is not allowed, use --native-size."""
    native_size: Annotated[bool, RESULT, flag("native-size")] = False
    """Process every image at its own size, padded to the VAE's multiple."""
    save_npy: Annotated[bool, RESULT] = False
    """Also write float32 .npy arrays."""
    save_previews: Annotated[bool, RESULT] = True
    """Also write colour previews."""
    images_per_part: Annotated[Positive, RESULT] = 64
    """Images in one part: the unit of work, of commit and of resuming."""
    batch_size: Annotated[Positive, ROUNDING] = 8
    """Images of equal size in one forward pass."""
    actors: Annotated[Positive, ROUNDING, flag("num-workers")] = 1
    """Model replicas: one GPU each, or one CPU where there is none."""
    decode_cpus: Annotated[float, PLACEMENT, Field(gt=0)] = 0.25
    """CPUs Ray reserves for one decoding or writing task."""
    max_pixels: Annotated[Positive, RESULT] = 64_000_000
    """Larger images are rejected before they are decoded, and files of more than 8 bytes a pixel
    (and 64 MiB) before they are read. Every decoding task reserves the memory (28 bytes a pixel)
    that one of this size takes."""
    max_reject_fraction: Annotated[Fraction, PLACEMENT] = 0.05
    """If more than this part of the images is rejected, the exit code is 3; the labels stay."""
    gallery_images: Annotated[Count, PLACEMENT] = 24
    """Images shown in the HTML gallery. 0: no gallery."""
    retry: Annotated[bool, PLACEMENT] = False
    """Of finished labels: try again the rejected images that may be fine by now (denied, missing,
    changed, out of memory). Those that are get their labels in a new generation of the artifact."""
    overwrite: Annotated[bool, PLACEMENT] = False
    """Delete what is at --out if it was made with another configuration."""
    take_over: Annotated[bool, PLACEMENT] = False
    """Replace a job that holds --out without waiting to see whether it is alive."""
    single_writer: Annotated[bool, PLACEMENT] = False
    """Write to a store that cannot refuse to create what is there. You answer for it that no other
    job writes to --out."""
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.native_size and self.processing_size:
            raise ValueError(
                f"--native-size and --processing-size {self.processing_size} exclude each other"
            )
        return self

    @model_validator(mode="after")
    def _retried_or_replaced(self) -> Self:
        if self.retry and self.overwrite:
            raise ValueError(
                "--retry and --overwrite exclude each other: one keeps every label that is there, "
                "the other may delete them"
            )
        return self
