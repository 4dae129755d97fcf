"""Evaluation sets through the preparation stage: from the command line to shards and report."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2eft import cli
from e2eft.artifacts import Artifact, Claim, load_artifact
from e2eft.data.modalities import ANNOTATED_NORMALS, DEPTH, DRAWN_NORMALS
from e2eft.data.sample import Sample
from e2eft.data.shards import KIND, decode_row, open_shards, require_modality
from e2eft.datasets import located, open_source
from e2eft.prepare import PrepareConfig, stage
from e2eft.prepare.parts import index_of, make_part
from e2eft.prepare.stage import REPORT, REPORT_PAGE, SHEET
from tests import benchmark_files, normal_map_files
from tests.benchmark_files import measured_frame
from tests.normal_map_files import known_frame

DEPTH_SETS = ["nyuv2", "kitti-eigen", "eth3d", "scannet", "diode", "ibims-1", "sintel"]
NORMALS_SETS = [
    f"{name}-normals" for name in ("nyuv2", "scannet", "ibims-1", "sintel", "oasis", "diode")
]
NEED_LIST = ["kitti-eigen", "eth3d", "scannet"]


@pytest.fixture(autouse=True)
def made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(
        config: PrepareConfig, claim: Claim, missing: list[dict[str, int]], total: int
    ) -> None:
        for row in missing:
            make_part(**row, config=config, writer=claim.writer, index=index_of(claim))

    monkeypatch.setattr(stage, "_make_parts", make)
    monkeypatch.setattr(stage, "_require_room", lambda _: None)


def prepared(recipe: str, out: Path, *flags: str) -> Artifact:
    assert cli.run_stage("prepare", [recipe, "--out", str(out), "--no-tracking", *flags]) == 0
    return load_artifact(str(out), KIND)


@pytest.mark.parametrize("recipe", DEPTH_SETS + NORMALS_SETS)
def test_a_recipe_is_called_as_its_source(recipe: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("a.png b.png c.png")
    argv = [recipe, "--out", "o", "--root", str(tmp_path)]
    # NYUv2 without a list is another reader, of the same name.
    lists = [["--list", str(tmp_path / "list")]] if recipe in NEED_LIST else [[]]
    for flags in lists:
        config = cli.parse("prepare", [*argv, *flags])
        assert isinstance(config, PrepareConfig)
        source = open_source(located(config.source))
        assert source.dataset.name == recipe
        annotated = DRAWN_NORMALS if recipe == "oasis-normals" else ANNOTATED_NORMALS
        assert source.dataset.modalities == (annotated if recipe in NORMALS_SETS else DEPTH)


@pytest.mark.parametrize("recipe", NEED_LIST)
def test_a_list_is_asked_for(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse("prepare", [recipe, "--out", "o", "--root", "r"])
    assert "--list" in capsys.readouterr().err


def test_where_the_files_are_is_no_part_of_what_is_made(tmp_path: Path) -> None:
    def digest(root: str, frame_list: str) -> str:
        argv = ["scannet", "--out", "o", "--root", root, "--list", frame_list]
        config = cli.parse("prepare", argv)
        assert isinstance(config, PrepareConfig)
        return config.digest()

    assert digest("a", "l") == digest("b.tar", "l") != digest("a", "m")


def test_a_depth_set_from_folder_and_tar(tmp_path: Path) -> None:
    drives = [("2011_09_26_drive_0002", n) for n in (8, 69)] + [("2011_09_28_drive_0002", 1)]
    frames = [measured_frame(n, 375, 1242) for n in range(3)]
    made = benchmark_files.kitti(dict(zip(drives, frames, strict=True)), without_truth=2)
    lost = made.lines[-1].split()[1]
    del made.files[lost]
    flags = ["--list", made.write_list(tmp_path / "list"), "--max-reject-fraction", "0.5"]
    folder = prepared(
        "kitti-eigen", tmp_path / "a", "--root", made.write_folder(tmp_path / "x"), *flags
    )
    tar = prepared(
        "kitti-eigen", tmp_path / "b", "--root", made.write_tar(tmp_path / "x.tar"), *flags
    )
    shards = [[f for f in a.files if f.path.startswith("data/")] for a in (folder, tar)]
    assert shards[0] == shards[1]
    for artifact in (folder, tar):
        assert artifact.counts == {"frames": 2, "rejected": 1}
        assert artifact.details["reject_reasons"] == {"missing_file": 1}
        assert (artifact.details["planned"], artifact.details["truth"]) == (3, ["depth"])
        assert artifact.details["provenance"]["without_truth"] == 2
    page = folder.store.read(REPORT_PAGE).decode()
    assert "Planned: 3 frames of 5 listed; 2 have no ground truth." in page
    require_modality(open_shards(folder.uri), "depth")
    with pytest.raises(ValueError, match="has no normals to train on"):
        require_modality(open_shards(folder.uri), "normals")


def test_a_normals_set_from_folder_and_tar(tmp_path: Path) -> None:
    made = normal_map_files.dsine({"alley_1/frame_0001": known_frame(1)}, ".exr")
    folder = prepared(
        "sintel-normals", tmp_path / "a", "--root", made.write_folder(tmp_path / "x")
    )  # fmt: skip
    tar = prepared(
        "sintel-normals", tmp_path / "b", "--root", made.write_tar(tmp_path / "x.tar")
    )  # fmt: skip
    shards = [[f for f in a.files if f.path.startswith("data/")] for a in (folder, tar)]
    assert shards[0] == shards[1] and folder.details["truth"] == ["normals"]
    assert folder.details["provenance"] == {"listed": 1, "without_truth": 0}
    page = folder.store.read(REPORT_PAGE).decode()
    assert "Planned: 1 frames of 1 listed." in page and "## Depth" not in page
    row = open_shards(folder.uri).read_group(0, 0)[0]
    sample, truth = decode_row(row), known_frame(1)
    known = np.isfinite(truth.normals_cam)
    np.testing.assert_allclose(sample.normals_cam[known], truth.normals_cam[known], atol=1e-3)
    json.dumps(folder.details, allow_nan=False)


def turned(frame: Sample) -> Sample:
    return replace(frame, normals_cam=-frame.normals_cam)


@pytest.mark.parametrize(
    ("recipe", "away", "kept"),
    [("ibims-1-normals", 1, True), ("ibims-1-normals", 4, False), ("oasis-normals", 4, True)],
)
def test_normals_that_face_away_cost_no_frame_but_everywhere_they_are_mistaken_axes(
    recipe: str, away: int, kept: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of OASIS, whose normals are drawn on photographs, any may do so."""
    frames = [known_frame(n) for n in range(4)]
    mixed = [turned(frame) for frame in frames[:away]] + frames[away:]
    ending = ".pkl" if recipe == "oasis-normals" else ".exr"
    named = {f"a/corridor_0{n}": frame for n, frame in enumerate(mixed)}
    made = normal_map_files.dsine(named, ending)
    argv = ["--out", str(tmp_path / "a"), "--root", made.write_folder(tmp_path / "x")]
    code = cli.run_stage("prepare", [recipe, *argv, "--no-tracking"])
    out, err = capsys.readouterr()
    assert code == (0 if kept else cli.STAGE_ERROR)
    if not kept:
        said = "100% of the normals in ibims-1-normals's frames point away from the camera"
        assert said in err and not (tmp_path / "a" / "manifest.json").exists()
        return
    artifact = load_artifact(str(tmp_path / "a"), KIND)
    assert artifact.counts == {"frames": 4, "rejected": 0}
    share = "100.0%" if away == 4 else "2"
    page = artifact.store.read(REPORT_PAGE).decode()
    for text in (page, out):
        (line,) = [line for line in text.splitlines() if "face away from the camera" in line]
        assert line.removeprefix(f"{recipe}: ").startswith(share)
    sample = decode_row(open_shards(artifact.uri).read_group(0, 0)[0])
    known = np.isfinite(sample.normals_cam)
    np.testing.assert_allclose(sample.normals_cam[known], mixed[0].normals_cam[known], atol=1e-3)


