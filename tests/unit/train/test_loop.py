"""The loop with a real engine and the blank model, in one process."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from e2eft.data.batches import TrainingBatch
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import find_model
from e2eft.train.errors import TrainingError
from e2eft.train.statistics import MAX_SKIPPED_STEPS, SKIP_WINDOW_STEPS, SkippedSteps
from e2eft.train.worker import build, panel_picture, train
from tests.frames import analytic_frame, write_shards
from tests.training import (
    KilledError,
    PlainContext,
    blank_model,
    blank_objective,
    build_loop,
    poison,
    run_loop,
    train_config,
)

STEPS, KILLED_AT = 3, 2


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    yield


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"zero": {"stage": 2}, "batch": {"global_size": 4}},
        {
            "zero": {"stage": 0},
            "checkpoint": {"ema_decay": 0.5},
            "objective": {"kind": "diffusion"},
        },
    ],
    ids=["zero-2", "ema"],
)
def test_a_resumed_run_ends_in_the_weights_of_an_undisturbed_one(
    models: Path, shards_uri: str, tmp_path: Path, changes: Any
) -> None:
    config = train_config(shards_uri, **changes)
    undisturbed = PlainContext(tmp_path / "a")
    wanted = run_loop(undisturbed, config, models)
    assert undisturbed.losses.keys() == {1, STEPS}

    killed = PlainContext(tmp_path / "b", kill_at=KILLED_AT)
    with pytest.raises(KilledError):
        run_loop(killed, config, models)
    resumed = PlainContext(tmp_path / "b")
    made = run_loop(resumed, config, models)
    assert resumed.losses.keys() == {STEPS}, "began anew"
    assert_equal(made, wanted)
    start = load_estimator(blank_model(models), config.model).denoiser
    moved = [name for name, w in start.state_dict().items() if not torch.equal(w, made[name])]
    assert len(moved) > 100


def test_a_finished_run_trains_no_further(models: Path, shards_uri: str, tmp_path: Path) -> None:
    config = train_config(shards_uri, schedule={"max_steps": 2})
    wanted = run_loop(PlainContext(tmp_path / "a"), config, models)
    again = PlainContext(tmp_path / "a")
    assert_equal(run_loop(again, config, models), wanted)
    assert again.losses == {}


def test_checkpoints_are_where_asked_and_at_the_end(
    models: Path, shards_uri: str, tmp_path: Path
) -> None:
    config = train_config(
        shards_uri, schedule={"max_steps": 3}, checkpoint={"every_steps": 2, "ema_decay": 0.9}
    )
    run_loop(PlainContext(tmp_path / "a"), config, models)
    saved = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert saved == ["step-00000002", "step-00000003"]
    for name in saved:
        progress = json.loads((tmp_path / "a" / name / "progress.json").read_text())
        assert progress == {"step": int(name[-8:])}
        assert (tmp_path / "a" / name / "ema.pt").is_file()


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "fp32")])
def test_the_moving_average_is_one(
    stage: int, precision: str, models: Path, shards_uri: str, tmp_path: Path
) -> None:
    config = train_config(
        shards_uri,
        schedule={"max_steps": 3},
        checkpoint={"ema_decay": 0.75},
        zero={"stage": stage, "precision": precision},
    )
    loop = build_loop(PlainContext(tmp_path / "a"), config, blank_objective(config, models))
    assert loop.average
    seen: list[dict[str, Tensor]] = []
    original = loop.average.update
    loop.average.update = lambda: (seen.append(loop.engine.weights()), original())[1]  # type: ignore[method-assign]
    made = loop.run()
    first, second, third = (weights["conv_out.weight"] for weights in seen)
    wanted = 0.75 * (0.75 * first + 0.25 * second) + 0.25 * third
    torch.testing.assert_close(made["conv_out.weight"], wanted)
    assert not torch.equal(first, third)
    # Gathering it leaves the weights as they were.
    assert_equal(loop.engine.weights(), seen[-1])


def test_what_is_logged(models: Path, shards_uri: str, tmp_path: Path) -> None:
    config = train_config(
        shards_uri, schedule={"max_steps": 11}, panel={"frames": 3, "every_steps": 8}
    )
    context = PlainContext(tmp_path / "a")
    loop = build_loop(context, config, blank_objective(config, models))
    loop.run()
    assert list(context.metrics) == [1, 10, 11]
    for step, metrics in context.metrics.items():
        assert metrics["learning_rate"] == loop.rate(step - 1)
        assert metrics["samples_per_s"] > 0 and 0 <= metrics["data_wait_fraction"] <= 1
        assert metrics["gradient_norm"] > 0 and metrics["skipped_steps"] == 0
        assert np.isfinite(metrics["loss"])
    assert list(context.panels) == [8, 11]
    wanted, made, rgb = context.panels[8]
    assert wanted.shape == made.shape == rgb.shape == (3, 16, 24, 3)
    picture = panel_picture(rgb, wanted, made)
    assert picture.shape == (3 * 16, 3 * 24, 3) and picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:16, :24], analytic_frame(0, 16, 24).rgb)
    # The panel's frames are fixed, whatever is trained on.
    np.testing.assert_array_equal(context.panels[11][2], rgb)


def test_panels_do_not_disturb_the_training(models: Path, shards_uri: str, tmp_path: Path) -> None:
    runs: list[dict[str, Tensor]] = []
    for frames in (0, 2):
        panel = {"frames": frames, "every_steps": 1}
        config = train_config(shards_uri, schedule={"max_steps": 2}, panel=panel)
        runs.append(run_loop(PlainContext(tmp_path / str(frames)), config, models))
    assert_equal(*runs)


def test_the_loss_falls(shards_uri: str, tmp_path: Path) -> None:
    """On a packaged base: through a blank one's random decoder there is nothing to learn."""
    config = train_config(
        shards_uri, schedule={"max_steps": 20, "warmup_steps": 2}, optimizer={"lr": 1e-3},
        task="normals", data={"limit": 2, "flip_probability": 0.0},
    )  # fmt: skip
    context = PlainContext(tmp_path / "a")
    objective = build(config, find_model("tiny-sd"), context.device)
    build_loop(context, config, objective).run()
    assert context.losses[20] < 0.85 * context.losses[1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_the_frames_and_is_not_saved(
    models: Path, shards_uri: str, tmp_path: Path, value: float
) -> None:
    config = train_config(shards_uri, zero={"stage": 0})
    loop = build_loop(PlainContext(tmp_path / "a"), config, blank_objective(config, models))
    keys = poison(loop, step=1, value=value)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) on the micro-batch") as error:
        loop.run()
    assert len(keys) == 2 and all(key in str(error.value) for key in keys)
    assert "lower --lr, or drop these frames" in str(error.value)
    assert not (tmp_path / "a").exists()


