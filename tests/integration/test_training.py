"""Training on two workers: as plain processes, and on Ray, killed and run again."""

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from e2eft import cli
from e2eft.artifacts import load_artifact, verify
from e2eft.config import TrainConfig
from e2eft.data.shards import part_path
from tests.frames import analytic_frame, write_analytic_shards, write_shards
from tests.ray_cluster import REPOSITORY
from tests.services import ServiceProcess
from tests.training import HANGS, Outcome, run_processes

STEPS, CHECKPOINT_EVERY = 8, 2
FLAGS = (
    f"--base blank --num-workers 2 --batch 8 --micro-batch 2 --lr 1e-3 --max-steps {STEPS} "
    f"--warmup-steps 2 --checkpoint-every {CHECKPOINT_EVERY} --panel-frames 0 --limit 20"
)
HOOKED = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY / "tests" / "poison"), *sys.path])}
RAY = {
    "OMP_NUM_THREADS": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@pytest.fixture(scope="module")
def shards_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("data") / "shards")
    return write_analytic_shards(uri, 24, height=32, width=40).uri


def argv_of(data: str, out: Path | str, *more: str) -> list[str]:
    return ["tiny-depth", "--data", data, "--out", str(out), *FLAGS.split(), *more]


def config_of(data: str, *more: str) -> TrainConfig:
    config = cli.parse("train", argv_of(data, "unused", *more))
    assert isinstance(config, TrainConfig)
    return config


