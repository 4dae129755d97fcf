"""FLUX.2 klein: a transformer on tokens of 2 x 2 latents, trained by flow matching, told sigma."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from e2eft.config import ModelConfig, Spacing
from e2eft.imports import uncollected
from e2eft.model.backbones.base import Backbone, Recognized
from e2eft.model.backbones.flux2_layout import (
    CONTEXT,
    FACTOR,
    LAYOUT,
    PARTS,
    PATCH,
    PIPELINE,
)
from e2eft.model.card import ModelCard
from e2eft.model.codec import Codec
from e2eft.model.components import require_factor
from e2eft.model.estimator import Estimator
from e2eft.model.hub import ModelError
from e2eft.model.layout import save_diffusers, write_index
from e2eft.model.loading import load_component
from e2eft.model.normalization import BatchNormStatistics, pack, unpack
from e2eft.model.parametrization import Flow, Parametrization, Residual, Sample
from e2eft.model.prediction import Schedule
from e2eft.model.source import ModelSource
from e2eft.model.times import Continuous, Sigma

with uncollected():
    from diffusers import AutoencoderKLFlux2, Flux2KleinPipeline, Flux2Transformer2DModel

REFERENCE_T = 10
"""The first coordinate of the first reference image's tokens; that of the target's is 0."""
EMBEDS = "embeds"
"""The tensor in the file of the text context, `[1 tokens width]`."""
_PREDICTED: dict[str, Parametrization] = {"": Flow(), "sample": Sample(), "residual": Residual()}
_ENCODING_SETTINGS = (
    "act_fn",
    "batch_norm_eps",
    "block_out_channels",
    "down_block_types",
    "latent_channels",
    "layers_per_block",
    "mid_block_add_attention",
    "norm_num_groups",
    "patch_size",
    "use_quant_conv",
)


class Flux2Codec(Codec):
    """Posterior mean, normalized by the statistics of a batch normalization of packed latents."""

    patch = PATCH
    encoding_parts = ("encoder.", "quant_conv.", "bn.running_")

    @property
    def normalizer(self) -> BatchNormStatistics:
        norm = self.vae.bn
        eps = self.config.batch_norm_eps
        return BatchNormStatistics(norm.running_mean, norm.running_var, eps, PATCH)

    @property
    def encoding_settings(self) -> dict[str, Any]:
        return {name: getattr(self.config, name, None) for name in _ENCODING_SETTINGS}


@dataclass(frozen=True)
class FlowSchedule(Schedule):
    """The straight line x_t = (1 - sigma) x_0 + sigma noise."""

    parametrization: Parametrization

    def to(self, device: torch.device | str) -> Self:
        return self

    @property
    def time(self) -> Continuous:
        return Continuous()

    def sigmas(self, steps: int, spacing: Spacing) -> list[float]:
        """One step is made at sigma = 1, however several would be spaced.

        Raises:
            ValueError: for more, whose spacing FLUX.2 makes depend on the image's size.
        """
        if steps != 1:
            raise ValueError(f"--steps {steps}: FLUX.2 is run in 1")
        return [1.0]

    def coefficients(self, sigma: Sigma) -> tuple[Tensor, Tensor]:
        s = sigma.float().view(-1, 1, 1, 1)
        return 1 - s, s


@dataclass(frozen=True)
class Flux2Call:
    """Tokens of the target's latent, then those of the image as a reference, all after the text.

    Where one of the two is missing, the other's tokens have the target's place.
    """

    context: Float[Tensor, "1 tokens width"]
    time: Continuous

    def to(self, device: torch.device | str) -> Self:
        return replace(self, context=self.context.to(device))

    def __call__(
        self,
        denoiser: Any,
        image: Float[Tensor, "n c h w"] | None,
        x_t: Float[Tensor, "n c h w"] | None,
        sigma: Sigma,
    ) -> Float[Tensor, "n c h w"]:
        """The transformer itself casts sigma to its precision, and multiplies it by 1000."""
        given = [pack(latent, PATCH) for latent in (x_t, image) if latent is not None]
        count, _, height, width = given[0].shape
        device, dtype = given[0].device, next(denoiser.parameters()).dtype
        context = self.context.to(dtype).expand(count, -1, -1)
        ids = [image_ids(height, width, REFERENCE_T * i, device) for i in range(len(given))]
        output = denoiser(
            hidden_states=torch.cat([packed.flatten(2).mT for packed in given], dim=1).to(dtype),
            encoder_hidden_states=context,
            timestep=self.time.argument(sigma),
            img_ids=torch.cat(ids),
            txt_ids=text_ids(context.shape[1], device),
            guidance=None,
            return_dict=False,
        )[0]
        target = output[:, : height * width].mT.unflatten(2, (height, width))
        return unpack(target, PATCH).float()

    def start(
        self, image: Float[Tensor, "n c h w"], output: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        """The image: it is where noise would be, and the flow leads from it."""
        return image.float()


def image_ids(
    height: int, width: int, t: int, device: torch.device | None = None
) -> Int[Tensor, "tokens 4"]:
    """Places (t, row, column, 0) of an image's tokens, row by row."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    place = torch.stack([rows.flatten(), columns.flatten()], dim=1)
    return torch.cat([torch.full_like(place[:, :1], t), place, 0 * place[:, :1]], dim=1)


