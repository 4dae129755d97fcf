"""Stable Diffusion 2's real architecture, without its weights: on the meta device."""

from typing import Any

import pytest
import torch

from e2eft.model.backbones.sd_unet import (
    NoiseSchedule,
    StableDiffusionCodec,
    UNetCall,
    widen_conv_in,
)
from e2eft.model.backbones.sd_unet_layout import FACTOR, check_channels
from e2eft.model.blank import (
    stable_diffusion_2_scheduler,
    stable_diffusion_2_unet,
    stable_diffusion_2_vae,
)
from e2eft.model.card import ModelCard
from e2eft.model.estimator import Estimator

UNET_PARAMETERS = 865_910_724
VAE_PARAMETERS = 83_653_863
CONV_IN_PARAMETERS_MORE = 320 * 4 * 3 * 3
CONTEXT_WIDTH = 1024


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def unet() -> Any:
    with torch.device("meta"):
        return stable_diffusion_2_unet()


@pytest.fixture(scope="module")
def vae() -> Any:
    with torch.device("meta"):
        return stable_diffusion_2_vae()


def test_it_is_the_architecture_of_the_paper(unet: Any, vae: Any) -> None:
    assert count(unet) == UNET_PARAMETERS
    assert count(vae) == VAE_PARAMETERS
    codec = StableDiffusionCodec(vae)
    assert (codec.factor, codec.size_multiple, codec.scale) == (FACTOR, FACTOR, 0.18215)
    assert check_channels("stable-diffusion-2", unet.config, vae.config) == (4, 4)


@torch.no_grad()
def test_it_takes_the_image_once_widened_and_gives_an_image(unet: Any, vae: Any) -> None:
    schedule = NoiseSchedule.of(stable_diffusion_2_scheduler())
    with torch.device("meta"):
        widened = widen_conv_in(unet, "weight-and-bias")
        assert count(widened) == UNET_PARAMETERS + CONV_IN_PARAMETERS_MORE
        assert check_channels("stable-diffusion-2", widened.config, vae.config) == (8, 4)
        latent, context = torch.empty(1, 4, 60, 80), torch.empty(1, 2, CONTEXT_WIDTH)
        call = UNetCall(context, schedule.time)
        codec = StableDiffusionCodec(vae)
        estimator = Estimator(codec, widened, call, schedule, ModelCard("depth"))
        assert estimator.codec.encode(torch.empty(1, 3, 480, 640)).shape == (1, 4, 60, 80)
        output = estimator.denoise(latent, latent, torch.ones(1))
        assert output.shape == (1, 4, 60, 80)
        assert estimator.codec.decode(output).shape == (1, 3, 480, 640)
