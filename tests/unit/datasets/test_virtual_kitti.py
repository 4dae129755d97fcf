"""Virtual KITTI 2 read back from every layout people have it in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft import cli
from e2eft.data.sample import RejectedFrame, Sample, check_sample
from e2eft.datasets import open_source
from e2eft.datasets.reading.virtual_kitti import VirtualKittiFrames
from e2eft.datasets.virtual_kitti import VirtualKittiSource
from e2eft.prepare import PrepareConfig
from e2eft.storage import LocalStore
from tests.virtual_kitti_files import (
    CX,
    CY,
    FOCAL,
    HEIGHT,
    WIDTH,
    StreetTruth,
    VirtualKittiRelease,
    make_street,
)

LAYOUTS = ["merged", "archives", "kinds", "tars"]


@pytest.fixture(scope="module")
def truth() -> StreetTruth:
    return make_street(0)


@pytest.fixture
def release(truth: StreetTruth) -> VirtualKittiRelease:
    made = VirtualKittiRelease()
    made.add("Scene01", "clone", 0, truth)
    made.add("Scene18", "15-deg-left", 0, truth)
    return made


def source_of(made: VirtualKittiRelease, folder: Path, layout: str, **fields: Any) -> Any:
    known: dict[str, Any] = {
        "root": str(made.write(folder / layout, layout)), "scenes": ("Scene01",),
        "variations": ("clone",), "frames_per_sequence": 1, "benchmark_crop": False,
    }  # fmt: skip
    source = open_source(VirtualKittiSource(**known | fields), LocalStore(folder / "index"))
    source.check_present()
    source.write_index()
    return source


def samples_of(source: VirtualKittiFrames) -> list[Sample | RejectedFrame]:
    return list(source.decode(range(len(source))))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_truth_comes_back(
    layout: str, release: VirtualKittiRelease, truth: StreetTruth, tmp_path: Path
) -> None:
    source = source_of(release, tmp_path, layout)
    left, right = samples_of(source)
    assert left.key == "virtual-kitti-2/Scene01/clone/Camera_0/frame-00000"
    assert right.key == "virtual-kitti-2/Scene01/clone/Camera_1/frame-00000"
    assert isinstance(left, Sample) and isinstance(right, Sample)
    check_sample(left)
    np.testing.assert_array_equal(left.depth_m, right.depth_m)
    sky = np.isinf(truth.depth_m)
    np.testing.assert_array_equal(np.isposinf(left.depth_m), sky)
    np.testing.assert_allclose(left.depth_m[~sky], truth.depth_m[~sky], atol=0.0051)
    assert float(left.depth_m[~sky].max()) > 100
    # Pixel centres are at whole numbers there, at half numbers here.
    expected = [[FOCAL, 0, CX + 0.5], [0, FOCAL, CY + 0.5], [0, 0, 1]]
    np.testing.assert_allclose(left.intrinsics_px, expected)
    assert np.abs(left.rgb.astype(int) - truth.rgb).mean() < 6  # it was a JPEG


def test_normals_are_those_of_the_surfaces(
    release: VirtualKittiRelease, truth: StreetTruth, tmp_path: Path
) -> None:
    sample = samples_of(source_of(release, tmp_path, "merged"))[0]
    assert isinstance(sample, Sample)
    sky = np.isinf(truth.depth_m)
    assert np.isnan(sample.normals_cam[sky]).all()
    known = np.isfinite(sample.normals_cam).all(-1)
    assert known[~sky].mean() > 0.99
    cosine = (sample.normals_cam[known] * truth.normals_cam[known]).sum(-1)
    error_deg = np.degrees(np.arccos(cosine.clip(-1, 1)))
    assert error_deg.mean() < 2 and np.median(error_deg) < 0.7 and (error_deg > 15).mean() < 0.02


def test_normals_of_the_planes_that_older_shards_have_can_be_asked_for(
    release: VirtualKittiRelease, truth: StreetTruth, tmp_path: Path
) -> None:
    own = source_of(release, tmp_path, "merged")
    older = source_of(release, tmp_path, "merged", normal_planes="neighbours")
    assert older.provenance()["normals"] == "surface_normals of depth, 5 x 5 pixels"
    assert own.provenance()["normals"] != older.provenance()["normals"]
    steep: list[float] = []
    for source in (own, older):
        sample = next(source.decode(range(1)))
        assert isinstance(sample, Sample)
        cosine = (sample.normals_cam * truth.normals_cam).sum(-1)
        known = np.isfinite(cosine)
        assert known.sum() > 0.995 * np.isfinite(truth.depth_m).sum()
        steep.append(float((cosine[known] < np.cos(np.radians(30))).mean()))
    assert steep[0] < 0.0001 < 0.001 < steep[1]


def test_the_benchmark_crop_is_at_the_bottom_and_moves_the_camera(
    release: VirtualKittiRelease, tmp_path: Path
) -> None:
    whole = samples_of(source_of(release, tmp_path, "merged"))[0]
    cropped = samples_of(source_of(release, tmp_path, "merged", benchmark_crop=True))[0]
    assert isinstance(whole, Sample) and isinstance(cropped, Sample)
    check_sample(cropped)
    assert cropped.size == (352, 1216)
    window = np.s_[375 - 352 :, 13 : 13 + 1216]
    for name in ("rgb", "depth_m", "normals_cam"):
        np.testing.assert_array_equal(getattr(cropped, name), getattr(whole, name)[window])
    moved = whole.intrinsics_px[:2, 2] - cropped.intrinsics_px[:2, 2]
    np.testing.assert_allclose(moved, [13, 23])


@pytest.mark.parametrize(
    ("recipe", "frames"),
    [
        ("virtual-kitti-2", 21_260),
        ("virtual-kitti-2-marigold", 20_148),
        ("virtual-kitti-2-marigold-val", 5_364),
        ("virtual-kitti-2-all", 42_520),
    ],
)
def test_the_published_selections_have_the_published_sizes(recipe: str, frames: int) -> None:
    config = cli.parse("prepare", [recipe, "--root", "r", "--out", "o"])
    assert isinstance(config, PrepareConfig)
    source = open_source(config.source)
    assert isinstance(source, VirtualKittiFrames) and len(source) == frames
    assert len({name.key for name in source.frames}) == frames


def test_flags_narrow_a_selection_and_cannot_leave_it() -> None:
    argv = ["virtual-kitti-2", "--root", "r", "--out", "o", "--scene", "Scene02", "--scene"]
    config = cli.parse("prepare", [*argv, "Scene06", "--variation", "fog"])
    assert isinstance(config, PrepareConfig)
    source = open_source(config.source)
    assert isinstance(source, VirtualKittiFrames)
    assert len(source) == 2 * (233 + 270)
    assert {name.variation for name in source.frames} == {"fog"}
    outside = cli.parse("prepare", [*argv, "Scene06", "--variation", "clone"])
    assert isinstance(outside, PrepareConfig)
    with pytest.raises(ValueError, match=r"--variation clone is not in the selection 'paper'"):
        len(open_source(outside.source))


@pytest.mark.parametrize("layout", ["merged", "tars"])
def test_a_broken_frame_is_rejected_and_the_others_read(
    layout: str, release: VirtualKittiRelease, tmp_path: Path
) -> None:
    colour, depth = release.files["rgb"], release.files["depth"]
    for scene, variation in release.sequences:
        at = f"{scene}/{variation}/frames/{{0}}/Camera_{{1}}/{{0}}_00000"
        if scene == "Scene01":
            del colour[at.format("rgb", 0) + ".jpg"]
            depth[at.format("depth", 1) + ".png"] = b"\x89PNG\r\n\x1a\n and no more"
        else:
            depth[at.format("depth", 0) + ".png"] = colour[at.format("rgb", 0) + ".jpg"]
    rejects = samples_of(
        source_of(release, tmp_path, layout, scenes=("Scene01", "Scene18"),
                  variations=("clone", "15-deg-left"))
    )  # fmt: skip
    # Two of the four sequences are not in this release at all.
    reasons = {r.key.split("/", 1)[1]: r.reason for r in rejects if isinstance(r, RejectedFrame)}
    assert reasons["Scene01/clone/Camera_0/frame-00000"] == "missing_file"
    assert reasons["Scene01/clone/Camera_1/frame-00000"] == "corrupt_file"
    assert reasons["Scene18/15-deg-left/Camera_0/frame-00000"] == "wrong_shape"
    assert reasons["Scene01/15-deg-left/Camera_0/frame-00000"] == "missing_file"
    assert len(rejects) == 8 and sum(isinstance(r, Sample) for r in rejects) == 1


def test_a_frame_without_a_camera_and_a_table_of_another_kind(
    release: VirtualKittiRelease, tmp_path: Path
) -> None:
    table = "Scene01/clone/intrinsic.txt"
    lines = release.files["textgt"][table].splitlines(keepends=True)
    release.files["textgt"][table] = b"".join(lines[:2])
    left, right = samples_of(source_of(release, tmp_path / "a", "merged"))
    assert isinstance(left, Sample)
    assert isinstance(right, RejectedFrame) and right.reason == "unknown_camera"
    for wrong in ("0 0 725.0087", "0 0 nan nan nan nan", "0 0 0 725 620 187", "0.5 0 725 725 6 1",
                  "0 0 7_2 725 6 1", "0 1 725 725 6 1\n0 1 725 725 6 2"):  # fmt: skip
        release.files["textgt"][table] = b"".join(lines[:1]) + f"{wrong}\n".encode()
        said = "frame 0 of camera 1 twice" if "\n" in wrong else f"the line {wrong!r}"
        for reject in samples_of(source_of(release, tmp_path / "c", "merged")):
            assert isinstance(reject, RejectedFrame) and reject.reason == "corrupt_file"
            assert reject.detail == f"{table} has {said}"
    release.files["textgt"][table] = b"frame cameraID r1,1\n0 0 1\n"
    for reject in samples_of(source_of(release, tmp_path / "b", "merged")):
        assert isinstance(reject, RejectedFrame) and reject.reason == "corrupt_file"
        assert table in reject.detail and "r1,1" in reject.detail


def test_a_tar_is_read_through_once(
    release: VirtualKittiRelease, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = source_of(release, tmp_path, "tars")
    said = capsys.readouterr().out
    assert said.count("reading the directory of") == 2
    again = open_source(source.config, source.index)
    again.write_index()
    assert capsys.readouterr().out == ""
    assert isinstance(next(again.decode(range(1))), Sample)


@pytest.mark.parametrize("kind", ["rgb", "textgt"])
def test_a_tar_cut_short_names_itself(
    kind: str, release: VirtualKittiRelease, tmp_path: Path
) -> None:
    root = release.write(tmp_path / "tars", "tars")
    (path,) = root.glob(f"vkitti_2.0.3_{kind}.tar*")
    content = path.read_bytes()
    path.write_bytes(content[: 3 * len(content) // 4])
    config = VirtualKittiSource(root=str(root), scenes=("Scene18",), variations=("15-deg-left",))
    source = open_source(config, LocalStore(tmp_path / "index"))
    source.check_present()
    with pytest.raises(ValueError, match=rf"{path.name}.*download it again"):
        source.write_index()
        for sample in source.decode(range(1)):
            assert isinstance(sample, RejectedFrame) and sample.reason == "corrupt_file"
            raise ValueError(sample.detail)


def test_what_is_not_there_is_named_with_what_was_found(tmp_path: Path) -> None:
    (tmp_path / "kitti_raw").mkdir()
    config = VirtualKittiSource(root=str(tmp_path), scenes=("Scene02",), variations=("fog",))
    with pytest.raises(
        ValueError,
        match=r"no rgb files: expected vkitti_2.0.3_rgb.tar, .* as Scene01; found kitti_raw",
    ):
        open_source(config).check_present()


def test_sizes_of_the_writer_are_those_of_the_dataset(truth: StreetTruth) -> None:
    assert truth.depth_m.shape == (HEIGHT, WIDTH) == (375, 1242)
    assert truth.codes.dtype == np.uint16 and truth.codes.max() == 65535
