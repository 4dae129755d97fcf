"""Loading and exporting: Stable Diffusion, Marigold and E2E-FT folder layouts, the packaged small
models, and folders that diffusers' own Marigold pipelines load unchanged."""

import json
import logging
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from e2eft.config import VAE_FACTOR, ConvInHalving, ModelConfig
from e2eft.model.card import CARD_NAME, ModelCard
from e2eft.model.codec import Codec
from e2eft.model.estimator import Estimator
from e2eft.model.hub import ModelError
from e2eft.model.layout import save_diffusers, save_transformers, write_model_index
from e2eft.model.prediction import NoiseSchedule
from e2eft.model.source import IMAGE_PIPELINE, PIPELINES, ModelSource, read_card

log = logging.getLogger(__name__)
transformers_logging.disable_progress_bar()


def _load_component(kind: Any, source: ModelSource, component: str, **options: Any) -> Any:
    try:
        return kind.from_pretrained(**source.of(component), **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise ModelError(f"model {source.name!r}: cannot load its {component}: {why}") from error


def check_fit(vae: AutoencoderKL, unet: UNet2DConditionModel, name: str) -> None:
    """Raises ModelError if the VAE's factor or the UNet's channels are not what the estimator
    handles."""
    codec, config = Codec(vae), unet.config
    _check_factor(codec, name)
    allowed = (codec.channels, 2 * codec.channels)
    if config["in_channels"] not in allowed or config["out_channels"] != codec.channels:
        raise ModelError(
            f"model {name!r}: its UNet takes {config['in_channels']} and gives "
            f"{config['out_channels']} channels; with this VAE it must take {allowed[0]} or "
            f"{allowed[1]} and give {codec.channels}"
        )


def _check_factor(codec: Codec, name: str) -> None:
    if codec.factor != VAE_FACTOR:
        raise ModelError(
            f"model {name!r}: its VAE shrinks images {codec.factor} times; "
            f"a factor of {VAE_FACTOR} is supported"
        )


def embed_empty_prompt(source: ModelSource, tokens: int) -> torch.Tensor:
    """The text context `[1 tokens width]`: BOS, EOS alone (2), or padded to 77. The encoder is not
    kept."""
    tokenizer: Any = _load_component(CLIPTokenizer, source, "tokenizer")
    encoder: Any = _load_component(CLIPTextModel, source, "text_encoder", dtype=torch.float32)
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


def export_source(source: ModelSource, folder: Path) -> Path:
    """A single folder with all of a model: its own if it has one, else a copy in `folder`."""
    if source.unet == source.shared and Path(source.unet).is_dir():
        return Path(source.unet)
    estimator = load_estimator(source)
    return export_model(estimator, source, folder, estimator.card)


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


def load_codec(source: ModelSource) -> Codec:
    """The frozen VAE alone, in fp32 on the CPU.

    Raises:
        ModelError: if it is missing or has another factor than VAE_FACTOR.
    """
    vae = _load_component(AutoencoderKL, source, "vae", torch_dtype=torch.float32)
    vae.requires_grad_(False)
    codec = Codec(vae)
    _check_factor(codec, source.name)
    return codec


def load_estimator(
    source: ModelSource, settings: ModelConfig | None = None, *, conditional: bool = True
) -> Estimator:
    """A model in fp32 on the CPU.

    Args:
        source: from `find_model`.
        settings: how it shall be trained. None: run it as its card says.
        conditional: False for a model that denoises images themselves (Stable Diffusion's
        objective).

    Raises:
        ModelError: if a component is missing or does not fit.
    """
    options: dict[str, Any] = {"torch_dtype": torch.float32}
    vae = _load_component(AutoencoderKL, source, "vae", **options)
    unet = _load_component(UNet2DConditionModel, source, "unet", **options)
    check_fit(vae, unet, source.name)
    scheduler = _load_component(DDIMScheduler, source, "scheduler")
    channels = unet.config["in_channels"]
    card = read_card(source, channels, Codec(vae).channels)
    if settings is not None:
        _fit_input(unet, settings, conditional, source.name, Codec(vae).channels)
        tokens, initial = settings.prompt_tokens, settings.initial_latent
        card = ModelCard(task=card.task, initial_latent=initial, prompt_tokens=tokens)
        if settings.unet_checkpointing:
            unet.enable_gradient_checkpointing()
        if settings.decoder_checkpointing:
            vae.enable_gradient_checkpointing()
    context = embed_empty_prompt(source, card.prompt_tokens)
    if context.shape[-1] != unet.config["cross_attention_dim"]:
        raise ModelError(
            f"model {source.name!r}: its text encoder gives {context.shape[-1]} features, "
            f"its UNet takes {unet.config['cross_attention_dim']}"
        )
    vae.requires_grad_(False)
    return Estimator(Codec(vae), unet, NoiseSchedule.of(scheduler), context, card)


def _fit_input(unet: Any, settings: ModelConfig, conditional: bool, name: str, latent: int) -> None:
    wants = 2 * latent if conditional and settings.initial_latent != "none" else latent
    has = unet.config["in_channels"]
    if has == wants:
        return
    if has > wants:
        raise ModelError(
            f"model {name!r}: its UNet takes {has} channels, but this run gives it {wants}; "
            "use an initial latent other than 'none', or a 4-channel base"
        )
    widen_conv_in(unet, settings.conv_in_halving)


def export_model(
    estimator: Estimator, source: ModelSource, folder: Path, card: ModelCard, *, half: bool = False
) -> Path:
    """Writes a complete model folder with `trailing` spacing baked into its scheduler.

    Depth and normals models load with `MarigoldDepthPipeline` / `MarigoldNormalsPipeline`
    unchanged. Those pipelines start from Gaussian noise unless given `latents`: pass zeros to a
    model whose card says so.

    Args:
        half: store fp16 weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    save_diffusers(estimator.denoiser, folder / "unet", dtype)
    save_diffusers(estimator.codec.vae, folder / "vae", dtype)
    config = {**estimator.schedule.scheduler.config, "timestep_spacing": "trailing"}
    scheduler: Any = DDIMScheduler.from_config(config)
    scheduler.save_pretrained(folder / "scheduler")
    _load_component(CLIPTokenizer, source, "tokenizer").save_pretrained(folder / "tokenizer")
    encoder = _load_component(CLIPTextModel, source, "text_encoder")
    save_transformers(encoder, folder / "text_encoder", dtype)
    write_model_index(folder, PIPELINES.get(card.task, IMAGE_PIPELINE), **_pipeline_settings(card))
    (folder / CARD_NAME).write_text(json.dumps(card.as_json(), indent=1))
    return folder


def _pipeline_settings(card: ModelCard) -> dict[str, Any]:
    """What diffusers' Marigold pipelines read from the index."""
    if card.task not in PIPELINES:
        return {}
    defaults = {
        "default_denoising_steps": card.steps,
        "default_processing_resolution": card.processing_size,
    }
    if card.task == "depth":
        return defaults | {
            "prediction_type": "depth",
            "scale_invariant": True,
            "shift_invariant": True,
        }
    return defaults | {"prediction_type": "normals", "use_full_z_range": True}
