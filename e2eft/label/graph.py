"""The Ray Data graph of labelling."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from e2eft.carried import ACTOR, RETRIES, TASK, carried, raise_carried
from e2eft.cluster import (
    connect,
    count_gpus,
    is_local,
    quietly_started,
    require_room,
)
from e2eft.config import LabelConfig
from e2eft.corpora.corpus import planned_rows
from e2eft.corpora.reading import ANY_SIZE
from e2eft.label.books import Books, Portion
from e2eft.label.chunks import (
    Work,
    decode_part,
    from_table,
    lost_row,
    packed_rows,
    to_table,
    unpacked_rows,
    write_chunk,
)
from e2eft.label.progress import Progress

log = logging.getLogger(__name__)


def decode_portions(table: pa.Table, works: tuple[Work, ...]) -> Iterator[pa.Table]:
    """Rows of portions to rows of chunks."""
    for row in table.to_pylist():
        portion = Portion(**row)
        work = works[portion.corpus]
        planned = planned_rows(work.writer.store, portion.start, portion.stop)
        if work.as_it_is:
            planned = [row | {"size_bytes": ANY_SIZE} for row in planned]
        for items in decode_part(planned, work):
            yield to_table([items])


def write_chunks(table: pa.Table, works: tuple[Work, ...]) -> Iterator[pa.Table]:
    """Rows of chunks to rows of the index, those of a chunk packed into one."""
    for items in from_table(table):
        corpus = items[0].corpus
        yield packed_rows(corpus, write_chunk(items, works[corpus]))


def label_parts(config: LabelConfig, model: Any, ledgers: Sequence[Books]) -> Iterator[Progress]:
    """Labels what is left of the corpora, into their ledgers; yields from time to time how far it
    is.

    Images that shared a process which kept dying are labelled one by one; one that does it alone is
    rejected.

    Args:
        config: model, task, sampling and resources, which all of the corpora share; the size at
            which the model sees a corpus is its ledger's `work`'s.
        model: the `PinnedModel`.
        ledgers: in the order of their corpora's numbers.

    Raises:
        ValueError: if the cluster has no room for `config.actors`.
        E2eftError: of a worker that had to give up, e.g. a `StorageError` or `ModelError`.
    """
    planned = sum(len(ledger.corpus) for ledger in ledgers)
    left = sum(ledger.images for ledger in ledgers)
    progress = Progress(planned, planned - left, [Counter() for _ in ledgers])
    works = tuple(ledger.work for ledger in ledgers)

    def entered(coming: Iterable[tuple[int, pa.Table]]) -> Iterator[Progress]:
        for corpus, rows in coming:
            ledgers[corpus].add(rows)
            if progress.add(corpus, rows):
                yield progress

    portions = [portion for ledger in ledgers for portion in ledger.portions]
    yield from entered(run_graph(config, portions, model, works))
    if alone := _lost(ledgers):
        log.warning(
            "%d images are left of parts during which a process died %d times; they are labelled "
            "one at a time",
            len(alone),
            RETRIES + 1,
        )
        yield from entered(run_graph(config, alone, model, works))
        yield from entered(
            (one.corpus, lost_row(works[one.corpus], one.start)) for one in _lost(ledgers)
        )


def _lost(ledgers: Sequence[Books]) -> list[Portion]:
    return [
        Portion(ledger.work.corpus, index, index + 1)
        for ledger in ledgers
        for index in ledger.lost()
    ]


def run_graph(
    config: LabelConfig, portions: list[Portion], model: Any, works: tuple[Work, ...]
) -> Iterator[tuple[int, pa.Table]]:
    """Index rows with the number of their corpus, in any order, each at most once, as soon as its
    files are written on whichever machine.

    Missing are rows of images that shared a portion with one that its process did not survive.
    """
    from ray.data import DataContext

    connect()
    context = DataContext.get_current().copy()
    # What is lost with a process is missed by the ledger, and must not end the rest.
    context.max_errored_blocks = -1
    # A chunk goes on as soon as it is there.
    context.target_max_block_size = 1
    with DataContext.current(context):
        dataset = _graph(config, portions, model, works)
    with _without_tracebacks():
        blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow")
        for block in raise_carried(quietly_started(blocks)):
            yield from unpacked_rows(block)


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Keeps quiet what Ray Data prints for a block that is lost."""
    printing = logging.getLogger("ray.data._internal.execution.streaming_executor_state")
    before = printing.level
    printing.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        printing.setLevel(before)


def _graph(
    config: LabelConfig, portions: list[Portion], model: Any, works: tuple[Work, ...]
) -> Any:
    import ray.data

    from e2eft.label.labeller import Labeller

    common: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    on_cpu = {
        "num_cpus": config.decode_cpus,
        "memory": _memory(works),
        **TASK,
        "fn_kwargs": {"works": works},
    }
    alone = all(len(portion) == 1 for portion in portions)
    # Who shares an actor's queue with a deadly image would be retried as often.
    pool = ray.data.ActorPoolStrategy(
        size=config.actors, max_tasks_in_flight_per_actor=1 if alone else None
    )
    dataset: Any = ray.data.from_items(
        [vars(portion) for portion in portions], override_num_blocks=len(portions)
    )
    return (
        dataset.map_batches(carried(decode_portions, defects=True), **common, **on_cpu)
        .map_batches(
            carried(Labeller, defects=True),
            **common,
            **reserved(config),
            **ACTOR,
            fn_constructor_args=(_ship(model), config.task, config.sampling),
            compute=pool,
        )
        .map_batches(carried(write_chunks, defects=True), **common, **on_cpu)
    )


def _memory(works: tuple[Work, ...]) -> float:
    """What a task declares, so that Ray does not start more of them at once than a machine has
    memory for; no more than lets two of them run on the largest one."""
    import ray

    largest = max(node["Resources"].get("memory", 0.0) for node in ray.nodes() if node["Alive"])
    return min(max(work.peak_bytes for work in works), largest // 2)


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
