"""What follows from the datasets that a run mixes: how far each is supervised, and the usual size
of a frame."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from e2eft.artifacts import ArtifactError
from e2eft.data.batches import SamplingPlan
from e2eft.data.shards import SCHEMA, ShardIndex
from e2eft.datasets import dataset_of

FRAMES_LOOKED_AT = 16
"""Of each dataset, spread evenly, for the size of its frames."""
_ALL_BUT_SIZE = frozenset(SCHEMA.names) - {"height", "width"}


def depth_ranges_m(given: Sequence[float], shards: list[ShardIndex]) -> tuple[float, ...]:
    """Depth in metres up to which each dataset is supervised: what is given, else what the dataset
    is trained with that the shards were made from."""
    if given:
        return tuple(given)
    sources = (index.artifact.details.get("source", "") for index in shards)
    return tuple(dataset_of(source).supervised_range_m for source in sources)


def require_one_making(shards: Sequence[ShardIndex], task: str) -> None:
    """Raises ArtifactError if frames of one source come with maps of a task that were made in two
    ways: with normals of depth, say."""
    first: dict[str, ShardIndex] = {}
    for index in shards:
        other = first.setdefault(index.artifact.details.get("source", ""), index)
        then, now = (one.artifact.details.get("provenance", {}).get(task)
                     for one in (other, index))  # fmt: skip
        if then != now:
            raise ArtifactError(
                f"{other.artifact.uri} has {task} made as {then!r}, {index.artifact.uri} as "
                f"{now!r}: prepare one of them again in the other's way, or train without it"
            )


def longest_side_px(plan: SamplingPlan, shards: list[ShardIndex]) -> int:
    """The longest image side that most samples of the plan have: by the datasets' shares, whichever
    comes first under a seed; of equal shares, the first dataset's."""
    shares: Counter[int] = Counter()
    for index, length, weight in zip(shards, plan.lengths, plan.weights, strict=True):
        rows = sorted(set(np.linspace(0, length - 1, FRAMES_LOOKED_AT).round().astype(int)))
        sides = Counter(_longest_side_px(index, int(row)) for row in rows)
        for side, count in sides.items():
            shares[side] += weight * count / len(rows)  # type: ignore[assignment]
    return max(shares, key=lambda side: shares[side])


def _longest_side_px(index: ShardIndex, row: int) -> int:
    part, group, offset = index.locate(row)
    size = index.read_group(part, group, _ALL_BUT_SIZE)[offset]
    return max(size["height"], size["width"])
