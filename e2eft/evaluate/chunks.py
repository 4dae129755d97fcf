"""What one Ray task of the evaluation does: score the predictions of a few neighbouring frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from e2eft.data.sample import Sample
from e2eft.data.shards import ShardIndex, decode_row
from e2eft.errors import E2eftError
from e2eft.evaluate.protocols import ScoringProtocol, UnfitFrameError
from e2eft.evaluate.scores import BASELINE, NOT_APPLICABLE, SCORED, TOO_FEW, UNFIT, empty_row
from e2eft.labels.index import REJECTED, LabelIndex, picture_columns
from e2eft.labels.trees import LabelTree
from e2eft.storage import MissingError, StorageError


class UnscoredError(E2eftError):
    """A prediction that cannot be scored. `status` is counted."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(f"{status}: {detail}")
        self.status, self.detail = status, detail


@dataclass(frozen=True)
class Pair:
    """A dataset with the truth, and the labels to be scored against it."""

    shards: ShardIndex
    labels: LabelIndex | LabelTree

    @property
    def dataset(self) -> str:
        """The dataset's URI, as in the table."""
        return self.shards.artifact.uri


@dataclass(frozen=True)
class Job:
    """All that a task needs besides its chunk.

    baselines: the protocol's constant baseline of each domain, once it is fitted.
    baseline_pixels: that each image contributes to that fit.
    """

    protocol: ScoringProtocol
    pairs: tuple[Pair, ...]
    baselines: dict[str, list[float]] = field(default_factory=dict)
    baseline_pixels: int = 0


def plan_chunks(job: Job, keys: list[list[str]], frames: int) -> list[dict[str, str]]:
    """The chunks of all datasets, each with the label rows of its frames, as Ray Data items.

    Args:
        keys: the keys of each dataset, by row.
        frames: of a chunk, at most; a chunk lies within one part.
    """
    chunks: list[dict[str, str]] = []
    for number, pair in enumerate(job.pairs):
        # Another object than the job's, which would keep the whole table and take it to every task.
        rows = replace(pair.labels).label_rows(keys[number])
        starts = pair.shards.part_starts
        for part in range(len(pair.shards.rows_of_part)):
            for first in range(int(starts[part]), int(starts[part + 1]), frames):
                last = min(first + frames, int(starts[part + 1]))
                labels = [needed(rows.get(key)) for key in keys[number][first:last]]
                content = {"pair": number, "first": first, "labels": labels}
                chunks.append({"chunk": json.dumps(content)})
    return chunks


def needed(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """Of a label's row, what `read_prediction` asks for."""
    names = ("key", "status", "reason", "detail", "npy_path", *picture_columns())
    return row and {name: row[name] for name in names}


def _frames(job: Job, chunk: dict[str, Any]) -> Iterator[tuple[int, Sample, dict[str, Any] | None]]:
    """(row, frame, its label's row) of a chunk, decoded one by one."""
    shards, encoded, at = job.pairs[chunk["pair"]].shards, [], None
    for row, label in enumerate(chunk["labels"], chunk["first"]):
        part, group, offset = shards.locate(row)
        if at != (part, group):
            encoded, at = shards.read_group(part, group), (part, group)
        yield row, decode_row(encoded[offset]), label


def score_chunk(item: dict[str, Any], job: Job) -> list[dict[str, Any]]:
    """The table's rows of one chunk."""
    _one_thread()
    chunk = json.loads(item["chunk"])
    pair = job.pairs[chunk["pair"]]
    return [
        {"pair": chunk["pair"], "row": number, **score_frame(job, pair, sample, label)}
        for number, sample, label in _frames(job, chunk)
    ]


def sample_pixels(item: dict[str, Any], job: Job) -> list[dict[str, Any]]:
    """What each frame of a chunk contributes to the fit of its domain's baseline."""
    chunk = json.loads(item["chunk"])
    return [
        {
            "pair": chunk["pair"],
            "row": number,
            "domain": sample.source,
            "sampled": job.protocol.sampled_pixels(sample, job.baseline_pixels).tobytes(),
        }
        for number, sample, _ in _frames(job, chunk)
    ]


def score_frame(
    job: Job, pair: Pair, sample: Sample, label: dict[str, Any] | None
) -> dict[str, Any]:
    """One row of the table: scores, or the reason why there are none."""
    protocol, frame = job.protocol.reading(pair.labels.depth_target), sample
    size = sample.size
    row = empty_row(protocol) | {
        "dataset": pair.dataset,
        "key": sample.key,
        "scene": sample.scene,
        "domain": sample.source,
        "status": SCORED,
    }
    try:
        sample = protocol.view(sample)
    except UnfitFrameError as error:
        return row | {"status": UNFIT, "detail": str(error)}
    scored = protocol.scored(sample)
    row["pixels"] = int(scored.sum())
    if not row["pixels"]:
        return row | {"status": NOT_APPLICABLE, "detail": _why_none(protocol, frame)}
    if row["pixels"] < protocol.least_pixels:
        return row | {
            "status": TOO_FEW,
            "detail": f"{row['pixels']} in the protocol's range, "
            f"a fit needs {protocol.least_pixels}",
        }
    try:
        prediction = read_prediction(pair.labels, label, size, scored)
        if reason := protocol.why_not(prediction, sample):
            raise UnscoredError("no_fit", reason)
    except UnscoredError as error:
        return row | {"status": error.status, "detail": error.detail}
    baseline = protocol.baseline_prediction(job.baselines.get(sample.source, []), sample)
    errors = protocol.errors(baseline, sample)
    row |= {f"{BASELINE}{name}": value for name, value in errors.items()}
    row |= protocol.errors(prediction, sample)
    return row | {"inverted": protocol.is_inverted(prediction, sample)}


def _why_none(protocol: ScoringProtocol, sample: Sample) -> str:
    """Why no pixel of a frame can be scored."""
    if not np.isfinite(protocol.truth(sample)).any():
        return f"the image has no {protocol.task}, which {protocol.name} scores"
    return "no pixel in the protocol's range"


def read_prediction(
    labels: LabelIndex | LabelTree,
    label: dict[str, Any] | None,
    size: tuple[int, int],
    scored: np.ndarray,
) -> np.ndarray:
    """The prediction for a frame, at the size of `scored`.

    Args:
        size: (height, width) of the frame itself, if the protocol scores it at another; a label of
            that size is resized, one of the scored size is taken as it is.

    Raises:
        UnscoredError: missing, rejected, unreadable, wrong_size, not_finite or (depth) constant.
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
    if prediction.shape[:2] not in (size, scored.shape):
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (prediction.shape, size)]
        raise UnscoredError("wrong_size", f"{sizes[0]} pixels, the image has {sizes[1]}")
    if prediction.shape[:2] != scored.shape:
        prediction = labels.codec.resize(prediction, scored.shape)
    unknown = ~np.isfinite(prediction[scored])
    if unknown.any():
        count = int(unknown.reshape(len(unknown), -1).any(axis=1).sum())
        raise UnscoredError("not_finite", f"{count} of {len(unknown)} scored pixels")
    values = prediction[scored]
    if values.ndim == 1 and len(values) > 1 and values.min() == values.max():
        raise UnscoredError("constant", f"every scored pixel is {values[0]:g}")
    return prediction


def _one_thread() -> None:
    """Sums in another order round differently; one thread keeps numbers equal on every machine."""
    import torch

    torch.set_num_threads(1)
