"""Scores of labels that another program wrote, of parts of benchmarks, and tables of them."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft import evaluate
from e2eft.artifacts import Artifact, ArtifactError
from e2eft.data.sample import Sample
from e2eft.data.shards import open_shards
from e2eft.datasets import DATASETS, SourceConfig
from e2eft.datasets.kitti_eigen import KittiEigenSource
from e2eft.datasets.nyuv2 import Nyuv2Source
from e2eft.evaluate import job
from e2eft.evaluate.chunks import Job
from e2eft.evaluate.pairing import protocol_for
from e2eft.evaluate.scores import SUMMARY
from e2eft.labels.trees import LabelTree, customary_paths, open_label_tree
from e2eft.storage import LocalStore, MissingError
from tests.scored_frames import (
    affine,
    at_size,
    config_of,
    make_frame,
    write_array,
    write_labels,
    write_shards,
)

ROTATED = np.array([1, -1, -1], np.float32)
"""OpenCV's axes to right-up-viewer, and back."""


@pytest.fixture(autouse=True)
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(function: Callable[..., Any], chunks: list[Any], task: Job, tasks: int | None) -> Any:
        return (row for chunk in chunks for row in function(chunk, task))

    monkeypatch.setattr(job, "_rows_as_they_come", rows)


@pytest.fixture
def frames() -> list[Sample]:
    return [make_frame(n) for n in range(6)]


@pytest.fixture
def shards(tmp_path: Path, frames: list[Sample]) -> Artifact:
    return write_shards(tmp_path / "shards", frames, [4, 2])


def statuses(scores: Artifact) -> list[str]:
    return evaluate.read_table(scores)[1]["status"].to_pylist()


