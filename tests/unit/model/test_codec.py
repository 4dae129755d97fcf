import re
from pathlib import Path
from typing import Any

import pytest
import torch

from e2eft.model.backbones.sd_unet import StableDiffusionCodec
from e2eft.model.blank import blank_vae
from e2eft.model.pretrained import load_codec
from e2eft.model.source import PACKAGED, ModelSource, find_model
from tests.tiny_models import blank_source


@pytest.fixture(scope="module")
def codec() -> StableDiffusionCodec:
    torch.manual_seed(0)
    vae = blank_vae()
    vae.register_to_config(scaling_factor=0.18215)
    return StableDiffusionCodec(vae.requires_grad_(False))


def image(height: int = 16, width: int = 24) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_what_the_vae_says_of_itself(codec: StableDiffusionCodec) -> None:
    assert (codec.factor, codec.channels, codec.scale, codec.shift) == (8, 4, 0.18215, 0.0)


def test_encoding_is_the_scaled_posterior_mean(codec: StableDiffusionCodec) -> None:
    posterior = codec.vae.encode(image()).latent_dist  # type: ignore[union-attr]
    latent = codec.encode(image())
    assert latent.shape == (2, 4, 2, 3)
    torch.testing.assert_close(latent, posterior.mean * 0.18215, rtol=0, atol=0)
    # A sample would differ from call to call.
    torch.testing.assert_close(codec.encode(image()), latent, rtol=0, atol=0)
    assert float(posterior.std.min()) > 0.01


def test_decoding_undoes_scale_and_shift() -> None:
    torch.manual_seed(0)
    vae = blank_vae().requires_grad_(False)
    vae.register_to_config(scaling_factor=0.3611, shift_factor=0.1159)
    codec, plain = StableDiffusionCodec(vae), StableDiffusionCodec(blank_vae())
    plain.vae.load_state_dict(vae.state_dict())
    raw = plain.encode(image())
    torch.testing.assert_close(codec.encode(image()), (raw - 0.1159) * 0.3611)
    torch.testing.assert_close(
        codec.decode(codec.encode(image())), plain.decode(raw), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("height", "width"), [(17, 24), (16, 23), (4, 8)])
def test_sides_must_be_multiples_of_the_factor(
    codec: StableDiffusionCodec, height: int, width: int
) -> None:
    with pytest.raises(
        ValueError, match=rf"image of {height} x {width} pixels: .*multiples of the VAE's factor 8"
    ):
        codec.encode(image(height, width))


def test_gradients_reach_the_latent_through_the_frozen_decoder(codec: StableDiffusionCodec) -> None:
    latent = codec.encode(image()).requires_grad_()
    codec.decode(latent).square().mean().backward()
    assert latent.grad is not None and float(latent.grad.abs().min()) > 0
    assert all(parameter.grad is None for parameter in codec.vae.parameters())


def test_a_half_precision_vae_takes_fp32_images() -> None:
    codec = StableDiffusionCodec(blank_vae().bfloat16().requires_grad_(False))
    latent = codec.encode(image())
    assert latent.dtype == torch.bfloat16
    assert codec.decode(latent.float()).shape == (2, 3, 16, 24)


def test_computing_in_bf16_leaves_weights_and_results_in_fp32(codec: StableDiffusionCodec) -> None:
    half = StableDiffusionCodec(codec.vae)
    half.compute_dtype = torch.bfloat16
    latent, exact = half.encode(image()), codec.encode(image())
    assert latent.dtype == torch.float32
    assert 1e-5 < float((latent - exact).abs().mean()) < 0.02 * float(exact.abs().mean())
    latent = exact.clone().requires_grad_()
    made, wanted = half.decode(latent), codec.decode(exact)
    assert made.dtype == torch.float32 and codec.vae.dtype == torch.float32
    assert 1e-5 < float((made - wanted).detach().abs().mean()) < 0.02 * float(wanted.abs().mean())
    made.square().mean().backward()
    assert latent.grad is not None and latent.grad.dtype == torch.float32
    assert float(latent.grad.abs().min()) > 0


def test_the_digest_is_of_what_decides_a_latent(tmp_path: Path) -> None:
    """Not of the place, nor of the decoder; but of the weights, the scale and the architecture."""
    codec = load_codec(blank_source(tmp_path / "a"))
    digest = codec.digest()
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert load_codec(blank_source(tmp_path / "b")).digest() == digest
    assert load_codec(blank_source(tmp_path / "c", seed=1)).digest() != digest
    shared = [load_codec(find_model(name)).digest() for name in PACKAGED]
    assert len(set(shared)) == 1 and shared[0] != digest
    with torch.no_grad():
        codec.vae.decoder.conv_out.weight.add_(1)
    assert codec.digest() == digest
    with torch.no_grad():
        codec.vae.encoder.conv_out.weight[0, 0, 0, 0].add_(1e-3)
    assert codec.digest() != digest
    for change in ({"scaling_factor": 0.5}, {"shift_factor": 0.1}, {"act_fn": "gelu"}):
        other = load_codec(blank_source(tmp_path / "a"))
        other.vae.register_to_config(**change)
        assert other.digest() != digest, change


@pytest.mark.parametrize("format", [{"max_shard_size": "1MB"}, {"safe_serialization": False}])
def test_a_vae_stored_in_another_format_has_the_same_digest(
    format: dict[str, Any], tmp_path: Path
) -> None:
    """Halved on the way, it is another one, once and for all."""
    codec = load_codec(blank_source(tmp_path / "a"))
    blank_source(tmp_path / "b")
    for path in (tmp_path / "b" / "vae").glob("*.safetensors"):
        path.unlink()
    codec.vae.save_pretrained(tmp_path / "b" / "vae", **format)
    shards = len(list((tmp_path / "b" / "vae").glob("*.safetensors")))
    assert shards > 1 if "max_shard_size" in format else shards == 0
    source = ModelSource("b", str(tmp_path / "b"), str(tmp_path / "b"))
    assert load_codec(source).digest() == codec.digest()
    halved = codec.vae.half()
    digest = StableDiffusionCodec(halved).digest()
    assert (
        digest != load_codec(source).digest()
        and StableDiffusionCodec(halved.float()).digest() == digest
    )
