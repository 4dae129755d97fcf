"""The preparation stage with its tasks run one after the other, on analytic frames."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from e2eft import prepare
from e2eft.artifacts import CLAIM, ArtifactError, Claim, load_artifact, verify
from e2eft.config import TrackingConfig
from e2eft.data.sample import RejectedFrame, Sample
from e2eft.data.shards import KIND, decode_row, open_shards, part_path
from e2eft.data.survey import DEPTH_EDGES_M, planned_line
from e2eft.datasets import Dataset
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.prepare import PrepareConfig, inputs, parts, stage
from e2eft.prepare.parts import index_of, make_part, record_path
from e2eft.prepare.stage import (
    REJECTS,
    REPORT,
    REPORT_PAGE,
    SHEET,
    frames_of_part,
)
from e2eft.storage import LocalStore, Store
from tests.frames import analytic_frame

BROKEN = {5: "no_valid_depth", 6: "wrong_dtype"}
FRAMES, PER_PART = 13, 5


class AnalyticFrames:
    """Stands for the renderer: thirteen frames, two of them broken."""

    dataset = Dataset(name="analytic")
    lost = False

    def __init__(self, config: SyntheticSource, index: Store | None) -> None:
        self.config, self.index = config, index

    def __len__(self) -> int:
        return FRAMES

    def check_present(self, *, thorough: bool = False) -> None:
        if self.lost:
            raise ValueError("the raw files are not there")

    def write_index(self) -> None:
        assert self.index is not None
        self.index.write("cameras/scene-0.txt", b"camera of the scene")

    def telling(self) -> list[str]:
        return []

    def raw_digest(self, name: str) -> str:
        return ""

    def decode(self, numbers: range) -> Iterator[Sample]:
        for number in numbers:
            sample = analytic_frame(number, 32, 40)
            if BROKEN.get(number) == "no_valid_depth":
                sample = replace(sample, depth_m=np.full_like(sample.depth_m, np.nan))
            if BROKEN.get(number) == "wrong_dtype":
                sample = replace(sample, rgb=sample.rgb.astype(np.float32))
            yield sample

    def provenance(self) -> dict[str, Any]:
        return {"renderer": "closed form"}


@pytest.fixture(autouse=True)
def made_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Parts are made in this process; the list says which."""
    made: list[int] = []

    def make(
        config: PrepareConfig, claim: Claim, missing: list[dict[str, int]], total: int
    ) -> None:
        for row in reversed(missing):
            make_part(**row, config=config, writer=claim.writer, index=index_of(claim))
            made.append(row["part"])

    for room in (inputs, parts, stage):
        monkeypatch.setattr(room, "open_source", AnalyticFrames)
    monkeypatch.setattr(stage, "_require_room", lambda _: None)
    monkeypatch.setattr(stage, "_make_parts", make)
    return made


def config_of(out: Path, **fields: Any) -> PrepareConfig:
    known: dict[str, Any] = {
        "out": str(out), "source": SyntheticSource(family="indoor"), "frames_per_part": PER_PART,
        "max_reject_fraction": 0.2, "tracking": TrackingConfig(enabled=False),
    }  # fmt: skip
    return PrepareConfig(**known | fields)


def test_parts_cut_the_frames_without_gap_or_overlap() -> None:
    config = config_of(Path("x"))
    parts = [frames_of_part(config, part, FRAMES) for part in range(3)]
    assert parts == [range(0, 5), range(5, 10), range(10, 13)]


def test_an_artifact_holds_every_good_frame_in_order(tmp_path: Path) -> None:
    artifact = prepare.run(config_of(tmp_path / "out"))
    assert artifact == load_artifact(str(tmp_path / "out"), KIND) and verify(artifact) == []
    assert artifact.counts == {"frames": 11, "rejected": 2}
    shards = open_shards(str(tmp_path / "out"))
    assert shards.rows_of_part == (5, 3, 3)
    rows = [row for part in range(3) for row in shards.read_group(part, 0)]
    keys = [decode_row(row).key for row in rows]
    assert keys == [f"analytic/frame-{n:04d}" for n in range(FRAMES) if n not in BROKEN]
    assert artifact.details["source"] == "analytic"
    assert artifact.details["provenance"] == {"renderer": "closed form"}
    assert artifact.details["planned"] == FRAMES
    assert artifact.details["truth"] == ["depth", "normals"]