@pytest.fixture(scope="module")
def plain_runs(shards_uri: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Without Ray: each ZeRO stage on two processes, and one process alone."""
    folder = tmp_path_factory.mktemp("plain")
    stages = {f"zero-{s}": config_of(shards_uri, "--zero-stage", str(s)) for s in range(4)}
    outcomes = run_processes(folder, 2, stages)
    alone = {"alone": config_of(shards_uri, "--num-workers", "1")}
    return outcomes | run_processes(folder, 1, alone)


@pytest.mark.deep
def test_every_zero_stage_takes_the_same_way(plain_runs: dict[str, Outcome]) -> None:
    """The same losses, micro-batch by micro-batch, to 1e-4; two workers or one."""
    reference = plain_runs["zero-2"]
    assert list(reference.losses) == list(range(STEPS * 4))
    first, last = (
        sum(list(reference.losses.values())[part]) for part in (slice(4), slice(-4, None))
    )
    assert last < 0.99 * first, "it does not learn, so the comparison means little"
    for name, outcome in plain_runs.items():
        assert outcome.losses == pytest.approx(reference.losses, rel=1e-4), name
        assert outcome.weights.keys() == reference.weights.keys()
        for key, weight in outcome.weights.items():
            torch.testing.assert_close(
                weight, reference.weights[key], rtol=1e-3, atol=2e-4, msg=f"{name} {key}"
            )


def start_training(data: str, out: Path, tracking: str, log: Path, *more: str) -> ServiceProcess:
    """The command in a process group of its own, with a Ray cluster of its own, where files may
    hang."""
    log.mkdir()
    argv = [sys.executable, str(REPOSITORY / "pipelines/train.py"), *argv_of(data, out, *more)]
    return ServiceProcess(
        "train", [*argv, "--tracking-uri", tracking], folder=log, env=RAY | HOOKED
    )


def registered_steps(out: Path) -> list[int]:
    """Steps of the checkpoints that a run would be restored from."""
    found = (out / "checkpoints").glob("*/step-*.json")
    return sorted(int(path.stem.removeprefix("step-")) for path in found)


def wait_for_checkpoint(process: ServiceProcess, out: Path, timeout_s: float = 300.0) -> int:
    deadline = time.monotonic() + timeout_s
    while not (steps := registered_steps(out)):
        if not process.is_running or time.monotonic() > deadline:
            raise process.failure("made no checkpoint")
        time.sleep(0.02)
    return steps[-1]


@pytest.mark.deep
@pytest.mark.slow
def test_a_killed_run_ends_in_the_weights_of_an_undisturbed_one(
    shards_uri: str, plain_runs: dict[str, Outcome], tmp_path: Path, capsys: Any
) -> None:
    from mlflow import MlflowClient

    out, tracking = tmp_path / "run", f"sqlite:///{tmp_path}/mlflow.db"
    killed = start_training(shards_uri, out, tracking, tmp_path / "first")
    try:
        reached = wait_for_checkpoint(killed, out)
    finally:
        killed.kill()
    assert 0 < reached < STEPS, "it was not half-way when it was killed"
    assert not (out / "manifest.json").exists() and not (out / "model").exists()
    assert "step      1  loss" in killed.log_tail(1000)

    # Meanwhile nobody else gets the folder, nor does anything start for it.
    other = [*argv_of(shards_uri, out, "--seed", "1"), "--tracking-uri", tracking]
    assert cli.run_stage("train", other) == cli.STAGE_ERROR
    assert "--seed 0 -> 1" in capsys.readouterr().err

    again = start_training(shards_uri, out, tracking, tmp_path / "second")
    try:
        assert again._process.wait(timeout=400) == 0, again.log_tail(100)
    finally:
        again.kill()
    said = again.log_tail(1000)
    assert "resuming from" in said and "step      1  loss" not in said
    assert said.count(f"step {STEPS:6d}  loss") == 1

    artifact = load_artifact(str(out))
    assert verify(artifact) == [] and artifact.counts == {"optimizer_steps": STEPS}
    made = load_file(out / "model/unet/diffusion_pytorch_model.safetensors")
    wanted = plain_runs["zero-2"].weights  # as the command is by default
    assert made.keys() == wanted.keys()
    for name, weight in made.items():
        assert torch.equal(weight, wanted[name]), name

    client = MlflowClient(tracking_uri=tracking)
    (run,) = client.search_runs([client.get_experiment_by_name("e2eft").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.tags["e2eft.model.digest"] == artifact.digest
    assert run.data.params["seed"] == "0"
    for metric in ("loss", "learning_rate"):
        history = client.get_metric_history(run.info.run_id, metric)
        assert [point.step for point in history] == [1, STEPS], metric

    # And once more: there is nothing to do, so nothing is started.
    assert cli.run_stage("train", [*argv_of(shards_uri, out), "--tracking-uri", tracking]) == 0
    assert "already trained" in capsys.readouterr().out


@pytest.mark.deep
def test_what_would_fail_again_fails_once_and_in_one_line(tmp_path: Path) -> None:
    """Frames of two sizes in one dataset, which ranks notice when they come to them."""
    data, out = str(tmp_path / "shards"), tmp_path / "run"
    frames = [analytic_frame(number, 32, 40 if number % 4 else 48) for number in range(24)]
    write_shards(data, frames)
    process = start_training(data, out, f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "log")
    try:
        assert process._process.wait(timeout=400) == cli.STAGE_ERROR, process.log_tail(100)
    finally:
        process.kill()
    said = process.log_tail(1000)
    assert said.count("frames of different sizes in one batch") == 1
    assert "train: frames of different sizes in one batch: [(32, 40), (32, 48)]; " in said
    # Ray has tracebacks of its own for a machine that is busy, and speaks of restarts in them.
    assert "e2eft/data/" not in said and "e2eft/train/" not in said
    assert "restart 1 of 3" not in said
    assert not (out / "manifest.json").exists()


@pytest.mark.deep
def test_a_run_goes_on_after_a_read_that_never_returned(tmp_path: Path) -> None:
    """Opening a shard file does not return, until the hung worker was named."""
    data, out = str(tmp_path / "shards"), tmp_path / "run"
    frames = [analytic_frame(number, 32, 40) for number in range(24)]
    write_shards(data, frames, frames_per_part=4)
    hangs = Path(data, part_path(4) + HANGS)
    hangs.touch()
    more = ["--scaling.hang-timeout-s", "60"]
    process = start_training(data, out, f"sqlite:///{tmp_path}/ml.db", tmp_path / "log", *more)
    deadline = time.monotonic() + 400
    try:
        while "restart 1 of 3 from the last checkpoint" not in process.log_tail(1000):
            assert process.is_running and time.monotonic() < deadline, process.log_tail(100)
            time.sleep(0.5)
        hangs.unlink()
        assert process._process.wait(timeout=400) == 0, process.log_tail(100)
    finally:
        process.kill()
    said = process.log_tail(1000)
    assert re.search(
        rf"training failed: rank \d has waited \d+ s for the frames .* of {data}", said
    )
    assert verify(load_artifact(str(out))) == []
