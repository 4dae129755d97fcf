"""Every ZeRO stage, precision and way of averaging that is allowed, run to an exported model."""

from collections.abc import Iterable
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file

from e2eft.config import TrainConfig
from e2eft.data.batches import FrameReader, PlannedFrame
from e2eft.data.shards import open_shards
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import find_model
from e2eft.tasks import get_task
from tests.training import export_and_export_again, spawn, train_config

STAGES = [(0, "fp32"), *product((1, 2, 3), ("fp32", "bf16"))]
OBJECTIVES = {
    "end-to-end": {"kind": "end-to-end"},
    "diffusion": {"kind": "diffusion"},
    "autoencoding": {"kind": "autoencoding"},
}
STEPS = 3


def combinations(
    uri: str, stages: Iterable[tuple[int, str]] = STAGES, objective: str = "end-to-end"
) -> dict[str, TrainConfig]:
    """With a moving average, and the first and the last one without, by name."""
    stages = list(stages)
    return {
        f"{objective}-zero{stage}-{precision}-{'ema' if decay else 'plain'}": train_config(
            uri,
            objective=OBJECTIVES[objective],
            zero={"stage": stage, "precision": precision},
            batch={"global_size": 2, "micro_size": 1},
            schedule={"max_steps": STEPS},
            checkpoint={"every_steps": 2, "ema_decay": decay},
            scaling={"num_workers": 2},
            panel={"frames": 1, "every_steps": 2},
        )
        for decay, chosen in ((0.5, stages), (None, [stages[0], stages[-1]]))
        for stage, precision in chosen
    }


def require_exported_models(folder: Path, configs: dict[str, TrainConfig]) -> None:
    """Runs each in two processes; the model must load, predict and score. Those with a moving
    average, whose checkpoints hold all that the others' do, are killed and resumed too, and must
    end in the same model."""
    spawn(folder, 2, configs, export_and_export_again)
    for name, config in configs.items():
        require_scores(folder / name / "undisturbed-steps" / "model", config)
        if config.checkpoint.ema_decay is None:
            continue
        files = [
            sorted((folder / name / f"{out}-steps" / "model").glob("*/*.safetensors"))
            for out in ("undisturbed", "resumed")
        ]
        assert [path.name for path in files[0]] == [path.name for path in files[1]], name
        for undisturbed, resumed in zip(*files, strict=True):
            first, second = load_file(undisturbed), load_file(resumed)
            assert first.keys() == second.keys()
            for key, weight in first.items():
                assert torch.equal(weight, second[key]), f"{name}: {undisturbed.name} {key}"


def require_scores(model: Path, config: TrainConfig) -> None:
    """The exported model predicts something finite that its task can score."""
    estimator = load_estimator(find_model(str(model)))
    reader = FrameReader([open_shards(uri) for uri in config.data.uris])
    batch = reader.batch([PlannedFrame(0, row, False, row) for row in range(2)], 80.0)
    with torch.no_grad():
        if estimator.card.task == "image":
            image = estimator.codec.decode(estimator.codec.encode(batch.rgb))
        else:
            image = estimator(batch.rgb, initial=estimator.card.initial_latent)
    task = get_task("depth")
    prediction = task.decode(image)
    assert prediction.isfinite().all() and prediction.std() > 0
    for score, values in task.errors(prediction, batch).items():
        assert values.isfinite().all(), score
