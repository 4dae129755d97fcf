"""What tests of labelling share: random models, configurations, and the graph without a cluster."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2eft.config import LabelConfig, TaskName, TrackingConfig
from e2eft.label.chunks import Work, decode_part, from_table, to_table, write_chunk

MODEL_SIZE = 64
UNTRACKED = TrackingConfig(enabled=False)


def write_model(folder: Path, task: str, initial: Any = "zeros", seed: int = 0) -> Path:
    """The blank model, made to see images and exported as an estimator of `task`."""
    import torch

    from e2eft.config import ModelConfig
    from e2eft.model.card import ModelCard
    from e2eft.model.pretrained import export_model, load_estimator
    from e2eft.model.source import find_model

    source = find_model("blank", folder / "scratch")
    estimator = load_estimator(source, ModelConfig(initial_latent=initial))
    torch.manual_seed(seed)
    with torch.no_grad():  # As initialized, its output hardly depends on its input.
        for parameter in estimator.codec.vae.decoder.parameters():  # type: ignore[union-attr]
            parameter.add_(torch.randn_like(parameter) * 0.1)
    card = ModelCard(task, initial_latent=initial, processing_size=MODEL_SIZE)
    return export_model(estimator, source, folder / "model", card)


def label_config(
    images: Path | str, out: Path | str, model: Path | str, **changes: Any
) -> LabelConfig:
    """Small parts, no tracking."""
    task: TaskName = "depth"
    fields: dict[str, Any] = {
        "model": str(model), "images": str(images), "out": str(out), "task": task,
        "images_per_part": 4, "batch_size": 3, "tracking": UNTRACKED,
    }  # fmt: skip
    return LabelConfig(**fields | changes)


def run_graph_in_process(
    config: LabelConfig,
    parts: list[tuple[int, list[dict[str, Any]]]],
    model: Any,
    works: tuple[Work, ...],
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """The same functions as on a cluster, one after the other."""
    from e2eft.label.labeller import Labeller, ShippedModel

    labeller = Labeller(ShippedModel(model.source, model.digest), config.task, config.sampling)
    for number, planned in parts:
        for items in decode_part(planned, works[number]):
            (made,) = from_table(labeller(to_table([items])))
            yield number, write_chunk(made, works[number])


@pytest.fixture
def without_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labelling in this test runs in this process."""
    monkeypatch.setattr("e2eft.label.graph.run_graph", run_graph_in_process)
    monkeypatch.setattr("e2eft.label.job.require_possible", lambda _: None)
