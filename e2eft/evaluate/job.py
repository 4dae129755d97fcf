"""The Ray Data graph of the evaluation: chunks of frames out, rows of plain numbers back."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from e2eft.artifacts import ArtifactError
from e2eft.carried import TASK, carried, raise_carried
from e2eft.cluster import connect, is_local
from e2eft.data.shards import decode_row
from e2eft.evaluate.chunks import (
    Job,
    Pair,
    plan_chunks,
    read_prediction,
    sample_pixels,
    score_chunk,
)
from e2eft.evaluate.protocols import ScoringProtocol

BASELINE_PIXELS = 100_000
"""About as many true pixels take part in the fit of the constant baselines."""
PROGRESS_EVERY_S = 10.0


def score_rows(
    protocol: ScoringProtocol,
    pairs: tuple[Pair, ...],
    frames_per_task: int,
    tasks: int | None = None,
) -> list[dict[str, Any]]:
    """The table's rows of every frame, in the order of the datasets and of their rows.

    Args:
        tasks: at once; None: as many as there are CPUs.
    """
    job = Job(protocol, pairs)
    keys = [pair.shards.columns("key")["key"].to_pylist() for pair in pairs]
    for pair, names in zip(pairs, keys, strict=True):
        if len(set(names)) < len(names):
            raise ArtifactError(f"{pair.dataset} has frames of equal keys; prepare it again")
    chunks = plan_chunks(job, keys, frames_per_task)
    if protocol.fits_baseline:
        job = replace(job, baselines=_fit_baselines(job, chunks, keys, tasks))
    return _map_chunks(score_chunk, chunks, job, tasks, "scored")


def _fit_baselines(
    job: Job, chunks: list[dict[str, str]], keys: list[list[str]], tasks: int | None
) -> dict[str, list[float]]:
    """The protocol's constant baseline of each domain; every image weighs the same.

    Args:
        keys: of every frame, by pair, so that the order of frames does not matter.
    """
    count = int(np.clip(BASELINE_PIXELS // sum(map(len, keys)), 4, 512))
    job = replace(job, baseline_pixels=count)
    found = _map_chunks(sample_pixels, chunks, job, tasks, "surveyed")
    pixels: dict[str, list[np.ndarray]] = defaultdict(list)
    for row in sorted(found, key=lambda row: keys[row["pair"]][row["row"]]):
        vectors = np.frombuffer(row["sampled"], np.float32).reshape(-1, 3)
        pixels[row["domain"]].append(vectors)
    return {domain: job.protocol.fit_baseline(seen) for domain, seen in sorted(pixels.items())}


def _map_chunks(
    function: Callable[..., list[dict[str, Any]]],
    chunks: list[dict[str, str]],
    job: Job,
    tasks: int | None,
    done: str,
) -> list[dict[str, Any]]:
    """The rows that `function` makes of all chunks, in the frames' order."""
    total = sum(len(pair.shards) for pair in job.pairs)
    rows: list[dict[str, Any]] = []
    started = reported = time.monotonic()
    for row in _rows_as_they_come(function, chunks, job, tasks):
        rows.append(row)
        now = time.monotonic()
        if now - reported > PROGRESS_EVERY_S or len(rows) == total:
            reported = now
            print(
                f"{len(rows)}/{total} frames {done}  {len(rows) / max(now - started, 1e-6):.1f}/s",
                flush=True,
            )
    assert len(rows) == total, f"{len(rows)} of {total} frames came back"
    return sorted(rows, key=lambda row: (row["pair"], row["row"]))


def _rows_as_they_come(
    function: Callable[..., list[dict[str, Any]]],
    chunks: list[dict[str, str]],
    job: Job,
    tasks: int | None,
) -> Iterator[dict[str, Any]]:
    """The Ray Data job: one task a chunk, in whatever order they end."""
    import ray.data

    connect()
    at_once = ray.data.TaskPoolStrategy(size=tasks or _tasks_at_once(len(chunks)))
    dataset = ray.data.from_items(chunks, override_num_blocks=len(chunks)).flat_map(
        carried(function), fn_args=(job,), num_cpus=1, compute=at_once, **TASK
    )
    yield from raise_carried(dataset.iter_rows())


def _tasks_at_once(chunks: int) -> int:
    import ray

    cpus = ray.cluster_resources().get("CPU", 1)
    if is_local():
        # A local cluster declares more CPUs than there are, for stages that wait for each other.
        cpus = min(cpus, os.cpu_count() or 1)
    return max(1, min(chunks, int(cpus)))


def draw_panel(
    protocol: ScoringProtocol, pair: Pair, label: dict[str, Any], row: dict[str, Any]
) -> Image.Image:
    """The picture of one scored row: image, truth, prediction, error.

    Args:
        label: the row of its label.
    """
    protocol = protocol.reading(pair.labels.depth_target)
    part, group, offset = pair.shards.locate(row["row"])
    frame = decode_row(pair.shards.read_group(part, group)[offset])
    sample = protocol.view(frame)
    prediction = read_prediction(pair.labels, label, frame.size, protocol.scored(sample))
    metric = protocol.metrics[protocol.primary_metric]
    score = f"{protocol.primary_metric} {row[protocol.primary_metric]:.3g}{metric.unit}"
    return protocol.panel(prediction, sample, f"{sample.key}   {sample.source}   {score}")
