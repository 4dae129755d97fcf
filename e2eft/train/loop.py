"""The training loop, against a TrainContext, an engine and an objective; it knows none of them."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from e2eft.config import ScheduleConfig, TrainConfig
from e2eft.data.batches import FrameReader, SamplingPlan, TrainingBatch, collate, iterate_batches
from e2eft.data.shards import ShardIndex
from e2eft.train.average import MovingAverage
from e2eft.train.errors import TrainingError
from e2eft.train.mixture import depth_ranges_m, longest_side_px
from e2eft.train.objectives import Objective
from e2eft.train.statistics import SkippedSteps, WindowStatistics
from e2eft.train.watch import Watch

LOG_EVERY_STEPS = 10
AVERAGE = "ema.pt"
"""File of a checkpoint: the moving average in full, whatever the ranks each keep of it."""
SCALE_BATCHES = 16
"""Micro-batches read at the end for what an objective measures on data."""


class TrainContext(Protocol):
    """What the loop needs of its surroundings. Ray Train implements it."""

    rank: int
    world_size: int
    device: torch.device

    def restored(self) -> AbstractContextManager[Path | None]:
        """A local copy of the last checkpoint, or None at the beginning."""
        ...

    def announce(self, line: str, tags: dict[str, str]) -> None:
        """What turned out before the first step; called on every rank, one of them records."""
        ...

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Called on every rank; one of them records."""
        ...

    def panel(self, step: int, wanted: np.ndarray, made: np.ndarray, rgb: np.ndarray) -> None:
        """Pictures of fixed frames: float32 `[n h w 3]` in [-1, 1] (rgb likewise); called on rank
        0."""
        ...

    def checkpoint(self, step: int, metrics: dict[str, float], folder: Path) -> None:
        """Commits what every rank has written to its own `folder`. Collective."""
        ...

    def export(self, folder: Path) -> None:
        """Publishes the trained model that lies in a local folder; called on rank 0."""
        ...

    def scratch(self) -> Path:
        """A new local folder for a checkpoint."""
        ...


class LearningRate:
    """Linear warm-up from zero, then exponential decay, both in optimizer steps (the paper's)."""

    def __init__(self, peak: float, schedule: ScheduleConfig) -> None:
        self.peak, self.schedule = peak, schedule

    def __call__(self, step: int) -> float:
        """The rate of the update after `step` completed ones."""
        warmup = self.schedule.warmup_steps
        if step < warmup:
            return self.peak * step / warmup
        progress = (step - warmup) / max(1, self.schedule.max_steps - warmup)
        return self.peak * self.schedule.final_lr_ratio ** min(1.0, progress)


def make_plan(config: TrainConfig, shards: list[ShardIndex]) -> SamplingPlan:
    """The run's sampling plan over these shards."""
    limit = config.data.limit
    lengths = tuple(len(s) if limit is None else min(limit, len(s)) for s in shards)
    return SamplingPlan(
        lengths=lengths,
        weights=config.data.weights or tuple(float(length) for length in lengths),
        seed=config.seed,
        micro_batches=config.schedule.max_steps
        * config.batch.global_size
        // config.batch.micro_size,
        micro_size=config.batch.micro_size,
        flip_probability=config.data.flip_probability,
        shuffle_window=config.data.shuffle_window,
    )


