"""A training run without Ray: the loop's surroundings in plain processes that share a disk."""

import json
import logging
import math
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from e2eft.config import TrackingConfig, TrainConfig
from e2eft.data.batches import TrainingBatch
from e2eft.data.shards import open_shards
from e2eft.errors import E2eftError, as_json
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import BLANK, ModelSource, find_model
from e2eft.train import base
from e2eft.train.average import MovingAverage
from e2eft.train.engine import Engine
from e2eft.train.errors import StalledError, TrainingError
from e2eft.train.loop import Loop
from e2eft.train.objectives import Objective
from e2eft.train.watch import Watch, run_watched
from e2eft.train.worker import build, train


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

    def export(self, folder: Path) -> None:
        shutil.copytree(folder, self.root / "model")

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


Work = Callable[[PlainContext, TrainConfig, Path], None]
"""What a rank does with one configuration; the path is its folder, which all ranks share."""


def _run_rank(rank: int, world_size: int, folder: str, configs: dict[str, str], work: Work) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
    os.environ["NODE_RANK"] = "0"
    root = Path(folder)
    rendezvous = f"file://{root}/rendezvous-{world_size}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=world_size)
    for name, config_json in configs.items():
        config = TrainConfig.model_validate_json(config_json)
        work(PlainContext(root / name, rank, world_size), config, root / name)
    dist.destroy_process_group()


def losses_and_weights(context: PlainContext, config: TrainConfig, folder: Path) -> None:
    """The loop alone; what `run_processes` reads."""
    objective = blank_objective(config, folder / f"model-{context.rank}")
    loop = build_loop(context, config, objective)
    losses: dict[int, float] = {}
    record_losses(loop, losses)
    weights = loop.run()
    (folder / f"losses-{context.rank}.json").write_text(json.dumps(losses))
    if context.rank == 0:
        torch.save(weights, folder / "weights.pt")


def export_and_export_again(context: PlainContext, config: TrainConfig, folder: Path) -> None:
    """A whole run into `folder/undisturbed`; with a moving average also one that is killed at its
    first checkpoint and resumed, into `folder/resumed`."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    source = blank_model(folder / f"base-{context.rank}")
    runs: list[tuple[str, int | None]] = [("undisturbed", None)]
    if config.checkpoint.ema_decay is not None:
        runs += [("resumed", config.checkpoint.every_steps), ("resumed", None)]
    for name, kill_at in runs:
        mine = PlainContext(folder / f"{name}-steps", context.rank, context.world_size, kill_at)
        named = config.model_copy(update={"out": str(folder / name)})
        objective = build(named, source, mine.device)
        try:
            train(mine, named, source, objective)
            assert kill_at is None, "it was not killed"
        except KilledError:
            assert kill_at is not None
        dist.barrier()
    if context.rank == 0:
        assert mine.panels, "there are no panels"
        if len(runs) > 1:
            assert list(mine.metrics) == [config.schedule.max_steps], "it began anew"


STALL_LIMIT_S = 12.0
HANGS = ".hangs"
"""What is added to the name of a file that lies beside one which hangs, by `tests/poison`."""


def train_under_watch(context: PlainContext, config: TrainConfig, folder: Path) -> None:
    """A run as Ray Train's worker has it; leaves what ended this rank, and ends its process."""
    import deepspeed  # noqa: F401  # Its import takes longer than this rank may wait.

    import tests.poison.sitecustomize  # noqa: F401  # Files that hang.

    source = blank_model(folder / f"base-{context.rank}")
    objective = build(config, source, context.device)
    watch = Watch(context.rank, STALL_LIMIT_S)
    try:
        run_watched(partial(train, context, config, source, objective, watch), watch)
        ended = None
    except StalledError as error:
        ended = as_json(error)
    except Exception as error:
        ended = {"crashed": str(error)}
    (folder / f"ended-{context.rank}.json").write_text(json.dumps(ended))
    os._exit(0)


def log_losses(context: PlainContext, config: TrainConfig, folder: Path) -> None:
    """A run of which rank 0 leaves what it logs, and every rank the losses of its micro-batches;
    below a folder called `poisoned`, the last rank's second loss is not a number."""
    loop = build_loop(context, config, blank_objective(config, folder / f"model-{context.rank}"))
    losses: dict[int, float] = {}
    record_losses(loop, losses)
    keys: list[str] = []
    if folder.name == "poisoned" and context.rank == context.world_size - 1:
        keys = poison(loop, 1, math.nan)
    left: dict[str, Any] = {}
    try:
        loop.run()
    except TrainingError as error:
        left["error"] = str(error)
    left |= {"losses": losses, "logged": context.losses, "keys": keys}
    (folder / f"left-{context.rank}.json").write_text(json.dumps(left))


