"""The labelling stage, and how an estimator samples."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from e2eft.config.base import (
    INPUT,
    PLACEMENT,
    RESULT,
    ROUNDING,
    ByRecipe,
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

    steps: Annotated[Positive, RESULT, flag("steps")] = 1
    """Denoising steps. One is what end-to-end fine-tuned models are made for."""
    spacing: Annotated[Spacing, RESULT, flag("spacing")] = "trailing"
    """Timestep grid. trailing is right; leading shows the flaw the paper found."""
    initial_latent: Annotated[InitialLatent | None, RESULT, flag("initial-latent")] = None
    """Default: what the model's card says (gaussian for a model without a card)."""
    seed: Annotated[int, RESULT, flag("noise-seed")] = 0
    """Seeds the initial noise of each image together with the image's own content."""


class LabelConfig(Config):
    """Label a corpus of images with depth or normals."""

    model: Annotated[str, PLACEMENT, INPUT]
    """Folder, run artifact, packaged name, hub id, or models:/name@alias."""
    images: Annotated[str, RESULT]
    """A folder of images (searched recursively), or shards whose colour images are labelled."""
    out: Annotated[str, PLACEMENT]
    """Where labels go: a folder, file:// or s3:// URI."""
    task: Annotated[ByRecipe[TaskName], RESULT]
    sampling: SamplingConfig = SamplingConfig()
    processing_size: Annotated[Positive | None, RESULT, flag("processing-size")] = None
    """Longest side in pixels at which the model sees an image. Default: the model's own; 0 is not
    allowed,
    use --native-size."""
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
    """Larger images are rejected before they are decoded."""
    max_reject_fraction: Annotated[Fraction, PLACEMENT] = 1.0
    """Fail at the end if more than this part of the images is rejected."""
    gallery_images: Annotated[int, PLACEMENT, Field(ge=0)] = 24
    """Images shown in the HTML gallery. 0: no gallery."""
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
