"""Training on cached latents of the colour images: when, with which loss, and what is said."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from e2eft.artifacts import load_artifact
from e2eft.data.batches import FrameReader, PlannedFrame, TrainingBatch
from e2eft.data.latents import DETAIL
from e2eft.data.shards import ShardIndex, open_shards
from e2eft.model.codec import Codec
from e2eft.model.pretrained import load_codec
from e2eft.train.latents import choose_latents
from e2eft.train.worker import train
from tests.frames import analytic_frame, write_shards
from tests.tiny_models import enliven
from tests.training import PlainContext, blank_model, blank_objective, build_loop, train_config

DIFFUSION = {"kind": "diffusion", "conditional": True}
IMAGES = {"kind": "diffusion", "conditional": False}
TOLERANCE = 1e-3
"""Relative difference of a loss: the latents are rounded to eleven bits, 4.9e-4."""


@pytest.fixture(scope="module")
def lively_codec(models: Path) -> Codec:
    return enliven(blank_objective(train_config("d"), models).estimator).codec


@pytest.fixture(scope="module")
def cached_uri(lively_codec: Codec, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten frames with latents of the lively model's VAE."""
    frames = [analytic_frame(number, 16, 24) for number in range(10)]
    uri = str(tmp_path_factory.mktemp("data") / "shards")
    return write_shards(uri, frames, codec=lively_codec).uri


@pytest.fixture(scope="module")
def blank_uri(models: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten frames with latents of the blank model's VAE."""
    frames = [analytic_frame(number, 16, 24) for number in range(10)]
    uri = str(tmp_path_factory.mktemp("data") / "shards")
    return write_shards(uri, frames, codec=load_codec(blank_model(models))).uri


@pytest.mark.parametrize(
    "changes",
    [{}, {"task": "normals"}, {"objective": DIFFUSION}, {"objective": IMAGES}],
    ids=["depth", "normals", "diffusion", "images"],
)
def test_the_loss_is_that_of_images_encoded_now(
    changes: dict[str, Any], models: Path, cached_uri: str, lively_codec: Codec
) -> None:
    """To 1e-3 with a mirrored frame and a plain one; gradients of the denoiser to 1e-2."""
    objective: Any = blank_objective(train_config(cached_uri, **changes), models)
    enliven(objective.estimator).codec = lively_codec
    shards = [open_shards(cached_uri)]
    frames = [PlannedFrame(0, 3, False, 5), PlannedFrame(0, 9, True, 6)]
    losses, gradients = [], []
    for latents in (False, True):
        batch = FrameReader(shards, latents=latents).batch(frames, 80.0)
        loss = objective.loss(TrainingBatch(batch, [5, 6], (False, True)))
        objective.trainable().zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(torch.cat([p.grad.flatten() for p in objective.trainable().parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=TOLERANCE) and losses[0] != losses[1]
    assert (gradients[1] - gradients[0]).norm() < 1e-2 * gradients[0].norm()
    wrong = replace(batch, rgb_latents=batch.rgb_latents.flip(-1))
    if "objective" not in changes:
        mirrored = float(objective.loss(TrainingBatch(wrong, [5, 6])).detach())
        assert abs(mirrored - losses[0]) > 2 * TOLERANCE * losses[0], "any latent would do"


def test_a_run_on_cached_latents_encodes_nothing_and_learns_the_same(
    models: Path, blank_uri: str, tmp_path: Path
) -> None:
    outcomes = []
    for cached in (False, True):
        context = PlainContext(tmp_path / str(cached))
        config = train_config(blank_uri, panel={"frames": 1})
        loop = build_loop(context, config, blank_objective(config, models), cached_latents=cached)
        encoded: list[int] = []
        codec = loop.objective.estimator.codec
        original = codec.encode
        codec.encode = lambda image, e=encoded, o=original: (e.append(len(image)), o(image))[1]
        loop.run()
        outcomes.append((context.losses, len(encoded), context.panels))
    (live, often, panels), (cached_losses, seldom, cached_panels) = outcomes
    steps = config.schedule.max_steps
    assert cached_losses[1] == pytest.approx(live[1], rel=TOLERANCE)
    assert cached_losses[steps] == pytest.approx(live[steps], rel=10 * TOLERANCE)
    assert often - seldom == steps, "once a step"
    # Pictures show images, cached latents or not.
    assert cached_panels.keys() == panels.keys() == {steps}
    assert (cached_panels[steps][2] == panels[steps][2]).all()


@pytest.fixture
def indices(blank_uri: str, shards_uri: str) -> Iterator[dict[str, ShardIndex]]:
    mine = open_shards(blank_uri)
    other = load_artifact(blank_uri)
    details = dict(other.details)
    details[DETAIL] = details[DETAIL] | {"vae_digest": "0123456789abcdef"}
    of_another = ShardIndex(replace(other, details=details), mine.rows_of_part)
    yield {"mine": mine, "other": of_another, "none": open_shards(shards_uri)}


@pytest.mark.parametrize(
    ("names", "cached", "said"),
    [
        (["mine"], True, "using cached RGB latents of some-model (VAE {mine})"),
        (["mine", "mine"], True, "using cached RGB latents of some-model (VAE {mine})"),
        (["none"], False, ""),
        (["mine", "none"], False, "{none_uri} has no cached RGB latents: encoding images"),
        (
            ["mine", "other"],
            False,
            "cached RGB latents of {uri} are of another VAE (0123456789ab != {mine}): "
            "encoding images",
        ),
    ],
    ids=["mine", "twice", "none", "some", "another"],
)
def test_latents_are_used_if_all_are_of_this_vae(
    names: list[str], cached: bool, said: str, models: Path, indices: dict[str, ShardIndex]
) -> None:
    codec = load_codec(blank_model(models))
    shards = [indices[name] for name in names]
    choice = choose_latents(train_config("d"), shards, codec)
    uris = {"uri": indices["mine"].artifact.uri, "none_uri": indices["none"].artifact.uri}
    assert choice.cached == cached
    assert choice.line == said.format(mine=codec.digest()[:12], **uris)
    assert choice.tags == {"e2eft.rgb_latents": "cached" if cached else "encoded"}


def test_a_vae_that_is_trained_sees_images(models: Path, indices: dict[str, ShardIndex]) -> None:
    config = train_config("d", objective={"kind": "autoencoding"})
    assert not choose_latents(config, [indices["mine"]], load_codec(blank_model(models))).cached


def test_the_worker_chooses_and_says_so(models: Path, blank_uri: str, tmp_path: Path) -> None:
    config = train_config(blank_uri, out=str(tmp_path / "out"), schedule={"max_steps": 1})
    said = []
    for lively in (False, True):
        context = PlainContext(tmp_path / f"checkpoints-{lively}")
        objective = blank_objective(config, models)
        if lively:
            enliven(objective.estimator)
        train(context, config, blank_model(models), objective)
        said.append((context.said.split(" (")[0], context.tags["e2eft.rgb_latents"]))
    assert said[0] == ("using cached RGB latents of some-model", "cached")
    assert said[1] == (f"cached RGB latents of {blank_uri} are of another VAE", "encoded")
