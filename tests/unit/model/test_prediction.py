import math
from typing import Any

import pytest
import torch

from e2eft.model.backbones.sd_unet import NoiseSchedule
from e2eft.model.blank import stable_diffusion_2_scheduler
from e2eft.model.prediction import initial_latent, pyramid_noise

SHAPE = (4, 60, 80)
SEEDS = list(range(20))


def neighbour_correlation(noise: torch.Tensor) -> float:
    """Mean product of horizontal neighbours, of noise of unit variance."""
    return float((noise[..., 1:] * noise[..., :-1]).mean())


@pytest.mark.parametrize(
    "betas",
    [{"beta_start": math.nan}, {"beta_start": 0.0, "beta_end": 0.0}, {"num_train_timesteps": 1},
     {"trained_betas": [-0.1] * 1000}],
)  # fmt: skip
def test_betas_that_are_no_schedule_are_refused(betas: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="its betas add no noise from step to step"):
        NoiseSchedule.of(stable_diffusion_2_scheduler(**betas))


def test_zeros_and_none() -> None:
    zeros = initial_latent("zeros", SHAPE, [1, 2])
    assert zeros is not None and zeros.shape == (2, *SHAPE) and not zeros.any()
    assert initial_latent("none", SHAPE, [1, 2]) is None


def test_gaussian_noise_is_white_and_standard() -> None:
    noise = initial_latent("gaussian", SHAPE, SEEDS)
    assert noise is not None and noise.shape == (20, *SHAPE)
    assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01
    assert abs(neighbour_correlation(noise)) < 0.01
    assert abs(float(noise.abs().gt(1.96).float().mean()) - 0.05) < 0.003


def test_pyramid_noise_has_unit_deviation_and_large_blots() -> None:
    noise = initial_latent("pyramid", SHAPE, SEEDS)
    assert noise is not None
    deviations = noise.flatten(1).std(dim=1)
    torch.testing.assert_close(deviations, torch.ones(20), rtol=1e-5, atol=0)
    assert neighbour_correlation(noise) > 0.25


@pytest.mark.parametrize("kind", ["gaussian", "pyramid"])
def test_a_seed_names_one_images_noise(kind: str) -> None:
    together = initial_latent(kind, SHAPE, [5, 6, 7])  # type: ignore[arg-type]
    alone = initial_latent(kind, SHAPE, [6])  # type: ignore[arg-type]
    assert together is not None and alone is not None
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])


def test_annealed_pyramids_go_from_white_to_blotted() -> None:
    strengths = [0.0, 0.45, 0.9]
    noises = [pyramid_noise(SHAPE, 1, torch.full((20,), strength)) for strength in strengths]
    correlations = [neighbour_correlation(noise) for noise in noises]
    assert correlations == sorted(correlations)
    # At strength 0 only the level without discount is added: noise of the same size.
    assert abs(correlations[0]) < 0.02 and correlations[2] > 0.25


def test_each_image_of_a_pyramid_has_its_own_strength() -> None:
    mixed = pyramid_noise(SHAPE, 1, torch.tensor([0.0, 0.9]).repeat(10))
    white, blotted = mixed[::2], mixed[1::2]
    assert abs(neighbour_correlation(white)) < 0.02 and neighbour_correlation(blotted) > 0.25
    torch.testing.assert_close(mixed.flatten(1).std(dim=1), torch.ones(20), rtol=1e-5, atol=0)
    assert len({float(image[0, 0, 0]) for image in mixed}) == 20


@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 1, 90), (4, 2, 3)])
def test_pyramids_of_tiny_latents_are_finite(shape: tuple[int, int, int]) -> None:
    noise = initial_latent("pyramid", shape, [0, 1])
    assert noise is not None and noise.isfinite().all()