def test_a_tree_of_npy_and_png_files_is_scored_under_the_images_names(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    tree = tmp_path / "tree"
    for number, frame in enumerate(frames):
        name, depth = frame.key.split("/")[1], affine(frame)
        shapes = {0: depth, 1: depth[None], 2: depth[..., None].astype(np.float64)}
        if number in shapes:
            write_array(tree / "plane" / f"{name}.npy", shapes[number])
        elif number == 3:
            write_array(tree / "plane" / f"pred_{name}.npy", depth)
        elif number == 4:
            write_array(tree / "plane" / f"{name}.png", np.rint(depth * 65535).astype(np.uint16))
    (tree / "notes.txt").write_text("not a label")
    config = config_of(tmp_path / "scores", "depth", [shards])
    scores = evaluate.run(config, [str(tree)])
    assert statuses(scores) == ["scored"] * 5 + ["missing"]
    assert max(v for v in evaluate.read_table(scores)[1]["abs_rel"].to_pylist() if v) < 2e-3
    assert not evaluate.primary_score(scores).complete
    assert evaluate.run(config, [str(tree)]) == scores
    write_array(tree / "plane" / "0005.npy", affine(frames[5]))
    with pytest.raises(ArtifactError, match=r"labels .* holds something else than"):
        evaluate.run(config, [str(tree)])
    labels = open_label_tree(str(tree), "depth", "affine_depth", "opencv", None)
    assert len(labels.label_rows([frame.key for frame in frames])) == 6
    assert len(pickle.dumps(labels)) < 1000, "it goes to every task"


def test_a_damaged_file_costs_its_own_frame_only(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    tree = tmp_path / "tree"
    for frame in frames:
        write_array(tree / f"{frame.key}.npy", affine(frame))
    paths = [tree / f"{frame.key}.npy" for frame in frames]
    whole = paths[0].read_bytes()
    np.savez(tree / "zip.npz", depth=affine(frames[1]))
    paths[0].write_bytes(b"")
    (tree / "zip.npz").replace(paths[1])
    paths[2].write_bytes(b"PK\x03\x04 and no more")
    paths[3].write_bytes(whole.replace(b"'descr'", b"(((desc"))
    paths[4].write_bytes(whole.replace(b"(24, 32), }" + 9 * b" ", b"(24000000000, 32), }"))
    scores = evaluate.run(config_of(tmp_path / "scores", "depth", [shards]), [str(tree)])
    assert statuses(scores) == [*["unreadable"] * 5, "scored"]
    details = evaluate.read_table(scores)[1]["detail"].to_pylist()
    assert "takes 3072000000000 bytes, it has 3072 of them" in details[4]


def test_a_folder_that_is_not_there_or_holds_nothing_is_said_to_be_so(
    tmp_path: Path, shards: Artifact
) -> None:
    (tmp_path / "predictions").mkdir()
    (tmp_path / "one.npy").write_bytes(b"")
    config = config_of(tmp_path / "scores", "depth", [shards])
    for name, said in {
        "prediction": r"is not there; did you mean .*/predictions\?",
        "predictions": "is not there, or holds no file",
        "one.npy": "is a file; give a folder of labels",
    }.items():
        with pytest.raises(MissingError, match=rf"^--labels \S+/{name} {said}"):
            evaluate.run(config, [str(tmp_path / name)])


def test_files_that_are_no_labels_are_named(tmp_path: Path, frames: list[Sample]) -> None:
    tree, shape = tmp_path / "tree", frames[0].size
    wrong = {
        0: np.zeros((2, *shape), np.float32),
        1: np.zeros(shape, np.int64),
        2: np.zeros((3, 4), np.float32),
        3: np.full(shape, np.nan, np.float32),
    }
    for number, array in wrong.items():
        write_array(tree / f"{frames[number].key}.npy", array)
    write_array(tree / f"{frames[4].key}.png", np.zeros(shape, np.uint8))
    write_array(tree / f"{frames[5].key}.npy", np.full(shape, 0.25, np.float32))
    data = write_shards(tmp_path / "more", [*frames, more := make_frame(9)], [7])
    write_array(tree / f"{more.key}.npy", affine(more))
    scores = evaluate.run(config_of(tmp_path / "scores", "depth", [data]), [str(tree)])
    expected = ["unreadable", "unreadable", "wrong_size", "not_finite", "unreadable", "constant"]
    assert statuses(scores) == [*expected, "scored"]
    details = evaluate.read_table(scores)[1]["detail"].to_pylist()
    assert "expected [h w], [1 h w] or [h w 1]" in details[0]
    assert "int64, expected floating point" in details[1]
    assert details[2] == "4 x 3 pixels, the image has 32 x 24"
    assert "expected 16-bit grey" in details[4]
    assert details[5] == "every scored pixel is 0.25"
    assert scores.counts["constant"] == 1 and not evaluate.primary_score(scores).complete


@pytest.mark.parametrize("axes", ["right-up-viewer", "opencv"])
def test_normals_come_in_the_axes_that_are_named(
    tmp_path: Path, frames: list[Sample], shards: Artifact, axes: str
) -> None:
    tree = tmp_path / "tree"
    for number, frame in enumerate(frames):
        normals = np.nan_to_num(frame.normals_cam, nan=0.57735)
        normals = normals * ROTATED if axes == "right-up-viewer" else normals
        if number % 2:
            write_array(tree / f"{frame.key}.npy", 1.05 * np.moveaxis(normals, -1, 0))
        else:
            write_array(tree / f"{frame.key}.png", np.rint((normals + 1) * 127.5).astype(np.uint8))
    config = config_of(tmp_path / "scores", "normals", [shards], labels_axes=axes)
    scores = evaluate.run(config, [str(tree)])
    assert statuses(scores) == ["scored"] * 6
    assert evaluate.primary_score(scores).value < 0.3
    other = {"opencv": "right-up-viewer", "right-up-viewer": "opencv"}[axes]
    config = config_of(tmp_path / "other", "normals", [shards], labels_axes=other)
    assert evaluate.primary_score(evaluate.run(config, [str(tree)])).value > 30


def test_disparity_is_scored_as_disparity_only(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    tree = tmp_path / "tree"
    for frame in frames:
        write_array(
            tree / f"{frame.key}.npy", (4 / np.nan_to_num(frame.depth_m, nan=9)).astype("f4")
        )
    config = config_of(
        tmp_path / "s", "depth", [shards],
        protocol="least-squares-disparity", labels_kind="disparity",
    )  # fmt: skip
    assert evaluate.primary_score(evaluate.run(config, [str(tree)])).value < 1e-3
    as_depth = config.model_copy(update={"labels_kind": "depth", "out": str(tmp_path / "d")})
    with pytest.raises(ArtifactError, match=r"holds affine_depth; least-squares-disparity scores"):
        evaluate.run(as_depth, [str(tree)])
    with pytest.raises(ValueError, match=r"scores affine_disparity, but --model predicts affine_d"):
        evaluate.require_scored(config, "affine_depth")
    evaluate.require_scored(config, "affine_disparity")


def test_log_depth_is_what_the_ransac_protocol_is_made_for(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    for frame in frames:
        depth = np.nan_to_num(frame.depth_m, nan=9, posinf=9).clip(0, 80)
        write_array(tmp_path / "tree" / f"{frame.key}.npy", (0.1 * np.log1p(depth)).astype("f4"))
    config = config_of(
        tmp_path / "s", "depth", [shards], protocol="ransac-log-depth", labels_kind="log-depth"
    )
    scores = evaluate.run(config, [str(tmp_path / "tree")])
    assert evaluate.primary_score(scores).value < 1e-3
    elsewhere = config.model_copy(
        update={"protocol": "least-squares-depth", "out": str(tmp_path / "o")}
    )
    with pytest.raises(ArtifactError, match="holds affine_log_depth; least-squares-depth scores"):
        evaluate.run(elsewhere, [str(tmp_path / "tree")])


def test_names_follow_the_image_marigolds_habit_or_the_users_pattern(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    paths = list(customary_paths("test/bathroom/rgb_0046"))
    assert paths[0] == "test/bathroom/rgb_0046.npy"
    assert "test/bathroom/pred_0046.npy" in paths and "test/bathroom/pred_rgb_0046.npy" in paths
    assert "s/01_pred.npy" in list(customary_paths("s/01_rgb"))
    for frame in frames:
        write_array(tmp_path / "tree" / f"depth-{frame.key.replace('/', '/x-')}.npy", affine(frame))
    pattern = "depth-{folder}/x-{name}.npy"
    config = config_of(tmp_path / "s", "depth", [shards], labels_pattern=pattern)
    assert statuses(evaluate.run(config, [str(tmp_path / "tree")])) == ["scored"] * 6
    wrong = config.model_copy(update={"labels_pattern": "{stem}.npy"})
    with pytest.raises(ValueError, match=r"--labels-pattern '\{stem\}.npy'.*use \{key\}"):
        evaluate.run(wrong, [str(tmp_path / "tree")])


UNCROPPED = KittiEigenSource(root="r", frame_list="l", benchmark_crop=False)


def test_a_part_of_a_benchmark_is_marked_incomplete_in_every_table(
    tmp_path: Path, frames: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(DATASETS["scannet"], frame_size=frames[0].size)
    monkeypatch.setitem(DATASETS, "scannet", few)
    shards = write_shards(tmp_path / "scannet", frames, [6], "scannet")
    labels = write_labels(tmp_path / "l", "depth", {f.key: affine(f) for f in frames}, shards)
    scores = evaluate.run(config_of(tmp_path / "s", "depth", [shards]), [labels.uri])
    summary = json.loads(scores.store.read(SUMMARY))
    assert summary["protocol"] == "least-squares-depth" and summary["complete"] is False
    assert summary["domains"]["scannet"]["expected"] == 800
    report = scores.store.read("report.md").decode()
    assert "**Incomplete: scannet.**" in report
    assert "scannet (6 of 800, incomplete)" in report
    assert "(incomplete: 6 of 800)" in report
    published = (
        "| Marigold, end to end | 0.0580 | 0.9620 | published: arXiv 2409.11355v2, Table 1 |"
    )
    assert published in report
    assert "(incomplete: 6 of 800)" in evaluate.comparison_table([scores, scores])
    assert not evaluate.primary_score(scores).complete


@pytest.mark.parametrize(
    ("source", "published", "otherwise", "how"),
    [
        (
            "kitti-eigen",
            UNCROPPED.model_copy(update={"benchmark_crop": True}),
            UNCROPPED,
            "kitti-eigen without the benchmark crop",
        ),
        (
            "nyuv2",
            Nyuv2Source(root="r"),
            Nyuv2Source(root="r", depth="filled"),
            "nyuv2 with filled-in depth",
        ),
    ],
)
def test_a_benchmark_of_other_data_has_a_name_of_its_own_and_nothing_published_beside_it(
    tmp_path: Path,
    frames: list[Sample],
    source: str,
    published: SourceConfig,
    otherwise: SourceConfig,
    how: str,
) -> None:
    size = DATASETS[source].frame_size
    assert size is not None
    frame = at_size(frames[0], *size)
    made: list[Artifact] = []
    for name, config in (("published", published), ("otherwise", otherwise)):
        shards = write_shards(tmp_path / f"d-{name}", [frame], [1], source, config)
        labels = write_labels(tmp_path / f"l-{name}", "depth", {frame.key: affine(frame)}, shards)
        made.append(evaluate.run(config_of(tmp_path / name, "depth", [shards]), [labels.uri]))
    reports = [scores.store.read("report.md").decode() for scores in made]
    assert [evaluate.primary_score(scores).protocol for scores in made] == [
        "least-squares-depth",
        f"least-squares-depth ({how})",
    ]
    assert "## Beside published scores" in reports[0] and "Not the benchmark's" not in reports[0]
    assert "published: arXiv" not in reports[1]
    assert f"**Not the benchmark's data: {how}.**" in reports[1]
    assert evaluate.comparison_table([made[1]]).startswith(
        f"Protocol: least-squares-depth ({how})\n"
    )
    with pytest.raises(ValueError, match="different protocols do not belong in one table"):
        evaluate.comparison_table(made)
    rows = evaluate.read_table(made[1])[1].to_pylist()
    assert [row["protocol"] for row in rows] == [f"least-squares-depth ({how})"]


def test_more_frames_than_a_benchmark_has_are_another_dataset(
    tmp_path: Path, frames: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(DATASETS["scannet"], images=6, frame_size=frames[0].size)
    monkeypatch.setitem(DATASETS, "scannet", few)
    protocols: list[str] = []
    for count in (6, 7):
        more = [*frames, make_frame(9)][:count]
        shards = write_shards(tmp_path / f"d{count}", more, [count], "scannet")
        labels = write_labels(
            tmp_path / f"l{count}", "depth", {f.key: affine(f) for f in more}, shards
        )
        config = config_of(tmp_path / f"s{count}", "depth", [shards])
        protocols.append(evaluate.primary_score(evaluate.run(config, [labels.uri])).protocol)
    assert few.images == 6 and protocols == [
        "least-squares-depth",
        "least-squares-depth (scannet of 7 frames instead of 6)",
    ]


@pytest.mark.parametrize(
    ("protocol", "source", "sizes", "how"),
    [
        ("least-squares-depth", "scannet", [(12, 16)], "at 16 x 12"),
        ("least-squares-disparity", "eth3d", [(24, 32), (24, 32)], "at 32 x 24"),
        ("ransac-log-depth", "nyuv2", [(240, 320)], "at 320 x 240"),
        ("ransac-log-depth", "diode", [(384, 512)], "at 512 x 384"),
        ("least-squares-depth", "kitti-eigen", [(352, 1215)], "at 1215 x 352"),
        ("pooled-pixels", "nyuv2-normals", [(48, 64)], "at 64 x 48"),
        ("per-image-mean", "ibims-1-normals", [(640, 480)], "at 480 x 640"),
        ("pooled-pixels", "sintel-normals", [(436, 1024)], ""),
        ("pooled-pixels", "oasis-normals", [(12, 16), (24, 32)], ""),
        ("least-squares-depth", "hypersim", [(12, 16)], ""),
        ("least-squares-depth", "scannet", [(480, 640)], ""),
        ("least-squares-depth", "scannet", [(480, 640), (12, 16)], "in part at 16 x 12"),
        ("least-squares-depth", "scannet", [(9, 9), (8, 9), (7, 9)],
         "at 9 x 7 and 2 other sizes"),
    ],
)  # fmt: skip
def test_frames_that_are_not_of_a_benchmarks_size_are_another_dataset(
    tmp_path: Path, protocol: str, source: str, sizes: list[tuple[int, int]], how: str
) -> None:
    frames = [at_size(make_frame(number), *size) for number, size in enumerate(sizes)]
    shards = open_shards(write_shards(tmp_path, frames, [len(frames)], source).uri)
    task = "normals" if source.endswith("-normals") else "depth"
    config = config_of(tmp_path, task, [shards.artifact], protocol=protocol)
    named = protocol_for(config, [shards]).full_name
    assert named == (f"{protocol} ({source} {how})" if how else named.partition(" (")[0])


def test_what_is_scored_otherwise_than_the_published_code_does_is_said_beside_its_scores(
    tmp_path: Path, frames: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "diode: unknown depth counts as 0 in the filter that drops depth edges"
    flat = replace(frames[0], depth_m=2 + frames[0].depth_m / 100)
    monkeypatch.setitem(DATASETS, "diode", replace(DATASETS["diode"], frame_size=flat.size))
    shards = write_shards(tmp_path / "d", [flat], [1], "diode")
    labels = write_labels(tmp_path / "l", "depth", {flat.key: affine(flat)}, shards)
    for protocol in ("ransac-log-depth", "least-squares-depth"):
        config = config_of(tmp_path / protocol, "depth", [shards], protocol=protocol)
        report = evaluate.run(config, [labels.uri]).store.read("report.md").decode()
        assert "published: arXiv" in report
        assert (said in report) == (protocol == "ransac-log-depth")


def test_a_table_holds_one_protocol_and_one_set_of_data(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    labels = write_labels(tmp_path / "l", "depth", {f.key: affine(f) for f in frames}, shards)
    scores = evaluate.run(config_of(tmp_path / "a", "depth", [shards]), [labels.uri])
    config = config_of(tmp_path / "b", "depth", [shards], protocol="ransac-log-depth")
    ransac = evaluate.run(config, [labels.uri])
    with pytest.raises(ValueError, match=r"different protocols do not belong in one table"):
        evaluate.comparison_table([scores, ransac])
    fewer = write_shards(tmp_path / "fewer", frames[:3], [3])
    labels = write_labels(tmp_path / "k", "depth", {f.key: affine(f) for f in frames[:3]}, fewer)
    other = evaluate.run(config_of(tmp_path / "c", "depth", [fewer]), [labels.uri])
    with pytest.raises(ValueError, match="were scored on different data"):
        evaluate.comparison_table([scores.uri, other.uri])
    with pytest.raises(ValueError, match=r"no metric 'mean_deg'; there are abs_rel"):
        evaluate.comparison_table([scores], ["mean_deg"])
    table = evaluate.comparison_table([scores], ["abs_rel", "rmse"])
    assert "plane abs_rel ↓ | plane rmse ↓" in table and scores.uri in table


def test_pooled_scores_are_compared_by_pixels(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    generator, scores = np.random.default_rng(0), []
    for name, noise in (("worse", 0.3), ("better", 0.1)):
        noisy: dict[str, Any] = {}
        for frame in frames:
            normals = np.nan_to_num(frame.normals_cam, nan=0.6)
            normals = normals + generator.normal(0, noise, normals.shape)
            noisy[frame.key] = (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(
                np.float32
            )
        labels = write_labels(tmp_path / f"l-{name}", "normals", noisy, shards)
        config = config_of(tmp_path / name, "normals", [shards], protocol="pooled-pixels")
        scores.append(evaluate.run(config, [labels.uri]))
    table = evaluate.differences_table([scores[1], scores[0]])
    assert f"Difference to {scores[1].uri}" in table and f"| {scores[0].uri} | +" in table
    mean, low, high = evaluate.paired_difference(*scores, "mean_deg")
    values = [evaluate.primary_score(artifact).value for artifact in scores]
    assert mean == pytest.approx(values[0] - values[1], rel=1e-9) and 0 < low < mean < high
    with pytest.raises(ValueError, match="median_deg over all pixels is no average"):
        evaluate.paired_difference(*scores, "median_deg")
    assert "Mean over all pixels" in scores[0].store.read("report.md").decode()


def test_a_damaged_picture_is_no_prediction(tmp_path: Path) -> None:
    write_array(tmp_path / "a.png", np.arange(4096, dtype=np.uint16).reshape(64, 64))
    tree = LabelTree(LocalStore(tmp_path), "depth", "affine_depth")
    row = {"npy_path": "", "depth_path": "a.png"}
    whole = (tmp_path / "a.png").read_bytes()
    assert tree.read(row)[0, 1] == pytest.approx(1 / 65535)
    damaged = bytearray(whole)
    damaged[whole.index(b"IDAT") + 12] ^= 1
    for content in (bytes(damaged), whole[:-40]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(ValueError, match=r"decode_corrupt|decode_truncated"):
            tree.read(row)
