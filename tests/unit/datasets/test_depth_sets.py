"""Depth evaluation sets read back from their published layouts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft.data.sample import RejectedFrame, Sample, check_sample
from e2eft.datasets import FrameSource, SourceConfig, open_source
from e2eft.datasets.diode import DiodeSource
from e2eft.datasets.eth3d import Eth3dSource
from e2eft.datasets.ibims import Ibims1Source
from e2eft.datasets.kitti_eigen import KittiEigenSource
from e2eft.datasets.nyuv2 import Nyuv2Source
from e2eft.datasets.scannet import ScanNetSource
from e2eft.datasets.sintel import SintelSource
from e2eft.storage import LocalStore
from tests import benchmark_files
from tests.benchmark_files import HOLE, BenchmarkFiles, codes16, encoded, measured_frame

DRIVE = "2011_09_26_drive_0002"
DIODE_KEYS = (
    "indoors/scene_00019/scan_00183/00019_00183_indoors_000_010",
    "outdoor/scene_00022/scan_00193/00022_00193_outdoor_000_020",
)


@dataclass(frozen=True)
class Case:
    """Two frames of a set, in the order of its list."""

    files: BenchmarkFiles
    frames: tuple[Sample, Sample]
    config: Callable[..., SourceConfig]
    keys: tuple[str, str]
    scenes: tuple[str, str]
    step_m: float
    needs_list: bool = True
    jpeg: bool = False


def case_of(name: str) -> Case:
    """Writers and readers of the set `name`."""
    a, b = measured_frame(1), measured_frame(2)
    if name == "nyuv2":
        keys = ("test/kitchen_0004/rgb_0001", "test/office_0012/rgb_0046")
        made = benchmark_files.nyuv2(dict(zip(keys, (a, b), strict=True)))
        return Case(made, (a, b), Nyuv2Source, keys, ("kitchen_0004", "office_0012"), 0.001)
    if name == "kitti-eigen":
        a, b = measured_frame(1, 375, 1242), measured_frame(2, 370, 1226)
        made = benchmark_files.kitti({(DRIVE, 69): a, ("2011_10_03_drive_0047", 768): b})
        at = "{}/{}_sync/image_02/data/{:010d}"
        other = "2011_10_03_drive_0047"
        keys = (at.format("2011_09_26", DRIVE, 69), at.format("2011_10_03", other, 768))
        scenes = (f"{DRIVE}_sync", f"{other}_sync")

        def uncropped(**fields: Any) -> SourceConfig:
            return KittiEigenSource(**{"benchmark_crop": False} | fields)

        return Case(made, (a, b), uncropped, keys, scenes, 1 / 256)
    if name == "eth3d":
        made = benchmark_files.eth3d({("office", "DSC_0219"): a, ("relief_2", "DSC_0427"): b})
        at = "rgb/{}/images/dslr_images/{}"
        keys = (at.format("office", "DSC_0219"), at.format("relief_2", "DSC_0427"))
        return Case(made, (a, b), Eth3dSource, keys, ("office", "relief_2"), 0, jpeg=True)
    if name == "scannet":
        made = benchmark_files.scannet({("scene0406_02", 300): a, ("scene0678_01", 1300): b})
        keys = ("scene0406_02/color/000300", "scene0678_01/color/001300")
        return Case(made, (a, b), ScanNetSource, keys, ("scene0406", "scene0678"), 0.001, jpeg=True)
    if name == "diode":
        made = benchmark_files.diode(dict(zip(DIODE_KEYS, (a, b), strict=True)))
        scenes = ("indoors/scene_00019", "outdoor/scene_00022")
        return Case(made, (a, b), DiodeSource, DIODE_KEYS, scenes, 0, needs_list=False)
    if name == "ibims-1":
        made = benchmark_files.ibims({"corridor_01": a, "storageroom_08": b})
        for frame in (a, b):
            frame.depth_m[:4, :4] = np.nan  # the transparent corner
        keys = ("rgb/corridor_01", "rgb/storageroom_08")
        scenes = ("corridor", "storageroom")
        return Case(made, (a, b), Ibims1Source, keys, scenes, 50 / 65535, needs_list=False)
    assert name == "sintel"
    made = benchmark_files.sintel({("alley_1", 1): a, ("temple_3", 50): b})
    for frame in (a, b):
        frame.depth_m[np.isnan(frame.depth_m)] = np.inf
    keys = ("final/alley_1/frame_0001", "final/temple_3/frame_0050")
    return Case(made, (a, b), SintelSource, keys, ("alley_1", "temple_3"), 0, needs_list=False)


SETS = ["nyuv2", "kitti-eigen", "eth3d", "scannet", "diode", "ibims-1", "sintel"]
LISTED = ["nyuv2", "kitti-eigen", "eth3d", "scannet", "diode"]


def opened(
    case: Case, folder: Path, *, tar: bool = False, listed: bool = True, **fields: Any
) -> FrameSource:
    root = case.files.write_tar(folder / "x.tar") if tar else case.files.write_folder(folder / "x")
    if listed and case.files.lines:
        fields["frame_list"] = case.files.write_list(folder / "list.txt")
    source = open_source(case.config(root=root, **fields), LocalStore(folder / "index"))
    source.check_present()
    source.write_index()
    return source


def samples_of(source: FrameSource) -> list[Sample]:
    samples = list(source.decode(range(len(source))))
    assert all(isinstance(sample, Sample) for sample in samples), samples
    return [check_sample(sample, source.dataset.modalities) for sample in samples]  # type: ignore[arg-type]


def rejects_of(source: FrameSource) -> list[tuple[str, str]]:
    decoded = source.decode(range(len(source)))
    return [(f.key, f.reason) for f in decoded if isinstance(f, RejectedFrame)]


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
@pytest.mark.parametrize("name", SETS)
def test_the_truth_comes_back(name: str, tar: bool, tmp_path: Path) -> None:
    case = case_of(name)
    source = opened(case, tmp_path, tar=tar)
    assert source.dataset.name == name and len(source) == 2
    samples = samples_of(source)
    for number, (sample, truth) in enumerate(zip(samples, case.frames, strict=True)):
        assert (sample.key, sample.source) == (case.keys[number], name)
        assert sample.scene == case.scenes[number]
        assert sample.size == truth.size
        known = np.isfinite(truth.depth_m)
        assert not known[HOLE].any() and known.mean() > 0.5
        np.testing.assert_array_equal(np.isfinite(sample.depth_m), known)
        np.testing.assert_array_equal(np.isnan(sample.depth_m), np.isnan(truth.depth_m))
        atol = 0.51 * case.step_m
        np.testing.assert_allclose(
            sample.depth_m[known], truth.depth_m[known], rtol=1e-6, atol=atol
        )
        assert np.isnan(sample.normals_cam).all()
        if case.jpeg:
            assert np.abs(sample.rgb.astype(int) - truth.rgb).mean() < 6
        else:
            np.testing.assert_array_equal(sample.rgb, truth.rgb)


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
@pytest.mark.parametrize("name", ["diode", "ibims-1"])
def test_without_a_list_all_that_is_there_is_found(name: str, tar: bool, tmp_path: Path) -> None:
    case = case_of(name)
    found, listed = (tmp_path / "found", tmp_path / "listed")
    found.mkdir()
    listed.mkdir()
    source = opened(case, found, tar=tar, listed=False)
    assert [s.key for s in samples_of(source)] == list(case.keys)
    assert source.provenance() == {"listed": 2, "without_truth": 0}
    named = opened(case, listed, tar=tar).provenance()
    assert len(named.pop("list_sha256")) == 64 and named == source.provenance()


def test_a_file_that_comes_later_leaves_the_numbers_as_they_were(tmp_path: Path) -> None:
    case = case_of("sintel")
    assert len(opened(case, tmp_path)) == 2
    more = benchmark_files.sintel({("alley_1", 0): case.frames[0]})
    case.files.files |= more.files
    resumed = opened(case, tmp_path)
    assert [s.key for s in samples_of(resumed)] == list(case.keys)
    assert resumed.provenance()["listed"] == 2


@pytest.mark.parametrize("name", ["ibims-1", "sintel"])
def test_each_frames_own_camera_is_read(name: str, tmp_path: Path) -> None:
    case = case_of(name)
    for sample, truth in zip(samples_of(opened(case, tmp_path)), case.frames, strict=True):
        np.testing.assert_allclose(sample.intrinsics_px, truth.intrinsics_px)


def test_cameras_of_whole_data_sets_follow_the_images_size(tmp_path: Path) -> None:
    full = Case(
        benchmark_files.diode({DIODE_KEYS[0]: measured_frame(1, 768, 1024)}),
        (measured_frame(1), measured_frame(2)), DiodeSource, DIODE_KEYS, DIODE_KEYS, 0,
    )  # fmt: skip
    (tmp_path / "d").mkdir()
    camera = samples_of(opened(full, tmp_path / "d"))[0].intrinsics_px
    np.testing.assert_array_equal(camera, [[886.81, 0, 512], [0, 927.06, 384], [0, 0, 1]])
    (tmp_path / "n").mkdir()
    half = benchmark_files.nyuv2({"test/kitchen_0004/rgb_0001": measured_frame(1, 240, 320)})
    case = Case(half, full.frames, Nyuv2Source, DIODE_KEYS, DIODE_KEYS, 0)
    camera = samples_of(opened(case, tmp_path / "n"))[0].intrinsics_px
    expected = [[518.857901, 0, 326.082449], [0, 519.469611, 254.236166], [0, 0, 2]]
    np.testing.assert_allclose(2 * camera, expected, rtol=1e-8)


@pytest.mark.parametrize("name", ["eth3d", "scannet"])
def test_a_camera_that_is_not_published_is_unknown(name: str, tmp_path: Path) -> None:
    for sample in samples_of(opened(case_of(name), tmp_path)):
        assert np.isnan(sample.intrinsics_px).all()


def test_kittis_benchmark_crop_moves_the_days_camera(tmp_path: Path) -> None:
    case = case_of("kitti-eigen")
    case.files.lines[1] = case.files.lines[1].replace("721.5377", "718.856")
    whole = samples_of(opened(case, tmp_path))
    cropped = samples_of(opened(case, tmp_path, benchmark_crop=True))
    for before, after, (top, left) in zip(whole, cropped, ((23, 13), (18, 5)), strict=True):
        assert after.size == (352, 1216)
        window = np.s_[top : top + 352, left : left + 1216]
        np.testing.assert_array_equal(after.rgb, before.rgb[window])
        np.testing.assert_array_equal(after.depth_m, before.depth_m[window])
        moved = before.intrinsics_px[:2, 2] - after.intrinsics_px[:2, 2]
        np.testing.assert_allclose(moved, [left, top])
    expected = [[721.5377, 0, 609.5593 + 0.5], [0, 721.5377, 172.854 + 0.5], [0, 0, 1]]
    np.testing.assert_allclose(whole[0].intrinsics_px, expected)
    assert whole[1].intrinsics_px[0, 0] == 718.856


def test_a_focal_length_that_is_not_the_days_leaves_kittis_camera_unknown(tmp_path: Path) -> None:
    case = case_of("kitti-eigen")  # 721.5377 on a day of 718.856
    assert np.isnan(samples_of(opened(case, tmp_path))[1].intrinsics_px).all()


def test_kittis_images_without_truth_are_counted_and_not_planned(tmp_path: Path) -> None:
    case = case_of("kitti-eigen")
    made = benchmark_files.kitti({(DRIVE, 69): case.frames[0]}, without_truth=3)
    source = opened(Case(made, *list(vars(case).values())[1:]), tmp_path)
    assert len(source) == 1 and len(samples_of(source)) == 1
    counts = source.provenance()
    assert (counts["listed"], counts["without_truth"]) == (4, 3)


def test_an_image_too_small_to_crop_is_rejected(tmp_path: Path) -> None:
    case = case_of("kitti-eigen")
    key = case.keys[0]
    case.files.files[f"{key}.png"] = encoded(case.frames[0].rgb[:300])
    depth = next(path for path in case.files.files if "proj_depth" in path)
    case.files.files[depth] = codes16(case.frames[0].depth_m[:300], 256)
    assert rejects_of(opened(case, tmp_path, benchmark_crop=True)) == [(key, "wrong_shape")]


def test_nyuv2s_filled_depth_has_no_holes(tmp_path: Path) -> None:
    sample = samples_of(opened(case_of("nyuv2"), tmp_path, depth="filled"))[0]
    np.testing.assert_array_equal(sample.depth_m[HOLE], 9)


def test_sintels_other_pass(tmp_path: Path) -> None:
    case = case_of("sintel")
    sample = samples_of(opened(case, tmp_path, render_pass="clean"))[0]
    assert sample.key == "clean/alley_1/frame_0001"
    np.testing.assert_array_equal(sample.rgb, 255 - case.frames[0].rgb)


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
@pytest.mark.parametrize("name", LISTED)
def test_a_file_that_is_missing_costs_its_frame_only(name: str, tar: bool, tmp_path: Path) -> None:
    case = case_of(name)
    del case.files.files[case.files.lines[1].split()[1]]
    source = opened(case, tmp_path, tar=tar)
    assert len(source) == 2 and rejects_of(source) == [(case.keys[1], "missing_file")]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("which", ["image", "truth"])
def test_a_file_that_breaks_off_costs_its_frame_only(name: str, which: str, tmp_path: Path) -> None:
    case, files = case_of(name), case_of(name).files.files
    paths = [path for path in files if path.rsplit(".", 1)[0] == case.keys[0]]
    if which == "truth":
        kinds = ("depth_0001.png", "groundtruth", "ground_truth", "/depth/", "_depth.npy", "depth/")
        paths = [p for p in files if any(kind in p for kind in kinds) and p not in paths]
    case.files.files[paths[0]] = files[paths[0]][:-30]
    assert rejects_of(opened(case, tmp_path)) == [(case.keys[0], "corrupt_file")]


@pytest.mark.parametrize("name", ["nyuv2", "kitti-eigen", "scannet", "diode"])
def test_truth_of_another_size_is_rejected(name: str, tmp_path: Path) -> None:
    case = case_of(name)
    image, depth, *_ = case.files.lines[0].split()
    case.files.files[image] = encoded(case.frames[0].rgb[:-1])
    assert depth in case.files.files
    assert rejects_of(opened(case, tmp_path)) == [(case.keys[0], "wrong_shape")]


def test_eth3ds_truth_has_four_bytes_a_pixel(tmp_path: Path) -> None:
    case = case_of("eth3d")
    depth = case.files.lines[0].split()[1]
    case.files.files[depth] = case.files.files[depth] * 2
    reject = next(iter(opened(case, tmp_path).decode(range(1))))
    assert isinstance(reject, RejectedFrame) and reject.reason == "corrupt_file"
    assert reject.detail.endswith("has 40320 bytes, expected 20160: 4 for each of 84 x 60 pixels")


def test_depth_that_is_a_colour_image_is_rejected(tmp_path: Path) -> None:
    case = case_of("nyuv2")
    image, depth, _ = case.files.lines[0].split()
    case.files.files[depth] = case.files.files[image]
    assert rejects_of(opened(case, tmp_path)) == [(case.keys[0], "wrong_shape")]


def test_an_image_that_is_a_depth_map_is_rejected(tmp_path: Path) -> None:
    case = case_of("nyuv2")
    image, depth, _ = case.files.lines[0].split()
    case.files.files[image] = case.files.files[depth]
    reject = next(opened(case, tmp_path).decode(range(1)))
    assert isinstance(reject, RejectedFrame) and reject.reason == "wrong_shape"
    assert reject.detail == f"{image} is one channel of uint16, expected a colour image"


def test_a_grey_image_of_8_bits_is_an_image(tmp_path: Path) -> None:
    case = case_of("nyuv2")
    image, *_ = case.files.lines[0].split()
    case.files.files[image] = encoded(case.frames[0].rgb[..., 0])
    sample = samples_of(opened(case, tmp_path))[0]
    np.testing.assert_array_equal(sample.rgb, case.frames[0].rgb[..., :1].repeat(3, axis=-1))


def test_a_camera_that_is_not_finite_is_rejected(tmp_path: Path) -> None:
    case = case_of("sintel")
    path = "camdata_left/alley_1/frame_0001.cam"
    content = case.files.files[path]
    case.files.files[path] = content[:4] + np.full(21, np.nan).tobytes()
    assert rejects_of(opened(case, tmp_path)) == [(case.keys[0], "wrong_shape")]


@pytest.mark.parametrize(
    "content", [b"1,2,3", b"a,b,c,d", b"nan,nan,nan,nan", b"5_8,58,42,30", b"0,58,42,30"]
)
def test_a_broken_calibration_is_named(content: bytes, tmp_path: Path) -> None:
    case = case_of("ibims-1")
    case.files.files["calib/corridor_01.txt"] = content
    assert rejects_of(opened(case, tmp_path)) == [(case.keys[0], "corrupt_file")]
