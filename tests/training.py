"""A training run without Ray: the loop's surroundings in plain processes that share a disk."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from e2eft.config import TrackingConfig, TrainConfig
from e2eft.data.batches import TrainingBatch
from e2eft.data.shards import open_shards
from e2eft.model.pretrained import BLANK, ModelSource, find_model
from e2eft.train.engine import Engine
from e2eft.train.loop import Loop
from e2eft.train.objectives import Objective
from e2eft.train.worker import build


class KilledError(RuntimeError):
    """The end of a run that its test wants to see ended."""


class PlainContext:
    """`TrainContext` of one or more processes; a checkpoint is a folder below `root`."""

    def __init__(
        self, root: Path, rank: int = 0, world_size: int = 1, kill_at: int | None = None
    ) -> None:
        self.root, self.rank, self.world_size, self.kill_at = root, rank, world_size, kill_at
        self.device = torch.device("cpu")
        self.said, self.tags = "", {"": ""}
        self.metrics: dict[int, dict[str, float]] = {}
        self.panels: dict[int, tuple[np.ndarray, ...]] = {}

    @contextmanager
    def restored(self) -> Iterator[Path | None]:
        committed = sorted(self.root.glob("step-*/committed"))
        yield committed[-1].parent if committed else None

    def announce(self, line: str, tags: dict[str, str]) -> None:
        self.said, self.tags = line, tags

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.metrics[step] = metrics

    def panel(self, step: int, wanted: np.ndarray, made: np.ndarray, rgb: np.ndarray) -> None:
        self.panels[step] = (wanted, made, rgb)

    def checkpoint(self, step: int, metrics: dict[str, float], folder: Path) -> None:
        target = self.root / f"step-{step:08d}"
        shutil.copytree(folder, target, dirs_exist_ok=True)
        shutil.rmtree(folder)
        dist.barrier()
        if self.rank == 0:
            (target / "committed").touch()
        dist.barrier()
        if step == self.kill_at:
            raise KilledError(f"killed at step {step}")

    def scratch(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="e2eft-test-"))

    @property
    def losses(self) -> dict[int, float]:
        return {step: metrics["loss"] for step, metrics in self.metrics.items()}


def train_config(uri: str, /, **changes: Any) -> TrainConfig:
    """A short run of the blank model; nested fields are given as dictionaries."""
    fields: dict[str, Any] = {
        "base": "blank",
        "out": "unused",
        "task": "depth",
        "objective": {"kind": "end-to-end"},
        "data": {"uris": (uri,), "decode_threads": 1},
        "batch": {"global_size": 2, "micro_size": 2},
        "optimizer": {"lr": 1e-3},
        "schedule": {"max_steps": 3, "warmup_steps": 1},
        "checkpoint": {"every_steps": 2},
        "panel": {"frames": 0},
        "tracking": TrackingConfig(enabled=False),
    }
    for name, value in changes.items():
        known = fields.get(name)
        fields[name] = (
            known | value if isinstance(known, dict) and isinstance(value, dict) else value
        )
    return TrainConfig.model_validate(fields)


def blank_model(scratch: Path) -> ModelSource:
    """The blank model of seed 0, written once to a folder."""
    folder = scratch / BLANK
    if not (folder / "model_index.json").is_file():
        return find_model(BLANK, scratch)
    return ModelSource(BLANK, str(folder), str(folder))


def blank_objective(config: TrainConfig, scratch: Path) -> Objective:
    """The run's objective on the blank model in `scratch`."""
    return build(config, blank_model(scratch), torch.device("cpu"))


def build_loop(
    context: Any, config: TrainConfig, objective: Objective, *, cached_latents: bool = False
) -> Loop:
    """As `worker.train` puts it together."""
    engine = Engine(objective.trainable(), config, context.device)
    objective.attach(engine.model)
    shards = [open_shards(uri) for uri in config.data.uris]
    return Loop(context, config, engine, objective, shards, shards, cached_latents=cached_latents)


def _run_rank(rank: int, world_size: int, folder: str, configs: dict[str, str]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    root = Path(folder)
    rendezvous = f"file://{root}/rendezvous-{world_size}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
    for name, config_json in configs.items():
        config = TrainConfig.model_validate_json(config_json)
        losses = {}
        context = PlainContext(root / name, rank, world_size)
        objective = blank_objective(config, root / f"{name}-model-{rank}")
        loop = build_loop(context, config, objective)
        record_losses(loop, losses)
        weights = loop.run()
        (root / f"{name}-losses-{rank}.json").write_text(json.dumps(losses))
        if rank == 0:
            torch.save(weights, root / f"{name}.pt")
    dist.destroy_process_group()


def record_losses(loop: Loop, losses: dict[int, float]) -> None:
    """Fills `losses` with the loss of each micro-batch, by its number in the run."""
    original, context = loop.objective.loss, loop.context
    accumulation = loop.config.accumulation_steps
    numbers = (
        number
        for step in range(loop.config.schedule.max_steps)
        for number in loop.plan.of_rank(step, context.rank, context.world_size, accumulation)
    )

    def loss(training: TrainingBatch) -> Tensor:
        made = original(training)
        losses[next(numbers)] = float(made.detach())
        return made

    loop.objective.loss = loss  # type: ignore[method-assign]


@dataclass(frozen=True)
class Outcome:
    """What a run of plain processes left: losses by number of micro-batch, and the weights."""

    losses: dict[int, float]
    weights: dict[str, Tensor]


def run_processes(
    folder: Path, world_size: int, configs: dict[str, TrainConfig]
) -> dict[str, Outcome]:
    """Runs each configuration in `world_size` processes joined by gloo, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {name: config.model_dump_json() for name, config in configs.items()}
    torch.multiprocessing.spawn(_run_rank, (world_size, str(folder), texts), nprocs=world_size)
    outcomes: dict[str, Outcome] = {}
    for name in configs:
        losses: dict[int, float] = {}
        for rank in range(world_size):
            mine = json.loads((folder / f"{name}-losses-{rank}.json").read_text())
            losses |= {int(number): loss for number, loss in mine.items()}
        weights = torch.load(folder / f"{name}.pt", weights_only=True)
        outcomes[name] = Outcome(dict(sorted(losses.items())), weights)
    return outcomes


def run_loop(context: PlainContext, config: TrainConfig, scratch: Path) -> dict[str, Tensor]:
    """One process's whole run; returns the full weights."""
    torch.manual_seed(config.seed)
    return build_loop(context, config, blank_objective(config, scratch)).run()
