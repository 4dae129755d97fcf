"""Objectives on a blank model and on analytic frames, for their tests."""

from pathlib import Path
from typing import Any

from e2eft.data.batch import Batch
from e2eft.data.batches import TrainingBatch, collate
from tests.frames import analytic_frame
from tests.tiny_models import enliven
from tests.training import blank_objective, train_config

DIFFUSION = {"kind": "diffusion", "conditional": True}
IMAGES = {"kind": "diffusion", "conditional": False}
SEEDS = [5, 6]


def frames(count: int = 2, sky: bool = False) -> Batch:
    """Analytic frames of 32 x 40 pixels."""
    samples = [analytic_frame(number, 32, 40, sky=sky) for number in range(count)]
    return collate(samples, 80.0)


def training(batch: Batch) -> TrainingBatch:
    """A micro-batch of at most two frames, with seeds."""
    return TrainingBatch(batch, SEEDS[: len(batch)])


def objective_of(models: Path, **changes: Any) -> Any:
    """The objective of a run with these changes, on the blank model made lively."""
    objective = blank_objective(train_config("d", **changes), models)
    enliven(objective.estimator)
    return objective
