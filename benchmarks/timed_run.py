"""The product's training loop against the clock, in one process, for the training benchmarks."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from e2eft.config import TrainConfig
from e2eft.data.shards import ShardIndex
from e2eft.train.engine import Engine
from e2eft.train.loop import Loop
from e2eft.train.objectives import Objective


@dataclass(frozen=True)
class Timed:
    """Speed after the first optimizer step, and the part of the time spent waiting for data."""

    samples_per_s: float
    waiting: float

    def __str__(self) -> str:
        return f"{self.samples_per_s:8.2f} samples/s  waiting for data {self.waiting:.0%}"


class Stopwatch:
    """The loop's surroundings: no files, only the time of each logged step."""

    rank, world_size = 0, 1

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.logged: dict[int, float] = {}
        self.waited = 0.0

    @contextmanager
    def restored(self) -> Any:
        yield None

    def announce(self, line: str, tags: dict[str, str]) -> None: ...
    def panel(self, *_: Any) -> None: ...
    def checkpoint(self, *_: Any) -> None: ...
    def scratch(self) -> Path:
        raise AssertionError("nothing is saved")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """The loss was read, so the device has finished the step."""
        self.logged[step] = time.perf_counter()
        self.waited = metrics["data_wait_fraction"]


def timed_run(
    config: TrainConfig,
    objective: Objective,
    shards: list[ShardIndex],
    device: torch.device,
    *,
    cached_latents: bool = False,
) -> Timed:
    """The whole run, without its checkpoints."""
    engine = Engine(objective.trainable(), config, device)
    objective.attach(engine.model)
    watch = Stopwatch(device)
    loop = Loop(watch, config, engine, objective, shards, shards, cached_latents=cached_latents)
    loop._save = lambda *_: None  # type: ignore[method-assign]
    loop.run()
    engine.model.destroy()
    first, last = min(watch.logged), max(watch.logged)
    seconds = watch.logged[last] - watch.logged[first]
    return Timed((last - first) * config.batch.global_size / seconds, watch.waited)


@contextmanager
def one_process() -> Iterator[torch.device]:
    """A process group of this process alone; its device: the first GPU if there is one."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        os.environ.setdefault(name, value)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{folder}/rendezvous", rank=0, world_size=1,
        )  # fmt: skip
        yield device
        torch.distributed.destroy_process_group()
