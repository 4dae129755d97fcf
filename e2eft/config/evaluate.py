"""The evaluation stage."""

from typing import Annotated, Literal, Self

import tyro
from pydantic import Field, model_validator

from e2eft.config.base import (
    INPUT,
    PLACEMENT,
    RESULT,
    ROUNDING,
    ByRecipe,
    ChosenBy,
    Count,
    Positive,
    StageConfig,
    TaskName,
    TrackingConfig,
    flag,
)
from e2eft.config.label import SamplingConfig

ProtocolName = Literal[
    "least-squares-depth",
    "least-squares-depth-lapis",
    "least-squares-disparity",
    "least-squares-log-depth",
    "least-squares-own-space",
    "ransac-log-depth",
    "per-image-mean",
    "pooled-pixels",
]
"""Names of the classes in `e2eft.evaluate.protocols`; of each task, the first is the default."""
LabelsKind = Literal["depth", "disparity", "log-depth", "sqrt-disparity"]
LabelsAxes = Literal["right-up-viewer", "left-up-viewer", "opencv"]


class EvaluateConfig(StageConfig):
    """Score a model, or labels already there, against shards with ground truth."""

    out: Annotated[str, PLACEMENT]
    """Where scores go: a folder, file:// or s3:// URI."""
    task: Annotated[ByRecipe[TaskName], RESULT]
    data: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], PLACEMENT, INPUT]
    """Shards with ground truth. Repeat for several."""
    model: Annotated[str | None, PLACEMENT, INPUT] = None
    """Model to label them with first: folder, run artifact, packaged name, hub id, or
    models:/name@alias."""
    model_card: Annotated[str | None, PLACEMENT, flag("model-card")] = None
    """JSON file that says what --model is and how it is run, instead of its own e2eft.json or of
    what its layout implies."""
    card_digest: Annotated[str | None, RESULT, tyro.conf.Suppress, ChosenBy("--model-card")] = None
    """Set by the stage to the digest of what that file says."""
    labels: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], PLACEMENT, INPUT] = ()
    """Labels to score instead of a model, one for each --data: artifacts of the label stage, or
    folders of .npy or .png files that another program wrote, named as the images are (or as
    Marigold names its predictions)."""
    labels_kind: Annotated[LabelsKind, RESULT] = "depth"
    """What the numbers in such folders are affine in. Normals are normals. Disparity must be
    positive: pixels where it is not take no part in the fit, as in the published code, so that
    adding a number to it may change its score."""
    labels_axes: Annotated[LabelsAxes, RESULT] = "right-up-viewer"
    """Axes of normals in such folders: right-up-viewer (Marigold v1-1, diffusers), left-up-viewer
    (the paper's, DSINE's), or opencv (x right, y down, z forward)."""
    labels_pattern: Annotated[str | None, RESULT] = None
    """Path of a label in such a folder, e.g. {folder}/pred_{name}.npy: {key} is the image's path
    without ending, {folder} and {name} its parts."""
    sampling: SamplingConfig = SamplingConfig()
    protocol: Annotated[ProtocolName | None, RESULT] = None
    """Named protocol; default by task. Scores of different protocols are never compared."""
    processing_px: Annotated[
        tuple[int | None, ...], RESULT, tyro.conf.Suppress, ChosenBy("protocol or data")
    ] = ()
    """Set by the stage to the longest side at which --model sees the images of each --data, as the
    protocol says. 0: each at its own size; none: as the model says."""
    max_depth_m: Annotated[float, RESULT, Field(gt=0)] = 80.0
    """Of data that the protocol has no rules for: depth beyond this is not scored, and predictions
    are clipped to it after alignment."""
    bootstrap: Annotated[int, RESULT, Field(gt=0, le=1_000_000)] = 2000
    """Resamples of the bootstrap interval over images."""
    batch_size: Annotated[Positive, ROUNDING] = 8
    """Images in one forward pass when a model is scored."""
    actors: Annotated[Positive, ROUNDING, flag("num-workers")] = 1
    """Model replicas when a model is scored."""
    scoring_tasks: Annotated[Positive | None, PLACEMENT] = None
    """Tasks that score at the same time. Default: one a CPU."""
    frames_per_task: Annotated[Positive, PLACEMENT] = 32
    """Images scored by one task."""
    panels: Annotated[Count, RESULT] = 4
    """Worst and median images shown as panels."""
    register_as: Annotated[str | None, PLACEMENT, flag("register")] = None
    """Register the model under this name and move the alias `champion` to it if it is better than
    the
    current champion under the same protocol and data."""
    overwrite: Annotated[bool, PLACEMENT] = False
    """Delete what is at --out if it was made with another configuration."""
    take_over: Annotated[bool, PLACEMENT] = False
    """Replace a job that holds --out without waiting to see whether it is alive."""
    single_writer: Annotated[bool, PLACEMENT] = False
    """Write to a store that cannot refuse to create what is there. You answer for it that no other
    job writes to --out."""
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _something_to_score(self) -> Self:
        if not self.data:
            raise ValueError("--data is missing: give at least one shards URI with ground truth")
        if (self.model is None) == (not self.labels):
            raise ValueError("give either --model or --labels (one for each --data)")
        if self.labels and len(self.labels) != len(self.data):
            raise ValueError(
                f"--labels is given {len(self.labels)} times but --data {len(self.data)} times"
            )
        if self.model_card and self.model is None:
            raise ValueError("--model-card needs --model: labels are what they are")
        if self.register_as and self.model is None:
            raise ValueError("--register needs --model: labels alone cannot be registered")
        return self
