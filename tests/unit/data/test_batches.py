from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from e2eft.data.batches import (
    FrameError,
    FrameReader,
    PlannedFrame,
    SamplingPlan,
    collate,
    iterate_batches,
)
from e2eft.data.sample import Sample, check_sample, unknown_depth, unknown_intrinsics
from e2eft.data.shards import ROWS_PER_GROUP, ShardIndex, decode_row, open_shards
from e2eft.data.transforms import flip_sample
from tests.frames import analytic_frame, write_shards

PLAN = SamplingPlan(
    lengths=(50, 21),
    weights=(9.0, 1.0),
    seed=3,
    micro_batches=1200,
    micro_size=4,
    flip_probability=0.5,
    shuffle_window=16,
)


def frames_of(plan: SamplingPlan, start: int = 0, stop: int | None = None) -> list[Any]:
    return [plan.micro_batch(index) for index in range(start, stop or plan.micro_batches)]


def test_the_plan_is_a_pure_function_of_the_seed() -> None:
    again = replace(PLAN)
    assert frames_of(again, 0, 100) == frames_of(PLAN, 0, 100)
    # In any order, one by one.
    assert [again.micro_batch(i) for i in (90, 3, 40)] == [PLAN.micro_batch(i) for i in (90, 3, 40)]
    other = frames_of(replace(PLAN, seed=4), 0, 100)
    assert other != frames_of(PLAN, 0, 100)


def test_a_longer_run_begins_like_a_shorter_one() -> None:
    longer = replace(PLAN, micro_batches=5000)
    assert frames_of(longer, 0, 200) == frames_of(PLAN, 0, 200)


def test_a_micro_batch_comes_from_one_dataset_in_proportion() -> None:
    datasets = []
    for frames in frames_of(PLAN):
        (dataset,) = {frame.dataset for frame in frames}
        datasets.append(dataset)
        assert len(frames) == PLAN.micro_size
    share = datasets.count(0) / len(datasets)
    # Four standard deviations of a binomial.
    assert abs(share - 0.9) < 4 * np.sqrt(0.9 * 0.1 / len(datasets))
    scaled = replace(PLAN, weights=(900.0, 100.0))
    assert frames_of(scaled, 0, 100) == frames_of(PLAN, 0, 100)


@pytest.mark.parametrize("dataset", [0, 1])
def test_epochs_are_permutations_each_its_own(dataset: int) -> None:
    rows = [frame.row for frames in frames_of(PLAN) for frame in frames if frame.dataset == dataset]
    length = PLAN.lengths[dataset]
    epochs = [rows[start : start + length] for start in range(0, len(rows), length)]
    whole = [epoch for epoch in epochs if len(epoch) == length]
    assert len(whole) >= 10
    for epoch in whole:
        assert sorted(epoch) == list(range(length))
    assert len({tuple(epoch) for epoch in whole}) == len(whole)


