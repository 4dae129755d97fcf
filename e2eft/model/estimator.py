"""RGB in, decoded image out: the only forward pass anywhere, in training, labelling and serving."""

from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from e2eft.config import InitialLatent, SamplingConfig, Spacing
from e2eft.model.backbones.base import DenoiserCall
from e2eft.model.card import ModelCard
from e2eft.model.codec import Codec
from e2eft.model.prediction import Schedule, initial_latent
from e2eft.model.times import Sigma


class Estimator:
    """Codec + denoiser + how that is called + its forward process, each a part of its own.

    Latents are `[n c h w]` here and outside, whatever the denoiser makes of them. A trained wrapper
    (DeepSpeed's engine) may be put in the denoiser's place.
    """

    def __init__(
        self, codec: Codec, denoiser: Any, call: DenoiserCall, schedule: Schedule, card: ModelCard
    ) -> None:
        self.codec, self.denoiser, self.call, self.schedule = codec, denoiser, call, schedule
        self.card = card

    @property
    def context(self) -> Float[Tensor, "1 tokens width"]:
        """The frozen text context."""
        return self.call.context

    @property
    def device(self) -> torch.device:
        return self.codec.vae.device

    def to(self, device: torch.device | str) -> "Estimator":
        self.codec.to(device)
        self.denoiser.to(device)
        self.call = self.call.to(device)
        self.schedule = self.schedule.to(device)
        return self

    def denoise(
        self,
        image_latent: Float[Tensor, "n c h w"] | None,
        x_t: Float[Tensor, "n c h w"] | None,
        sigma: Sigma,
    ) -> Float[Tensor, "n c h w"]:
        """The denoiser's raw output in fp32; one of image and x_t may be missing."""
        return self.call(self.denoiser, image_latent, x_t, sigma)

    def one_step(
        self,
        image_latent: Float[Tensor, "n c h w"],
        x_t: Float[Tensor, "n c h w"] | None,
        sigma: float,
    ) -> Float[Tensor, "n c h w"]:
        """The clean latent that the denoiser predicts at a time. Differentiable."""
        sigmas = torch.full((len(image_latent),), sigma, device=image_latent.device)
        output = self.denoise(image_latent, x_t, sigmas)
        start = self.call.start(image_latent, output) if x_t is None else x_t
        return self.schedule.clean_latent(output, start, sigmas, image_latent)

    def latent(
        self,
        rgb: Float[Tensor, "n 3 h w"],
        *,
        steps: int = 1,
        spacing: Spacing = "trailing",
        initial: InitialLatent = "zeros",
        seeds: list[int] | None = None,
    ) -> Float[Tensor, "n c hl wl"]:
        """The clean latent after `steps` deterministic steps. Gradients flow to the denoiser
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
        grid = self.schedule.sigmas(steps, spacing)
        if x_t is None and steps > 1:
            raise ValueError("initial latent 'none' allows one step only")
        clean = self.one_step(image_latent, x_t, grid[0])
        for sigma, sigma_next in pairwise(grid):
            assert x_t is not None
            both = (sigma, sigma_next)
            pair = [torch.full((len(image_latent),), s, device=clean.device) for s in both]
            x_t = self.schedule.ddim_step(clean, x_t, *pair)
            clean = self.one_step(image_latent, x_t, sigma_next)
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