def text_ids(tokens: int, device: torch.device | None = None) -> Int[Tensor, "tokens 4"]:
    """Places (0, 0, 0, number) of a text's tokens."""
    ids = torch.zeros(tokens, 4, dtype=torch.long, device=device)
    ids[:, 3] = torch.arange(tokens, device=device)
    return ids


def write_text_context(folder: Path) -> None:
    """Embeds the empty prompt as diffusers' pipeline does, with the text encoder in a model's
    folder, and writes it beside the components, after which the encoder is not needed.

    Raises:
        ModelError: if the folder's text encoder or tokenizer is missing or broken.
    """
    with uncollected():
        from transformers import Qwen2Tokenizer, Qwen3ForCausalLM

    source = ModelSource(str(folder), str(folder), str(folder))
    tokenizer = load_component(Qwen2Tokenizer, source, "tokenizer")
    encoder = load_component(Qwen3ForCausalLM, source, "text_encoder", dtype=torch.float32)
    if tokenizer.chat_template is None:
        # Where its files are missing, transformers makes one without words and says nothing.
        raise ModelError(
            f"model {source.name!r}: its tokenizer has no chat template; copy it again"
        )
    embed: Any = Flux2KleinPipeline._get_qwen3_prompt_embeds
    with torch.no_grad():
        save_text_context(folder, embed(encoder.eval(), tokenizer, ""))


def save_text_context(folder: Path, context: Float[Tensor, "1 tokens width"]) -> None:
    """Writes an embedded prompt into a model's folder, as fp32."""
    save_file({EMBEDS: context.detach().float().cpu().contiguous()}, folder / CONTEXT)


def load_text_context(source: ModelSource, width: int) -> Float[Tensor, "1 tokens width"]:
    """The embedded empty prompt in a model's folder, as fp32.

    Raises:
        ModelError: if there is none, or none that the transformer takes.
    """
    try:
        context = load_file(Path(source.root, CONTEXT))[EMBEDS].float()
    except FileNotFoundError:
        raise ModelError(
            f"model {source.name!r}: its {CONTEXT} is missing, {LAYOUT.files[CONTEXT]}"
        ) from None
    except (SafetensorError, KeyError, OSError) as error:
        raise ModelError(
            f"model {source.name!r}: its {CONTEXT} is no tensor {EMBEDS!r} ({error}); write it anew"
        ) from None
    if context.ndim != 3 or len(context) != 1 or context.shape[2] != width:
        raise ModelError(
            f"model {source.name!r}: its {CONTEXT} is of shape {list(context.shape)}; its "
            f"transformer takes [1, tokens, {width}]"
        )
    if not context.isfinite().all():
        raise ModelError(f"model {source.name!r}: its {CONTEXT} is not finite; write it anew")
    return context


class Flux2(Backbone):
    """Its loading and export."""

    @property
    def classes(self) -> dict[str, Any]:
        return {"transformer": Flux2Transformer2DModel, "vae": AutoencoderKLFlux2}

    def load_codec(self, source: ModelSource) -> Codec:
        vae = load_component(AutoencoderKLFlux2, source, "vae", torch_dtype=torch.float32)
        vae.requires_grad_(False)
        codec = Flux2Codec(vae)
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
        if settings is not None:
            LAYOUT.require_trainable(source.name, found, settings, conditional=conditional)
        codec = self.load_codec(source)
        transformer = load_component(
            Flux2Transformer2DModel, source, "transformer", torch_dtype=torch.float32
        )
        schedule = FlowSchedule(_PREDICTED[found.card.predicts])
        context = load_text_context(source, transformer.config.joint_attention_dim)
        call = Flux2Call(context, schedule.time)
        return Estimator(codec, transformer, call, schedule, found.card)

    def export(
        self,
        estimator: Estimator,
        source: ModelSource,
        folder: Path,
        card: ModelCard,
        dtype: torch.dtype,
    ) -> None:
        save_diffusers(estimator.denoiser, folder / "transformer", dtype)
        save_diffusers(estimator.codec.vae, folder / "vae", dtype)
        scheduler = json.loads(source.text("scheduler/scheduler_config.json") or "{}")
        (folder / "scheduler").mkdir(exist_ok=True)
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler, indent=1))
        save_text_context(folder, estimator.context)
        write_index(folder, PIPELINE, PARTS)


BACKBONE: Backbone = Flux2()
