"""Stable Diffusion's UNet: integer timesteps, latents side by side in channels, CLIP's empty
prompt."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from e2eft.config import ConvInHalving, ModelConfig, Spacing
from e2eft.model.backbones.base import Backbone, Recognized
from e2eft.model.backbones.sd_unet_layout import FACTOR, IMAGE_PIPELINE, LAYOUT
from e2eft.model.card import ModelCard
from e2eft.model.codec import Codec, ScaledCodec
from e2eft.model.components import require_factor
from e2eft.model.estimator import Estimator
from e2eft.model.hub import ModelError
from e2eft.model.layout import save_diffusers, save_transformers, write_index
from e2eft.model.libraries import (
    AutoencoderKL,
    CLIPTextModel,
    CLIPTokenizer,
    DDIMScheduler,
    UNet2DConditionModel,
)
from e2eft.model.loading import load_component
from e2eft.model.parametrization import Epsilon, Parametrization, Sample, Velocity
from e2eft.model.prediction import Schedule
from e2eft.model.source import ModelSource
from e2eft.model.times import Sigma
from e2eft.tasks import label_codec

_PREDICTED: dict[str, Parametrization] = {
    "v_prediction": Velocity(),
    "epsilon": Epsilon(),
    "sample": Sample(),
}
_ENCODING_SETTINGS = (
    "act_fn",
    "block_out_channels",
    "down_block_types",
    "latent_channels",
    "layers_per_block",
    "mid_block_add_attention",
    "norm_num_groups",
    "scaling_factor",
)


class StableDiffusionCodec(ScaledCodec):
    """`AutoencoderKL` of a factor of 8."""

    @property
    def encoding_settings(self) -> dict[str, Any]:
        settings = {name: getattr(self.config, name, None) for name in _ENCODING_SETTINGS}
        return settings | {"shift_factor": self.shift}


@dataclass(frozen=True)
class Timesteps:
    """Integers 0 .. length - 1, of which the last is noise: sigma = (t + 1) / length."""

    length: int

    @property
    def span(self) -> float:
        return self.length

    def sigma(self, t: Int[Tensor, " n"]) -> Sigma:
        """Of timesteps; `argument` gives exactly these again."""
        return (t + 1).float() / self.length

    def argument(self, sigma: Sigma) -> Int[Tensor, " n"]:
        return (sigma.float() * self.length).round().long() - 1

    def drawn(self, uniform: Sigma) -> Sigma:
        t = (self.length * uniform).long()
        return self.sigma(t.clamp(max=self.length - 1))


@dataclass(frozen=True)
class NoiseSchedule(Schedule):
    """The forward process of a DDIM configuration: a_t = sqrt(alpha_bar_t), s_t = sqrt(1 -
    alpha_bar_t)."""

    alphas_cumprod: Float[Tensor, " t"]
    parametrization: Parametrization
    scheduler: DDIMScheduler

    @classmethod
    def of(cls, scheduler: DDIMScheduler) -> Self:
        """The schedule of a diffusers DDIM configuration, zero-terminal-SNR only if it says so.

        Raises:
            ValueError: for epsilon prediction on a zero-SNR schedule, where x_0 is undefined; for
                betas that are no schedule.
        """
        config: Any = scheduler.config
        if config.prediction_type not in _PREDICTED:
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
        return cls(alphas.float(), _PREDICTED[config.prediction_type], scheduler)

    def to(self, device: torch.device | str) -> Self:
        return replace(self, alphas_cumprod=self.alphas_cumprod.to(device))

    @property
    def length(self) -> int:
        """T, the number of training timesteps."""
        return len(self.alphas_cumprod)

    @property
    def time(self) -> Timesteps:
        return Timesteps(self.length)

    def sigmas(self, steps: int, spacing: Spacing) -> list[float]:
        return [(t + 1) / self.length for t in self.timesteps(steps, spacing)]

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

    def coefficients(self, sigma: Sigma) -> tuple[Tensor, Tensor]:
        t = self.time.argument(sigma)
        alpha = self.alphas_cumprod.to(t.device)[t].view(-1, 1, 1, 1)
        return alpha.sqrt(), (1 - alpha).sqrt()


@dataclass(frozen=True)
class UNetCall:
    """The image's latent comes first in the concatenation, then the target's (if it takes one)."""

    context: Float[Tensor, "1 tokens width"]
    time: Timesteps

    def to(self, device: torch.device | str) -> Self:
        return replace(self, context=self.context.to(device))

    def __call__(
        self,
        denoiser: Any,
        image: Float[Tensor, "n c h w"] | None,
        x_t: Float[Tensor, "n c h w"] | None,
        sigma: Sigma,
    ) -> Float[Tensor, "n c h w"]:
        """Timesteps stay integers under any precision: a bf16 999 is 1000."""
        given = [latent for latent in (image, x_t) if latent is not None]
        latents = torch.cat(given, dim=1) if len(given) > 1 else given[0]
        dtype = next(denoiser.parameters()).dtype
        context = self.context.to(dtype).expand(len(latents), -1, -1)
        output = denoiser(
            latents.to(dtype),
            self.time.argument(sigma),
            encoder_hidden_states=context,
            return_dict=False,
        )
        return output[0].float()

    def start(
        self, image: Float[Tensor, "n c h w"], output: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """Zeros: there is no target's latent where the image's has its place."""
        return torch.zeros_like(output)


class StableDiffusion(Backbone):
    """Its loading and export."""

    @property
    def classes(self) -> dict[str, Any]:
        return {"unet": UNet2DConditionModel, "vae": AutoencoderKL}

    def load_codec(self, source: ModelSource) -> Codec:
        vae = load_component(AutoencoderKL, source, "vae", torch_dtype=torch.float32)
        vae.requires_grad_(False)
        codec = StableDiffusionCodec(vae)
        require_factor(source.name, codec.factor, FACTOR)
        return codec

    def load(
        self,
        source: ModelSource,
        found: Recognized,
        settings: ModelConfig | None,
        *,
        conditional: bool,
    ) -> Estimator:
        card, codec = found.card, self.load_codec(source)
        unet = load_component(UNet2DConditionModel, source, "unet", torch_dtype=torch.float32)
        scheduler = load_component(DDIMScheduler, source, "scheduler")
        try:
            schedule = NoiseSchedule.of(scheduler)
        except ValueError as error:
            raise ModelError(f"model {source.name!r}: its scheduler: {error}") from error
        if settings is not None:
            wants = LAYOUT.require_trainable(source.name, found, settings, conditional=conditional)
            if wants > found.in_channels:
                widen_conv_in(unet, settings.conv_in_halving)
            tokens, initial = settings.prompt_tokens, settings.initial_latent
            card = ModelCard(task=card.task, initial_latent=initial, prompt_tokens=tokens)
            if settings.unet_checkpointing:
                unet.enable_gradient_checkpointing()
            if settings.decoder_checkpointing:
                codec.vae.enable_gradient_checkpointing()
        context = embed_empty_prompt(source, card.prompt_tokens)
        return Estimator(codec, unet, UNetCall(context, schedule.time), schedule, card)

    def export(
        self,
        estimator: Estimator,
        source: ModelSource,
        folder: Path,
        card: ModelCard,
        dtype: torch.dtype,
    ) -> None:
        """Writes `trailing` spacing into the scheduler. Models load unchanged with their task's
        pipeline of diffusers (`LabelCodec.pipeline`), if it has one, which starts from Gaussian
        noise unless given `latents`: pass zeros to a model whose card says so."""
        schedule: Any = estimator.schedule
        save_diffusers(estimator.denoiser, folder / "unet", dtype)
        save_diffusers(estimator.codec.vae, folder / "vae", dtype)
        config = {**schedule.scheduler.config, "timestep_spacing": "trailing"}
        scheduler: Any = DDIMScheduler.from_config(config)
        scheduler.save_pretrained(folder / "scheduler")
        load_component(CLIPTokenizer, source, "tokenizer").save_pretrained(folder / "tokenizer")
        encoder = load_component(CLIPTextModel, source, "text_encoder")
        save_transformers(encoder, folder / "text_encoder", dtype)
        pipeline, pipeline_settings = _pipeline_of(card)
        write_model_index(folder, pipeline, **pipeline_settings)


BACKBONE: Backbone = StableDiffusion()


def embed_empty_prompt(source: ModelSource, tokens: int) -> torch.Tensor:
    """The text context `[1 tokens width]`: BOS, EOS alone (2), or padded to 77. The encoder is not
    kept."""
    tokenizer: Any = load_component(CLIPTokenizer, source, "tokenizer")
    encoder: Any = load_component(CLIPTextModel, source, "text_encoder", dtype=torch.float32)
    if len(tokenizer) < encoder.config.vocab_size:
        # Where its files are missing, transformers makes one without words and says nothing.
        raise ModelError(
            f"model {source.name!r}: cannot load its tokenizer: it has {len(tokenizer)} words, "
            f"its text encoder knows {encoder.config.vocab_size}"
        )
    padding = "max_length" if tokens == 77 else "do_not_pad"
    ids = tokenizer(
        "", padding=padding, max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    if ids.shape[1] != tokens:
        raise ModelError(
            f"model {source.name!r}: the empty prompt is {ids.shape[1]} tokens long, "
            f"expected {tokens}"
        )
    with torch.no_grad():
        return encoder(ids)[0].float()


def widen_conv_in(unet: UNet2DConditionModel, halving: ConvInHalving) -> UNet2DConditionModel:
    """Doubles the UNet's input channels so that it sees the image's latent beside the target's.

    The weight is repeated along its input channels and halved, so equal halves give the old output.
    `weight-and-bias` (E2E-FT) halves the bias too; `weight` (Marigold) leaves it.
    """
    old: Any = unet.conv_in
    new = torch.nn.Conv2d(
        2 * old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding
    )
    with torch.no_grad():
        new.weight.copy_(old.weight.repeat(1, 2, 1, 1) / 2)
        assert new.bias is not None and old.bias is not None
        new.bias.copy_(old.bias / 2 if halving == "weight-and-bias" else old.bias)
    unet.conv_in = new.to(old.weight.dtype)
    unet.register_to_config(in_channels=new.in_channels)
    return unet


def write_model_index(folder: Path, pipeline: str, **settings: Any) -> None:
    """Writes `model_index.json` of a model with Stable Diffusion's parts."""
    parts: dict[str, Any] = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        **settings,
    }
    if pipeline == IMAGE_PIPELINE:
        parts |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    write_index(folder, pipeline, parts)


def _pipeline_of(card: ModelCard) -> tuple[str, dict[str, Any]]:
    """The pipeline of diffusers that reads a model as its card does, and what that reads from the
    index."""
    codec = None if card.task == "image" else label_codec(card.task)
    if codec is None or codec.pipeline is None or card.axes != "right-up-viewer":
        return IMAGE_PIPELINE, {}
    settings: dict[str, Any] = {
        "default_denoising_steps": card.steps,
        "default_processing_resolution": card.processing_size,
        "prediction_type": card.task,
        **codec.pipeline.fields,
    }
    if codec.has_directions:
        settings |= {"use_full_z_range": card.full_z_range}
    return codec.pipeline.name, settings
