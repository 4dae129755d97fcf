"""The forward process of a denoiser, and where its first x_t comes from.

Notation: x_t = a x_0 + s noise at a time sigma in [0, 1]. All of it is fp32 whatever the denoiser's
precision: a at the last timestep of Stable Diffusion is 0.068.
"""

from abc import ABC, abstractmethod
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from e2eft.config import InitialLatent, Spacing
from e2eft.model.parametrization import Parametrization, Point
from e2eft.model.times import Sigma, TimeConvention


class Schedule(ABC):
    """A forward process x_t = a x_0 + s noise, and what the denoiser was trained to output.

    Latents are `[n c h w]`, times sigmas `[n]`; whatever depends on the kind of process is in
    `coefficients`, `sigmas` and `time`.
    """

    parametrization: Parametrization

    @property
    @abstractmethod
    def time(self) -> TimeConvention:
        """How the denoiser counts time."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """The same schedule, its coefficients on the device where they are looked up."""

    @abstractmethod
    def sigmas(self, steps: int, spacing: Spacing) -> list[float]:
        """Descending times of a prediction in so many steps.

        Raises:
            ValueError: if the process has no such steps.
        """

    @abstractmethod
    def coefficients(self, sigma: Sigma) -> tuple[Tensor, Tensor]:
        """(a, s), each `[n 1 1 1]` fp32 on the times' device."""

    def add_noise(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], sigma: Sigma
    ) -> Float[Tensor, "n c h w"]:
        """x_t of the forward process."""
        a, s = self.coefficients(sigma)
        return a * clean + s * noise

    def training_target(
        self,
        clean: Float[Tensor, "n c h w"],
        noise: Float[Tensor, "n c h w"],
        sigma: Sigma,
        image: Float[Tensor, "n c h w"] | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """What the denoiser should output for x_t."""
        return self.parametrization.target(clean, noise, self._point(sigma, image))

    def clean_latent(
        self,
        output: Float[Tensor, "n c h w"],
        x_t: Float[Tensor, "n c h w"],
        sigma: Sigma,
        image: Float[Tensor, "n c h w"] | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """x_0 from the denoiser's output.

        This is what training sees, and what DDIM calls `pred_original_sample`: not `prev_sample`,
        which at the last step still mixes in a trace of predicted noise where `set_alpha_to_one` is
        false.
        """
        return self.parametrization.clean(output, x_t, self._point(sigma, image))

    def _point(self, sigma: Sigma, image: Tensor | None) -> Point:
        return Point(*self.coefficients(sigma), image)

    def ddim_step(
        self,
        clean: Float[Tensor, "n c h w"],
        x_t: Float[Tensor, "n c h w"],
        sigma: Sigma,
        sigma_next: Sigma,
    ) -> Float[Tensor, "n c h w"]:
        """Deterministic DDIM (Song et al. 2021, eq. 12 without noise) from a time to the grid's
        next."""
        a, s = self.coefficients(sigma)
        a_next, s_next = self.coefficients(sigma_next)
        return a_next * clean + s_next * (x_t - a * clean) / s


def initial_latent(
    kind: InitialLatent, shape: tuple[int, int, int], seeds: list[int]
) -> Float[Tensor, "n c h w"] | None:
    """Where the target's latent starts, on the CPU, one seed an image.

    zeros: what end-to-end fine-tuned models use; gaussian: what diffusion models were trained with;
    pyramid: multi-resolution noise as in E2E-FT; none: the denoiser is given the image's alone.
    """
    if kind == "none":
        return None
    if kind == "zeros":
        return torch.zeros(len(seeds), *shape)
    draw = _gaussian if kind == "gaussian" else _pyramid
    return torch.stack([draw(shape, seed) for seed in seeds])


def _gaussian(shape: tuple[int, int, int], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _pyramid(shape: tuple[int, int, int], seed: int) -> Tensor:
    return pyramid_noise(shape, seed, torch.tensor([0.9]))[0]


def pyramid_noise(
    shape: tuple[int, int, int], seed: int, strengths: Float[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """Marigold's multi-resolution noise: Gaussian noise plus bilinearly enlarged noise of ever
    coarser grids, level k discounted by strength^k; each image of it has unit deviation.

    shape: `(c, h, w)` of one image. strengths: one an image; Marigold's annealed noise has 0.9 t/T.
    The noise is made on their device. All images share the grids' sizes.
    """
    channels, height, width = shape
    images, device = len(strengths), strengths.device
    generator = torch.Generator(device).manual_seed(seed)
    ratios = 2 + 2 * torch.rand(10, generator=torch.Generator().manual_seed(seed))
    noise = torch.randn((images, *shape), generator=generator, device=device)
    h, w = height, width
    for level, ratio in enumerate(ratios.tolist()):
        h, w = max(1, int(h / ratio**level)), max(1, int(w / ratio**level))
        coarse = torch.randn((images, channels, h, w), generator=generator, device=device)
        fine = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
        noise = noise + fine * (strengths**level)[:, None, None, None]
        if h == 1 or w == 1:
            break
    return noise / noise.std((1, 2, 3), keepdim=True)
