"""The sampling plan: which frames a training step reads, as a pure function of a seed.

The plan is a sequence of micro-batches, numbered over the whole run. Each comes from one dataset,
drawn by weight; within a dataset frames are walked in seeded epochs. Optimizer step k consists of
the micro-batches [k M, (k+1) M), M = global batch / micro-batch; rank r of W takes every W-th of
them. So ranks never read the same frame, a resumed run continues at the exact sample, and another
number of workers trains on the same global batches.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch

from e2eft.data.batch import Batch, rgb_tensor
from e2eft.data.modalities import MODALITIES
from e2eft.data.sample import Sample, is_constant
from e2eft.data.shards import ROWS_PER_GROUP, ShardIndex, decode_row
from e2eft.data.transforms import flip_sample
from e2eft.errors import E2eftError

CHOICE_STREAM, ORDER_STREAM, FLIP_STREAM, NOISE_STREAM = range(4)


def stream(seed: int, *path: int) -> np.random.Generator:
    """An independent random stream for each (seed, path)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *path])))


@dataclass(frozen=True)
class PlannedFrame:
    """One frame of a micro-batch: dataset number, global row in it, whether it is mirrored, and a
    seed of its own. What is drawn for the micro-batch at once takes the first frame's."""

    dataset: int
    row: int
    flip: bool
    seed: int


@dataclass(frozen=True)
class SamplingPlan:
    """The order of all samples of a run.

    lengths: frames in each dataset. weights: share of micro-batches from each, any positive scale.
    shuffle_window: frames shuffled together; row groups are visited in random order.
    """

    lengths: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int
    micro_batches: int
    micro_size: int
    flip_probability: float
    shuffle_window: int

    @cached_property
    def _choices(self) -> tuple[np.ndarray, np.ndarray]:
        """Dataset of each micro-batch, and how many of that dataset came before it."""
        shares = np.asarray(self.weights, np.float64) / sum(self.weights)
        generator = stream(self.seed, CHOICE_STREAM)
        datasets = generator.choice(len(shares), size=self.micro_batches, p=shares)
        earlier = np.zeros(self.micro_batches, np.int64)
        for dataset in range(len(shares)):
            mine = datasets == dataset
            earlier[mine] = np.arange(mine.sum())
        return datasets, earlier

    def epoch_order(self, dataset: int, epoch: int) -> np.ndarray:
        """All rows of a dataset in the order of one epoch: int64 `[length]`."""
        return _epoch_order(self.lengths[dataset], self.shuffle_window, self.seed, dataset, epoch)

    def micro_batch(self, index: int) -> list[PlannedFrame]:
        """The frames of micro-batch `index` of the run."""
        datasets, earlier = self._choices
        dataset = int(datasets[index])
        length, first = self.lengths[dataset], int(earlier[index]) * self.micro_size
        flips = stream(self.seed, FLIP_STREAM, index).random(self.micro_size)
        seeds = stream(self.seed, NOISE_STREAM, index).integers(2**62, size=self.micro_size)
        frames: list[PlannedFrame] = []
        for offset in range(self.micro_size):
            epoch, position = divmod(first + offset, length)
            row = int(self.epoch_order(dataset, epoch)[position])
            flip = bool(flips[offset] < self.flip_probability)
            frames.append(PlannedFrame(dataset, row, flip, int(seeds[offset])))
        return frames

    def of_rank(self, step: int, rank: int, world_size: int, accumulation: int) -> list[int]:
        """Numbers of the micro-batches that a rank computes in an optimizer step."""
        first = step * accumulation * world_size
        return [first + i * world_size + rank for i in range(accumulation)]


