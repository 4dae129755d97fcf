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
from e2eft.model.estimator import ModelCard
from e2eft.train.objectives import (
    AutoencodingObjective,
    DiffusionObjective,
    EndToEndObjective,
    Objective,
)
from tests.frames import analytic_frame
from tests.tiny_models import enliven
from tests.training import blank_objective, train_config

SEEDS = [5, 6]


def frames(count: int = 2, sky: bool = False) -> Batch:
    samples = [analytic_frame(number, 32, 40, sky=sky) for number in range(count)]
    return collate(samples, 80.0)


def without_truth(batch: Batch) -> Batch:
    return replace(
        batch,
        depth_m=torch.full_like(batch.depth_m, torch.nan),
        normals_cam=torch.full_like(batch.normals_cam, torch.nan),
        valid=torch.zeros_like(batch.valid),
    )


def training(batch: Batch) -> TrainingBatch:
    return TrainingBatch(batch, SEEDS[: len(batch)])


def objective_of(models: Path, **changes: Any) -> Any:
    objective = blank_objective(train_config("d", **changes), models)
    enliven(objective.estimator)
    return objective


def gradient_norm(module: torch.nn.Module) -> float:
    gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return float(torch.cat(gradients).norm()) if gradients else 0.0


DIFFUSION = {"kind": "diffusion", "conditional": True}
IMAGES = {"kind": "diffusion", "conditional": False}
CASES: dict[str, dict[str, Any]] = {
    "depth": {"task": "depth"},
    "normals": {"task": "normals"},
    "gaussian": {"model": {"initial_latent": "gaussian"}},
    "none": {"model": {"initial_latent": "none"}},
    "checkpointed": {"model": {"unet_checkpointing": True, "decoder_checkpointing": True}},
    "diffusion": {"objective": DIFFUSION},
    "pyramid": {"objective": DIFFUSION | {"noise": "annealed-pyramid"}},
    "images": {"objective": IMAGES},
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_the_denoiser_and_only_it(case: str, models: Path) -> None:
    objective = objective_of(models, **CASES[case])
    loss = objective.loss(training(frames()))
    assert loss.shape == () and loss.dtype == torch.float32 and loss.isfinite()
    loss.backward()
    denoiser = objective.trainable()
    assert denoiser is objective.estimator.denoiser
    assert gradient_norm(denoiser) > 1e-6
    untouched = [n for n, p in denoiser.named_parameters() if p.grad is None]
    assert untouched == []
    assert all(p.grad is None for p in objective.estimator.codec.vae.parameters())


def test_bf16_computes_the_frozen_vae_in_bf16_and_keeps_its_weights(models: Path) -> None:
    losses = []
    for zero in ({"stage": 1, "precision": "bf16"}, {"stage": 1, "precision": "fp32"}):
        objective = objective_of(models, zero=zero)
        loss = objective.loss(training(frames()))
        loss.backward()
        assert objective.estimator.codec.vae.dtype == torch.float32
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=0.1) and losses[0] != losses[1]


def test_zeros_leave_the_second_half_of_conv_in_without_gradient(models: Path) -> None:
    objective = objective_of(models)
    objective.loss(training(frames())).backward()
    gradient = objective.trainable().conv_in.weight.grad
    assert float(gradient[:, :4].abs().max()) > 0 and not gradient[:, 4:].any()


