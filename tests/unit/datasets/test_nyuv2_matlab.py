"""NYUv2 read from the published .mat files."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from e2eft.data.sample import Sample, check_sample
from e2eft.datasets import open_source
from e2eft.datasets.nyuv2 import Nyuv2Source
from e2eft.datasets.reading.nyuv2 import LABELED
from tests import benchmark_files
from tests.benchmark_files import HOLE, measured_frame

FRAMES = [measured_frame(number) for number in range(4)]
SCENES = ["kitchen_0004", "kitchen_0004", "study", "office_0012"]
TEST = [2, 4]
"""Counted from 1."""


def written(folder: Path) -> Path:
    benchmark_files.nyuv2_matlab(FRAMES, SCENES, TEST).write_folder(folder)
    return folder


def test_the_test_images_come_back(tmp_path: Path) -> None:
    source = open_source(Nyuv2Source(root=str(written(tmp_path))))
    source.check_present()
    samples = list(source.decode(range(len(source))))
    assert len(samples) == 2
    for sample, number in zip(samples, TEST, strict=True):
        truth = FRAMES[number - 1]
        assert isinstance(sample, Sample) and check_sample(sample, source.dataset.modalities)
        assert sample.key == f"test/{SCENES[number - 1]}/rgb_{number:04d}"
        assert (sample.source, sample.scene) == ("nyuv2", SCENES[number - 1])
        np.testing.assert_array_equal(sample.rgb, truth.rgb)
        np.testing.assert_array_equal(sample.depth_m, truth.depth_m)
        assert np.isnan(sample.depth_m[HOLE]).all()


def test_they_are_the_frames_of_the_pngs(tmp_path: Path) -> None:
    keys = [f"test/{SCENES[n - 1]}/rgb_{n:04d}" for n in TEST]
    made = benchmark_files.nyuv2({k: FRAMES[n - 1] for k, n in zip(keys, TEST, strict=True)})
    listed = open_source(
        Nyuv2Source(
            root=made.write_folder(tmp_path / "png"), frame_list=made.write_list(tmp_path / "list")
        )
    )
    matlab = open_source(Nyuv2Source(root=str(written(tmp_path / "mat"))))
    for one, other in zip(listed.decode(range(2)), matlab.decode(range(2)), strict=True):
        assert isinstance(one, Sample) and isinstance(other, Sample)
        assert (one.key, one.scene, one.source) == (other.key, other.scene, other.source)
        np.testing.assert_allclose(one.depth_m, other.depth_m, atol=0.00051)
        np.testing.assert_array_equal(one.intrinsics_px, other.intrinsics_px)


def test_filled_depth(tmp_path: Path) -> None:
    source = open_source(Nyuv2Source(root=str(written(tmp_path)), depth="filled"))
    sample = next(iter(source.decode(range(1))))
    assert isinstance(sample, Sample)
    np.testing.assert_array_equal(sample.depth_m[HOLE], 9)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("splits.mat", r"has no splits\.mat, .*found nyu_depth_v2_labeled\.mat; give --list"),
        ("nyu_depth_v2_labeled.mat", r"has no nyu_depth_v2_labeled\.mat, .*found splits\.mat"),
    ],
)
def test_a_missing_file_is_named(lost: str, said: str, tmp_path: Path) -> None:
    (written(tmp_path) / lost).unlink()
    with pytest.raises(ValueError, match=said):
        open_source(Nyuv2Source(root=str(tmp_path))).check_present()


@pytest.mark.parametrize("numbers", [[1, 5], [0, 1], [2, 1, 2], [1, 2.5]])
def test_numbers_that_are_not_different_images_are_refused(
    numbers: list[float], tmp_path: Path
) -> None:
    savemat(written(tmp_path) / "splits.mat", {"testNdxs": np.array(numbers)[:, None]})
    with pytest.raises(ValueError, match=r"testNdxs must be different numbers in 1 \.\. 4"):
        open_source(Nyuv2Source(root=str(tmp_path))).check_present()


@pytest.mark.parametrize("name", ["/", "images", "scenes"])
def test_a_file_that_is_damaged_anywhere_is_named(name: str, tmp_path: Path) -> None:
    path = written(tmp_path) / LABELED
    content = path.read_bytes()
    with h5py.File(path) as file:
        at = h5py.h5o.get_info(file[name].id).addr + file.userblock_size
    path.write_bytes(content[:at] + b"\xff" * 24 + content[at + 24 :])
    with pytest.raises(ValueError, match=rf"/{LABELED}: .*; download it again$"):
        open_source(Nyuv2Source(root=str(tmp_path))).check_present()


@pytest.mark.parametrize("name", ["splits.mat", "nyu_depth_v2_labeled.mat"])
def test_a_file_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    (written(tmp_path) / name).write_bytes(b"<html>Not Found</html>" * 50)
    with pytest.raises(ValueError, match=name):
        open_source(Nyuv2Source(root=str(tmp_path))).check_present()
