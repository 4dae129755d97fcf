"""What cached RGB latents save: training with and without them, in one run, as a ratio.

    python benchmarks/latent_cache.py SHARDS [--base MODEL] [--steps N] [--micro-batch N] [...]

SHARDS were prepared with --latents-of the base model. Both ways take the same optimizer steps on
the same frames, in turns, each from a fresh model; the first step of each turn is not counted. With
GPUs it trains on the first one.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from timed_run import Timed, one_process, timed_run

from e2eft import cli
from e2eft.config import TrainConfig
from e2eft.data.shards import open_shards
from e2eft.model.source import find_model
from e2eft.train.latents import choose_latents
from e2eft.train.worker import build


def timed(config: TrainConfig, device: torch.device, cached: bool) -> Timed:
    shards = [open_shards(uri) for uri in config.data.uris]
    with tempfile.TemporaryDirectory() as scratch:
        objective = build(config, find_model(config.base, Path(scratch)), device)
    if cached and not choose_latents(config, shards, objective.estimator.codec).cached:
        raise SystemExit(f"{config.data.uris[0]} has no latents of {config.base}")
    return timed_run(config, objective, shards, device, cached_latents=cached)


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
    with one_process() as device:
        config = config_of(arguments)
        speeds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(arguments.rounds):
            for cached, made in speeds.items():
                run = timed(config, device, cached)
                made.append(run.samples_per_s)
                name = "cached latents" if cached else "images"
                print(f"{name:16} {run}", flush=True)
    ratios = [fast / slow for slow, fast in zip(speeds[False], speeds[True], strict=True)]
    print(
        f"ratio            {statistics.median(ratios):8.2f}  "
        f"({min(ratios):.2f} to {max(ratios):.2f} in {len(ratios)} rounds, {device.type})"
    )


if __name__ == "__main__":
    main()
