"""Diffusion training: timesteps, noise, targets, and which latents are supervised and kept."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from e2eft.data.batch import Batch
from e2eft.data.batches import TrainingBatch, collate
from e2eft.model.backbones.sd_unet import NoiseSchedule
from e2eft.train.objectives import DiffusionObjective
from tests.frames import analytic_frame
from tests.objectives import DIFFUSION, IMAGES, frames, objective_of, training


class Oracle(torch.nn.Module):
    """Answers with what the objective wants to hear, or with that plus an error."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = torch.nn.Parameter(answer)
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, latents: Tensor, t: Tensor, **_: Any) -> tuple[Tensor]:
        self.asked.append((latents, t))
        return (self.answer,)


@pytest.fixture
def diffusion(models: Path) -> Iterator[DiffusionObjective]:
    yield objective_of(models, objective=DIFFUSION)


def coefficients(objective: DiffusionObjective, t: Tensor) -> tuple[Tensor, Tensor]:
    """Of timesteps."""
    schedule = objective.estimator.schedule
    assert isinstance(schedule, NoiseSchedule)
    return schedule.coefficients(schedule.time.sigma(t))


def asked_of(objective: DiffusionObjective, batch: Batch) -> tuple[Tensor, Tensor]:
    oracle = Oracle(torch.zeros(2, 4, 4, 5))
    objective.attach(oracle)
    objective.loss(training(batch))
    return oracle.asked[0]


def test_diffusion_wants_v_of_the_encoded_target(diffusion: DiffusionObjective) -> None:
    batch = frames()
    latents, t = asked_of(diffusion, batch)
    codec = diffusion.estimator.codec
    with torch.no_grad():
        image = codec.encode(batch.rgb)
        clean = codec.encode(diffusion.task.encode_target(batch)[0])
    assert latents.shape == (2, 8, 4, 5) and not t.is_floating_point()
    torch.testing.assert_close(latents[:, :4], image)
    a, s = coefficients(diffusion, t)
    noise = (latents[:, 4:] - a * clean) / s
    # Standard noise, each frame's own.
    assert 0.7 < float(noise.std()) < 1.3 and float((noise[0] - noise[1]).abs().mean()) > 0.5
    v = a * noise - s * clean
    diffusion.attach(Oracle(v))
    assert float(diffusion.loss(training(batch)).detach()) < 1e-8
    diffusion.attach(Oracle(v + 0.5))
    assert float(diffusion.loss(training(batch)).detach()) == pytest.approx(0.25, rel=1e-3)


def test_timesteps_are_uniform(diffusion: DiffusionObjective) -> None:
    drawn = []
    batch = frames()
    for seed in range(0, 120, 2):
        oracle = Oracle(torch.zeros(2, 4, 4, 5))
        diffusion.attach(oracle)
        diffusion.loss(TrainingBatch(batch, [seed, seed + 1]))
        drawn += oracle.asked[0][1].tolist()
    assert len(set(drawn)) > 100 and 0 <= min(drawn) < 60 and 940 < max(drawn) < 1000
    # Standard error 26.
    assert abs(sum(drawn) / len(drawn) - 499.5) < 110


@pytest.mark.parametrize(
    ("skew", "mean"), [pytest.param(1.0, 1 / 2, marks=pytest.mark.deep), (3.0, 3 / 4)]
)
def test_timesteps_can_be_skewed_to_the_noisy_end(skew: float, mean: float, models: Path) -> None:
    """The density of t/T is skew (t/T)^(skew - 1), of which the mean is skew / (skew + 1)."""
    objective = objective_of(models, objective=DIFFUSION | {"timestep_skew": skew})
    oracle = Oracle(torch.zeros(2, 4, 4, 5))
    objective.attach(oracle)
    for seed in range(0, 600, 2):
        objective.loss(TrainingBatch(frames(), [seed, seed + 1]))
    drawn = torch.cat([t for _, t in oracle.asked]).double() / 1000
    assert float(drawn.mean()) == pytest.approx(mean, abs=0.05)
    assert float(drawn.min()) >= 0 and float(drawn.max()) == pytest.approx(0.999, abs=0.02)


@pytest.mark.parametrize("share", [pytest.param(0.25, marks=pytest.mark.deep), 0.75])
def test_a_share_of_the_samples_is_noised_for_the_single_step(share: float, models: Path) -> None:
    settings = DIFFUSION | {"timestep_skew": 2.0}
    drawn = {}
    for setting in (0.0, share):
        objective = objective_of(models, objective=settings | {"single_step_share": setting})
        oracle = Oracle(torch.zeros(2, 4, 4, 5))
        objective.attach(oracle)
        for seed in range(0, 600, 2):
            objective.loss(TrainingBatch(frames(), [seed, seed + 1]))
        drawn[setting] = torch.cat([t for _, t in oracle.asked])
    last = drawn[share] == 999
    assert float((drawn[0.0] == 999).double().mean()) < 0.02
    assert float(last.double().mean()) == pytest.approx(share, abs=0.06)
    # The others are skewed as ever: the mean of t/T is 2/3.
    assert float(drawn[share][~last].double().mean()) / 1000 == pytest.approx(2 / 3, abs=0.05)


