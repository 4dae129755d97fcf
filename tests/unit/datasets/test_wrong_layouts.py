"""What is said of a root or a list that is not what it should be."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from e2eft.datasets import open_source
from e2eft.datasets.diode import DiodeSource
from e2eft.datasets.eth3d import Eth3dSource
from e2eft.datasets.ibims import Ibims1Source
from e2eft.datasets.kitti_eigen import KittiEigenSource
from e2eft.datasets.normal_maps import NormalMapSource
from e2eft.datasets.nyuv2 import Nyuv2Source
from e2eft.datasets.scannet import ScanNetSource
from e2eft.datasets.sintel import SintelSource
from e2eft.storage import LocalStore
from tests import benchmark_files
from tests.benchmark_files import BenchmarkFiles, measured_frame

NORMALS = partial(NormalMapSource, dataset="ibims-1")
FRAME = measured_frame(1)
PATH = "scene0406_02/color/000300.jpg"
LINE = f"{PATH} scene0406_02/depth/000300.png"


@pytest.fixture
def made() -> BenchmarkFiles:
    return benchmark_files.scannet({("scene0406_02", 300): FRAME})


def refusal(folder: Path, root: Path, frame_list: str, kind: Any = ScanNetSource) -> str:
    source = open_source(kind(root=str(root), frame_list=frame_list), LocalStore(folder / "index"))
    with pytest.raises(ValueError) as error:
        source.check_present()
        source.write_index()
    assert "\n" not in str(error.value)
    return str(error.value)


def below(made: BenchmarkFiles, folder: str) -> BenchmarkFiles:
    return BenchmarkFiles({f"{folder}/{path}": c for path, c in made.files.items()}, made.lines)


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
def test_a_root_one_level_too_high(made: BenchmarkFiles, tar: bool, tmp_path: Path) -> None:
    high = below(made, "scannet")
    root = tmp_path / ("x.tar" if tar else "x")
    high.write_tar(root) if tar else high.write_folder(root)
    said = refusal(tmp_path, root, made.write_list(tmp_path / "l"))
    assert said == (
        f"--root {root} has none of the images: expected for example {PATH}, "
        f"found scannet/{PATH}" + ("" if tar else f"; did you mean --root {root}/scannet?")
    )


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
def test_a_root_one_level_too_low(made: BenchmarkFiles, tar: bool, tmp_path: Path) -> None:
    low = BenchmarkFiles({p.split("/", 1)[1]: c for p, c in made.files.items()}, made.lines)
    root = tmp_path / ("x.tar" if tar else "x")
    low.write_tar(root) if tar else low.write_folder(root)
    said = refusal(tmp_path, root, made.write_list(tmp_path / "l"))
    holder = "paths must begin with scene0406_02" if tar else (
        "--root must be what holds scene0406_02"
    )  # fmt: skip
    assert said.endswith(f"found color/000300.jpg; {holder}")


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
def test_the_nearest_thing_is_named(made: BenchmarkFiles, tar: bool, tmp_path: Path) -> None:
    other = BenchmarkFiles({p.replace("0300", "0308"): c for p, c in made.files.items()})
    other.files["readme.txt"] = b""
    root = tmp_path / ("x.tar" if tar else "x")
    other.write_tar(root) if tar else other.write_folder(root)
    said = refusal(tmp_path, root, made.write_list(tmp_path / "l"))
    assert said.endswith(f"expected for example {PATH}, found scene0406_02/color/000308.jpg")


def test_images_without_truth(made: BenchmarkFiles, tmp_path: Path) -> None:
    made.files = {path: c for path, c in made.files.items() if "color" in path}
    said = refusal(
        tmp_path, Path(made.write_folder(tmp_path / "x")), made.write_list(tmp_path / "l")
    )
    assert (
        "has none of the files with ground truth: expected for example scene0406_02/depth" in said
    )
    assert said.endswith("found scene0406_02/color")


def test_roots_that_are_not_there_or_cannot_be_read(made: BenchmarkFiles, tmp_path: Path) -> None:
    frame_list = made.write_list(tmp_path / "l")
    assert refusal(tmp_path, tmp_path / "x", frame_list).endswith("x is empty or not there")
    said = refusal(tmp_path, tmp_path / "x.tar", frame_list)
    assert said.endswith("x.tar is not there; beside it there is l")
    said = refusal(tmp_path, tmp_path / "x.tar.gz", frame_list)
    assert "compressed and cannot be read in place: unpack it" in said
    (tmp_path / "y.tar").write_bytes(b"<html>")
    assert "y.tar" in refusal(tmp_path, tmp_path / "y.tar", frame_list)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a.jpg"], "line 1: expected an image and its depth, for example 'scene0406_02/color/"),
        ([LINE, "", "c/color/1.jpg"], "line 3: expected an image and its depth"),
        (["../color/1.jpg ../depth/1.png"], "line 1: .*leaves its folder"),
        ([LINE, LINE.replace(".jpg", ".png")], f"line 2: {PATH[:-4]}.png was named before"),
        ([""], "names no frame with ground truth; expected an image and its depth"),
    ],
)
def test_lists_that_cannot_be_read_as_such(
    lines: list[str], said: str, made: BenchmarkFiles, tmp_path: Path
) -> None:
    made.lines = lines
    frame_list = made.write_list(tmp_path / "l")
    config = ScanNetSource(root=made.write_folder(tmp_path / "x"), frame_list=frame_list)
    with pytest.raises(ValueError, match=f"--list {frame_list}.*{said}"):
        open_source(config).check_present()


LISTS: dict[str, tuple[Any, list[str]]] = {
    "nyuv2": (Nyuv2Source, [
        "test/bath_1/rgb_0001.png test/bath_1/depth_0001.png test/bath_1/filled_0001.png",
        "test/bath_1/rgb_0002.png test/bath_1/depth_0002.png test/bath_1/filled_0002.png"]),
    "kitti-eigen": (KittiEigenSource, [
        "2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png "
        "2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png 721.5377",
        "2011_09_28/2011_09_28_drive_0002_sync/image_02/data/0000000069.png "
        "2011_09_28_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png 707.0493"]),
    "eth3d": (Eth3dSource, [
        "rgb/pipes/images/dslr_images/DSC_0634.JPG "
        "depth/pipes_dslr_depth/pipes/ground_truth_depth/dslr_images/DSC_0634.JPG",
        "rgb/office/images/dslr_images/DSC_0634.JPG "
        "depth/office_dslr_depth/office/ground_truth_depth/dslr_images/DSC_0634.JPG"]),
    "scannet": (ScanNetSource, [
        LINE, "scene0406_01/color/000300.jpg scene0406_01/depth/000300.png"]),
    "diode": (DiodeSource, [
        "outdoor/scene_00022/a_000.png outdoor/scene_00022/a_000_depth.npy "
        "outdoor/scene_00022/a_000_depth_mask.npy",
        "outdoor/scene_00022/a_010.png outdoor/scene_00022/a_010_depth.npy "
        "outdoor/scene_00022/a_010_depth_mask.npy"]),
    "ibims-1": (Ibims1Source, ["corridor_01", "corridor_02"]),
    "normals of DSINE": (NORMALS, ["test/000000_img.png", "test/000001_img.png"]),
    "normals of Marigold": (NORMALS, [
        "test/000000_img.png test/000000_normal.npy",
        "test/000001_img.png test/000001_normal.npy"]),
}  # fmt: skip
TWO_COLUMNS = [name for name, (_, lines) in LISTS.items() if " " in lines[0]]


def refused(name: str, lines: list[str], folder: Path) -> str:
    frame_list = BenchmarkFiles(lines=lines).write_list(folder / "l")
    with pytest.raises(ValueError) as error:
        len(open_source(LISTS[name][0](root=str(folder), frame_list=frame_list)))
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"--list {frame_list}, ")


@pytest.mark.parametrize("name", LISTS)
def test_two_frames_on_a_line_are_refused(name: str, tmp_path: Path) -> None:
    kind, (first, second) = LISTS[name]
    both = BenchmarkFiles(lines=[first, second]).write_list(tmp_path / "both")
    assert len(open_source(kind(root="r", frame_list=both))) == 2
    for line in (f"{first} {second}", f"{first}{second}", f"{first}\t{second}", f"{first} 1 2"):
        assert refused(name, [line], tmp_path).startswith("line 1: expected ")
        assert refused(name, [second, line], tmp_path).startswith("line 2: expected ")


@pytest.mark.parametrize("name", TWO_COLUMNS)
def test_columns_in_another_order_or_of_another_frame_are_refused(
    name: str, tmp_path: Path
) -> None:
    first, second = (line.split() for line in LISTS[name][1])
    turned = [second[1], second[0], *second[2:]]
    assert "are the columns in order?" in refused(name, [" ".join(turned)], tmp_path)
    last = [*second[2:0:-1], second[0]]
    assert refused(name, [" ".join(last)], tmp_path).startswith("line 1: expected ")
    shifted = [first[0], second[1], *second[2:]]
    said = refused(name, [" ".join(second), " ".join(shifted)], tmp_path)
    assert said.startswith("line 2: expected ") and "is of another " in said
    assert f"than {first[0]!r}" in said


def test_the_measured_and_the_filled_in_depth_are_told_apart(tmp_path: Path) -> None:
    image, measured, filled = LISTS["nyuv2"][1][0].split()
    said = refused("nyuv2", [f"{image} {filled} {measured}"], tmp_path)
    assert f"{filled!r} is not called like the example's" in said
    said = refused("nyuv2", [f"{image},,{filled}"], tmp_path)
    assert f"{filled!r} is not called like the example's" in said


@pytest.mark.parametrize("focal", ["nan", "inf", "0", "-721.5", "721,5 ", "7_2"])
def test_kittis_third_column_is_a_focal_length(focal: str, tmp_path: Path) -> None:
    line = LISTS["kitti-eigen"][1][0].replace("721.5377", focal)
    assert refused("kitti-eigen", [line], tmp_path).startswith("line 1: expected ")


def test_an_image_named_with_truth_and_without_is_refused(tmp_path: Path) -> None:
    line = LISTS["kitti-eigen"][1][0]
    image = line.split()[0]
    said = refused("kitti-eigen", [line, f"{image} None 721.5377"], tmp_path)
    assert said == f"line 2: {image} was named before"


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    for ending in ("jpg", "png"):
        (tmp_path / f"corridor_01_img.{ending}").touch()
    with pytest.raises(ValueError, match=r"both corridor_01_img\.jpg and corridor_01_img\.png;"):
        len(open_source(NORMALS(root=str(tmp_path))))


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    config = ScanNetSource(root=str(tmp_path), frame_list=str(tmp_path / "l"))
    with pytest.raises(ValueError, match=r"--list .*l cannot be read: .* is not there"):
        (tmp_path / "x").touch()
        open_source(config).check_present()


def test_the_list_of_another_set(tmp_path: Path) -> None:
    made = benchmark_files.nyuv2({"test/kitchen_0004/rgb_0001": FRAME})
    root = Path(made.write_folder(tmp_path / "x"))
    made.lines = [line.rsplit(" ", 1)[0] for line in made.lines]
    source = open_source(
        Nyuv2Source(root=str(root), frame_list=made.write_list(tmp_path / "l"), depth="filled")
    )
    with pytest.raises(ValueError, match="expected an image, its measured and its filled-in depth"):
        source.check_present()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (DiodeSource(root="?"), r"no images such as indoors/scene_\*/scan_\*/\*\.png"),
        (SintelSource(root="?"), r"no images such as final/alley_1/frame_0001\.png"),
        (NormalMapSource(root="?", dataset="oasis"), r"no images named \*_img\.png"),
    ],
    ids=["diode", "sintel", "oasis"],
)
def test_a_folder_without_frames(config: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "holiday.png").touch()
    source = open_source(config.model_copy(update={"root": str(tmp_path)}))
    with pytest.raises(ValueError, match=rf"--root .* has {said}; found holiday\.png"):
        source.check_present()
