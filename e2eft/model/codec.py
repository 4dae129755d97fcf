"""Images <-> latents of a frozen variational autoencoder."""

import hashlib
import json
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from e2eft.errors import E2eftError
from e2eft.model.libraries import AutoencoderKL

ENCODING_SETTINGS = (
    "act_fn",
    "block_out_channels",
    "down_block_types",
    "latent_channels",
    "layers_per_block",
    "mid_block_add_attention",
    "norm_num_groups",
    "scaling_factor",
)


class ImageSizeError(E2eftError):
    """An image that cannot be encoded as it is."""


class Codec:
    """A VAE in the conventions of Stable Diffusion: posterior mean, then scale (and shift).

    Images are `[n 3 h w]` in [-1, 1] with sides that are multiples of `factor`; latents are
    `[n channels h/factor w/factor]` of about unit variance, ready for the denoiser.
    """

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae
        self.compute_dtype: torch.dtype | None = None
        """If set: what convolutions are computed in, under autocast. The weights stay as they
        are, so that a model trained in bf16 is exported with the VAE it came with."""

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
    def channels(self) -> int:
        """Channels of a latent."""
        return self.config.latent_channels

    @property
    def scale(self) -> float:
        return self.config.scaling_factor

    @property
    def shift(self) -> float:
        return getattr(self.config, "shift_factor", None) or 0.0

    def encode(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c hl wl"]:
        """The latent's posterior mean, never a sample: a label must not depend on chance.

        Raises:
            ImageSizeError: if a side is not a multiple of `factor`.
        """
        height, width = image.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ImageSizeError(
                f"image of {height} x {width} pixels: both sides must be multiples of the VAE's "
                f"factor {self.factor}"
            )
        with self._autocast():
            mean = self.vae.encode(image.to(self.vae.dtype)).latent_dist.mean  # type: ignore[union-attr]
        return (mean.to(self.vae.dtype) - self.shift) * self.scale

    def decode(self, latent: Float[Tensor, "n c hl wl"]) -> Float[Tensor, "n 3 h w"]:
        """The image a latent stands for. Differentiable; values may leave [-1, 1] a little."""
        raw = latent.to(self.vae.dtype) / self.scale + self.shift
        with self._autocast():
            image = self.vae.decode(cast(Any, raw)).sample  # type: ignore[union-attr]
        return image.to(self.vae.dtype)

    def digest(self) -> str:
        """SHA-256 (hexadecimal) of what decides an image's latent: the encoder's weights as fp32,
        and the settings that say what is computed with them.

        Wherever and in whichever format the VAE was stored, the same numbers give the same digest;
        the decoder has no part in it. Weights rounded to fp16 are other weights.
        """
        settings = {name: getattr(self.config, name, None) for name in ENCODING_SETTINGS}
        settings["shift_factor"] = self.shift
        whole = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name, weight in sorted(self.vae.state_dict().items()):
            if name.startswith(("encoder.", "quant_conv.")):
                values = weight.float().cpu().contiguous().numpy()
                whole.update(f"{name} {values.shape}".encode())
                whole.update(values.data)
        return whole.hexdigest()

    def to(self, device: torch.device | str) -> "Codec":
        self.vae.to(device)  # type: ignore[arg-type]
        return self
