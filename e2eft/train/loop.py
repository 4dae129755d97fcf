"""The training loop, against a TrainContext, an engine and an objective; it knows none of them."""

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from e2eft.config import ScheduleConfig, TrainConfig
from e2eft.data.batches import FrameReader, SamplingPlan, TrainingBatch, collate, iterate_batches
from e2eft.data.shards import ShardIndex
from e2eft.train.objectives import Objective

LOG_EVERY_STEPS = 10
MAX_SKIPPED_STEPS = 20
SCALE_BATCHES = 16
"""Micro-batches read at the end for what an objective measures on data."""


class TrainingError(RuntimeError):
    """Training cannot go on: a non-finite loss or too many skipped steps."""


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


class WindowStatistics:
    """Losses and timings since the last log line, kept on the device until then."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []
        self.keys: list[list[str]] = []
        self.norms: list[Tensor] = []
        self.started = time.perf_counter()
        self.steps = 0
        self.waited_s = 0.0

    def mean_loss(self) -> float:
        """Synchronizes with the device.

        Raises:
            TrainingError: if a loss is not finite, with the keys of its micro-batch.
        """
        losses = torch.stack(self.losses).cpu()
        bad = (~torch.isfinite(losses)).nonzero().flatten().tolist()
        if bad:
            keys = ", ".join(self.keys[bad[0]])
            raise TrainingError(
                f"the loss is {losses[bad[0]]:g} on the micro-batch of frames {keys}; "
                "lower --lr, or drop these frames"
            )
        return float(losses.mean())


class Loop:
    """One run: from the restored step to the last, with logs, panels and checkpoints on the way.

    cached_latents: train on the shards' latents of the colour images, which must be of this VAE.
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
    ) -> None:
        self.context, self.config, self.engine, self.objective = context, config, engine, objective
        self.plan = make_plan(config, shards)
        self.reader = FrameReader(
            shards,
            keep_bytes=int(config.data.keep_gb * 1e9),
            latents=cached_latents,
            truth=objective.truth,
        )
        self.panel_shards = panel_shards
        self.rate = LearningRate(config.optimizer.lr, config.schedule)
        self.ema: dict[str, Tensor] | None = None

    def run(self) -> dict[str, Tensor]:
        """Trains to the end; returns the full fp32 weights (or their moving average)."""
        step = self._restore()
        batches = self._batches(step)
        window = WindowStatistics()
        loss = 0.0
        total = self.config.schedule.max_steps
        while step < total:
            rate = self.rate(step)
            norm = self._optimizer_step(batches, rate, window)
            step += 1
            self._update_ema()
            if step % LOG_EVERY_STEPS == 0 or step == total or step == 1:
                loss = window.mean_loss()
                self._log(step, rate, norm, loss, window)
                window = WindowStatistics()
            if self.config.panel.frames and (
                step % self.config.panel.every_steps == 0 or step == total
            ):
                self._panel(step)
            if step % self.config.checkpoint.every_steps == 0 or step == total:
                self._save(step, window.mean_loss() if window.losses else loss)
        return self.ema or self.engine.weights()

    def _batches(self, step: int) -> Iterator[TrainingBatch]:
        context, plan = self.context, self.plan
        steps = range(step, self.config.schedule.max_steps)
        accumulation = self.config.accumulation_steps
        indices = chain.from_iterable(
            plan.of_rank(s, context.rank, context.world_size, accumulation) for s in steps
        )
        data, pin = self.config.data, context.device.type == "cuda"
        return iterate_batches(
            plan, self.reader, indices, data.max_depth_m, data.decode_threads, pin=pin
        )

    def _optimizer_step(
        self, batches: Iterator[TrainingBatch], rate: float, window: WindowStatistics
    ) -> Tensor | float | None:
        norm: Tensor | float | None = None
        self.engine.set_lr(rate)
        for _ in range(self.config.accumulation_steps):
            waiting = time.perf_counter()
            loaded = next(batches)
            window.waited_s += time.perf_counter() - waiting
            batch = loaded.batch.to(self.context.device, non_blocking=True)
            loss = self.objective.loss(replace(loaded, batch=batch))
            self.engine.backward(loss)
            norm = self.engine.step()
            window.losses.append(loss.detach())
            window.keys.append(batch.keys)
        window.steps += 1
        return norm

    def _log(
        self,
        step: int,
        rate: float,
        norm: Tensor | float | None,
        loss: float,
        window: WindowStatistics,
    ) -> None:
        if self.engine.skipped_steps > MAX_SKIPPED_STEPS:
            raise TrainingError(
                f"{self.engine.skipped_steps} optimizer steps were skipped because of "
                "non-finite gradients; lower --lr or use --precision fp32"
            )
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
        reader = FrameReader(shards)
        numbers = [divmod(i, len(shards)) for i in range(self.config.panel.frames)]
        frames = [
            reader.read(dataset, row) for row, dataset in numbers if row < len(shards[dataset])
        ]
        wanted, made, rgb = [], [], []
        for seed, frame in enumerate(frames):
            batch = collate([frame], self.config.data.max_depth_m).to(self.context.device)
            with torch.no_grad():
                pair = self.objective.picture(batch, [seed])
            images = [*pair, batch.rgb]
            for collected, image in zip((wanted, made, rgb), images, strict=True):
                collected.append(image[0].permute(1, 2, 0).float().cpu().numpy())
        if self.context.rank == 0:
            self.context.panel(step, *map(_stack_equal, (wanted, made, rgb)))

    def _update_ema(self) -> None:
        decay = self.config.checkpoint.ema_decay
        if decay is None:
            return
        weights = self.engine.weights()
        if self.ema is None:
            self.ema = weights
            return
        for name, weight in weights.items():
            if weight.is_floating_point():
                self.ema[name].lerp_(weight, 1 - decay)

    def _save(self, step: int, loss: float) -> None:
        folder = self.context.scratch()
        self.engine.save(folder, step)
        if self.context.rank == 0:
            (folder / "progress.json").write_text(json.dumps({"step": step}))
            if self.ema is not None:
                torch.save(self.ema, folder / "ema.pt")
        self.context.checkpoint(step, {"step": float(step), "loss": loss}, folder)

    def _restore(self) -> int:
        with self.context.restored() as folder:
            if folder is None:
                return 0
            step = self.engine.restore(folder)
            if (folder / "ema.pt").exists():
                self.ema = torch.load(folder / "ema.pt", weights_only=True)
            return step

    def measurement_batches(self) -> Iterator[TrainingBatch]:
        """The plan's first micro-batches, for what an objective measures on data at the end."""
        count = min(SCALE_BATCHES, self.plan.micro_batches)
        return iterate_batches(
            self.plan, self.reader, iter(range(count)), self.config.data.max_depth_m
        )


def _stack_equal(images: list[np.ndarray]) -> np.ndarray:
    """Stacks the images that have the first one's size."""
    return np.stack([image for image in images if image.shape == images[0].shape])