@given(
    length=st.integers(1, 200),
    window=st.integers(1, 64),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_every_epoch_visits_every_row_once(length: int, window: int, epoch: int, seed: int) -> None:
    plan = replace(PLAN, lengths=(length,), weights=(1.0,), shuffle_window=window, seed=seed)
    order = plan.epoch_order(0, epoch)
    assert sorted(order.tolist()) == list(range(length))


def test_rows_are_read_group_by_group_within_a_window() -> None:
    """A window's rows lie in few row groups, or every read would be of a new one."""
    plan = replace(PLAN, lengths=(800,), weights=(1.0,), shuffle_window=80)
    order = plan.epoch_order(0, 0)
    for start in range(0, 800, 80):
        groups = {int(row) // ROWS_PER_GROUP for row in order[start : start + 80]}
        assert len(groups) == 80 // ROWS_PER_GROUP
    first = order[:80]
    assert (np.diff(first) != 1).mean() > 0.9


def test_flips_and_seeds_belong_to_the_draw_not_to_the_row() -> None:
    frames = [frame for micro in frames_of(PLAN) for frame in micro]
    flipped = sum(frame.flip for frame in frames) / len(frames)
    assert abs(flipped - 0.5) < 4 * np.sqrt(0.25 / len(frames))
    assert len({frame.seed for frame in frames}) == len(frames)
    seen: dict[int, set[bool]] = {}
    for frame in frames:
        if frame.dataset == 0:
            seen.setdefault(frame.row, set()).add(frame.flip)
    assert all(flips == {True, False} for flips in seen.values())
    for probability, flip in ((0.0, False), (1.0, True)):
        plan = replace(PLAN, flip_probability=probability)
        assert {f.flip for micro in frames_of(plan, 0, 50) for f in micro} == {flip}


@pytest.mark.parametrize(("world", "accumulation"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_ranks_share_the_global_batch_whatever_their_number(world: int, accumulation: int) -> None:
    for step in range(5):
        mine = [PLAN.of_rank(step, rank, world, accumulation) for rank in range(world)]
        assert all(len(indices) == accumulation for indices in mine)
        everything = sorted(index for indices in mine for index in indices)
        # Disjoint, complete, and the same global batch for each number of ranks.
        assert everything == list(range(step * 8, step * 8 + 8))


def test_no_frame_is_drawn_twice_in_an_epoch_by_different_ranks() -> None:
    plan = replace(PLAN, lengths=(48,), weights=(1.0,), micro_size=2)
    world, accumulation = 4, 2
    drawn = Counter(
        frame.row
        for step in range(3)
        for rank in range(world)
        for index in plan.of_rank(step, rank, world, accumulation)
        for frame in plan.micro_batch(index)
    )
    assert drawn == Counter(dict.fromkeys(range(48), 1))


def test_a_flip_mirrors_picture_normals_and_camera() -> None:
    sample = analytic_frame(2, sky=True)
    intrinsics_px = sample.intrinsics_px.copy()
    intrinsics_px[0, 2] = 33.0
    sample = replace(sample, intrinsics_px=intrinsics_px)
    mirrored = flip_sample(sample)
    np.testing.assert_array_equal(mirrored.rgb[5, 3], sample.rgb[5, 80 - 1 - 3])
    np.testing.assert_array_equal(mirrored.depth_m[5, 3], sample.depth_m[5, 80 - 1 - 3])
    np.testing.assert_array_equal(
        mirrored.normals_cam[40, 3], sample.normals_cam[40, 80 - 1 - 3] * [-1, 1, 1]
    )
    assert mirrored.intrinsics_px[0, 2] == 80 - 33.0
    assert mirrored.normals_cam.dtype == np.float32
    np.testing.assert_equal(
        {**vars(flip_sample(mirrored))}, {**vars(sample)}, err_msg="twice is not the identity"
    )


def test_a_mirrored_frame_still_keeps_the_contract() -> None:
    # Normals that are not mirrored with the picture would face away from the camera somewhere.
    for number in range(8):
        check_sample(flip_sample(analytic_frame(number)))


def test_a_batch_holds_the_frames_in_physical_units() -> None:
    samples = [analytic_frame(0, sky=True), flip_sample(analytic_frame(1))]
    batch = collate(samples, max_depth_m=4.0)
    assert batch.keys == [sample.key for sample in samples] and len(batch) == 2
    assert batch.rgb.shape == (2, 3, 64, 80) and batch.rgb.dtype == torch.float32
    np.testing.assert_allclose(
        (batch.rgb[0].permute(1, 2, 0).numpy() + 1) * 127.5, samples[0].rgb, atol=1e-4
    )
    np.testing.assert_array_equal(batch.depth_m[1].numpy(), samples[1].depth_m)
    np.testing.assert_array_equal(
        batch.normals_cam[1].permute(1, 2, 0).numpy(), samples[1].normals_cam
    )
    expected = np.stack([np.isfinite(s.depth_m) & (s.depth_m < 4.0) for s in samples])
    np.testing.assert_array_equal(batch.valid.numpy(), expected)
    assert not expected.all(axis=(1, 2)).any() and expected.any(axis=(1, 2)).all()
    np.testing.assert_allclose(batch.intrinsics_px[0].numpy(), samples[0].intrinsics_px, rtol=1e-6)


def test_every_frame_has_the_range_of_its_dataset(shards: list[ShardIndex]) -> None:
    frames = [PlannedFrame(1, 3, False, 0), PlannedFrame(0, 3, True, 0)]
    batch = FrameReader(shards).batch(frames, (3.0, 5.0))
    for number, range_m in enumerate((5.0, 3.0)):
        expected = batch.depth_m[number] < range_m
        assert torch.equal(batch.valid[number], expected) and expected.any() and not expected.all()


def test_a_frame_that_cannot_be_decoded_is_named(shards: list[ShardIndex]) -> None:
    class Damaged(FrameReader):
        def _row(self, dataset: int, row: int) -> dict[str, Any]:
            return super()._row(dataset, row) | {"depth": b"no longer zstd"}

    with pytest.raises(FrameError, match=r"frame analytic/frame-0103 of .*/b cannot be decoded"):
        Damaged(shards).read(1, 3)


def test_frames_of_different_sizes_are_refused() -> None:
    with pytest.raises(FrameError, match=r"\[\(16, 24\), \(64, 80\)\]; give each size its own"):
        collate([analytic_frame(0), analytic_frame(1, 16, 24)], 80.0)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[ShardIndex]:
    folder = tmp_path_factory.mktemp("shards")
    for name, first, count in (("a", 0, 50), ("b", 100, 21)):
        samples = [analytic_frame(first + number, 16, 24) for number in range(count)]
        write_shards(str(folder / name), samples, frames_per_part=11)
    return [open_shards(str(folder / name)) for name in ("a", "b")]


def keys(plan: SamplingPlan, shards: list[ShardIndex], indices: range, **options: Any) -> list[Any]:
    batches = iterate_batches(plan, FrameReader(shards), iter(indices), 80.0, **options)
    return [(loaded.batch.keys, loaded.seeds) for loaded in batches]


@pytest.mark.parametrize("threads", [1, 4])
def test_batches_come_in_the_plans_order_and_resume_in_it(
    shards: list[ShardIndex], threads: int
) -> None:
    whole = keys(PLAN, shards, range(30), threads=threads)
    planned = frames_of(PLAN, 0, 30)
    names = [[f"analytic/frame-{f.row + 100 * f.dataset:04d}" for f in micro] for micro in planned]
    assert [got for got, _ in whole] == names
    assert [seeds for _, seeds in whole] == [[f.seed for f in micro] for micro in planned]
    assert keys(PLAN, shards, range(13, 30), threads=threads, ahead=1) == whole[13:]


def test_planned_flips_are_made(shards: list[ShardIndex]) -> None:
    loaded = next(iter(iterate_batches(PLAN, FrameReader(shards), iter(range(1)), 80.0)))
    frames = PLAN.micro_batch(0)
    assert {frame.flip for frame in frames} == {True, False}
    reader = FrameReader(shards)
    for number, frame in enumerate(frames):
        plain = reader.read(frame.dataset, frame.row).rgb
        wanted = plain[:, ::-1] if frame.flip else plain
        got = (loaded.batch.rgb[number].permute(1, 2, 0).numpy() + 1) * 127.5
        np.testing.assert_allclose(got, wanted, atol=1e-4)


def test_stopping_early_ends_the_threads(shards: list[ShardIndex]) -> None:
    import threading

    batches = iterate_batches(PLAN, FrameReader(shards), iter(range(1000)), 80.0)
    assert len(list(islice(batches, 2))) == 2
    batches.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name.startswith("decode"):
            thread.join(timeout=10)
            assert not thread.is_alive()


def test_a_frame_that_cannot_be_read_raises_where_it_is_used(shards: list[ShardIndex]) -> None:
    class Broken(FrameReader):
        def read(self, dataset: int, row: int) -> Any:
            raise OSError("the disk is gone")

    batches = iterate_batches(PLAN, Broken(shards), iter(range(3)), 80.0)
    with pytest.raises(OSError, match="the disk is gone"):
        next(iter(batches))


def test_the_reader_keeps_a_bounded_number_of_groups(
    shards: list[ShardIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: Counter[tuple[int, int]] = Counter()
    original = ShardIndex.read_group

    def counted(self: ShardIndex, part: int, group: int, without: frozenset[str]) -> Any:
        reads[part, group] += 1
        return original(self, part, group, without)

    monkeypatch.setattr(ShardIndex, "read_group", counted)
    reader = FrameReader(shards[:1], cached_groups=2)
    for row in (0, 1, 7, 8, 0, 11, 0):
        assert reader.read(0, row).key == f"analytic/frame-{row:04d}"
        assert len(reader._groups) <= 2
    # Row 11 opens the third group, so the first is read again.
    assert reads == {(0, 0): 2, (0, 1): 1, (1, 0): 1}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the rows that were decoded, in order."""
    from e2eft.data import batches

    made: list[str] = []

    def counted(row: dict[str, Any]) -> Sample:
        made.append(row["key"])
        return decode_row(row)

    monkeypatch.setattr(batches, "decode_row", counted)
    return made


def test_frames_that_fit_are_decoded_once(shards: list[ShardIndex], decoded: list[str]) -> None:
    one = FrameReader(shards).read(0, 0).nbytes
    assert one == 16 * 24 * (3 + 4 + 12)
    decoded.clear()
    reader = FrameReader(shards, keep_bytes=2 * one)
    for row in (0, 1, 2, 0, 1, 2):
        assert reader.read(0, row).key == f"analytic/frame-{row:04d}"
    assert decoded == [f"analytic/frame-{row:04d}" for row in (0, 1, 2, 2)]


def test_a_kept_frame_is_still_mirrored_when_the_plan_says_so(shards: list[ShardIndex]) -> None:
    fresh, reader = FrameReader(shards), FrameReader(shards, keep_bytes=10**9)
    for flip in (True, False, True):
        frames = [PlannedFrame(0, row, flip, 0) for row in (3, 4)]
        kept, plain = reader.batch(frames, 80.0), fresh.batch(frames, 80.0)
        torch.testing.assert_close(kept.rgb, plain.rgb, rtol=0, atol=0)
        torch.testing.assert_close(
            kept.normals_cam, plain.normals_cam, rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize("flip", [False, True])
def test_what_was_not_read_is_one_number_in_memory(flip: bool, shards: list[ShardIndex]) -> None:
    reader = FrameReader(shards, keep_bytes=10**9, modalities=())
    batch = reader.batch([PlannedFrame(0, 0, flip, 0), PlannedFrame(0, 1, flip, 0)], 80.0)
    assert reader.read(0, 0).nbytes == 16 * 24 * 3
    for moved in (batch, batch.to("meta")):
        assert moved.depth_m.shape == (2, 16, 24) and not any(moved.depth_m.stride())
        assert moved.normals_cam.shape == (2, 3, 16, 24) and not any(moved.normals_cam.stride())
    assert batch.to("meta").rgb.stride() == batch.rgb.stride()


@pytest.mark.parametrize("modalities", [("depth",), ("normals",), ()])
def test_modalities_that_nobody_looks_at_are_not_read(
    modalities: tuple[str, ...], shards: list[ShardIndex]
) -> None:
    reader = FrameReader(shards, modalities=modalities)
    frames = [PlannedFrame(0, 2, False, 0), PlannedFrame(1, 1, True, 0)]
    whole, made = FrameReader(shards).batch(frames, 80.0), reader.batch(frames, 80.0)
    torch.testing.assert_close(made.rgb, whole.rgb, rtol=0, atol=0)
    depth, normals = whole.depth_m, whole.normals_cam
    if "depth" not in modalities:
        depth = torch.full_like(depth, torch.nan)
    if "normals" not in modalities:
        normals = torch.full_like(normals, torch.nan)
    torch.testing.assert_close(made.depth_m, depth, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(made.normals_cam, normals, rtol=0, atol=0, equal_nan=True)
    assert bool(made.valid.any()) == ("depth" in modalities)
    assert {"depth", "normals"} & set(reader._row(0, 2)) == set(modalities), "columns were fetched"


def test_a_modality_that_no_shard_has_is_refused(shards: list[ShardIndex]) -> None:
    with pytest.raises(ValueError, match="shards hold depth and normals, not disparity"):
        FrameReader(shards, modalities=("depth", "disparity"))


def test_frames_without_depth_or_camera_make_a_batch_and_its_mirror() -> None:
    whole = analytic_frame(0)
    frame = replace(
        whole, depth_m=unknown_depth(*whole.size), intrinsics_px=unknown_intrinsics()
    )  # fmt: skip
    batch = collate([frame, flip_sample(frame)], 80.0)
    assert not batch.valid.any() and batch.depth_m.isnan().all()
    assert batch.intrinsics_px.isnan().all()
    upright, mirrored = batch.normals_cam
    signs = torch.tensor([-1.0, 1, 1])[:, None, None]
    torch.testing.assert_close(mirrored, upright.flip(-1) * signs, equal_nan=True)
