"""What is said of a root or a list that is not what it should be."""

from pathlib import Path
from typing import Any

import pytest

from e2eft.config import DiodeSource, NormalMapSource, Nyuv2Source, ScanNetSource, SintelSource
from e2eft.data.sources import open_source
from e2eft.storage import LocalStore
from tests import benchmark_files
from tests.benchmark_files import BenchmarkFiles, measured_frame

FRAME = measured_frame(1)
PATH = "scene0406_02/color/000300.jpg"


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
        (["a.jpg b.png", "", "c.jpg"], "line 3: expected an image and its depth"),
        (["../a.jpg b.png"], "line 1: .*leaves its folder"),
        (["a.jpg b.png", "a.png c.png"], "line 2: a.png was named before"),
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
