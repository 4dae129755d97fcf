"""What two ranks do together: one loss, one base model, one end."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from e2eft.config import TrainConfig
from e2eft.data.shards import open_shards, part_path
from e2eft.errors import from_json
from e2eft.model.hub import ModelError
from e2eft.train.errors import StalledError
from e2eft.train.loop import make_plan
from tests.frames import analytic_frame, write_shards
from tests.training import (
    HANGS,
    STALL_LIMIT_S,
    average_and_restore,
    find_base_models,
    log_losses,
    spawn,
    train_config,
    train_under_watch,
)
from tests.zero_stages import STAGES


def two_ranks(uri: str, /, **changes: Any) -> TrainConfig:
    workers = {"batch": {"global_size": 2, "micro_size": 1}, "scaling": {"num_workers": 2}}
    return train_config(uri, **(workers | changes))


def left_by(folder: Path, name: str = "left") -> list[Any]:
    return [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(2)]


def test_the_logged_loss_is_of_all_ranks_and_a_bad_one_ends_all(
    shards_uri: str, tmp_path: Path
) -> None:
    config = two_ranks(shards_uri, schedule={"max_steps": 4})
    spawn(tmp_path, 2, {"sound": config, "poisoned": config}, log_losses)
    first, second = left_by(tmp_path / "sound")
    means = [
        sum(losses) / 2
        for losses in zip(first["losses"].values(), second["losses"].values(), strict=True)
    ]
    assert all(left["logged"] == first["logged"] for left in (first, second))
    assert first["logged"]["1"] == pytest.approx(means[0])
    assert first["logged"]["4"] == pytest.approx(sum(means[1:]) / 3)
    assert first["losses"] != second["losses"]

    sound_rank, bad_rank = left_by(tmp_path / "poisoned")
    (key,) = bad_rank["keys"]
    assert sound_rank["error"] == bad_rank["error"]
    assert f"the loss is nan on the micro-batch of frames {key} (rank 1)" in bad_rank["error"]


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param([(1, "fp32"), (3, "bf16")], id="some"),
        pytest.param(STAGES, id="all", marks=pytest.mark.deep),
    ],
)
def test_an_average_goes_on_from_a_checkpoint_whatever_the_ranks_share(
    stages: list[tuple[int, str]], tmp_path: Path
) -> None:
    """Weights of 15 and 3 elements on two ranks."""
    configs = {
        f"{stage}-{precision}": two_ranks("d", zero={"stage": stage, "precision": precision})
        for stage, precision in stages
    }
    spawn(tmp_path, 2, configs, average_and_restore)
    start = torch.nn.Linear(5, 3).state_dict()
    for name in configs:
        undisturbed, resumed = torch.load(tmp_path / name / "averages.pt", weights_only=True)
        assert undisturbed.keys() == start.keys()
        for key, weight in undisturbed.items():
            assert torch.equal(resumed[key], weight), f"{name} {key}"
            assert not torch.equal(weight, start[key])


def test_the_base_model_comes_to_a_node_once(shards_uri: str, tmp_path: Path) -> None:
    configs = {"there": two_ranks(shards_uri), "missing": two_ranks(shards_uri, base="./nowhere")}
    spawn(tmp_path, 2, configs, find_base_models)
    assert (tmp_path / "there/looked").read_text() == "0\n"
    first, second = left_by(tmp_path / "there")
    assert first == second and not Path(first["folder"]).exists()
    for left in left_by(tmp_path / "missing"):
        error = from_json(left["error"])
        assert isinstance(error, ModelError) and "./nowhere" in str(error)


def test_a_rank_whose_read_never_returns_is_named_and_all_end(tmp_path: Path) -> None:
    """Opening a shard file does not return."""
    uri = str(tmp_path / "shards")
    frames = [analytic_frame(number, 16, 24) for number in range(12)]
    write_shards(uri, frames, frames_per_part=1)
    config = two_ranks(uri, out=str(tmp_path / "out"), schedule={"max_steps": 6})
    plan = make_plan(config, [open_shards(uri)])
    (frame,) = plan.micro_batch(plan.of_rank(2, 1, 2, 1)[0])
    Path(uri, part_path(frame.row) + HANGS).touch()
    started = time.monotonic()
    spawn(tmp_path / "ranks", 2, {"stuck": config}, train_under_watch)
    assert time.monotonic() - started < 60 + 5 * STALL_LIMIT_S
    waiting, hung = left_by(tmp_path / "ranks/stuck", "ended")
    error = from_json(hung)
    assert isinstance(error, StalledError) and not error.for_peers
    assert f"rank 1 has waited {STALL_LIMIT_S:.0f} s for the frames {frame.row} of {uri}" in str(
        error
    )
    assert "--scaling.hang-timeout-s" in str(error)
    # The other one ends with the connection, or by its own watch.
    assert waiting is not None