def test_checkpointing_changes_nothing_but_memory(models: Path) -> None:
    gradients = []
    for case in ("depth", "checkpointed"):
        objective = objective_of(models, **CASES[case])
        objective.loss(training(frames())).backward()
        gradients.append([p.grad for p in objective.trainable().parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", ["depth", "normals", "diffusion", "pyramid"])
def test_nothing_valid_costs_nothing_and_stays_in_the_graph(case: str, models: Path) -> None:
    """Or a rank of a distributed run would skip its backward pass, and hang the others."""
    objective = objective_of(models, **CASES[case])
    loss = objective.loss(training(without_truth(frames())))
    assert float(loss.detach()) == 0 and loss.requires_grad
    loss.backward()
    gradients = [p.grad for p in objective.trainable().parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_end_to_end_is_one_step_decoded_under_the_tasks_loss(models: Path) -> None:
    objective = objective_of(models)
    assert isinstance(objective, EndToEndObjective)
    batch, estimator = frames(), objective.estimator
    with torch.no_grad():
        image_latent = estimator.codec.encode(batch.rgb)
        asked = torch.cat([image_latent, torch.zeros_like(image_latent)], dim=1)
        v = estimator.denoise(asked, torch.full((2,), 999))
        image = estimator.codec.decode(-0.9976671 * v)
        wanted = objective.task.loss(objective.task.decode(image), batch)
        torch.testing.assert_close(objective.loss(training(batch)), wanted, rtol=1e-4, atol=1e-5)


def test_noise_belongs_to_the_frame(models: Path) -> None:
    """The same frame with the same seed costs the same, whatever else is in the batch."""
    objective = objective_of(models, objective=DIFFUSION)
    batch = frames()
    with torch.no_grad():
        both = objective.loss(TrainingBatch(batch, [5, 5]))
        again = objective.loss(TrainingBatch(batch, [5, 5]))
        other = objective.loss(TrainingBatch(batch, [6, 5]))
    assert torch.equal(both, again) and float((both - other).abs()) > 1e-4


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


def asked_of(objective: DiffusionObjective, batch: Batch) -> tuple[Tensor, Tensor]:
    oracle = Oracle(torch.zeros(2, 4, 4, 5))
    objective.attach(oracle)
    objective.loss(training(batch))
    return oracle.asked[0]


def test_diffusion_wants_v_of_the_encoded_target(diffusion: DiffusionObjective) -> None:
    batch = frames()
    latents, t = asked_of(diffusion, batch)
    codec, schedule = diffusion.estimator.codec, diffusion.estimator.schedule
    with torch.no_grad():
        image = codec.encode(batch.rgb)
        clean = codec.encode(diffusion.task.encode_target(batch)[0])
    assert latents.shape == (2, 8, 4, 5) and not t.is_floating_point()
    torch.testing.assert_close(latents[:, :4], image)
    a, s = schedule.coefficients(t)
    noise = (latents[:, 4:] - a * clean) / s
    # Standard noise, each frame's own.
    assert 0.7 < float(noise.std()) < 1.3 and float((noise[0] - noise[1]).abs().mean()) > 0.5
    v = a * noise - s * clean
    diffusion.attach(Oracle(v))
    assert float(diffusion.loss(training(batch)).detach()) < 1e-8
    diffusion.attach(Oracle(v + 0.5))
    assert float(diffusion.loss(training(batch)).detach()) == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("case", [*CASES, "autoencoding"])
def test_the_loss_looks_at_nothing_but_the_truth_it_names(case: str, models: Path) -> None:
    changes = CASES.get(case, {"objective": {"kind": "autoencoding"}})
    objective = objective_of(models, **changes)
    batch, partly = frames(), without_truth(frames())
    if "depth" in objective.truth:
        partly = replace(partly, depth_m=batch.depth_m, valid=batch.valid)
    if "normals" in objective.truth:
        partly = replace(partly, normals_cam=batch.normals_cam)
    loss, again = (float(objective.loss(training(b)).detach()) for b in (batch, partly))
    assert loss == again > 0


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


@pytest.mark.parametrize(("skew", "mean"), [(1.0, 1 / 2), (3.0, 3 / 4)])
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


@pytest.mark.parametrize("share", [0.25, 0.75])
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
    codec, schedule = diffusion.estimator.codec, diffusion.estimator.schedule
    target, _ = diffusion.task.encode_target(holed)
    with torch.no_grad():
        clean = codec.encode(target)
    a, s = schedule.coefficients(t)
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
        a, s = objective.estimator.schedule.coefficients(t)
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
    a, s = objective.estimator.schedule.coefficients(t)
    noise = (latents - a * clean) / s
    assert 0.7 < float(noise.std()) < 1.3


def trained(objective: Objective, steps: int, lr: float, batch: Batch) -> list[float]:
    module = objective.trainable()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=lr)
    losses: list[float] = []
    for step in range(steps):
        seeds = [SEEDS[0] + 10 * step, SEEDS[1] + 10 * step]
        loss = objective.loss(TrainingBatch(batch, seeds))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_autoencoding_learns_to_copy(models: Path) -> None:
    settings = {"kind": "autoencoding", "depth_share": 1.0}
    config = train_config("d", objective=settings)
    objective = blank_objective(config, models)
    assert isinstance(objective, AutoencodingObjective)
    losses = trained(objective, 32, 3e-3, frames())
    assert sum(losses[-8:]) < 0.6 * sum(losses[:8])
    assert all(p.grad is None for p in objective.estimator.denoiser.parameters())


def test_autoencoding_survives_frames_without_truth(models: Path) -> None:
    objective = blank_objective(train_config("d", objective={"kind": "autoencoding"}), models)
    for batch in (frames(), frames(sky=True), without_truth(frames())):
        loss = objective.loss(training(batch))
        assert loss.isfinite() and loss.requires_grad


def batches_of(*batches: Batch) -> Iterator[TrainingBatch]:
    return iter([training(batch) for batch in batches])


def test_the_autoencoders_scale_makes_latents_unit(models: Path) -> None:
    config = train_config("d", objective={"kind": "autoencoding"})
    objective = blank_objective(config, models)
    weights = {name: w.clone() for name, w in objective.trainable().state_dict().items()}
    card = objective.finish(weights, batches_of(frames()))
    assert card == ModelCard(task="image", initial_latent="none", processing_size=40)
    codec = objective.estimator.codec
    depth, _ = objective.tasks["depth"].encode_target(frames())  # type: ignore[attr-defined]
    with torch.no_grad():
        latents = torch.cat([codec.encode(frames().rgb), codec.encode(depth)])
    assert float(latents.std()) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("changes", "card"),
    [
        (
            {"task": "depth", "model": {"initial_latent": "pyramid", "prompt_tokens": 77}},
            {"task": "depth", "initial_latent": "pyramid", "prompt_tokens": 77},
        ),
        ({"task": "normals"}, {"task": "normals", "initial_latent": "zeros"}),
        ({"objective": DIFFUSION}, {"task": "depth", "initial_latent": "gaussian"}),
        ({"objective": IMAGES}, {"task": "image", "initial_latent": "none"}),
    ],
)
def test_the_card_says_how_the_model_was_trained(
    changes: Any, card: dict[str, Any], models: Path
) -> None:
    objective = objective_of(models, **changes)
    weights = {name: w + 1 for name, w in objective.trainable().state_dict().items()}
    made = objective.finish(weights, batches_of(frames()))
    assert card.items() <= made.as_json().items()
    assert (made.steps, made.spacing, made.processing_size) == (1, "trailing", 40)
    for name, weight in objective.estimator.denoiser.state_dict().items():
        assert torch.equal(weight, weights[name])


@pytest.mark.parametrize("case", ["depth", "normals", "diffusion", "images"])
def test_panels_are_images(case: str, models: Path) -> None:
    objective = objective_of(models, **CASES[case])
    batch = frames()
    with torch.no_grad():
        wanted, made = objective.picture(batch, SEEDS)
        again = objective.picture(batch, SEEDS)[1]
    assert wanted.shape == made.shape == (2, 3, 32, 40)
    assert wanted.isfinite().all() and made.isfinite().all()
    assert torch.equal(made, again)
    if case in {"depth", "normals", "diffusion"}:
        torch.testing.assert_close(wanted, objective.task.encode_target(batch)[0])


def test_an_autoencoders_panel_shows_all_three_kinds(models: Path) -> None:
    objective = blank_objective(train_config("d", objective={"kind": "autoencoding"}), models)
    with torch.no_grad():
        wanted, made = objective.picture(frames(1), [0])
    assert wanted.shape == made.shape == (1, 3, 32, 120)
    torch.testing.assert_close(wanted[..., :40], frames(1).rgb)
