"""What a denoiser's output means: pure functions of latents, timesteps and the noise schedule.

Notation: x_t = a_t x_0 + s_t noise with a_t = sqrt(alpha_bar_t) and s_t = sqrt(1 - alpha_bar_t).
All of it is fp32 whatever the denoiser's precision: a bf16 999 is 1000, and a_999 of Stable
Diffusion is 0.068.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from e2eft.config import InitialLatent, Spacing
from e2eft.model.libraries import DDIMScheduler

Parametrization = Literal["v_prediction", "epsilon", "sample"]


@dataclass(frozen=True)
class NoiseSchedule:
    """The forward process and what the denoiser was trained to output."""

    alphas_cumprod: Float[Tensor, " t"]
    parametrization: Parametrization
    scheduler: DDIMScheduler

    @classmethod
    def of(cls, scheduler: DDIMScheduler) -> "NoiseSchedule":
        """The schedule of a diffusers DDIM configuration, zero-terminal-SNR only if it says so.

        Raises:
            ValueError: for epsilon prediction on a zero-SNR schedule, where x_0 is undefined; for
                betas that are no schedule.
        """
        config: Any = scheduler.config
        if config.prediction_type not in ("v_prediction", "epsilon", "sample"):
            raise ValueError(
                f"prediction_type {config.prediction_type!r} is not supported; "
                "expected v_prediction, epsilon or sample"
            )
        if config.prediction_type == "epsilon" and float(scheduler.alphas_cumprod[-1]) <= 0:
            raise ValueError("epsilon prediction is undefined at t = T-1 on a zero-SNR schedule")
        alphas = scheduler.alphas_cumprod
        falls = bool((alphas[1:] <= alphas[:-1]).all()) and float(alphas[-1]) < float(alphas[0])
        if not falls or not 0 <= float(alphas[-1]) <= float(alphas[0]) <= 1:
            raise ValueError("its betas add no noise from step to step; copy it again")
        return cls(alphas.float(), config.prediction_type, scheduler)

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        """The same schedule, its coefficients on the device where they are looked up."""
        return replace(self, alphas_cumprod=self.alphas_cumprod.to(device))

    @property
    def length(self) -> int:
        """T, the number of training timesteps."""
        return len(self.alphas_cumprod)

    def timesteps(self, steps: int, spacing: Spacing) -> list[int]:
        """Descending integer timesteps, as diffusers' DDIMScheduler spaces them.

        One step is [T-1] with `trailing` and [1] with `leading` (steps_offset 1): the network is
        then told "almost clean" about pure noise, which is the flaw the paper found.
        """
        if not 1 <= steps <= self.length:
            raise ValueError(f"--steps {steps} must lie in 1 .. {self.length}")
        total, offset = self.length, getattr(self.scheduler.config, "steps_offset", 0)
        if spacing == "trailing":
            # For 61 steps, and others, rounding gives arange one value too many: t = -1.
            grid = np.round(np.arange(total, 0, -total / steps)[:steps]) - 1
        elif spacing == "leading":
            grid = (np.arange(steps) * (total // steps)).round()[::-1] + offset
        else:
            grid = np.linspace(0, total - 1, steps).round()[::-1]
        if grid[0] >= total:
            raise ValueError(
                f"--steps {steps} with --spacing {spacing} starts at t = {grid[0]:g}, but the last "
                f"timestep is {total - 1}; use --spacing trailing, or fewer steps"
            )
        return [int(t) for t in grid]

    def coefficients(self, timesteps: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
        """(a_t, s_t), each `[n 1 1 1]` fp32 on the timesteps' device."""
        alpha = self.alphas_cumprod.to(timesteps.device)[timesteps].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()

    def add_noise(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], t: Int[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """x_t of the forward process."""
        a, s = self.coefficients(t)
        return a * clean + s * noise

    def training_target(
        self, clean: Float[Tensor, "n c h w"], noise: Float[Tensor, "n c h w"], t: Int[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """What the denoiser should output for x_t: v = a eps - s x_0 (Salimans & Ho 2022), eps or
        x_0."""
        if self.parametrization == "epsilon":
            return noise
        if self.parametrization == "sample":
            return clean
        a, s = self.coefficients(t)
        return a * noise - s * clean

    def clean_latent(
        self, output: Float[Tensor, "n c h w"], x_t: Float[Tensor, "n c h w"], t: Int[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """x_0 from the denoiser's output: a x_t - s v, (x_t - s eps) / a, or the output itself.

        This is what training sees, and what DDIM calls `pred_original_sample`: not `prev_sample`,
        which at the last step still mixes in a trace of predicted noise where `set_alpha_to_one` is
        false.
        """
        if self.parametrization == "sample":
            return output.float()
        a, s = self.coefficients(t)
        if self.parametrization == "epsilon":
            return (x_t.float() - s * output.float()) / a
        return a * x_t.float() - s * output.float()

    def ddim_step(
        self,
        clean: Float[Tensor, "n c h w"],
        x_t: Float[Tensor, "n c h w"],
        t: Int[Tensor, " n"],
        t_next: Int[Tensor, " n"],
    ) -> Float[Tensor, "n c h w"]:
        """Deterministic DDIM (Song et al. 2021, eq. 12 with sigma = 0) from t to the grid's next
        t."""
        a, s = self.coefficients(t)
        a_next, s_next = self.coefficients(t_next)
        return a_next * clean + s_next * (x_t - a * clean) / s


def initial_latent(
    kind: InitialLatent, shape: tuple[int, int, int], seeds: list[int]
) -> Float[Tensor, "n c h w"] | None:
    """Where the target's latent starts at t = T-1, on the CPU, one seed an image.

    zeros: what end-to-end fine-tuned models use; gaussian: what diffusion models were trained with;
    pyramid: multi-resolution noise as in E2E-FT; none: the denoiser sees the image's latent only.
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
