"""Surface normals, as arXiv 2409.11355 trains them, in Marigold's axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from e2eft.geometry.normals import (
    Axes,
    angular_error,
    convert_axes,
    normalize,
)
from e2eft.losses import Angular, NormalsFit, summed
from e2eft.metrics.normals import angular_summary
from e2eft.tasks import TaskSettings
from e2eft.tasks.base import Batch

IMAGE_AXES: Axes = "right-up-viewer"
"""Axes of the model's channels: those of Marigold v1-1 and diffusers' MarigoldNormalsPipeline.

The paper's own models have x the other way round ("left-up-viewer").
"""

NORMALIZE_EPS = 1e-5


def build(settings: TaskSettings) -> AngularNormals:
    """See `e2eft.tasks.get_task`; a frame's own depth says where normals are supervised."""
    return AngularNormals(losses=cast("tuple[Angular, ...]", settings.losses) or (Angular(),))


@dataclass(frozen=True, kw_only=True)
class AngularNormals:
    """Unit normals in camera axes.

    The model's image holds them in `image_axes`, which only `decode` and `encode_target` know;
    predictions, batches and labels are in OpenCV's axes. Pixels are scored wherever the normal is
    known, whether or not the depth is; they are supervised where the depth is valid too, as in the
    paper, unless the image has no depth at all.

    full_z_range: whether the image holds all of z, or only its half towards the viewer, drawn out
    to [-1, 1].
    """

    image_axes: Axes = IMAGE_AXES
    full_z_range: bool = True
    losses: tuple[Angular, ...] = (Angular(),)

    @property
    def name(self) -> str:
        return "normals"

    @property
    def target(self) -> str:
        return f"unit normals facing the camera; image channels in {self.image_axes} axes"

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for loss in self.losses for name in loss.modalities))

    def read_from(self, axes: str, full_z_range: bool) -> AngularNormals:
        """The same for a model whose image holds normals otherwise."""
        return replace(self, image_axes=cast("Axes", axes), full_z_range=full_z_range)

    def decode(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """``x / (|x| + 1e-5)`` (the paper's), turned to OpenCV's axes."""
        image = image.to(torch.promote_types(image.dtype, torch.float32))
        if not self.full_z_range:
            x, y, z = image.unbind(1)
            image = torch.stack([x, y, (z.clamp(-1, 1) + 1) / 2], dim=1)
        return convert_axes(normalize(image, NORMALIZE_EPS), self.image_axes, "opencv")

    def encode_target(self, batch: Batch) -> tuple[Float[Tensor, "n 3 h w"], Bool[Tensor, "n h w"]]:
        """The normals in `image_axes`; 0 where they are not supervised."""
        mask = _supervised(batch)
        image = convert_axes(batch.normals_cam, "opencv", self.image_axes)
        return image.where(mask[:, None], 0), mask

    def loss(self, prediction: Float[Tensor, "n 3 h w"], batch: Batch) -> Float[Tensor, ""]:
        """The sum of the task's losses; alone, `Angular` is the mean angular error in radians (the
        paper's L_N).

        The paper takes the arccos; for the form taken here see `angular_error`.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            mask = _supervised(batch)
            dtype = torch.promote_types(prediction.dtype, torch.float32)
            prediction = prediction.to(dtype).where(mask[:, None], 0)
            target = batch.normals_cam.to(dtype).where(mask[:, None], 0)
            return summed(self.losses, NormalsFit(angular_error(prediction, target), mask))

    @torch.no_grad()
    def errors(
        self, prediction: Float[Tensor, "n 3 h w"], batch: Batch
    ) -> dict[str, Float[Tensor, " n"]]:
        """`angular_summary` of each image, computed in float64."""
        error_rad = angular_error(prediction.double(), batch.normals_cam.double())
        return angular_summary(error_rad, _known(batch))

    def label(self, prediction: Float[Tensor, "n 3 h w"]) -> dict[str, np.ndarray]:
        """``normals_cam`` float32 ``[n h w 3]``, unit vectors; NaN where the prediction is 0."""
        unit = normalize(prediction.detach().float())
        return {"normals_cam": unit.permute(0, 2, 3, 1).contiguous().cpu().numpy()}

    def constant_prediction(self, batch: Batch) -> Float[Tensor, "n 3 h w"]:
        """Every surface parallel to the image plane: (0, 0, -1)."""
        facing = batch.normals_cam.new_tensor([0, 0, -1])
        return facing[:, None, None].expand(batch.normals_cam.shape)


def _known(batch: Batch) -> Bool[Tensor, "n h w"]:
    return batch.normals_cam.isfinite().all(1)


def _supervised(batch: Batch) -> Bool[Tensor, "n h w"]:
    """Known normals within the data set's depth range; sets of normals only have none."""
    without_depth = batch.depth_m.isnan().flatten(1).all(1)
    return _known(batch) & (batch.valid | without_depth[:, None, None])
