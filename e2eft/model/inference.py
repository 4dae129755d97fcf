"""Images of any size through an estimator: the one kernel that labelling, serving and notebooks
share."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from e2eft.config import SamplingConfig
from e2eft.model.estimator import Estimator
from e2eft.tasks.base import GeometryTask


@dataclass(frozen=True)
class PreparedImage:
    """An image at the size the model sees.

    rgb: uint8 `[h w 3]`, at the processing size, not padded.
    size: (height, width) the label will have.
    seed: names the initial noise; a function of the image's content, not of its place in a batch.
    """

    rgb: np.ndarray
    size: tuple[int, int]
    seed: int


def pad_to_multiple(image: Tensor, factor: int) -> Tensor:
    """Replicates the last row and column so that both sides are multiples of `factor`."""
    height, width = image.shape[-2:]
    bottom, right = -height % factor, -width % factor
    return functional.pad(image, (0, right, 0, bottom), mode="replicate")


@torch.inference_mode()
def predict(
    estimator: Estimator,
    task: GeometryTask,
    images: list[PreparedImage],
    sampling: SamplingConfig,
    batch_size: int = 8,
) -> list[np.ndarray]:
    """Predictions at the processing size: labels of the task, float32 `[h w]` or `[h w 3]`.

    Images of equal size share a forward pass; the order of the results is that of the images.
    Directions are read in the axes that the model's card says they are in.
    """
    task = task.read_from(estimator.card.axes, estimator.card.full_z_range)
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, image in enumerate(images):
        by_size[image.rgb.shape].append(number)
    results: list[np.ndarray | None] = [None] * len(images)
    for numbers in by_size.values():
        for start in range(0, len(numbers), batch_size):
            chunk = numbers[start : start + batch_size]
            for number, result in zip(
                chunk, _predict_equal(estimator, task, images, chunk, sampling), strict=True
            ):
                results[number] = result
    return [result for result in results if result is not None]


def _predict_equal(
    estimator: Estimator,
    task: GeometryTask,
    images: list[PreparedImage],
    chunk: list[int],
    sampling: SamplingConfig,
) -> np.ndarray:
    stacked = torch.from_numpy(np.stack([images[number].rgb for number in chunk]))
    rgb = stacked.to(estimator.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    height, width = rgb.shape[-2:]
    padded = pad_to_multiple(rgb, estimator.codec.size_multiple)
    made = estimator.run(padded, sampling, [images[number].seed for number in chunk])
    columns = task.label(task.decode(made[..., :height, :width]))
    return next(iter(columns.values()))
