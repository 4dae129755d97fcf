"""A model's image as shading: the mean of its channels."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from e2eft.data.batch import Batch
from e2eft.tasks import TaskSettings


def build(settings: TaskSettings) -> "Shading":
    return Shading()


@dataclass(frozen=True)
class Shading:
    name: str = "shading"
    target: str = "how bright a surface is"
    modalities: tuple[str, ...] = ()

    def read_from(self, axes: str, full_z_range: bool) -> "Shading":
        return self

    def decode(self, image: Tensor) -> Tensor:
        return (image.float().mean(1).clamp(-1, 1) + 1) / 2

    def encode_target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        grey = batch.rgb.mean(1, keepdim=True).expand(-1, 3, -1, -1)
        return grey, batch.rgb.isfinite().all(1)

    def loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        return (prediction - self.decode(batch.rgb)).abs().mean()

    def errors(self, prediction: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"error": (prediction - self.decode(batch.rgb)).abs().flatten(1).mean(1)}

    def label(self, prediction: Tensor) -> dict[str, np.ndarray]:
        return {"shading": prediction.detach().float().cpu().numpy()}

    def constant_prediction(self, batch: Batch) -> Tensor:
        return batch.depth_m.new_full(batch.depth_m.shape, 0.5)