@lru_cache(maxsize=16)
def _epoch_order(length: int, window: int, seed: int, dataset: int, epoch: int) -> np.ndarray:
    generator = stream(seed, ORDER_STREAM, dataset, epoch)
    groups = generator.permutation(-(-length // ROWS_PER_GROUP))
    rows = (groups[:, None] * ROWS_PER_GROUP + np.arange(ROWS_PER_GROUP)).ravel()
    rows = rows[rows < length]
    for start in range(0, length, window):
        rows[start : start + window] = generator.permutation(rows[start : start + window])
    rows.setflags(write=False)
    return rows


class FrameError(E2eftError):
    """Frames that cannot be read, or not be one micro-batch."""


def collate(
    samples: list[Sample],
    max_depth_m: float | Sequence[float],
    latents: list[np.ndarray] | None = None,
) -> Batch:
    """Samples of one size as tensors; `valid` is where depth is known, finite and within range.

    Args:
        max_depth_m: end of the range, exclusive; one for all samples, or one for each.
        latents: `[c hl wl]` of each image, if they shall stand for the images.

    Raises:
        FrameError: if the samples are not of one size.
    """
    sizes = {sample.size for sample in samples}
    if len(sizes) != 1:
        raise FrameError(
            f"frames of different sizes in one batch: {sorted(sizes)}; "
            "give each size its own --data"
        )
    if latents is None:
        rgb, stacked = rgb_tensor([sample.rgb for sample in samples]), None
    else:
        # Not a number, so that nobody takes for an image what was never decoded.
        rgb = torch.tensor(torch.nan).expand(len(samples), 3, *samples[0].size)
        stacked = torch.from_numpy(np.stack(latents)).float()
    depth = _stacked([sample.depth_m for sample in samples])
    normals = _stacked([sample.normals_cam for sample in samples]).permute(0, 3, 1, 2)
    return Batch(
        rgb=rgb,
        depth_m=depth,
        normals_cam=normals.contiguous() if any(normals.stride()) else normals,
        valid=torch.isfinite(depth) & (depth < torch.tensor(max_depth_m).reshape(-1, 1, 1)),
        keys=[sample.key for sample in samples],
        intrinsics_px=torch.from_numpy(np.stack([s.intrinsics_px for s in samples])).float(),
        rgb_latents=stacked,
    )


def _stacked(arrays: list[np.ndarray]) -> torch.Tensor:
    """Arrays of one shape along a new first axis; the unknown stays one number in memory."""
    if all(map(is_constant, arrays)):
        return torch.tensor(arrays[0].flat[0]).expand(len(arrays), *arrays[0].shape)
    return torch.from_numpy(np.stack(arrays))


class FrameReader:
    """Decodes rows of several shards; encoded row groups are kept for the rows still to come.

    keep_bytes: decoded frames are kept for the next epoch as long as there is room: the first ones
    read, so that of a dataset which does not fit at least those are not decoded again.
    latents: read the cached latents of the colour images instead of these; frames are black then.
    modalities: which of `depth` and `normals` are read; the other is unknown in every frame then.

    Raises:
        ValueError: if `modalities` names what no shard has.
    """

    def __init__(
        self,
        shards: list[ShardIndex],
        cached_groups: int = 512,
        *,
        keep_bytes: int = 0,
        latents: bool = False,
        modalities: tuple[str, ...] = MODALITIES,
    ) -> None:
        if unheard_of := set(modalities) - set(MODALITIES):
            raise ValueError(f"shards hold {' and '.join(MODALITIES)}, not {', '.join(unheard_of)}")
        self.shards, self.cached_groups, self.latents = shards, cached_groups, latents
        self.unread = frozenset(MODALITIES) - frozenset(modalities)
        self._groups: OrderedDict[tuple[int, int, int], list[dict[str, Any]]] = OrderedDict()
        self._room, self._kept = keep_bytes, dict[tuple[int, int], Sample]()

    def _row(self, dataset: int, row: int) -> dict[str, Any]:
        shards = self.shards[dataset]
        part, group, offset = shards.locate(row)
        key = (dataset, part, group)
        rows = self._groups.get(key)
        if rows is None:
            read = shards.read_group_with_latents if self.latents else shards.read_group
            rows = self._groups[key] = read(part, group, self.unread)
            while len(self._groups) > self.cached_groups:
                self._groups.popitem(last=False)
        return rows[offset]

    def read(self, dataset: int, row: int) -> Sample:
        """One frame, decoded.

        Raises:
            FrameError: if what was read cannot be decoded.
        """
        if kept := self._kept.get((dataset, row)):
            return kept
        encoded = self._row(dataset, row)
        try:
            sample = decode_row(encoded)
        except (E2eftError, MemoryError):
            raise
        except Exception as error:  # Decoders raise anything on damaged content.
            raise FrameError(
                f"frame {encoded['key']} of {self.shards[dataset].artifact.uri} cannot be decoded "
                f"({type(error).__name__}: {error}); prepare it anew"
            ) from error
        if sample.nbytes <= self._room:
            self._room -= sample.nbytes
            self._kept[dataset, row] = sample
        return sample

    def frame(self, planned: PlannedFrame) -> Sample:
        """A planned frame, mirrored if the plan says so."""
        sample = self.read(planned.dataset, planned.row)
        return flip_sample(sample) if planned.flip else sample

    def latent(self, planned: PlannedFrame) -> np.ndarray:
        """The cached latent of a planned frame's image, of its mirror image if the plan says so:
        float16 `[c hl wl]`."""
        row, cached = self._row(planned.dataset, planned.row), self.shards[planned.dataset].latents
        assert cached is not None
        return cached.decode(row["latents"], row["height"], row["width"])[int(planned.flip)]

    def batch(self, frames: list[PlannedFrame], max_depth_m: float | Sequence[float]) -> Batch:
        """Planned frames, collated; `max_depth_m` is of all datasets, or of each."""
        samples = [self.frame(frame) for frame in frames]
        latents = [self.latent(frame) for frame in frames] if self.latents else None
        if isinstance(max_depth_m, Sequence):
            max_depth_m = [max_depth_m[frame.dataset] for frame in frames]
        return collate(samples, max_depth_m, latents)


@dataclass(frozen=True)
class TrainingBatch:
    """A micro-batch, the seeds of its frames, and which of them are mirrored (empty: none)."""

    batch: Batch
    seeds: list[int]
    flips: tuple[bool, ...] = ()

    @property
    def names(self) -> list[tuple[str, bool]]:
        """(key, mirrored) of each frame: equal names have equal pixels."""
        flips = self.flips or (False,) * len(self.batch)
        return list(zip(self.batch.keys, flips, strict=True))


def iterate_batches(
    plan: SamplingPlan,
    reader: FrameReader,
    indices: Iterator[int],
    max_depth_m: float | Sequence[float],
    threads: int = 2,
    ahead: int | None = None,
    *,
    pin: bool = False,
) -> Iterator[TrainingBatch]:
    """The micro-batches of `indices` in order, decoded `ahead` of their use (default: two a
    thread), in page-locked memory if `pin`."""
    ahead = 2 * threads if ahead is None else ahead

    def load(index: int) -> TrainingBatch:
        frames = plan.micro_batch(index)
        seeds, flips = [frame.seed for frame in frames], tuple(frame.flip for frame in frames)
        batch = reader.batch(frames, max_depth_m)
        return TrainingBatch(batch.pin_memory() if pin else batch, seeds, flips)

    waiting: list[Future[TrainingBatch]] = []
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        for index in indices:
            waiting.append(pool.submit(load, index))
            if len(waiting) > ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
