"""Images <-> latents of a frozen variational autoencoder."""

import hashlib
import json
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Self, cast

import torch
from jaxtyping import Float
from torch import Tensor

from e2eft.errors import E2eftError
from e2eft.model.normalization import Normalizer, ScaleShift


class ImageSizeError(E2eftError):
    """An image that cannot be encoded as it is."""


class Codec(ABC):
    """A VAE of diffusers: posterior mean, then normalized.

    Images are `[n 3 h w]` in [-1, 1] with sides that are multiples of `size_multiple`; latents are
    `[n channels h/factor w/factor]` of about unit variance, ready for the denoiser.
    """

    patch: ClassVar[int] = 1
    """Latents a side of what the denoiser takes as one token."""
    encoding_parts: ClassVar[tuple[str, ...]] = ("encoder.", "quant_conv.")
    """How the tensors begin that decide an image's latent."""

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.compute_dtype: torch.dtype | None = None
        """If set: what convolutions are computed in, under autocast. The weights stay as they
        are, so that a model trained in bf16 is exported with the VAE it came with."""

    @property
    @abstractmethod
    def normalizer(self) -> Normalizer:
        """What makes the VAE's latents the denoiser's."""

    @property
    @abstractmethod
    def encoding_settings(self) -> dict[str, Any]:
        """What of the configuration decides an image's latent, as JSON has it."""

    def _autocast(self) -> AbstractContextManager[object]:
        if self.compute_dtype is None:
            return nullcontext()
        return torch.autocast(self.vae.device.type, dtype=self.compute_dtype)

    @property
    def config(self) -> Any:
        return cast(Any, self.vae.config)

    @property
    def factor(self) -> int:
        """Image pixels a latent's side."""
        return 2 ** (len(self.config.block_out_channels) - 1)

    @property
    def size_multiple(self) -> int:
        """Pixels that an image's sides are multiples of."""
        return self.factor * self.patch

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return self.config.latent_channels

    def encode(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c hl wl"]:
        """The latent's posterior mean, never a sample: a label must not depend on chance.

        Raises:
            ImageSizeError: if a side is not a multiple of `size_multiple`.
        """
        self._require_size(image)
        with self._autocast():
            mean = self.vae.encode(image.to(self.vae.dtype)).latent_dist.mean
        return self.normalizer.normalize(mean.to(self.vae.dtype))

    def _require_size(self, image: Tensor) -> None:
        height, width = image.shape[-2:]
        if height % self.size_multiple or width % self.size_multiple:
            tokens = f" times the {self.patch} latents a token's side" if self.patch > 1 else ""
            raise ImageSizeError(
                f"image of {height} x {width} pixels: both sides must be multiples of the VAE's "
                f"factor {self.factor}{tokens}"
            )

    def decode(self, latent: Float[Tensor, "n c hl wl"]) -> Float[Tensor, "n 3 h w"]:
        """The image a latent stands for. Differentiable; values may leave [-1, 1] a little."""
        raw = self.normalizer.denormalize(latent.to(self.vae.dtype))
        with self._autocast():
            image = self.vae.decode(raw).sample
        return image.to(self.vae.dtype)

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of what decides an image's latent: the encoder's weights as fp32,
        and the settings that say what is computed with them.

        Wherever and in whichever format the VAE was stored, the same numbers give the same digest;
        the decoder has no part in it. Weights rounded to fp16 are other weights.
        """
        whole = hashlib.sha256(json.dumps(self.encoding_settings, sort_keys=True).encode())
        for name, weight in sorted(self.vae.state_dict().items()):
            if name.startswith(self.encoding_parts):
                values = weight.float().cpu().contiguous().numpy()
                whole.update(f"{name} {values.shape}".encode())
                whole.update(values.data)
        return whole.hexdigest()

    def to(self, device: torch.device | str) -> Self:
        self.vae.to(device)
        return self


class ScaledCodec(Codec):
    """A VAE whose configuration has a scale, and perhaps a shift, for all channels."""

    @property
    def normalizer(self) -> ScaleShift:
        return ScaleShift(self.scale, self.shift)

    @property
    def scale(self) -> float:
        return self.config.scaling_factor

    @property
    def shift(self) -> float:
        return getattr(self.config, "shift_factor", None) or 0.0

    def set_scale(self, scale: float) -> None:
        """In the configuration, with which it is exported."""
        self.vae.register_to_config(scaling_factor=scale)
