"""RGB in, decoded image out: the only forward pass anywhere, in training, labelling and serving."""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from e2eft.config import InitialLatent, SamplingConfig, Spacing
from e2eft.model.card import ModelCard
from e2eft.model.codec import Codec
from e2eft.model.prediction import NoiseSchedule, initial_latent


class Estimator:
    """Codec + denoiser + conditioning + parametrization + frozen text context, each a part of its
    own.

    The image's latent comes first in the concatenation, then the target's. Nothing outside this
    room knows that the denoiser is a UNet. A trained wrapper (DeepSpeed's engine) may be put in its
    place.
    """

    def __init__(
        self, codec: Codec, denoiser: Any, schedule: NoiseSchedule, context: Tensor, card: ModelCard
    ) -> None:
        self.codec, self.denoiser, self.schedule = codec, denoiser, schedule
        self.context: Float[Tensor, "1 tokens width"] = context
        self.card = card

    @property
    def device(self) -> torch.device:
        return self.codec.vae.device

    def to(self, device: torch.device | str) -> "Estimator":
        self.codec.to(device)
        self.denoiser.to(device)
        self.context = self.context.to(device)
        self.schedule = self.schedule.to(device)
        return self

    def denoise(
        self, latents: Float[Tensor, "n c h w"], t: Int[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The denoiser's raw output in fp32. Timesteps stay integers under any precision."""
        dtype = next(self.denoiser.parameters()).dtype
        context = self.context.to(dtype).expand(len(latents), -1, -1)
        output = self.denoiser(
            latents.to(dtype), t, encoder_hidden_states=context, return_dict=False
        )
        return output[0].float()

    def conditioned(
        self, image_latent: Float[Tensor, "n c h w"], x_t: Float[Tensor, "n c h w"] | None
    ) -> Tensor:
        """The denoiser's input: the image's latent, then the target's (if it takes one)."""
        return image_latent if x_t is None else torch.cat([image_latent, x_t], dim=1)

    def one_step(
        self, image_latent: Float[Tensor, "n c h w"], x_t: Float[Tensor, "n c h w"] | None, t: int
    ) -> Float[Tensor, "n c h w"]:
        """The clean latent that the denoiser predicts at timestep t. Differentiable."""
        steps = torch.full((len(image_latent),), t, device=image_latent.device, dtype=torch.long)
        output = self.denoise(self.conditioned(image_latent, x_t), steps)
        start = torch.zeros_like(output) if x_t is None else x_t
        return self.schedule.clean_latent(output, start, steps)

    def latent(
        self,
        rgb: Float[Tensor, "n 3 h w"],
        *,
        steps: int = 1,
        spacing: Spacing = "trailing",
        initial: InitialLatent = "zeros",
        seeds: list[int] | None = None,
    ) -> Float[Tensor, "n c hl wl"]:
        """The clean latent after `steps` deterministic DDIM steps. Gradients flow to the denoiser
        only."""
        with torch.no_grad():
            image_latent = self.codec.encode(rgb)
        return self.clean(image_latent, steps=steps, spacing=spacing, initial=initial, seeds=seeds)

    def clean(
        self,
        image_latent: Float[Tensor, "n c hl wl"],
        *,
        steps: int = 1,
        spacing: Spacing = "trailing",
        initial: InitialLatent = "zeros",
        seeds: list[int] | None = None,
    ) -> Float[Tensor, "n c hl wl"]:
        """`latent` of an image that is encoded already."""
        seeds = seeds if seeds is not None else list(range(len(image_latent)))
        height, width = image_latent.shape[-2:]
        shape = (self.codec.channels, height, width)
        x_t = initial_latent(initial, shape, seeds)
        x_t = None if x_t is None else x_t.to(image_latent, non_blocking=True)
        grid = self.schedule.timesteps(steps, spacing)
        if x_t is None and steps > 1:
            raise ValueError("initial latent 'none' allows one step only")
        clean = self.one_step(image_latent, x_t, grid[0])
        for t, t_next in pairwise(grid):
            assert x_t is not None
            pair = [torch.full((len(image_latent),), s, device=clean.device) for s in (t, t_next)]
            x_t = self.schedule.ddim_step(clean, x_t, *pair)
            clean = self.one_step(image_latent, x_t, t_next)
        return clean

    def __call__(
        self,
        rgb: Float[Tensor, "n 3 h w"],
        *,
        steps: int = 1,
        spacing: Spacing = "trailing",
        initial: InitialLatent = "zeros",
        seeds: list[int] | None = None,
    ) -> Float[Tensor, "n 3 h w"]:
        """RGB in [-1, 1] to the decoded image; `seeds` name each image's initial noise."""
        clean = self.latent(rgb, steps=steps, spacing=spacing, initial=initial, seeds=seeds)
        return self.codec.decode(clean)

    def run(
        self, rgb: Float[Tensor, "n 3 h w"], sampling: SamplingConfig, seeds: list[int]
    ) -> Float[Tensor, "n 3 h w"]:
        """As a configuration asks, and as the card says where it leaves something open."""
        initial = sampling.initial_latent or self.card.initial_latent
        steps, spacing = sampling.steps or self.card.steps, sampling.spacing or self.card.spacing
        return self(rgb, steps=steps, spacing=spacing, initial=initial, seeds=seeds)
