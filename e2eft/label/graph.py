"""The Ray Data graph of labelling, and the driver's ledger that commits parts as they come in."""

import os
import pickle
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from e2eft.cluster import connect, count_gpus, quiet_ray_data, require_room
from e2eft.config import LabelConfig
from e2eft.data.corpus import Corpus
from e2eft.data.labels import DEGRADED, INDEX_SCHEMA, OK, REJECTED, encode_index, part_path
from e2eft.label.chunks import Work, decode_part, from_table, to_table, write_chunk
from e2eft.storage import Store

PROGRESS_EVERY_S = 10.0


class WorkerError(ValueError):
    """What stopped a worker and its job: a store or model that cannot be reached or used."""


def decode_parts(table: pa.Table, work: Work) -> Iterator[pa.Table]:
    """Rows of parts to rows of chunks."""
    for packed in table["images"].to_pylist():
        for items in decode_part(pickle.loads(packed), work):
            yield to_table([items])


def write_chunks(table: pa.Table, work: Work) -> pa.Table:
    """Rows of chunks to rows of the index."""
    rows = [row for items in from_table(table) for row in write_chunk(items, work)]
    return pa.Table.from_pylist(rows, INDEX_SCHEMA)


@dataclass
class Ledger:
    """Collects index rows in any order, and commits every part whose rows are all there."""

    store: Store
    sizes: dict[int, int]
    waiting: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self.waiting.setdefault(row["part"], []).append(row)
        for part in {row["part"] for row in rows}:
            if len(self.waiting[part]) == self.sizes[part]:
                self.store.create(part_path(part), encode_index(self.waiting.pop(part)))


@dataclass
class Progress:
    """Counts and their rate, as lines that a log can keep."""

    planned: int
    before: int
    outcomes: Counter[str] = field(default_factory=Counter)
    started: float = field(default_factory=time.monotonic)
    reported: float = field(default_factory=time.monotonic)

    @property
    def images_per_s(self) -> float:
        return self.outcomes.total() / max(time.monotonic() - self.started, 1e-6)

    def add(self, rows: list[dict[str, Any]]) -> bool:
        """Whether it is time for a line."""
        self.outcomes.update(row["status"] for row in rows)
        done = self.before + self.outcomes.total()
        due = time.monotonic() - self.reported > PROGRESS_EVERY_S or done == self.planned
        if due:
            self.reported = time.monotonic()
        return due

    def line(self) -> str:
        done, rate = self.before + self.outcomes.total(), self.images_per_s
        return (
            f"{done}/{self.planned} images  {rate:.2f}/s  {self.outcomes[OK]} ok  "
            f"{self.outcomes[DEGRADED]} degraded  {self.outcomes[REJECTED]} rejected  "
            f"{(self.planned - done) / rate:.0f} s left"
        )


def label_parts(
    config: LabelConfig, store: Store, corpus: Corpus, model: Any, work: Work, parts: list[int]
) -> Iterator[Progress]:
    """Labels and commits these parts; yields from time to time how far it is.

    Args:
        model: the `PinnedModel`.

    Raises:
        ValueError: if the cluster has no room for `config.actors`.
        WorkerError: what a worker said that had to give up.
    """
    rows_of = {part: corpus.part(part, config.images_per_part) for part in parts}
    ledger = Ledger(store, {part: len(rows) for part, rows in rows_of.items()})
    progress = Progress(len(corpus), len(corpus) - sum(ledger.sizes.values()))
    for rows in run_graph(config, list(rows_of.values()), model, work):
        ledger.add(rows)
        if progress.add(rows):
            yield progress


def run_graph(
    config: LabelConfig, parts: list[list[dict[str, Any]]], model: Any, work: Work
) -> Iterator[list[dict[str, Any]]]:
    """Index rows in any order, each once, as soon as its files are written on whichever machine."""
    import ray.exceptions

    connect()
    quiet_ray_data()
    dataset = _graph(config, parts, model, work)
    try:
        for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield block.to_pylist()
    except ray.exceptions.RayError as error:
        raise _unwrapped(error) from error


def _graph(config: LabelConfig, parts: list[list[dict[str, Any]]], model: Any, work: Work) -> Any:
    import ray.data

    from e2eft.label.labeller import Labeller

    packed = [{"images": pickle.dumps(rows)} for rows in parts]
    common: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    on_cpu = {"num_cpus": config.decode_cpus, "fn_kwargs": {"work": work}}
    dataset: Any = ray.data.from_items(packed, override_num_blocks=len(packed))
    return (
        dataset.map_batches(decode_parts, **common, **on_cpu)
        .map_batches(
            Labeller,
            **common,
            **_resources(config),
            fn_constructor_args=(_ship(model), config.task, config.sampling),
            compute=ray.data.ActorPoolStrategy(size=config.actors),
        )
        .map_batches(write_chunks, **common, **on_cpu)
    )


def _resources(config: LabelConfig) -> dict[str, float]:
    """What an actor reserves: a GPU, or a CPU as long as the CPU tasks keep room beside it."""
    import ray

    if count_gpus():
        require_room(config.actors, 0, 1)
        return {"num_gpus": 1}
    spare = ray.cluster_resources().get("CPU", 1) - 2 * config.decode_cpus
    cpus = 1.0 if spare >= config.actors else 0.5
    if spare < cpus * config.actors:
        raise ValueError(
            f"--num-workers {config.actors}: beside decoding and writing the cluster's CPUs hold "
            f"{max(1, int(spare / cpus))}"
        )
    return {"num_cpus": cpus}


def _ship(model: Any) -> Any:
    """The model for the actors; through Ray's object store if they may run on other machines."""
    import numpy as np
    import ray

    from e2eft.label.labeller import ShippedModel
    from e2eft.model.pinned import model_files

    if len(ray.nodes()) == 1 and not os.environ.get("RAY_ADDRESS"):
        return ShippedModel(model.source, model.digest)
    files = model_files(model.source)
    refs = {name: ray.put(np.fromfile(path, np.uint8)) for name, path in files.items()}
    return ShippedModel(model.source, model.digest, refs)


_OWN_ERROR = re.compile(r"^e2eft\.[\w.]+Error: (.+)$", re.MULTILINE)


def _unwrapped(error: Exception) -> Exception:
    """What a worker said, if that was one of this project's errors, else Ray's account of it.

    Ray keeps a remote exception's text, not the exception.
    """
    said = _OWN_ERROR.findall(str(error))
    return WorkerError(said[-1]) if said else error