def test_what_a_source_kept_for_another_configuration_is_gone_with_it(tmp_path: Path) -> None:
    first = prepare.run(config_of(tmp_path / "out"))
    seed = SyntheticSource(family="indoor", seed=5)
    second = prepare.run(config_of(tmp_path / "out", source=seed, overwrite=True))
    kept = [path for path, _ in second.store.list("index/")]
    assert kept == [f"index/{second.made['claim']}/cameras/scene-0.txt"]
    assert first.made["claim"] != second.made["claim"]


def test_what_was_dropped_is_counted_and_listed(tmp_path: Path) -> None:
    artifact = prepare.run(config_of(tmp_path / "out"))
    assert artifact.details["reject_reasons"] == {"no_valid_depth": 1, "wrong_dtype": 1}
    rejects = pq.read_table(io.BytesIO(artifact.store.read(REJECTS))).to_pylist()
    assert [(row["key"], row["reason"]) for row in rejects] == [
        ("analytic/frame-0005", "no_valid_depth"),
        ("analytic/frame-0006", "wrong_dtype"),
    ]
    assert rejects[1]["detail"] == "rgb is float32, expected uint8"


def test_the_contact_sheet_is_a_picture_of_the_frames(tmp_path: Path) -> None:
    artifact = prepare.run(config_of(tmp_path / "out"))
    sheet = Image.open(io.BytesIO(artifact.store.read(SHEET)))
    assert sheet.width >= 3 * 40 and sheet.height >= 11 * 32
    assert len(np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0)) > 200


def test_raw_files_may_go_once_the_shards_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepare.run(config_of(tmp_path / "out"))
    monkeypatch.setattr(AnalyticFrames, "lost", True)
    assert prepare.run(config_of(tmp_path / "out")) == made
    with pytest.raises(ValueError, match="the raw files are not there"):
        prepare.run(config_of(tmp_path / "other"))
    assert not (tmp_path / "other").exists(), "what was refused has claimed the place"