class Loop:
    """One run: from the restored step to the last, with logs, panels and checkpoints on the way.

    cached_latents: train on the shards' latents of the colour images, which must be of this VAE.
    watch: is told what this rank is about to wait for.
    """

    def __init__(
        self,
        context: TrainContext,
        config: TrainConfig,
        engine: Any,
        objective: Objective,
        shards: list[ShardIndex],
        panel_shards: list[ShardIndex],
        *,
        cached_latents: bool = False,
        watch: Watch | None = None,
    ) -> None:
        self.context, self.config, self.engine, self.objective = context, config, engine, objective
        self.watch = watch or Watch(context.rank, math.inf)
        self.plan = make_plan(config, shards)
        self.reader = FrameReader(
            shards,
            keep_bytes=int(config.data.keep_gb * 1e9),
            latents=cached_latents,
            modalities=objective.modalities,
        )
        self.shards, self.panel_shards = shards, panel_shards
        self.ranges_m = depth_ranges_m(config.data.max_depth_m, shards)
        self.rate = LearningRate(config.optimizer.lr, config.schedule)
        decay = config.checkpoint.ema_decay
        self.average = None if decay is None else MovingAverage(engine, decay)

    def run(self) -> dict[str, Tensor]:
        """Trains to the end; returns the full fp32 weights (or their moving average) on rank 0,
        nothing elsewhere."""
        step = self._restore()
        batches = self._batches(step)
        skipped = SkippedSteps(self.engine.skipped_steps)
        window = WindowStatistics()
        loss = 0.0
        total = self.config.schedule.max_steps
        while step < total:
            rate = self.rate(step)
            norm = self._optimizer_step(step, batches, rate, window)
            step += 1
            skipped.count(step, self.engine.skipped_steps)
            if self.average:
                self.average.update()
            if step % LOG_EVERY_STEPS == 0 or step == total or step == 1:
                loss = self._mean_loss(window)
                self._log(step, rate, norm, loss, window)
                window = WindowStatistics()
            if self.config.panel.frames and (
                step % self.config.panel.every_steps == 0 or step == total
            ):
                self._panel(step)
            if step % self.config.checkpoint.every_steps == 0 or step == total:
                self._save(step, self._mean_loss(window) if window.losses else loss)
        self.watch.together("the trained weights")
        return self.average.weights() if self.average else self.engine.weights()

    def _batches(self, step: int) -> Iterator[TrainingBatch]:
        context, plan = self.context, self.plan
        steps = range(step, self.config.schedule.max_steps)
        accumulation = self.config.accumulation_steps
        indices = chain.from_iterable(
            plan.of_rank(s, context.rank, context.world_size, accumulation) for s in steps
        )
        threads, pin = self.config.data.decode_threads, context.device.type == "cuda"
        return iterate_batches(plan, self.reader, indices, self.ranges_m, threads, pin=pin)

    def _optimizer_step(
        self, step: int, batches: Iterator[TrainingBatch], rate: float, window: WindowStatistics
    ) -> Tensor | float | None:
        norm: Tensor | float | None = None
        self.engine.set_lr(rate)
        context, accumulation = self.context, self.config.accumulation_steps
        for number in self.plan.of_rank(step, context.rank, context.world_size, accumulation):
            waiting = time.perf_counter()
            self.watch.alone(partial(self._micro_batch_named, number))
            loaded = next(batches)
            self.watch.together(f"optimizer step {step + 1}")
            window.waited_s += time.perf_counter() - waiting
            batch = loaded.batch.to(self.context.device, non_blocking=True)
            loss = self.objective.loss(replace(loaded, batch=batch))
            self.engine.backward(loss)
            norm = self.engine.step()
            window.losses.append(loss.detach())
            window.keys.append(batch.keys)
        window.steps += 1
        return norm

    def _micro_batch_named(self, number: int) -> str:
        frames = self.plan.micro_batch(number)
        rows = ", ".join(str(frame.row) for frame in frames)
        return f"the frames {rows} of {self.shards[frames[0].dataset].artifact.uri}"

    def _mean_loss(self, window: WindowStatistics) -> float:
        """Over all ranks. Collective.

        Raises:
            TrainingError: on every rank if a loss of any is not finite, with the keys of its
                micro-batch.
        """
        total, count = self.engine.sum_over_ranks(window.totals()).tolist()
        if math.isfinite(total):
            return total / count
        for rank, bad in enumerate(self.engine.gather(window.bad_micro_batch())):
            if bad:
                raise TrainingError(
                    f"the loss is {bad} (rank {rank}); lower --lr, or drop these frames"
                )
        raise TrainingError(f"the losses add up to {total}; lower --lr")

    def _log(
        self,
        step: int,
        rate: float,
        norm: Tensor | float | None,
        loss: float,
        window: WindowStatistics,
    ) -> None:
        seconds = time.perf_counter() - window.started
        metrics = {
            "loss": loss,
            "learning_rate": rate,
            "samples_per_s": window.steps * self.config.batch.global_size / seconds,
            "data_wait_fraction": window.waited_s / seconds,
            "skipped_steps": float(self.engine.skipped_steps),
        }
        if norm is not None:
            metrics["gradient_norm"] = float(norm)
        self.context.log(step, metrics)

    def _panel(self, step: int) -> None:
        shards = self.panel_shards
        ranges_m = self.ranges_m if shards is self.shards else depth_ranges_m((), shards)
        reader = FrameReader(shards)
        self.watch.alone(f"the panel's frames of {shards[0].artifact.uri}")
        numbers = [divmod(i, len(shards)) for i in range(self.config.panel.frames)]
        frames = [
            (reader.read(dataset, row), ranges_m[dataset])
            for row, dataset in numbers
            if row < len(shards[dataset])
        ]
        self.watch.together(f"the panel of step {step}")
        wanted, made, rgb = [], [], []
        for seed, (frame, range_m) in enumerate(frames):
            batch = collate([frame], range_m).to(self.context.device)
            with torch.no_grad():
                pair = self.objective.picture(batch, [seed])
            images = [*pair, batch.rgb]
            for collected, image in zip((wanted, made, rgb), images, strict=True):
                collected.append(image[0].permute(1, 2, 0).float().cpu().numpy())
        if self.context.rank == 0:
            self.context.panel(step, *map(_stack_equal, (wanted, made, rgb)))

    def _save(self, step: int, loss: float) -> None:
        self.watch.together(f"the checkpoint of step {step}")
        folder = self.context.scratch()
        self.engine.save(folder, step)
        average = self.average.weights() if self.average else None
        if self.context.rank == 0:
            (folder / "progress.json").write_text(json.dumps({"step": step}))
            if average is not None:
                torch.save(average, folder / AVERAGE)
        self.context.checkpoint(step, {"step": float(step), "loss": loss}, folder)

    def _restore(self) -> int:
        self.watch.together("the last checkpoint")
        with self.context.restored() as folder:
            if folder is None:
                return 0
            step = self.engine.restore(folder)
            if self.average:
                self.average.restore(torch.load(folder / AVERAGE, mmap=True, weights_only=True))
            return step

    def measurement_batches(self) -> Iterator[TrainingBatch]:
        """The plan's first micro-batches, for what an objective measures on data at the end."""
        count = min(SCALE_BATCHES, self.plan.micro_batches)
        return iterate_batches(self.plan, self.reader, iter(range(count)), self.ranges_m)

    def processing_size(self) -> int:
        """The longest side in pixels of most of the images it is trained on."""
        return longest_side_px(self.plan, self.shards)


def _stack_equal(images: list[np.ndarray]) -> np.ndarray:
    """Stacks the images that have the first one's size."""
    return np.stack([image for image in images if image.shape == images[0].shape])
