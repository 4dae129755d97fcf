from dataclasses import replace
from pathlib import Path

import pytest

from e2eft import cli
from e2eft.artifacts import ArtifactError
from e2eft.config import TrainConfig
from e2eft.data.batches import SamplingPlan
from e2eft.data.shards import ShardIndex, open_shards
from e2eft.datasets import dataset_of
from e2eft.datasets.hypersim import HYPERSIM
from e2eft.datasets.virtual_kitti import VIRTUAL_KITTI
from e2eft.train import driver
from e2eft.train.mixture import depth_ranges_m, longest_side_px, require_one_making
from tests.frames import analytic_frame, write_shards

PLAN = SamplingPlan((12, 5), (9.0, 1.0), 0, 10, 2, 0.5, 8)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[ShardIndex]:
    """Twelve frames of which the first two are larger, and five that are larger still."""
    folder = tmp_path_factory.mktemp("shards")
    sizes = [(32, 48)] * 2 + [(16, 24)] * 10
    write_shards(str(folder / "a"), [analytic_frame(n, *size) for n, size in enumerate(sizes)])
    write_shards(str(folder / "b"), [analytic_frame(n, 64, 40) for n in range(5)])
    return [open_shards(str(folder / name)) for name in ("a", "b")]


def made_of(index: ShardIndex, source: str, **provenance: str) -> ShardIndex:
    details = dict(index.artifact.details) | {"source": source, "provenance": provenance}
    return replace(index, artifact=replace(index.artifact, details=details))


def test_ranges_are_the_papers_by_dataset(shards: list[ShardIndex]) -> None:
    mixed = [made_of(shards[0], HYPERSIM.name), made_of(shards[1], VIRTUAL_KITTI.name)]
    assert depth_ranges_m((), mixed) == (65.0, 80.0)
    assert depth_ranges_m((10.0, 20.0), mixed) == (10.0, 20.0)
    assert depth_ranges_m((), shards) == (80.0, 80.0)
    assert dataset_of("a-new-dataset").supervised_range_m == 80.0


def test_normals_of_one_source_made_in_two_ways_are_not_mixed(shards: list[ShardIndex]) -> None:
    kitti, one, other = VIRTUAL_KITTI.name, {"normals": "one way"}, {"normals": "other way"}
    old, new = made_of(shards[0], kitti, **one), made_of(shards[1], kitti, **other)
    with pytest.raises(ArtifactError, match=r"/a has .* 'one way', .*/b as 'other way': prepare"):
        require_one_making([old, new], "normals")
    require_one_making([old, new], "depth")
    require_one_making([old, made_of(shards[1], kitti, **one)], "normals")
    require_one_making([old, made_of(shards[1], HYPERSIM.name)], "normals")
    require_one_making(shards, "normals")


def test_a_run_does_not_begin_with_normals_of_one_source_made_in_two_ways(tmp_path: Path) -> None:
    argv = ["tiny-normals", "--out", str(tmp_path / "run")]
    for way in ("one way", "other way"):
        argv += ["--data", str(tmp_path / way)]
        write_shards(argv[-1], [analytic_frame(0, 16, 24)], provenance={"normals": way})
    config = cli.parse("train", argv)
    assert isinstance(config, TrainConfig)
    with pytest.raises(ArtifactError, match=r"'one way'.*'other way'"):
        driver.run(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("weights", "longest"),
    [((9.0, 1.0), 24), ((1.0, 1.2), 64), ((1.0, 1.0), 64), ((2.0, 1.0), 24)],
)
def test_the_usual_size_is_that_of_most_samples(
    weights: tuple[float, ...], longest: int, shards: list[ShardIndex]
) -> None:
    """Ten of twelve frames of the first dataset have 24 pixels."""
    for seed in range(4):
        plan = replace(PLAN, weights=weights, seed=seed)
        assert longest_side_px(plan, shards) == longest


def test_a_limit_counts(shards: list[ShardIndex]) -> None:
    assert longest_side_px(replace(PLAN, lengths=(2, 1)), shards) == 48