def test_latents_over_unknown_pixels_are_not_supervised(diffusion: DiffusionObjective) -> None:
    batch = frames()
    depth_m, valid = batch.depth_m.clone(), batch.valid.clone()
    depth_m[:, 3, 12], valid[:, 3, 12] = torch.nan, False
    holed = replace(batch, depth_m=depth_m, valid=valid)
    latents, t = asked_of(diffusion, holed)
    codec = diffusion.estimator.codec
    target, _ = diffusion.task.encode_target(holed)
    with torch.no_grad():
        clean = codec.encode(target)
    a, s = coefficients(diffusion, t)
    v = a * (latents[:, 4:] - a * clean) / s - s * clean
    wrong = v.clone()
    # Pixel (3, 12) lies under latent (0, 1): an error there goes unnoticed, one beside it does not.
    wrong[:, :, 0, 1] += 10
    diffusion.attach(Oracle(wrong))
    assert float(diffusion.loss(training(holed)).detach()) < 1e-8
    wrong[:, :, 0, 2] += 10
    diffusion.attach(Oracle(wrong))
    assert float(diffusion.loss(training(holed)).detach()) == pytest.approx(100 / 19, rel=1e-3)


def coarse_power(noise: str, models: Path) -> tuple[list[float], list[float]]:
    """Power of the noise's spatial means times the number of pixels, which is 1 for white noise, at
    early and at late timesteps."""
    settings = {"kind": "diffusion", "noise": noise}
    objective = objective_of(models, objective=settings)
    clean = objective.estimator.codec.encode(objective.task.encode_target(frames())[0])
    oracle = Oracle(torch.zeros(2, 4, 4, 5))
    objective.attach(oracle)
    early: list[float] = []
    late: list[float] = []
    for seed in range(0, 200, 2):
        objective.loss(TrainingBatch(frames(), [seed, seed + 1]))
        latents, t = oracle.asked[-1]
        a, s = coefficients(objective, t)
        means = ((latents[:, 4:] - a * clean) / s).mean((2, 3))
        for timestep, power in zip(t.tolist(), 20 * means.square().mean(1), strict=True):
            (late if timestep >= 500 else early).append(float(power.detach()))
    return early, late


def test_annealed_pyramid_noise_is_coarse_at_late_timesteps(models: Path) -> None:
    white_early, white_late = map(np.mean, coarse_power("gaussian", models))
    early, late = map(np.mean, coarse_power("annealed-pyramid", models))
    assert 0.7 < white_early < 1.4 and 0.7 < white_late < 1.4
    assert late > 1.5 * early and late > 3 * white_late


@pytest.mark.parametrize("conditional", [True, False])
def test_the_frozen_vae_is_run_once_a_frame_if_latents_are_kept(
    conditional: bool, models: Path
) -> None:
    settings = {"kind": "diffusion", "conditional": conditional}
    kept = objective_of(models, objective=settings | {"latent_cache": 3})
    plain = objective_of(models, objective=settings)
    encoded: list[int] = []
    original = kept.estimator.codec.encode

    def encode(image: Tensor) -> Tensor:
        encoded.append(len(image))
        return original(image)

    kept.estimator.codec.encode = encode
    each = 2 if conditional else 1
    both, mirrored = training(frames()), replace(training(frames()), flips=(False, True))
    others = training(collate([analytic_frame(number, 32, 40) for number in (2, 3)], 80.0))
    for expected, asked in (
        ([2] * each, both),
        ([], both),
        ([1] * each, mirrored),  # the mirrored frame is another one, and the last that has room
        ([], mirrored),
        ([2] * each, others),
        ([2] * each, others),
    ):
        encoded.clear()
        with torch.no_grad():
            torch.testing.assert_close(kept.loss(asked), plain.loss(asked), rtol=1e-5, atol=1e-6)
        assert encoded == expected


def test_images_are_denoised_from_themselves(models: Path) -> None:
    objective = objective_of(models, objective=IMAGES)
    latents, t = asked_of(objective, frames())
    with torch.no_grad():
        clean = objective.estimator.codec.encode(frames().rgb)
    assert latents.shape == clean.shape
    a, s = coefficients(objective, t)
    noise = (latents - a * clean) / s
    assert 0.7 < float(noise.std()) < 1.3
