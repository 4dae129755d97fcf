from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from e2eft.config import ModelConfig, SamplingConfig
from e2eft.model.backbones.sd_unet import NoiseSchedule
from e2eft.model.card import ModelCard
from e2eft.model.estimator import Estimator
from tests.tiny_models import lively


class Recorder(nn.Module):
    """A denoiser that remembers what it was asked, and answers with a weighted sum."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.5, -0.25], dtype=dtype))
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(
        self, latents: Tensor, t: Tensor, encoder_hidden_states: Tensor, return_dict: bool
    ) -> tuple[Tensor]:
        assert not return_dict
        self.asked.append((latents, t, encoder_hidden_states))
        target = latents[:, 4:] if latents.shape[1] == 8 else torch.zeros_like(latents)
        return (latents[:, :4] * self.weight[0] + target * self.weight[1],)


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> Estimator:
    return lively(tmp_path_factory.mktemp("model") / "blank")[1]


def with_denoiser(estimator: Estimator, denoiser: Any) -> Estimator:
    return Estimator(estimator.codec, denoiser, estimator.call, estimator.schedule, estimator.card)


def schedule_of(estimator: Estimator) -> NoiseSchedule:
    assert isinstance(estimator.schedule, NoiseSchedule)
    return estimator.schedule


def images(count: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 16, 24, generator=generator) * 2 - 1


def test_a_bf16_denoiser_is_told_999_not_1000(estimator: Estimator) -> None:
    # 999 has no bf16: cast like everything else it would be 1000, past the schedule's end.
    assert float(torch.tensor(999).bfloat16()) == 1000
    recorder = Recorder(torch.bfloat16)
    clean = with_denoiser(estimator, recorder).latent(images())
    latents, t, context = recorder.asked[0]
    assert not t.is_floating_point() and t.tolist() == [999, 999]
    assert latents.dtype == context.dtype == torch.bfloat16
    assert clean.dtype == torch.float32


def test_the_images_latent_comes_first(estimator: Estimator) -> None:
    recorder = Recorder()
    made = with_denoiser(estimator, recorder)
    made.latent(images(), initial="gaussian", seeds=[3, 4])
    latents, _, context = recorder.asked[0]
    with torch.no_grad():
        torch.testing.assert_close(latents[:, :4], estimator.codec.encode(images()))
    noise = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(latents[1, 4:], noise)
    assert context.shape == (2, 2, 64)


def test_one_step_from_zeros_is_minus_s_times_the_output(estimator: Estimator) -> None:
    clean = with_denoiser(estimator, Recorder()).latent(images(), initial="zeros")
    with torch.no_grad():
        output = 0.5 * estimator.codec.encode(images())
    torch.testing.assert_close(clean, -0.997667 * output, rtol=1e-5, atol=1e-6)


def test_without_initial_latent_the_denoiser_sees_the_image_only(estimator: Estimator) -> None:
    recorder = Recorder()
    made = with_denoiser(estimator, recorder)
    none, zeros = made.latent(images(), initial="none"), made.latent(images(), initial="zeros")
    assert recorder.asked[0][0].shape[1] == 4 and recorder.asked[1][0].shape[1] == 8
    torch.testing.assert_close(none, zeros)
    with pytest.raises(ValueError, match="'none' allows one step only"):
        made.latent(images(), initial="none", steps=2)


def test_many_steps_walk_down_the_grid(estimator: Estimator) -> None:
    recorder = Recorder()
    made = with_denoiser(estimator, recorder)
    clean = made.latent(images(), steps=4, initial="gaussian", seeds=[1, 2])
    assert [int(t[0]) for _, t, _ in recorder.asked] == [999, 749, 499, 249]
    for _, t, _ in recorder.asked:
        assert t.shape == (2,) and not t.is_floating_point()
    # By hand, with the schedule's coefficients.
    with torch.no_grad():
        image_latent = estimator.codec.encode(images())
        x = recorder.asked[0][0][:, 4:]
        for t, t_next in ((999, 749), (749, 499), (499, 249), (249, None)):
            v = 0.5 * image_latent - 0.25 * x
            alpha = schedule_of(estimator).alphas_cumprod
            a, s = alpha[t].sqrt(), (1 - alpha[t]).sqrt()
            x_0, eps = a * x - s * v, a * v + s * x
            if t_next is not None:
                x = alpha[t_next].sqrt() * x_0 + (1 - alpha[t_next]).sqrt() * eps
    torch.testing.assert_close(clean, x_0, rtol=1e-4, atol=1e-5)


def test_an_images_noise_does_not_depend_on_its_batch(estimator: Estimator) -> None:
    sampling = SamplingConfig(initial_latent="gaussian", steps=2)
    with torch.no_grad():
        together = estimator.run(images(3), sampling, [7, 8, 9])
        alone = estimator.run(images(3)[1:2], sampling, [8])
        otherwise = estimator.run(images(3)[1:2], sampling, [9])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)
    assert float((alone - otherwise).abs().mean()) > 0.01


def test_the_card_decides_where_the_configuration_does_not(estimator: Estimator) -> None:
    recorder = Recorder()
    made = with_denoiser(estimator, recorder)
    for card, asked in (("zeros", None), ("gaussian", None), ("gaussian", "zeros")):
        made.card = ModelCard(task="depth", initial_latent=card)  # type: ignore[arg-type]
        with torch.no_grad():
            made.run(images(1), SamplingConfig(initial_latent=asked), [1])  # type: ignore[arg-type]
    started = [bool(latents[:, 4:].any()) for latents, _, _ in recorder.asked]
    assert started == [False, True, False]


def test_gradients_reach_the_denoiser_only(estimator: Estimator) -> None:
    recorder = Recorder()
    rgb = images().requires_grad_()
    with_denoiser(estimator, recorder)(rgb).square().mean().backward()
    assert recorder.weight.grad is not None and float(recorder.weight.grad[0]) != 0
    assert rgb.grad is None
    assert all(parameter.grad is None for parameter in estimator.codec.vae.parameters())


def test_the_same_call_gives_the_same_image(estimator: Estimator) -> None:
    for initial in ("zeros", "gaussian", "pyramid"):
        with torch.no_grad():
            first, second = (estimator(images(), initial=initial, seeds=[1, 2]) for _ in range(2))
        assert torch.equal(first, second)


def test_prompt_lengths_differ_and_both_work(tmp_path: Path) -> None:
    made = {
        tokens: lively(tmp_path / str(tokens), ModelConfig(prompt_tokens=tokens))[1]
        for tokens in (2, 77)
    }
    with torch.no_grad():
        results = {tokens: estimator(images()) for tokens, estimator in made.items()}
    assert made[77].context.shape == (1, 77, 64)
    assert float((results[2] - results[77]).abs().max()) > 1e-4
    assert results[77].isfinite().all()


def test_a_card_survives_json() -> None:
    card = ModelCard("normals", "unit", "pyramid", 3, "leading", 77, 640)
    assert ModelCard.of(card.as_json(), "") == card
