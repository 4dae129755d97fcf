"""A tiny FLUX.2 klein with random weights, and everything of a real one but its size."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2Transformer2DModel,
)

from e2eft.model.backbones.flux2 import save_text_context
from e2eft.model.backbones.flux2_layout import PARTS, PIPELINE
from e2eft.model.card import CARD_NAME, ModelCard
from e2eft.model.layout import save_diffusers, write_index

LATENT_CHANNELS, TEXT_WIDTH, TEXT_TOKENS = 4, 12, 5
REFERENCE = ModelCard("depth", initial_latent="zeros")
IN_PLACE = ModelCard("depth", initial_latent="none")


def tiny_vae() -> AutoencoderKLFlux2:
    """Of a factor of 8, with statistics that differ from place to place."""
    made = AutoencoderKLFlux2(
        block_out_channels=(4, 4, 8, 8),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,
        sample_size=32,
        mid_block_add_attention=False,
    )
    packed = 4 * LATENT_CHANNELS
    made.bn.running_mean = torch.linspace(-0.5, 0.5, packed)
    made.bn.running_var = torch.linspace(0.3, 2, packed)
    return made


def tiny_transformer(**changes: Any) -> Flux2Transformer2DModel:
    """A block of each kind."""
    settings: dict[str, Any] = {
        "in_channels": 4 * LATENT_CHANNELS,
        "num_layers": 1,
        "num_single_layers": 1,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": TEXT_WIDTH,
        "timestep_guidance_channels": 16,
        "axes_dims_rope": (4, 4, 4, 4),
        "guidance_embeds": False,
    }
    return Flux2Transformer2DModel(**settings | changes)


def write_tiny_flux2(folder: Path, card: ModelCard | None = REFERENCE, seed: int = 0) -> Path:
    """A folder in diffusers' layout, without text encoder, and with a card if there is one."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True)
    save_diffusers(tiny_vae(), folder / "vae")
    save_diffusers(tiny_transformer(), folder / "transformer")
    FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, shift=3.0, num_train_timesteps=1000
    ).save_pretrained(folder / "scheduler")
    save_text_context(folder, torch.randn(1, TEXT_TOKENS, TEXT_WIDTH))
    absent = {"text_encoder": [None, None], "tokenizer": [None, None], "is_distilled": True}
    write_index(folder, PIPELINE, PARTS, **absent)
    if card is not None:
        (folder / CARD_NAME).write_text(json.dumps(card.as_json()))
    return folder