class Skipping:
    """An engine that has skipped `before` steps when the run starts, and skips every one of it."""

    def __init__(self, engine: Any, before: int, every: int) -> None:
        self.engine, self.skipped_steps, self.every, self.steps = engine, before, every, 0

    def step(self) -> Any:
        self.steps += 1
        self.skipped_steps += self.steps % self.every == 0
        return self.engine.step()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


@pytest.mark.parametrize(("before", "every", "ends"), [(0, 1, True), (500, 1000, False)])
def test_skipped_steps_end_a_run_if_they_are_many_of_late(
    before: int, every: int, ends: bool, models: Path, shards_uri: str, tmp_path: Path
) -> None:
    """Those of long ago, which came back with a checkpoint, do not."""
    config = train_config(shards_uri, schedule={"max_steps": MAX_SKIPPED_STEPS + 3 if ends else 2})
    loop = build_loop(PlainContext(tmp_path / "a"), config, blank_objective(config, models))
    loop.engine = Skipping(loop.engine, before, every)
    if ends:
        with pytest.raises(TrainingError, match=r"21 of the last 21 .*--precision fp32"):
            loop.run()
    else:
        loop.run()
        assert loop.context.metrics[2]["skipped_steps"] == before  # type: ignore[attr-defined]


def test_isolated_skips_never_end_a_run() -> None:
    skipped, total = SkippedSteps(0), 0
    for step in range(1, 20_001):
        total += step % (SKIP_WINDOW_STEPS // MAX_SKIPPED_STEPS) == 0
        skipped.count(step, total)
    assert total == 4_000
    with pytest.raises(TrainingError, match="21 of the last 100"):
        skipped.count(20_001, total + 1)


def test_frames_of_two_sizes_train_in_turns(models: Path, shards_uri: str, tmp_path: Path) -> None:
    """Each micro-batch has one size; the panel shows the frames of the first one's."""
    other = str(tmp_path / "other")
    write_shards(other, [analytic_frame(number, 24, 16) for number in range(5)])
    config = train_config(
        shards_uri, data={"uris": (shards_uri, other), "weights": (1.0, 1.0)},
        panel={"frames": 4, "every_steps": 2}, batch={"global_size": 8, "micro_size": 2},
    )  # fmt: skip
    context = PlainContext(tmp_path / "a")
    loop = build_loop(context, config, blank_objective(config, models))
    sizes: list[tuple[int, ...]] = []
    original = loop.objective.loss

    def loss(training: TrainingBatch) -> Tensor:
        sizes.append(tuple(training.batch.rgb.shape[-2:]))
        return original(training)

    loop.objective.loss = loss  # type: ignore[method-assign]
    loop.run()
    assert set(sizes) == {(16, 24), (24, 16)} and len(sizes) == STEPS * 4
    assert context.panels[2][2].shape == (2, 16, 24, 3)


def test_a_limit_keeps_to_the_first_frames(models: Path, shards_uri: str, tmp_path: Path) -> None:
    config = train_config(shards_uri, data={"limit": 3})
    loop = build_loop(PlainContext(tmp_path / "a"), config, blank_objective(config, models))
    rows = {frame.row for index in range(STEPS) for frame in loop.plan.micro_batch(index)}
    assert rows == {0, 1, 2}
    assert len(list(loop.measurement_batches())) == STEPS


@pytest.mark.parametrize(
    ("weights", "longest"), [((9.0, 1.0), 24), ((1.0, 9.0), 40), ((1.0, 1.0), 24), ((), 24)]
)
def test_the_exported_size_is_that_of_most_samples_under_every_seed(
    weights: tuple[float, ...], longest: int, models: Path, shards_uri: str, tmp_path: Path
) -> None:
    """By share if there are shares, else by number of frames: 12 and 5."""
    other = str(tmp_path / "other")
    write_shards(other, [analytic_frame(number, 16, 40) for number in range(5)])
    objective = blank_objective(train_config(shards_uri), models)
    first_sizes = set()
    for seed in range(8):
        data = {"uris": (shards_uri, other), "weights": weights}
        config = train_config(shards_uri, data=data, seed=seed)
        loop = build_loop(PlainContext(tmp_path / str(seed)), config, objective)
        assert loop.processing_size() == longest
        first_sizes.add(loop.plan.micro_batch(0)[0].dataset)
    if weights == (1.0, 1.0):
        assert len(first_sizes) == 2, "no seed begins with the other one"


def test_every_dataset_is_supervised_as_far_as_its_own_range(
    models: Path, shards_uri: str, tmp_path: Path
) -> None:
    near, far = 2.0, 50.0
    other = str(tmp_path / "other")
    write_shards(other, [analytic_frame(number, 16, 24) for number in range(12)])
    data = {"uris": (shards_uri, other), "weights": (1.0, 1.0), "max_depth_m": (near, far)}
    config = train_config(shards_uri, data=data, schedule={"max_steps": 8})
    loop = build_loop(PlainContext(tmp_path / "a"), config, blank_objective(config, models))
    farthest: dict[int, list[float]] = {0: [], 1: []}
    for number, loaded in enumerate(loop._batches(0)):
        batch = loaded.batch
        dataset = loop.plan.micro_batch(number)[0].dataset
        farthest[dataset].append(float(batch.depth_m[batch.valid].max()))
    assert max(farthest[0]) < near < max(farthest[1]) < far


def test_the_worker_writes_a_model_that_loads(
    models: Path, shards_uri: str, tmp_path: Path
) -> None:
    config = train_config(shards_uri, schedule={"max_steps": 2}, export_half=True)
    source = blank_model(models)
    objective = blank_objective(config, models)
    train(PlainContext(tmp_path / "a"), config, source, objective)
    estimator = load_estimator(find_model(str(tmp_path / "a/model")))
    assert estimator.card.task == "depth" and estimator.card.processing_size == 24
    trained = objective.estimator.denoiser.state_dict()
    for name, weight in estimator.denoiser.state_dict().items():
        torch.testing.assert_close(weight, trained[name].half().float(), rtol=0, atol=0)


def test_an_engine_is_not_deceived_by_an_empty_checkpoint(
    models: Path, shards_uri: str, tmp_path: Path
) -> None:
    (tmp_path / "a/step-00000003").mkdir(parents=True)
    (tmp_path / "a/step-00000003/committed").touch()
    config = train_config(shards_uri)
    with pytest.raises(TrainingError, match="step-00000003 holds no DeepSpeed checkpoint"):
        run_loop(PlainContext(tmp_path / "a"), config, models)
