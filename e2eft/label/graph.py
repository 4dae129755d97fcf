"""The Ray Data graph of labelling, and the driver's ledger that commits parts as they come in."""

import pickle
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from e2eft.artifacts import Claim
from e2eft.cluster import (
    carried,
    connect,
    count_gpus,
    is_local,
    quiet_ray_data,
    raise_carried,
    require_room,
)
from e2eft.config import LabelConfig
from e2eft.data.corpus import Corpus
from e2eft.data.labels import DEGRADED, INDEX_SCHEMA, OK, REJECTED, encode_index, part_path
from e2eft.label.chunks import Work, decode_part, from_table, to_table, write_chunk

PROGRESS_EVERY_S = 10.0
CORPUS = "corpus"


def decode_parts(table: pa.Table, works: tuple[Work, ...]) -> Iterator[pa.Table]:
    """Rows of parts to rows of chunks."""
    for number, packed in zip(
        table["corpus"].to_pylist(), table["images"].to_pylist(), strict=True
    ):
        for items in decode_part(pickle.loads(packed), works[number]):
            yield to_table([items])


def write_chunks(table: pa.Table, works: tuple[Work, ...]) -> pa.Table:
    """Rows of chunks to rows of the index, each with the number of its corpus."""
    chunks = from_table(table)
    rows = [row for items in chunks for row in write_chunk(items, works[items[0].corpus])]
    numbers = [item.corpus for items in chunks for item in items]
    return pa.Table.from_pylist(rows, INDEX_SCHEMA).append_column(
        CORPUS, pa.array(numbers, pa.int32())
    )


@dataclass(frozen=True)
class Backlog:
    """What is still to be labelled of one corpus."""

    claim: Claim
    corpus: Corpus
    work: Work
    rows_of_part: dict[int, list[dict[str, Any]]]


@dataclass
class Ledger:
    """Collects index rows in any order, and commits every part whose rows are all there."""

    claim: Claim
    sizes: dict[int, int]
    waiting: dict[int, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            self.waiting.setdefault(row["part"], []).append(row)
        for part in {row["part"] for row in rows}:
            if len(self.waiting[part]) == self.sizes[part]:
                content = encode_index(self.waiting.pop(part), self.claim.digest)
                self.claim.require_owner(fresh=True)
                self.claim.writer.create(part_path(part), content)


@dataclass
class Progress:
    """Counts of each corpus, their sum and its rate, as lines that a log can keep."""

    planned: int
    before: int
    corpora: list[Counter[str]]
    started: float = field(default_factory=time.monotonic)
    reported: float = field(default_factory=time.monotonic)

    @property
    def outcomes(self) -> Counter[str]:
        return sum(self.corpora, Counter())

    @property
    def images_per_s(self) -> float:
        return self.outcomes.total() / max(time.monotonic() - self.started, 1e-6)

    def add(self, corpus: int, rows: list[dict[str, Any]]) -> bool:
        """Whether it is time for a line."""
        self.corpora[corpus].update(row["status"] for row in rows)
        done = self.before + self.outcomes.total()
        due = time.monotonic() - self.reported > PROGRESS_EVERY_S or done == self.planned
        if due:
            self.reported = time.monotonic()
        return due

    def line(self) -> str:
        outcomes, rate = self.outcomes, self.images_per_s
        done = self.before + outcomes.total()
        return (
            f"{done}/{self.planned} images  {rate:.2f}/s  {outcomes[OK]} ok  "
            f"{outcomes[DEGRADED]} degraded  {outcomes[REJECTED]} rejected  "
            f"{(self.planned - done) / rate:.0f} s left"
        )


def label_parts(config: LabelConfig, model: Any, backlogs: list[Backlog]) -> Iterator[Progress]:
    """Labels and commits what is left of the corpora; yields from time to time how far it is.

    Args:
        config: model, task, sampling and resources, which all of the corpora share.
        model: the `PinnedModel`.

    Raises:
        ValueError: if the cluster has no room for `config.actors`.
        E2eftError: of a worker that had to give up, e.g. a `StorageError` or `ModelError`.
    """
    sizes = [{part: len(rows) for part, rows in b.rows_of_part.items()} for b in backlogs]
    ledgers = [Ledger(b.claim, size) for b, size in zip(backlogs, sizes, strict=True)]
    planned = sum(len(b.corpus) for b in backlogs)
    left = sum(sum(size.values()) for size in sizes)
    progress = Progress(planned, planned - left, [Counter() for _ in backlogs])
    parts = [(b.work.corpus, rows) for b in backlogs for rows in b.rows_of_part.values()]
    for corpus, rows in run_graph(config, parts, model, tuple(b.work for b in backlogs)):
        ledgers[corpus].add(rows)
        if progress.add(corpus, rows):
            yield progress


def run_graph(
    config: LabelConfig,
    parts: list[tuple[int, list[dict[str, Any]]]],
    model: Any,
    works: tuple[Work, ...],
) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Index rows with the number of their corpus, in any order, each once, as soon as its files
    are written on whichever machine.

    Args:
        parts: the number of a corpus in `works`, and the plan of a part of it.
    """
    connect()
    quiet_ray_data()
    dataset = _graph(config, parts, model, works)
    for block in raise_carried(dataset.iter_batches(batch_size=None, batch_format="pyarrow")):
        for number in block[CORPUS].unique().to_pylist():
            rows = block.filter(pc.field(CORPUS) == number).drop_columns([CORPUS])
            yield number, rows.to_pylist()


def _graph(
    config: LabelConfig,
    parts: list[tuple[int, list[dict[str, Any]]]],
    model: Any,
    works: tuple[Work, ...],
) -> Any:
    import ray.data

    from e2eft.label.labeller import Labeller

    packed = [{CORPUS: number, "images": pickle.dumps(rows)} for number, rows in parts]
    common: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    on_cpu = {"num_cpus": config.decode_cpus, "fn_kwargs": {"works": works}}
    dataset: Any = ray.data.from_items(packed, override_num_blocks=len(packed))
    return (
        dataset.map_batches(carried(decode_parts), **common, **on_cpu)
        .map_batches(
            carried(Labeller),
            **common,
            **reserved(config),
            fn_constructor_args=(_ship(model), config.task, config.sampling),
            compute=ray.data.ActorPoolStrategy(size=config.actors),
        )
        .map_batches(carried(write_chunks), **common, **on_cpu)
    )


def reserved(config: LabelConfig) -> dict[str, float]:
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

    if len(ray.nodes()) == 1 and is_local():
        return ShippedModel(model.source, model.digest)
    files = model_files(model.source)
    refs = {name: ray.put(np.fromfile(path, np.uint8)) for name, path in files.items()}
    return ShippedModel(model.source, model.digest, refs)