def test_an_all_black_image_is_kept_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = {("scene0406_02", number): measured_frame(number) for number in range(3)}
    for name, black in (("seen", False), ("black", True)):
        if black:
            frames["scene0406_02", 1].rgb[:] = 0
        made = benchmark_files.scannet(frames)
        artifact = prepared(
            "scannet", tmp_path / name, "--root", made.write_folder(tmp_path / f"x-{name}"),
            "--list", made.write_list(tmp_path / f"l-{name}"),
        )  # fmt: skip
        key = decode_row(open_shards(artifact.uri).read_group(0, 0)[1]).key
        said = f"1 images are black or of one other colour: {key}."
        assert artifact.counts == {"frames": 3, "rejected": 0}
        facts = json.loads(artifact.store.read(REPORT))
        assert (said in artifact.store.read(REPORT_PAGE).decode()) == black
        assert (f"scannet: {said}" in capsys.readouterr().out) == black
        # What has no such frame is the same artifact as before they were counted.
        assert facts.get("one_colour") == ([key] if black else None)
        assert "normals_away" not in facts


def test_large_frames_are_shown_smaller(tmp_path: Path) -> None:
    made = benchmark_files.eth3d({("office", "DSC_0219"): measured_frame(1, 40, 3000)})
    artifact = prepared(
        "eth3d", tmp_path / "a",
        "--root", made.write_folder(tmp_path / "x"), "--list", made.write_list(tmp_path / "l"),
    )  # fmt: skip
    sheet = Image.open(io.BytesIO(artifact.store.read(SHEET)))
    assert 2000 < sheet.width < 2100, "image and depth, each of 1,000 columns, and no normals"


def test_a_wrong_root_is_refused_before_the_place_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = benchmark_files.scannet({("scene0406_02", 300): measured_frame(1)})
    frame_list = made.write_list(tmp_path / "l")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "scans").touch()
    argv = ["scannet", "--out", str(tmp_path / "o"), "--root", str(tmp_path / "x"), "--no-tracking"]
    assert cli.run_stage("prepare", [*argv, "--list", frame_list]) == cli.STAGE_ERROR
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"prepare: --root {tmp_path / 'x'} has none of")
    assert said[0].endswith("found scans")
    assert not (tmp_path / "o").exists()