def test_a_frame_whose_file_was_mended_is_read_again(
    tmp_path: Path, made_here: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_hole(frames: AnalyticFrames, numbers: range) -> Iterator[Sample | RejectedFrame]:
        for sample in whole(frames, numbers):
            lost = sample.key.endswith("0011")
            yield RejectedFrame(sample.key, "missing_file", "gone") if lost else sample

    whole = AnalyticFrames.decode
    monkeypatch.setattr(AnalyticFrames, "decode", with_a_hole)
    config = config_of(tmp_path / "out", max_reject_fraction=0.2)
    with pytest.raises(ValueError, match=r"3 of 13 .*mend the files and run it again"):
        prepare.run(config)
    monkeypatch.setattr(AnalyticFrames, "decode", whole)
    artifact = prepare.run(config)
    assert made_here == [2, 1, 0, 2], "only the part with the hole had to be made again"
    assert artifact.counts == {"frames": 11, "rejected": 2}


def test_the_report_counts_what_is_in_the_shards(tmp_path: Path) -> None:
    artifact = prepare.run(config_of(tmp_path / "out"))
    report = json.loads(artifact.store.read(REPORT))
    shards = open_shards(artifact.uri)
    rows = [row for part in range(3) for row in shards.read_group(part, 0)]
    samples = [decode_row(row) for row in rows]
    assert report["sizes"] == {"32 x 40": 11}
    assert report["scenes"] == dict(Counter(sample.scene for sample in samples))
    depth = np.concatenate([sample.depth_m[::4, ::4].ravel() for sample in samples])
    assert report["pixels"] == depth.size == 11 * 80
    assert report["sky"] == np.isposinf(depth).sum()
    assert report["unknown"] == np.isnan(depth).sum()
    between = (depth >= 2) & (depth < 5)
    assert report["depth_counts"][DEPTH_EDGES_M.index(2)] == between.sum() > 0
    assert sum(report["depth_counts"]) == np.isfinite(depth).sum()
    page = artifact.store.read(REPORT_PAGE).decode()
    assert "11 frames (11 of 32 x 40) of 4 scenes; 2 rejected." in page
    assert "Planned: 13 frames." in page
    assert planned_line(7, {"split": "train"}) == "Planned: 7 frames of the split train."
    assert f"| 2 to 5 | {between.sum() / np.isfinite(depth).sum():.1%} |" in page
    assert "| no_valid_depth | 1 |" in page and f"]({SHEET})" in page


def test_too_many_rejects_fail_the_job_but_keep_its_parts(
    tmp_path: Path, made_here: list[int]
) -> None:
    config = config_of(tmp_path / "out", max_reject_fraction=0.1)
    for _ in range(2):
        with pytest.raises(
            ValueError,
            match=r"2 of 13 frames were rejected .*no_valid_depth.* --max-reject-fraction",
        ):
            prepare.run(config)
    assert made_here == [2, 1, 0], "parts that were there were made again"
    with pytest.raises(ArtifactError, match="run it again"):
        load_artifact(str(tmp_path / "out"))


def claim_id(store: LocalStore) -> str:
    return json.loads(store.read(CLAIM))["id"]


@pytest.mark.parametrize("lost", ["record", "part-and-record", "manifest"])
def test_only_what_is_missing_is_made_again(
    lost: str, tmp_path: Path, made_here: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = prepare.run(config_of(tmp_path / "whole"))
    store = LocalStore(tmp_path / "out")
    prepare.run(config_of(tmp_path / "out"))
    made_here.clear()
    store.delete("manifest.json")
    if lost != "manifest":
        # A part without its record was never committed, whatever it holds.
        store.delete(record_path(claim_id(store), 1, 1))
        store.write(part_path(1), b"half of a part")
    if lost == "part-and-record":
        store.delete(part_path(1))
    artifact = prepare.run(config_of(tmp_path / "out", cpus_per_task=3.0))
    assert made_here == ([] if lost == "manifest" else [1])
    lies_beside = [file.called for file in artifact.files if file.name]
    assert lies_beside == ([part_path(1)] if lost == "record" else [])
    if not lies_beside:
        assert artifact.files == wanted.files and artifact.digest == wanted.digest
    assert [(f.called, f.sha256) for f in artifact.files] == [
        (f.path, f.sha256) for f in wanted.files
    ]
    assert verify(artifact) == []
    said = capsys.readouterr().out
    assert f"resuming {tmp_path}/out: {3 if lost == 'manifest' else 2} of 3 parts are there" in said


def test_a_finished_one_is_found_and_another_configuration_refused(
    tmp_path: Path, made_here: list[int]
) -> None:
    first = prepare.run(config_of(tmp_path / "out"))
    made_here.clear()
    assert prepare.run(config_of(tmp_path / "out")) == first and made_here == []
    other = config_of(tmp_path / "out", frames_per_part=4)
    with pytest.raises(ArtifactError, match=r"--frames-per-part 5 -> 4"):
        prepare.run(other)
    again = prepare.run(other.model_copy(update={"overwrite": True}))
    assert open_shards(again.uri).rows_of_part == (4, 2, 4, 1)
    assert {path for path, _ in again.store.list("data/")} == {part_path(part) for part in range(4)}


def test_frames_that_are_all_rejected_make_no_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(FRAMES):
        monkeypatch.setitem(BROKEN, number, "no_valid_depth")
    with pytest.raises(ValueError, match=r"all 13 frames were rejected .*'no_valid_depth': 13"):
        prepare.run(config_of(tmp_path / "out", max_reject_fraction=1.0))
