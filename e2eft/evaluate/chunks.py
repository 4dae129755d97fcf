"""What one Ray task of the evaluation does: score the predictions of a few neighbouring frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from e2eft.data.labels import REJECTED, LabelIndex
from e2eft.data.sample import Sample
from e2eft.data.shards import ROWS_PER_GROUP, ShardIndex, decode_row
from e2eft.evaluate.protocols import ScoringProtocol
from e2eft.evaluate.scores import CONSTANT, NOT_APPLICABLE, SCORED, empty_row
from e2eft.storage import MissingError, StorageError

GROUPS_PER_CHUNK = 4
"""Row groups of a shard file in one task: 32 frames."""


class UnscoredError(ValueError):
    """A prediction that cannot be scored. `status` is counted."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Pair:
    """A dataset with the truth, and the labels to be scored against it."""

    shards: ShardIndex
    labels: LabelIndex

    @property
    def dataset(self) -> str:
        """The dataset's URI, as in the table."""
        return self.shards.artifact.uri


@dataclass(frozen=True)
class Job:
    """All that a task needs besides its chunk.

    constants: the protocol's constant of each domain, once it is fitted.
    """

    protocol: ScoringProtocol
    pairs: tuple[Pair, ...]
    constants: dict[str, list[float]] = field(default_factory=dict)
    evidence_pixels: int = 0


def plan_chunks(job: Job, keys: list[list[str]]) -> list[dict[str, str]]:
    """The chunks of all datasets, each with the label rows of its frames, as Ray Data items.

    Args:
        keys: the keys of each dataset, by row.
    """
    chunks: list[dict[str, str]] = []
    for number, pair in enumerate(job.pairs):
        # Another index than the job's, which would keep the whole table and take it to every task.
        index = LabelIndex(pair.labels.artifact)
        rows = {row["key"]: _needed(row) for row in index.rows()}
        starts = pair.shards.part_starts
        for part in range(len(pair.shards.rows_of_part)):
            step = GROUPS_PER_CHUNK * ROWS_PER_GROUP
            for first in range(int(starts[part]), int(starts[part + 1]), step):
                last = min(first + step, int(starts[part + 1]))
                labels = [rows.get(key) for key in keys[number][first:last]]
                content = {"pair": number, "first": first, "labels": labels}
                chunks.append({"chunk": json.dumps(content)})
    return chunks


_NEEDED = ("key", "status", "reason", "detail", "npy_path", "depth_path", "normals_path")


def _needed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in _NEEDED}


def _frames(job: Job, chunk: dict[str, Any]) -> Iterator[tuple[int, Sample, dict[str, Any] | None]]:
    """(row, frame, its label's row) of a chunk, decoded one by one."""
    shards, row = job.pairs[chunk["pair"]].shards, chunk["first"]
    labels = chunk["labels"]
    for start in range(0, len(labels), ROWS_PER_GROUP):
        part, group, _ = shards.locate(row + start)
        encoded = shards.read_group(part, group)
        for offset, label in enumerate(labels[start : start + ROWS_PER_GROUP]):
            yield row + start + offset, decode_row(encoded[offset]), label


def score_chunk(item: dict[str, Any], job: Job) -> list[dict[str, Any]]:
    """The table's rows of one chunk."""
    _one_thread()
    chunk = json.loads(item["chunk"])
    pair = job.pairs[chunk["pair"]]
    return [
        {"pair": chunk["pair"], "row": number, **score_frame(job, pair, sample, label)}
        for number, sample, label in _frames(job, chunk)
    ]


def collect_evidence(item: dict[str, Any], job: Job) -> list[dict[str, Any]]:
    """What each frame of a chunk contributes to the fit of its domain's constant."""
    chunk = json.loads(item["chunk"])
    return [
        {
            "pair": chunk["pair"],
            "row": number,
            "domain": sample.source,
            "evidence": job.protocol.evidence(sample, job.evidence_pixels).tobytes(),
        }
        for number, sample, _ in _frames(job, chunk)
    ]


def score_frame(
    job: Job, pair: Pair, sample: Sample, label: dict[str, Any] | None
) -> dict[str, Any]:
    """One row of the table: scores, or the reason why there are none."""
    protocol = job.protocol
    scored = protocol.scored(sample)
    row = empty_row(protocol) | {
        "dataset": pair.dataset,
        "key": sample.key,
        "scene": sample.scene,
        "domain": sample.source,
        "status": SCORED,
        "pixels": int(scored.sum()),
    }
    if not row["pixels"]:
        return row | {"status": NOT_APPLICABLE, "detail": "no pixel in the protocol's range"}
    try:
        prediction = read_prediction(pair.labels, label, scored)
    except UnscoredError as error:
        return row | {"status": error.status, "detail": error.detail}
    constant = protocol.spread(job.constants.get(sample.source, []), sample)
    baseline = protocol.errors(constant, sample)
    row |= {f"{CONSTANT}{name}": value for name, value in baseline.items()}
    return row | protocol.errors(prediction, sample)


def read_prediction(
    labels: LabelIndex, label: dict[str, Any] | None, scored: np.ndarray
) -> np.ndarray:
    """The prediction for a frame.

    Raises:
        UnscoredError: missing, rejected, unreadable, wrong_size or not_finite.
    """
    if label is None:
        raise UnscoredError("missing", "the labels have no image of this key")
    if label["status"] == REJECTED:
        raise UnscoredError("rejected", ": ".join(filter(None, (label["reason"], label["detail"]))))
    try:
        prediction = labels.read(label)
    except MissingError as error:
        raise UnscoredError("missing", str(error)) from error
    except StorageError:
        # Any other trouble with a store is no prediction's fault, and stops the job.
        raise
    except (ValueError, OSError) as error:
        raise UnscoredError("unreadable", f"{type(error).__name__}: {error}") from error
    if prediction.shape[:2] != scored.shape:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (prediction.shape, scored.shape)]
        raise UnscoredError("wrong_size", f"{sizes[0]} pixels, the truth has {sizes[1]}")
    unknown = ~np.isfinite(prediction[scored])
    if unknown.any():
        count = int(unknown.reshape(len(unknown), -1).any(axis=1).sum())
        raise UnscoredError("not_finite", f"{count} of {len(unknown)} scored pixels")
    return prediction


def _one_thread() -> None:
    """Sums in another order round differently; one thread keeps numbers equal on every machine."""
    import torch

    torch.set_num_threads(1)