def average_and_restore(context: PlainContext, config: TrainConfig, folder: Path) -> None:
    """Averages the weights of a module that two ranks cannot divide evenly over two steps, and
    goes on from that with another engine; rank 0 leaves both averages after one more step."""
    averages = []
    for restored in (False, True):
        torch.manual_seed(0)
        engine = Engine(torch.nn.Linear(5, 3), config, context.device)
        average = MovingAverage(engine, 0.5)
        for step in range(4):
            if restored and step == 2:
                average = MovingAverage(engine, 0.5)
                average.restore(torch.load(folder / "average.pt", weights_only=True))
            inputs = torch.ones(1, 5, dtype=next(engine.model.parameters()).dtype)
            engine.set_lr(1e-1)
            engine.backward(engine.model(inputs).float().square().mean())
            engine.step()
            average.update()
            made = average.weights()
            if step == 1 and context.rank == 0:
                torch.save(made, folder / "average.pt")
            dist.barrier()
        averages.append(made)
    if context.rank == 0:
        torch.save(averages, folder / "averages.pt")


def poison(loop: Loop, step: int, value: float) -> list[str]:
    """Makes the loss of the first micro-batch of a step not finite; returns its keys, later."""
    keys: list[str] = []
    original, calls = loop.objective.loss, iter(range(10**6))
    first = step * loop.config.accumulation_steps

    def loss(training: TrainingBatch) -> Tensor:
        made = original(training)
        if next(calls) == first:
            keys.extend(training.batch.keys)
            return made * value
        return made

    loop.objective.loss = loss  # type: ignore[method-assign]
    return keys


def find_base_models(context: PlainContext, config: TrainConfig, folder: Path) -> None:
    """Two ranks of one node load the base model; each look for it leaves a line, each rank what it
    got."""
    original = base.find_model

    def counted(name: str, scratch: Path) -> ModelSource:
        with (folder / "looked").open("a") as file:
            file.write(f"{context.rank}\n")
        return original(name, scratch)

    base.find_model = counted
    try:
        with base.base_model(config.base) as source:
            load_estimator(source, config.model)
            left = {"folder": source.root}
            dist.barrier()
    except E2eftError as error:
        left = {"error": as_json(error)}
    base.find_model = original
    (folder / f"left-{context.rank}.json").write_text(json.dumps(left))


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


def spawn(
    folder: Path, world_size: int, configs: dict[str, TrainConfig], work: Work = losses_and_weights
) -> None:
    """Does the work for each configuration in `world_size` processes joined by gloo, one after the
    other."""
    for name in configs:
        (folder / name).mkdir(parents=True)
    texts = {name: config.model_dump_json() for name, config in configs.items()}
    arguments = (world_size, str(folder), texts, work)
    # Forked from one process that has imported what takes ten seconds each time.
    multiprocessing.set_forkserver_preload(["deepspeed", __name__])
    start = torch.multiprocessing.start_processes
    start(_run_rank, arguments, nprocs=world_size, start_method="forkserver")


def run_processes(
    folder: Path, world_size: int, configs: dict[str, TrainConfig]
) -> dict[str, Outcome]:
    """What a run in as many processes leaves, for each configuration."""
    spawn(folder, world_size, configs)
    outcomes: dict[str, Outcome] = {}
    for name in configs:
        losses: dict[int, float] = {}
        for rank in range(world_size):
            mine = json.loads((folder / name / f"losses-{rank}.json").read_text())
            losses |= {int(number): loss for number, loss in mine.items()}
        weights = torch.load(folder / name / "weights.pt", weights_only=True)
        outcomes[name] = Outcome(dict(sorted(losses.items())), weights)
    return outcomes


def run_loop(context: PlainContext, config: TrainConfig, scratch: Path) -> dict[str, Tensor]:
    """One process's whole run; returns the full weights."""
    torch.manual_seed(config.seed)
    return build_loop(context, config, blank_objective(config, scratch)).run()
