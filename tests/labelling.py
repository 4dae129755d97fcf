"""What tests of labelling share: random models, configurations, and the graph without a cluster."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from e2eft.config import LabelConfig, TaskName, TrackingConfig
from e2eft.evaluate.chunks import Job
from e2eft.label.chunks import Work, unpacked_rows
from e2eft.label.graph import Portion, decode_portions, write_chunks

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
    config: LabelConfig, portions: list[Portion], model: Any, works: tuple[Work, ...]
) -> Iterator[tuple[int, pa.Table]]:
    """The same functions as on a cluster, one after the other."""
    from e2eft.label.labeller import Labeller, ShippedModel

    labeller = Labeller(ShippedModel(model.source, model.digest), config.task, config.sampling)
    for portion in portions:
        for chunk in decode_portions(pa.Table.from_pylist([vars(portion)]), works):
            for made in write_chunks(labeller(chunk), works):
                yield from unpacked_rows(made)


@pytest.fixture
def without_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labelling in this test runs in this process."""
    monkeypatch.setattr("e2eft.label.graph.run_graph", run_graph_in_process)
    monkeypatch.setattr("e2eft.label.job.require_possible", lambda _: None)


@pytest.fixture
def scored_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring in this test runs in this process."""

    def rows(function: Callable[..., Any], chunks: list[Any], task: Job, tasks: int | None) -> Any:
        return (row for chunk in chunks for row in function(chunk, task))

    monkeypatch.setattr("e2eft.evaluate.job._rows_as_they_come", rows)
