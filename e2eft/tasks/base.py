"""What a task is: the meaning of the three-channel image in which every model ends.

The model knows latents and images; the task knows metres and unit vectors. A model's output goes
through `GeometryTask.decode`; from there on everything is said in the task's own terms.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from e2eft.data.batch import Batch


@runtime_checkable
class GeometryTask(Protocol):
    """From a decoded image to a prediction, its loss, its errors and its label.

    Two kinds of array occur. An *image* is the model's, ``[n 3 h w]``, nominally in [-1, 1]. A
    *prediction* is the task's: ``[n h w]`` for depth, ``[n 3 h w]`` in camera axes for normals.
    Implementations hold no tensors and no state, so they work on any device and may be pickled.
    """

    @property
    def name(self) -> str:
        """How the command line, the model's card and the label's manifest call the task."""
        ...

    @property
    def target(self) -> str:
        """What the values mean, in one phrase, for the model's card and the label's manifest."""
        ...

    @property
    def modalities(self) -> tuple[str, ...]:
        """Which of a frame's `depth` and `normals` the loss reads."""
        ...

    def read_from(self, axes: str, full_z_range: bool) -> GeometryTask:
        """The same task for a model whose image holds normals in these axes, with all of z or half
        of it; without effect on depth."""
        ...

    def decode(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n *c h w"]:
        """The prediction that a model's output image stands for. Differentiable."""
        ...

    def encode_target(self, batch: Batch) -> tuple[Float[Tensor, "n 3 h w"], Bool[Tensor, "n h w"]]:
        """What a diffusion model is trained to produce, and where it is known.

        The image is finite and in [-1, 1] everywhere, also where the mask is False.
        """
        ...

    def loss(self, prediction: Float[Tensor, "n *c h w"], batch: Batch) -> Float[Tensor, ""]:
        """Mean over all known pixels of the batch, in at least float32, whatever autocast says.

        Without known pixels it is 0 and still attached to the graph, so that no rank of a
        distributed run skips its backward pass. The mean is over pixels, not over images.
        """
        ...

    def errors(
        self, prediction: Float[Tensor, "n *c h w"], batch: Batch
    ) -> dict[str, Float[Tensor, " n"]]:
        """Scores of each image by name, without gradient; NaN for an image without known pixels."""
        ...

    def label(self, prediction: Float[Tensor, "n *c h w"]) -> dict[str, np.ndarray]:
        """Label columns by name: float32 ``[n h w]`` or ``[n h w 3]``, in camera axes."""
        ...

    def constant_prediction(self, batch: Batch) -> Float[Tensor, "n *c h w"]:
        """A prediction that looks at nothing: the score that any model must beat."""
        ...
