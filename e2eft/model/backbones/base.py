"""What a backbone is: the two halves of it that a module each implements.

`Layout` says what a folder must be, how it is fixed to its bytes and what training may do with it.
It needs neither torch nor diffusers, so that commands start fast. `Backbone` loads, computes and
exports; it is imported when a model is loaded.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from e2eft.config import ModelConfig
from e2eft.model.card import ModelCard
from e2eft.model.components import Folder

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from e2eft.model.codec import Codec
    from e2eft.model.estimator import Estimator
    from e2eft.model.source import ModelSource


@dataclass(frozen=True)
class Recognized:
    """A model that is taken.

    what: the layout, for a person. card: its own, one that was given, or what the layout implies.
    in_channels: of latents, that its denoiser takes. sees_image: whether it is given an image's
    latent beside the target's. timesteps: the most steps it can be run in. backbone: its name in
    the table of backbones. note: what a person must know of a card that was implied; "" if there is
    one.
    """

    what: str
    card: ModelCard
    in_channels: int
    latent_channels: int
    sees_image: bool
    timesteps: int
    backbone: str
    note: str = ""


@dataclass(frozen=True)
class Training:
    """What training may do with a backbone.

    parameters: components that a run may change; the others are frozen. checkpointed: components
    whose activations can be computed again in the backward pass instead of being kept. partitioned:
    components whose parameters ZeRO's third stage may cut. compiled: classes of the blocks that
    components repeat, which are compiled one by one.
    """

    parameters: tuple[str, ...]
    checkpointed: tuple[str, ...]
    partitioned: tuple[str, ...]
    compiled: tuple[str, ...]


class Layout(Protocol):
    """A backbone's folders, by their text files."""

    name: str
    """As in the table of backbones."""
    denoiser: str
    """The component that makes latents."""
    denoiser_noun: str
    """What it is, for a person."""
    components: tuple[str, ...]
    """Folders whose files loading may read."""
    files: Mapping[str, str]
    """Files beside them without which nothing is loaded, and what each is, for a person; other than
    the index and the card."""
    training: Training | None
    """None: `e2eft train` does not take it."""

    @property
    def pipelines(self) -> Collection[str]:
        """Classes in `model_index.json` that mean a model of this backbone, without a card too."""
        ...

    def recognize(
        self, folder: Folder, index: dict[str, Any], card: ModelCard | None
    ) -> Recognized:
        """What a model is and how it is run.

        Args:
            card: its own or a given one, if there is any.

        Raises:
            ModelError: for a model that is not taken, with what it is; for a file that is missing
                or broken, with its name.
        """
        ...

    def require_trainable(
        self, name: str, found: Recognized, settings: ModelConfig, *, conditional: bool
    ) -> int:
        """Channels that a run gives the denoiser.

        Raises:
            ModelError: if training does not take the model, or the model not what the run gives it.
        """
        ...


class DenoiserCall(Protocol):
    """How a denoiser is called: conditioning, time argument, layout of tokens, frozen text.

    Latents are `[n c h w]` on this side of it.
    """

    @property
    def context(self) -> "Tensor":
        """The embedded empty prompt, `[1 tokens width]`."""
        ...

    def to(self, device: "torch.device | str") -> "DenoiserCall": ...

    def __call__(
        self, denoiser: Any, image: "Tensor | None", x_t: "Tensor | None", sigma: "Tensor"
    ) -> "Tensor":
        """The raw output in fp32, at times sigma `[n]` in [0, 1]. Differentiable.

        Args:
            denoiser: the module, or a trained wrapper of it.
            image, x_t: latents; one of them may be None.
        """
        ...

    def start(self, image: "Tensor", output: "Tensor") -> "Tensor":
        """What is x_t for the parametrization where the denoiser was given the image alone, and
        made `output` of it; fp32."""
        ...


class Backbone(Protocol):
    """A backbone's loading and export."""

    @property
    def classes(self) -> dict[str, Any]:
        """Classes of diffusers by the components whose tensors are compared with their
        configurations before anything is deleted for a model."""
        ...

    def load_codec(self, source: "ModelSource") -> "Codec":
        """The frozen codec alone, in fp32 on the CPU.

        Raises:
            ModelError: if it is missing or broken.
        """
        ...

    def load(
        self,
        source: "ModelSource",
        found: Recognized,
        settings: ModelConfig | None,
        *,
        conditional: bool,
    ) -> "Estimator":
        """A model in fp32 on the CPU; see `e2eft.model.pretrained.load_estimator`."""
        ...

    def export(
        self,
        estimator: "Estimator",
        source: "ModelSource",
        folder: "Path",
        card: ModelCard,
        dtype: "torch.dtype",
    ) -> None:
        """Writes all components and the index into a folder that exists."""
        ...
