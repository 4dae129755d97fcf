"""What Stable Diffusion's models use of diffusers and transformers."""

from e2eft.imports import uncollected

with uncollected():
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

__all__ = [
    "AutoencoderKL",
    "CLIPTextConfig",
    "CLIPTextModel",
    "CLIPTokenizer",
    "DDIMScheduler",
    "UNet2DConditionModel",
]
