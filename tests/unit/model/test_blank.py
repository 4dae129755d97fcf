import torch
from diffusers.models.resnet import ResnetBlock2D

from e2eft.model.blank import INITIAL_LOG_VARIANCE, blank_unet, blank_vae


def test_a_blank_vae_starts_with_empty_branches_and_a_narrow_posterior() -> None:
    torch.manual_seed(0)
    vae = blank_vae()
    image = torch.rand(2, 3, 32, 40) * 2 - 1
    with torch.no_grad():
        posterior = vae.encode(image).latent_dist  # type: ignore[union-attr]
        torch.testing.assert_close(
            posterior.logvar, torch.full_like(posterior.logvar, INITIAL_LOG_VARIANCE)
        )
        assert float(posterior.mean.std()) > 5 * float(posterior.std.max())
        blocks = [module for module in vae.modules() if isinstance(module, ResnetBlock2D)]
        assert len(blocks) > 8
        for block in blocks:
            hidden = torch.randn(1, block.in_channels, 8, 8)
            past = block.conv_shortcut(hidden) if block.conv_shortcut is not None else hidden
            torch.testing.assert_close(block(hidden, None), past)


def test_the_small_unet_takes_images_of_any_latent_size_and_both_widths() -> None:
    for channels in (4, 8):
        unet = blank_unet(channels)
        latents, context = torch.randn(1, channels, 12, 20), torch.randn(1, 2, 64)
        made = unet(latents, torch.tensor([999]), context).sample  # type: ignore[union-attr]
        assert made.shape == (1, 4, 12, 20)
