"""What no image may do to the others: kill their process, hold their memory, break their batch."""

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from e2eft import label
from e2eft.config import LabelConfig
from e2eft.label import graph
from e2eft.label.chunks import Item, Work
from e2eft.label.graph import Portion
from e2eft.label.labeller import Labeller
from e2eft.labels.index import open_labels
from tests.corpora import write_plain_corpus
from tests.labelling import label_config, run_graph_in_process, without_cluster, write_model

__all__ = ["without_cluster"]


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("depth"), "depth")


class Deadly:
    """A graph that loses every chunk from the one on that holds a deadly image, as Ray does when
    all its tries have ended in death."""

    def __init__(self, *indices: int) -> None:
        self.indices = set(indices)
        self.rounds: list[list[tuple[int, int]]] = []

    def run(
        self, config: LabelConfig, portions: list[Portion], model: Any, works: tuple[Work, ...]
    ) -> Iterator[tuple[int, pa.Table]]:
        self.rounds.append([(portion.start, portion.stop) for portion in portions])
        for portion in portions:
            for corpus, rows in run_graph_in_process(config, [portion], model, works):
                if self.indices & {*rows["index"].to_pylist()}:
                    break
                yield corpus, rows


@pytest.mark.usefixtures("without_cluster")
def test_images_that_kill_their_process_are_rejected_and_the_rest_is_labelled(
    depth_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_plain_corpus(tmp_path / "images", 10)
    deadly = Deadly(4, 6)
    monkeypatch.setattr(graph, "run_graph", deadly.run)
    config = label_config(images, tmp_path / "out", depth_model, batch_size=2)
    artifact = label.run(config)
    # Parts of 4, chunks of 2: the second part is lost whole, and only it is taken apart.
    alone = [(index, index + 1) for index in (4, 5, 6, 7)]
    assert deadly.rounds == [[(0, 4), (4, 8), (8, 10)], alone]
    assert artifact.counts == {"planned": 10, "ok": 8, "ok_degraded": 0, "rejected": 2}
    rows = {row["index"]: row for row in open_labels(config.out).rows()}
    assert {i for i, row in rows.items() if row["reason"] == "process_died"} == {4, 6}
    assert rows[4]["key"] == "004.png" and "each time" in rows[4]["detail"]


@pytest.mark.usefixtures("without_cluster")
def test_what_came_of_a_part_before_a_death_is_not_labelled_again(
    depth_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_plain_corpus(tmp_path / "images", 4)
    deadly = Deadly(3)
    monkeypatch.setattr(graph, "run_graph", deadly.run)
    label.run(label_config(images, tmp_path / "out", depth_model, batch_size=2))
    assert deadly.rounds == [[(0, 4)], [(2, 3), (3, 4)]]


def item(name: str) -> Item:
    return Item({"key": name, "seconds": 0.0}, name, array=np.zeros((2, 2, 3), np.uint8))


class Held:
    """Stands for the tensors of a forward pass."""


class Failing(Labeller):
    """Fails for images of some names, and for batches that hold one or are larger than `fits`."""

    def __init__(self, *names: str, fits: int = 99, error: type[Exception]) -> None:
        self.names, self.fits, self.error = names, fits, error
        self.sizes: list[int] = []
        self.held: list[weakref.ref[Held]] = []
        self.still_held = 0

    def _predict(self, items: list[Item]) -> list[np.ndarray]:
        self.still_held += sum(held() is not None for held in self.held)
        self.sizes.append(len(items))
        activations = Held()
        self.held.append(weakref.ref(activations))
        if len(items) > self.fits or {item.name for item in items} & {*self.names}:
            raise self.error("no luck")
        return [np.zeros((2, 2), np.float32) for _ in items]


def out_of_memory() -> type[Exception]:
    import torch

    return torch.OutOfMemoryError


def test_a_batch_that_does_not_fit_is_halved_and_holds_nothing_meanwhile() -> None:
    labeller = Failing("large", fits=1, error=out_of_memory())
    done = labeller.label([item("a"), item("large"), item("b")])
    assert labeller.sizes == [3, 2, 1, 1, 1]
    assert [one.row.get("reason", "") for one in done] == ["", "model_oom", ""]
    assert labeller.still_held == 0


def test_memory_that_the_machine_lacks_is_memory() -> None:
    labeller = Failing("large", error=MemoryError)
    assert labeller.label([item("large")])[0].row["reason"] == "model_oom"

    class Allocator(RuntimeError):
        def __str__(self) -> str:
            return "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"

    labeller = Failing("large", error=Allocator)
    assert labeller.label([item("large")])[0].row["reason"] == "model_oom"


def test_a_batch_on_which_the_model_fails_is_taken_apart() -> None:
    labeller = Failing("odd", error=RuntimeError)
    done = labeller.label([item(name) for name in ("a", "b", "odd", "c")])
    assert labeller.sizes == [4, 1, 1, 1, 1]
    assert [one.row.get("reason", "") for one in done] == ["", "", "model_failed", ""]
    assert done[2].row["detail"] == "RuntimeError: no luck" and done[2].array is None
    assert labeller.still_held == 0
