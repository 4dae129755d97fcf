"""DIODE's normals read back from its tree."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e2eft.data.sample import RejectedFrame, Sample, check_sample, count_away
from e2eft.datasets import open_source
from e2eft.datasets.diode_normals import DiodeNormalsSource
from e2eft.evaluate.protocols import PerImageMean, PooledPixels
from e2eft.storage import LocalStore
from tests.benchmark_files import BenchmarkFiles, encoded, npy
from tests.normal_map_files import known_frame, right_up_viewer

KEYS = (
    "indoors/scene_00019/scan_00183/00019_00183_indoors_000_010",
    "outdoor/scene_00022/scan_00193/00022_00193_outdoor_000_010",
)
FRAMES = tuple(known_frame(number, 48, 64) for number in (1, 2))


def files_of(*frames: Sample) -> BenchmarkFiles:
    made = BenchmarkFiles()
    for key, frame in zip(KEYS, frames, strict=False):
        paths = [f"{key}.png", f"{key}_normal.npy"]
        vectors = np.nan_to_num(right_up_viewer(frame.normals_cam)).astype(np.float32)
        made.files.update(zip(paths, (encoded(frame.rgb), npy(vectors)), strict=True))
        made.lines.append(" ".join(paths))
    return made


def decoded(
    made: BenchmarkFiles, folder: Path, *, tar: bool = False, listed: bool = False
) -> list[Sample | RejectedFrame]:
    root = made.write_tar(folder / "x.tar") if tar else made.write_folder(folder / "x")
    frame_list = made.write_list(folder / "list.txt") if listed else None
    config = DiodeNormalsSource(root=root, frame_list=frame_list)
    source = open_source(config, LocalStore(folder / "index"))
    source.check_present()
    source.write_index()
    return list(source.decode(range(len(source))))


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
@pytest.mark.parametrize("listed", [False, True], ids=["found", "listed"])
def test_the_truth_comes_back(tar: bool, listed: bool, tmp_path: Path) -> None:
    made = files_of(*FRAMES)
    samples = decoded(made, tmp_path, tar=tar, listed=listed)
    assert len(samples) == 2
    for key, sample, truth in zip(KEYS, samples, FRAMES, strict=True):
        assert isinstance(sample, Sample)
        modalities = DiodeNormalsSource(root="r").described.modalities
        assert check_sample(sample, modalities) is sample
        assert (sample.key, sample.source) == (key, "diode-normals")
        assert sample.scene == "/".join(key.split("/")[:2])
        np.testing.assert_array_equal(sample.rgb, truth.rgb)
        np.testing.assert_allclose(sample.normals_cam, truth.normals_cam, atol=1e-6)
        assert np.isnan(sample.normals_cam[10:14, 20:30]).all() and np.isnan(sample.depth_m).all()
        assert sample.intrinsics_px[0, 0] == pytest.approx(886.81 * 64 / 1024)


def test_axes_by_hand_and_axes_that_are_mistaken(tmp_path: Path) -> None:
    """Right, up, towards the viewer: a wall seen head-on, a floor, a wall to the right."""
    vectors = np.array([[[0, 0, 1], [0, 1, 0], [-1, 0, 0], [0, 0, 0]]], np.float32)
    image = encoded(np.zeros((1, 4, 3), np.uint8))
    made = BenchmarkFiles({f"{KEYS[0]}.png": image, f"{KEYS[0]}_normal.npy": npy(vectors)})
    (sample,) = decoded(made, tmp_path)
    assert isinstance(sample, Sample)
    expected = [[0, 0, -1], [0, -1, 0], [-1, 0, 0], [np.nan] * 3]
    np.testing.assert_allclose(sample.normals_cam[0], expected)
    turned = files_of(replace(FRAMES[0], normals_cam=-FRAMES[0].normals_cam))
    (sample,) = decoded(turned, tmp_path / "turned")
    assert isinstance(sample, Sample)
    known = int(np.isfinite(sample.normals_cam).all(-1).sum())
    assert count_away(sample) > 0.25 * known, "the camera is known, so the stage refuses these"


def test_a_frame_whose_normals_are_missing_or_of_another_size_is_rejected(tmp_path: Path) -> None:
    made = files_of(*FRAMES)
    del made.files[f"{KEYS[0]}_normal.npy"]
    made.files[f"{KEYS[1]}_normal.npy"] = npy(np.zeros((47, 64, 3), np.float32))
    made.files["indoors/scene_00019/x.png"] = made.files[f"{KEYS[0]}.png"]
    made.files["indoors/scene_00019/x_normal.npy"] = npy(np.zeros((48, 64, 3), np.float32))
    first, blank, second = decoded(made, tmp_path)
    assert isinstance(first, RejectedFrame) and first.reason == "missing_file"
    assert isinstance(second, RejectedFrame) and second.reason == "wrong_shape"
    assert isinstance(blank, Sample) and np.isnan(blank.normals_cam).all()


@pytest.mark.parametrize("line", [f"{KEYS[0]}.png {KEYS[1]}_normal.npy", f"{KEYS[0]}.png"])
def test_a_line_names_one_frame_and_its_normals(line: str, tmp_path: Path) -> None:
    made = files_of(*FRAMES)
    made.lines[0] = line
    with pytest.raises(ValueError, match="expected an image and its normals, for example"):
        decoded(made, tmp_path, listed=True)


def test_it_is_scored_as_marigold_scores_it_and_otherwise_by_default() -> None:
    marigold, pooled = PerImageMean(), PooledPixels()
    assert (marigold.processing_px("diode-normals"), marigold.expected("diode-normals")) == (
        768,
        771,
    )
    assert pooled.processing_px("diode-normals") is None
    assert pooled.expected("diode-normals") is None
