"""One training process inside Ray Train: builds the run's parts and hands them to the loop."""

import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from e2eft.artifacts import Writer
from e2eft.cluster import quiet_ray_train
from e2eft.config import TrainConfig, is_conditional
from e2eft.data.shards import open_shards
from e2eft.errors import E2eftError
from e2eft.model.pretrained import export_model, load_estimator
from e2eft.model.source import ModelSource
from e2eft.storage import be_patient
from e2eft.tasks import TASKS, get_task
from e2eft.tracking import Run
from e2eft.train.base import base_model
from e2eft.train.errors import TrainingError
from e2eft.train.latents import choose_latents
from e2eft.train.loop import Loop, TrainContext
from e2eft.train.objectives import Objective, build_objective
from e2eft.train.rank_checkpoints import RankCheckpoints
from e2eft.train.watch import Watch, run_watched


class RayTrainContext:
    """`TrainContext` on top of Ray Train; rank 0 writes to the driver's MLflow run."""

    def __init__(self, run: Run | None, config: TrainConfig, checkpoints: RankCheckpoints) -> None:
        import ray.train
        from ray.train.torch import get_device

        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        device = get_device()
        self.device = device[0] if isinstance(device, list) else device
        self._run, self._task, self.checkpoints = run, config.task, checkpoints

    @contextmanager
    def restored(self) -> Iterator[Path | None]:
        with self.checkpoints.restored() as (checkpoint, folder):
            if checkpoint and self.rank == 0:
                say(f"resuming from {checkpoint.folder} (step {checkpoint.step})")
            yield folder

    def announce(self, line: str, tags: dict[str, str]) -> None:
        if self.rank == 0:
            if line:
                say(line)
            if self._run:
                self._run.tags(tags)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        if self.rank == 0:
            say(
                f"step {step:6d}  loss {metrics['loss']:.4f}  lr {metrics['learning_rate']:.2e}  "
                f"{metrics['samples_per_s']:.1f} samples/s  "
                f"waiting for data {metrics['data_wait_fraction']:.0%}"
            )
            if self._run:
                self._run.metrics(metrics, step)

    def panel(self, step: int, wanted: np.ndarray, made: np.ndarray, rgb: np.ndarray) -> None:
        if self._run:
            self._run.image(panel_picture(rgb, wanted, made), f"panels/step-{step:06d}.png")

    def checkpoint(self, step: int, metrics: dict[str, float], folder: Path) -> None:
        import ray.train

        if self.rank == 0 and self._run:
            self._run.catch_up()  # a run that resumes here logs nothing of this again
        self.checkpoints.save(step, folder)
        ray.train.report(metrics)

    def export(self, folder: Path) -> None:
        self.checkpoints.export(folder)

    def scratch(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="e2eft-checkpoint-"))


def say(line: str) -> None:
    """A line for the driver's output; Ray Train's own `print` would write it there twice."""
    print(line, file=sys.__stdout__, flush=True)


def panel_picture(rgb: np.ndarray, wanted: np.ndarray, made: np.ndarray) -> np.ndarray:
    """Rows of image | wanted | made, from float `[n h w 3]` in [-1, 1] to uint8 `[H W 3]`."""
    rows = [np.concatenate(images, axis=1) for images in zip(rgb, wanted, made, strict=True)]
    return np.clip((np.concatenate(rows) + 1) * 127.5, 0, 255).round().astype(np.uint8)


def train_worker(settings: dict[str, Any]) -> None:
    """The function that Ray Train runs on every worker.

    Args:
        settings: `config` (JSON of TrainConfig), `base_digest` (see `base_model`), `run` (a Run's
            fields, or None), `writer` (fields of the artifact's Writer), `version_1` (whether the
            run is of that).

    Raises:
        HandedBackError: with what ended this rank.
    """
    from e2eft.train.failures import handing_back

    be_patient()
    quiet_ray_train()
    config = TrainConfig.model_validate(settings["config"])
    run = Run(**settings["run"]) if settings["run"] else None
    checkpoints = RankCheckpoints(Writer(**settings["writer"]), config, settings["version_1"])
    context = RayTrainContext(run, config, checkpoints)
    watch = Watch(context.rank, config.scaling.hang_timeout_s)
    try:
        with handing_back(context.rank):
            rank = partial(_train_rank, context, config, settings["base_digest"], watch)
            run_watched(rank, watch)
    finally:
        # Ray ends this process without what a normal end would do.
        if run:
            run.flush()


def _train_rank(
    context: RayTrainContext, config: TrainConfig, base_digest: str, watch: Watch
) -> None:
    # Threads and the current device are a thread's own, and this one is not Ray Train's.
    if context.device.type == "cpu":
        torch.set_num_threads(config.scaling.cpus_per_worker)
        os.environ["OMP_NUM_THREADS"] = str(config.scaling.cpus_per_worker)
    else:
        torch.cuda.set_device(context.device)
    torch.manual_seed(config.seed)
    watch.alone(f"the base model {config.base}")
    with base_model(config.base, base_digest) as source:
        with _correctable():
            objective = build(config, source, context.device)
        train(context, config, source, objective, watch)


@contextmanager
def _correctable() -> Iterator[None]:
    """While a run is set up, a ValueError speaks of its options, and would come again."""
    try:
        yield
    except E2eftError:
        raise
    except ValueError as error:
        raise TrainingError(str(error)) from error


def build(config: TrainConfig, source: ModelSource, device: torch.device) -> Objective:
    """The estimator with the configured objective on it, on the device."""
    conditional = is_conditional(config.objective)
    estimator = load_estimator(source, config.model, conditional=conditional).to(device)
    if config.zero.precision == "bf16":
        estimator.codec.compute_dtype = torch.bfloat16
    # How far depth is supervised, each batch says of its dataset.
    tasks = {
        name: get_task(
            name,
            max_depth_m=math.inf,
            depth_target=config.depth_target,
            losses=config.losses if name == config.task else (),
        )
        for name in TASKS
    }
    return build_objective(estimator, tasks, config)


def train(
    context: TrainContext,
    config: TrainConfig,
    source: ModelSource,
    objective: Objective,
    watch: Watch | None = None,
) -> None:
    """Runs the loop and lets rank 0 write the trained model into the artifact."""
    from e2eft.train.engine import Engine

    watch = watch or Watch(context.rank, math.inf)
    watch.together("DeepSpeed's start")
    module: nn.Module = objective.trainable()
    with _correctable():
        engine = Engine(module, config, context.device)
    objective.attach(engine.model)
    watch.alone("the datasets' manifests")
    shards = [open_shards(uri) for uri in config.data.uris]
    panel_shards = [open_shards(uri) for uri in config.panel.uris] or shards
    latents = choose_latents(config, shards, objective.estimator.codec)
    context.announce(latents.line, latents.tags)
    cached = latents.cached
    loop = Loop(
        context, config, engine, objective, shards, panel_shards, cached_latents=cached, watch=watch
    )
    weights = loop.run()
    watch.together("the export of the trained model")
    if context.rank == 0:
        card = objective.finish(weights, loop.measurement_batches(), loop.processing_size())
        objective.estimator.to("cpu")
        with tempfile.TemporaryDirectory(prefix="e2eft-export-") as scratch:
            folder = export_model(
                objective.estimator, source, Path(scratch), card, half=config.export_half
            )
            context.export(folder)
