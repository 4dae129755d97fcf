"""Stable Diffusion with random weights: the small one of the packaged base models, and the parts of
the real one."""

import json
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from e2eft.model.backbones.sd_unet import write_model_index
from e2eft.model.layout import save_diffusers, save_transformers
from e2eft.model.libraries import (
    AutoencoderKL,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    DDIMScheduler,
    UNet2DConditionModel,
)

TEXT_WIDTH = 64
INITIAL_LOG_VARIANCE = -6.0
BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def blank_vae() -> AutoencoderKL:
    """8 x downsampling, 4 latent channels, half a million parameters, most at low resolution.

    Narrow, because it must learn in CPU minutes and the demo decodes through it in every step.
    """
    vae = _autoencoder(
        (8, 16, 32, 64),
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
        sample_size=128,
        scaling_factor=1.0,
    )
    _start_near_linear(vae)
    return vae


def _autoencoder(widths: tuple[int, ...], **settings: Any) -> AutoencoderKL:
    """Stable Diffusion's kind of VAE: one block a width, 4 latent channels."""
    return AutoencoderKL(
        block_out_channels=widths,  # type: ignore[arg-type]
        down_block_types=("DownEncoderBlock2D",) * len(widths),  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * len(widths),  # type: ignore[arg-type]
        latent_channels=4,
        **settings,
    )


@torch.no_grad()
def _start_near_linear(vae: AutoencoderKL) -> None:
    """Residual branches at zero, norm-keeping convolutions around them, and a posterior narrow
    enough to decode from: the first thousand steps then refine a code instead of looking for one.
    """
    for name, module in vae.named_modules():
        if isinstance(module, nn.Conv2d):
            if name.endswith(".conv2"):
                nn.init.zeros_(module.weight)
            else:
                nn.init.orthogonal_(module.weight)
            nn.init.zeros_(cast(nn.Parameter, module.bias))
    log_variance = cast(nn.Conv2d, vae.quant_conv)
    nn.init.zeros_(log_variance.weight[4:])
    nn.init.constant_(cast(nn.Parameter, log_variance.bias)[4:], INITIAL_LOG_VARIANCE)


def blank_unet(in_channels: int = 4) -> UNet2DConditionModel:
    """Three resolutions, 2 M parameters; the prompt enters, and pixels attend, in the middle only.

    Attention at the other resolutions would cost a third of the samples a second on CPUs in fp32,
    and more than half of them in bf16.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(48, 64, 96),
        down_block_types=("DownBlock2D",) * 3,  # type: ignore[arg-type]
        up_block_types=("UpBlock2D",) * 3,  # type: ignore[arg-type]
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        use_linear_projection=True,
    )


def stable_diffusion_2_unet() -> UNet2DConditionModel:
    """Stable Diffusion 2's: 866 M parameters, for prompts embedded 1024 wide."""
    return UNet2DConditionModel(
        sample_size=96,
        in_channels=4,
        out_channels=4,
        block_out_channels=(320, 640, 1280, 1280),
        cross_attention_dim=1024,
        attention_head_dim=(5, 10, 20, 20),  # type: ignore[arg-type]
        use_linear_projection=True,
    )


def stable_diffusion_2_vae() -> AutoencoderKL:
    """Stable Diffusion 2's: 84 M parameters."""
    return _autoencoder((128, 256, 512, 512), layers_per_block=2, sample_size=768)


def stable_diffusion_2_scheduler(**changes: object) -> DDIMScheduler:
    """The noise schedule of Stable Diffusion 2 and Marigold v1-0, `leading` unless changed."""
    settings: dict[str, object] = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
        "prediction_type": "v_prediction",
        "timestep_spacing": "leading",
    }
    return DDIMScheduler(**(settings | changes))  # type: ignore[arg-type]


def _write_tokenizer(folder: Path) -> CLIPTokenizer:
    """CLIP's byte-level tokenizer without merges: every prompt is its bytes."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), BOS, EOS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), pad_token=EOS, model_max_length=77
    )


def blank_text_encoder(vocabulary: int) -> CLIPTextModel:
    """One narrow transformer layer: the only prompt is the empty one."""
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=TEXT_WIDTH,
        intermediate_size=TEXT_WIDTH,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config)


def write_blank_model(folder: Path, seed: int = 0) -> Path:
    """Writes a complete model with random weights in Stable Diffusion's diffusers layout."""
    torch.manual_seed(seed)
    tokenizer = _write_tokenizer(folder / "tokenizer")
    tokenizer.save_pretrained(folder / "tokenizer")
    save_transformers(blank_text_encoder(len(tokenizer)), folder / "text_encoder")
    save_diffusers(blank_vae(), folder / "vae")
    save_diffusers(blank_unet(), folder / "unet")
    stable_diffusion_2_scheduler().save_pretrained(folder / "scheduler")
    write_model_index(folder, "StableDiffusionPipeline")
    return folder
