from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from e2eft.data.batch import Batch
from e2eft.data.batches import TrainingBatch
from e2eft.model.card import ModelCard
from e2eft.targets import LogDepth
from e2eft.train.objectives import (
    AutoencodingObjective,
    EndToEndObjective,
    Objective,
)
from tests.objectives import DIFFUSION, IMAGES, SEEDS, frames, objective_of, training
from tests.training import blank_objective, train_config

LOG = LogDepth()


def without_truth(batch: Batch) -> Batch:
    return replace(
        batch,
        depth_m=torch.full_like(batch.depth_m, torch.nan),
        normals_cam=torch.full_like(batch.normals_cam, torch.nan),
        valid=torch.zeros_like(batch.valid),
    )


def gradient_norm(module: torch.nn.Module) -> float:
    gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return float(torch.cat(gradients).norm()) if gradients else 0.0


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
        v = estimator.denoise(image_latent, torch.zeros_like(image_latent), torch.ones(2))
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


@pytest.mark.parametrize("case", [*CASES, "autoencoding"])
def test_the_loss_looks_at_nothing_but_the_truth_it_names(case: str, models: Path) -> None:
    changes = CASES.get(case, {"objective": {"kind": "autoencoding"}})
    objective = objective_of(models, **changes)
    batch, partly = frames(), without_truth(frames())
    if "depth" in objective.modalities:
        partly = replace(partly, depth_m=batch.depth_m, valid=batch.valid)
    if "normals" in objective.modalities:
        partly = replace(partly, normals_cam=batch.normals_cam)
    loss, again = (float(objective.loss(training(b)).detach()) for b in (batch, partly))
    assert loss == again > 0


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
    card = objective.finish(weights, batches_of(frames()), 40)
    assert card == ModelCard(task="image", initial_latent="none", processing_size=40)
    codec = objective.estimator.codec
    depth, _ = objective.depth.encode_target(frames())  # type: ignore[attr-defined]
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
        (
            {"depth_target": LOG.as_json()},
            {"target": "affine-invariant log depth, 0 near 1 far", "depth_target": LOG.as_json()},
        ),
        (
            {"depth_target": LOG.as_json(), "objective": DIFFUSION},
            {"depth_target": LOG.as_json(), "initial_latent": "gaussian"},
        ),
        ({"objective": DIFFUSION}, {"task": "depth", "initial_latent": "gaussian"}),
        ({"objective": IMAGES}, {"task": "image", "initial_latent": "none"}),
    ],
)
def test_the_card_says_how_the_model_was_trained(
    changes: Any, card: dict[str, Any], models: Path
) -> None:
    objective = objective_of(models, **changes)
    weights = {name: w + 1 for name, w in objective.trainable().state_dict().items()}
    made = objective.finish(weights, batches_of(frames()), 40)
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
