import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from e2eft.errors import DamagedError
from e2eft.train.engine import Engine, zero_config
from tests.training import train_config

CPU = torch.device("cpu")
STAGES = [0, 1, 2, 3]
ACCUMULATION = 2
CLIP_NORM = 0.7


def config_of(stage: int, precision: str = "fp32", **changes: Any) -> Any:
    return train_config(
        "d", zero={"stage": stage, "precision": precision},
        batch={"global_size": 2 * ACCUMULATION, "micro_size": 2},
        optimizer={"clip_norm": CLIP_NORM}, **changes,
    )  # fmt: skip


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def inputs(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 6, generator=generator) for _ in range(count)]


def loss_of(output: Tensor, number: int) -> Tensor:
    """Large at every other step: Adam does not see clipping unless gradients change their size."""
    scale = 0.1 if number // ACCUMULATION % 2 else 30
    return scale * (output.float() - 1).square().mean()


def train(engine: Engine, batches: list[Tensor], lr: float = 1e-2) -> list[float]:
    """Gradient norms of the optimizer steps."""
    norms: list[float] = []
    dtype = next(engine.model.parameters()).dtype
    for number, batch in enumerate(batches):
        engine.set_lr(lr)
        engine.backward(loss_of(engine.model(batch.to(dtype)), number))
        norm = engine.step()
        if norm is not None:
            norms.append(float(norm))
    return norms


def test_what_deepspeed_is_told() -> None:
    plain = zero_config(config_of(2))
    assert plain["zero_optimization"]["stage"] == 2
    assert plain["gradient_clipping"] == CLIP_NORM
    assert plain["train_micro_batch_size_per_gpu"] == 2
    assert plain["gradient_accumulation_steps"] == ACCUMULATION
    assert "bf16" not in plain and "offload_optimizer" not in plain["zero_optimization"]
    # A gigabyte a bucket otherwise.
    assert plain["zero_optimization"]["reduce_bucket_size"] <= 5e7

    half = zero_config(config_of(1, "bf16"))
    assert half["bf16"] == {"enabled": True}
    # By default gradients would be accumulated and reduced in bf16.
    assert half["data_types"] == {"grad_accum_dtype": "fp32"}
    assert half["communication_data_type"] == "fp32"

    offloaded = train_config("d", zero={"stage": 2, "offload_optimizer": True})
    assert zero_config(offloaded)["zero_optimization"]["offload_optimizer"]["device"] == "cpu"


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_is_adamw_on_the_mean_gradient_clipped(stage: int) -> None:
    reference = network()
    optimizer = torch.optim.AdamW(
        reference.parameters(), lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2
    )
    engine = Engine(copy.deepcopy(reference), config_of(stage), CPU)
    batches = inputs(3 * ACCUMULATION)
    norms = train(engine, batches)
    expected: list[float] = []
    for start in range(0, len(batches), ACCUMULATION):
        optimizer.zero_grad()
        for number in range(start, start + ACCUMULATION):
            (loss_of(reference(batches[number]), number) / ACCUMULATION).backward()
        expected.append(float(nn.utils.clip_grad_norm_(reference.parameters(), CLIP_NORM)))
        optimizer.step()
    assert min(expected) < CLIP_NORM < max(expected)
    assert norms == pytest.approx(expected, rel=1e-4)
    weights = engine.weights()
    assert weights.keys() == reference.state_dict().keys()
    for name, wanted in reference.state_dict().items():
        torch.testing.assert_close(weights[name], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("stage", "precision"),
    [*((stage, "fp32") for stage in STAGES), *((stage, "bf16") for stage in (1, 2, 3))],
)
def test_a_restored_engine_goes_on_where_it_was_saved(
    stage: int, precision: str, tmp_path: Path
) -> None:
    batches = inputs(6 * ACCUMULATION)
    half = 3 * ACCUMULATION
    undisturbed = Engine(network(), config_of(stage, precision), CPU)
    train(undisturbed, batches[:half])
    undisturbed.save(tmp_path, step=3)
    train(undisturbed, batches[half:])

    resumed = Engine(network(), config_of(stage, precision), CPU)
    assert resumed.restore(tmp_path) == 3
    train(resumed, batches[half:])
    wanted = undisturbed.weights()
    for name, weight in resumed.weights().items():
        assert torch.equal(weight, wanted[name]), name


def test_a_folder_without_checkpoint_is_refused(tmp_path: Path) -> None:
    engine = Engine(network(), config_of(1), CPU)
    with pytest.raises(ValueError, match=f"{tmp_path} holds no DeepSpeed checkpoint"):
        engine.restore(tmp_path)


class Planted:
    """Unpickling it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_runs_no_code_that_was_planted_in_it(stage: int, tmp_path: Path) -> None:
    folder, mark = tmp_path / "saved", tmp_path / "mark"
    engine = Engine(network(), config_of(stage), CPU)
    engine.save(folder, step=1)
    files = sorted(folder.rglob("*.pt"))
    assert len(files) == (1 if stage == 0 else 2)
    for file in files:
        written = file.read_bytes()
        state = torch.load(file, weights_only=False)
        torch.save(state | {"planted": Planted(mark)}, file)
        with pytest.raises(DamagedError, match=f"^{file} holds more than a training state") as said:
            engine.restore(folder)
        assert "\n" not in str(said.value)
        assert not mark.exists()
        # The file is one that runs when it is unpickled as DeepSpeed does.
        torch.load(file, weights_only=False)
        assert mark.exists()
        mark.unlink()
        file.write_bytes(written)
    assert engine.restore(folder) == 1


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_bf16_keeps_fp32_weights_that_small_steps_can_move(stage: int) -> None:
    engine = Engine(network(), config_of(stage, "bf16"), CPU)
    before = engine.weights()
    assert next(engine.model.parameters()).dtype == torch.bfloat16
    # A relative step of 1e-4 is lost in bf16, whose numbers are 0.4 % apart.
    train(engine, inputs(2 * ACCUMULATION), lr=1e-5)
    after = engine.weights()
    moved = torch.cat([(after[name] - before[name]).abs().flatten() for name in after])
    assert 5e-6 < float(moved.median()) < 3e-5
    assert all(weight.dtype == torch.float32 for weight in after.values())


def test_a_gradient_that_is_not_finite_skips_the_step_under_bf16() -> None:
    engine = Engine(network(), config_of(2, "bf16"), CPU)
    before = engine.weights()
    poisoned = [torch.full((2, 6), torch.nan)] * ACCUMULATION
    train(engine, poisoned)
    assert engine.skipped_steps == 1
    for name, weight in engine.weights().items():
        assert torch.equal(weight, before[name])
    train(engine, inputs(ACCUMULATION))
    assert engine.skipped_steps == 1
    assert not torch.equal(engine.weights()["0.weight"], before["0.weight"])


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_frozen_parameters_and_buffers_come_along(stage: int) -> None:
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    module[0].requires_grad_(False)
    frozen = module[0].weight.detach().clone()
    engine = Engine(module, config_of(stage), CPU)
    names = set(module.state_dict())
    train(engine, inputs(2 * ACCUMULATION))
    weights = engine.weights()
    assert set(weights) == names
    assert torch.equal(weights["0.weight"], frozen)
    assert float(weights["1.num_batches_tracked"]) == 2 * ACCUMULATION
