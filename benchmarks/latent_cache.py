"""What cached RGB latents save: training with and without them, in one run, as a ratio.

    python benchmarks/latent_cache.py SHARDS [--base MODEL] [--steps N] [--micro-batch N] [...]

SHARDS were prepared with --latents-of the base model. Both ways take the same optimizer steps on
the same frames, in turns, each from a fresh model; the first step of each turn is not counted. With
GPUs it trains on the first one.
"""

import argparse
import os
import statistics
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from e2eft import cli
from e2eft.config import TrainConfig
from e2eft.data.shards import open_shards
from e2eft.model.pretrained import find_model
from e2eft.train.engine import Engine
from e2eft.train.latents import choose_latents
from e2eft.train.loop import Loop
from e2eft.train.worker import build


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


def samples_per_s(config: TrainConfig, device: torch.device, cached: bool) -> tuple[float, float]:
    """(samples per second after the first step, part of the time spent waiting for data)."""
    with tempfile.TemporaryDirectory() as scratch:
        objective = build(config, find_model(config.base, Path(scratch)), device)
    engine = Engine(objective.trainable(), config, device)
    objective.attach(engine.model)
    shards = [open_shards(uri) for uri in config.data.uris]
    if cached and not choose_latents(config, shards, objective.estimator.codec).cached:
        raise SystemExit(f"{config.data.uris[0]} has no latents of {config.base}")
    watch = Stopwatch(device)
    loop = Loop(watch, config, engine, objective, shards, shards, cached_latents=cached)
    loop._save = lambda *_: None  # type: ignore[method-assign]
    loop.run()
    first, last = min(watch.logged), max(watch.logged)
    seconds = watch.logged[last] - watch.logged[first]
    return (last - first) * config.batch.global_size / seconds, watch.waited


def config_of(arguments: argparse.Namespace) -> TrainConfig:
    size = arguments.micro_batch
    argv = (
        f"tiny-depth --base {arguments.base} --data {arguments.shards} --out unused --batch {size}"
    )
    argv += f" --micro-batch {size} --num-workers 1 --max-steps {arguments.steps + 1} --no-tracking"
    config = cli.parse("train", [*argv.split(), "--panel-frames", "0"])
    assert isinstance(config, TrainConfig)
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shards")
    parser.add_argument("--base", default="tiny-marigold-depth")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--micro-batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        os.environ.setdefault(name, value)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with tempfile.TemporaryDirectory() as folder:
        torch.distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"file://{folder}/rendezvous", rank=0, world_size=1,
        )  # fmt: skip
        config = config_of(arguments)
        speeds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(arguments.rounds):
            for cached, made in speeds.items():
                speed, waited = samples_per_s(config, device, cached)
                made.append(speed)
                name = "cached latents" if cached else "images"
                print(
                    f"{name:16} {speed:8.2f} samples/s  waiting for data {waited:.0%}", flush=True
                )
        torch.distributed.destroy_process_group()
    ratios = [fast / slow for slow, fast in zip(speeds[False], speeds[True], strict=True)]
    print(
        f"ratio            {statistics.median(ratios):8.2f}  "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds, {device.type})"
    )


if __name__ == "__main__":
    main()
