"""Scores of labels that another program wrote, of parts of benchmarks, and tables of them."""

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from e2eft import evaluate
from e2eft.artifacts import Artifact, ArtifactError
from e2eft.config import PrepareConfig, SyntheticSource
from e2eft.data.label_trees import customary_paths, open_label_tree
from e2eft.data.sample import Sample
from e2eft.data.shards import KIND, encode_part, encode_row, part_path
from e2eft.evaluate import job
from e2eft.evaluate.chunks import Job
from e2eft.evaluate.published import published_tables
from e2eft.evaluate.scores import SUMMARY
from e2eft.storage import open_store
from tests.artifacts import write_artifact
from tests.scored_frames import affine, config_of, make_frame, write_labels, write_shards

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


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)


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
            write(tree / "plane" / f"{name}.npy", shapes[number])
        elif number == 3:
            write(tree / "plane" / f"pred_{name}.npy", depth)
        elif number == 4:
            write(tree / "plane" / f"{name}.png", np.rint(depth * 65535).astype(np.uint16))
    (tree / "notes.txt").write_text("not a label")
    config = config_of(tmp_path / "scores", "depth", [shards])
    scores = evaluate.run(config, [str(tree)])
    assert statuses(scores) == ["scored"] * 5 + ["missing"]
    assert max(v for v in evaluate.read_table(scores)[1]["abs_rel"].to_pylist() if v) < 2e-3
    assert not evaluate.headline(scores).complete
    assert evaluate.run(config, [str(tree)]) == scores
    write(tree / "plane" / "0005.npy", affine(frames[5]))
    with pytest.raises(ArtifactError, match=r"labels .* holds something else than"):
        evaluate.run(config, [str(tree)])
    labels = open_label_tree(str(tree), "affine_depth", "opencv", None)
    assert len(labels.label_rows([frame.key for frame in frames])) == 6
    assert len(pickle.dumps(labels)) < 1000, "it goes to every task"


def test_files_that_are_no_labels_are_named(tmp_path: Path, frames: list[Sample]) -> None:
    tree, shape = tmp_path / "tree", frames[0].size
    wrong = {
        0: np.zeros((2, *shape), np.float32),
        1: np.zeros(shape, np.int64),
        2: np.zeros((3, 4), np.float32),
        3: np.full(shape, np.nan, np.float32),
    }
    for number, array in wrong.items():
        write(tree / f"{frames[number].key}.npy", array)
    write(tree / f"{frames[4].key}.png", np.zeros(shape, np.uint8))
    write(tree / f"{frames[5].key}.npy", np.full(shape, 0.25, np.float32))
    data = write_shards(tmp_path / "more", [*frames, more := make_frame(9)], [7])
    write(tree / f"{more.key}.npy", affine(more))
    scores = evaluate.run(config_of(tmp_path / "scores", "depth", [data]), [str(tree)])
    expected = ["unreadable", "unreadable", "wrong_size", "not_finite", "unreadable", "constant"]
    assert statuses(scores) == [*expected, "scored"]
    details = evaluate.read_table(scores)[1]["detail"].to_pylist()
    assert "expected [h w], [1 h w] or [h w 1]" in details[0]
    assert "int64, expected floating point" in details[1]
    assert details[2] == "4 x 3 pixels, the image has 32 x 24"
    assert "expected 16-bit grey" in details[4]
    assert details[5] == "every scored pixel is 0.25"
    assert scores.counts["constant"] == 1 and not evaluate.headline(scores).complete


@pytest.mark.parametrize("axes", ["right-up-viewer", "opencv"])
def test_normals_come_in_the_axes_that_are_named(
    tmp_path: Path, frames: list[Sample], shards: Artifact, axes: str
) -> None:
    tree = tmp_path / "tree"
    for number, frame in enumerate(frames):
        normals = np.nan_to_num(frame.normals_cam, nan=0.57735)
        normals = normals * ROTATED if axes == "right-up-viewer" else normals
        if number % 2:
            write(tree / f"{frame.key}.npy", 2 * np.moveaxis(normals, -1, 0))
        else:
            write(tree / f"{frame.key}.png", np.rint((normals + 1) * 127.5).astype(np.uint8))
    config = config_of(tmp_path / "scores", "normals", [shards], labels_axes=axes)
    scores = evaluate.run(config, [str(tree)])
    assert statuses(scores) == ["scored"] * 6
    assert evaluate.headline(scores).value < 0.3
    other = {"opencv": "right-up-viewer", "right-up-viewer": "opencv"}[axes]
    config = config_of(tmp_path / "other", "normals", [shards], labels_axes=other)
    assert evaluate.headline(evaluate.run(config, [str(tree)])).value > 30


def test_disparity_is_scored_as_disparity_only(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    tree = tmp_path / "tree"
    for frame in frames:
        write(tree / f"{frame.key}.npy", (4 / np.nan_to_num(frame.depth_m, nan=9)).astype("f4"))
    config = config_of(
        tmp_path / "s", "depth", [shards],
        protocol="least-squares-disparity", labels_kind="disparity",
    )  # fmt: skip
    assert evaluate.headline(evaluate.run(config, [str(tree)])).value < 1e-3
    as_depth = config.model_copy(update={"labels_kind": "depth", "out": str(tmp_path / "d")})
    with pytest.raises(ArtifactError, match=r"holds affine_depth; least-squares-disparity scores"):
        evaluate.run(as_depth, [str(tree)])
    model = config.model_copy(update={"model": "tiny-marigold-depth", "labels": ()})
    with pytest.raises(ValueError, match=r"scores affine_disparity, but --model predicts affine_d"):
        evaluate.processing_of(model)


def test_log_depth_is_what_the_ransac_protocol_is_made_for(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    for frame in frames:
        depth = np.nan_to_num(frame.depth_m, nan=9, posinf=9).clip(0, 80)
        write(tmp_path / "tree" / f"{frame.key}.npy", (0.1 * np.log1p(depth)).astype("f4"))
    config = config_of(
        tmp_path / "s", "depth", [shards], protocol="ransac-log-depth", labels_kind="log-depth"
    )
    scores = evaluate.run(config, [str(tmp_path / "tree")])
    assert evaluate.headline(scores).value < 1e-3
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
        write(tmp_path / "tree" / f"depth-{frame.key.replace('/', '/x-')}.npy", affine(frame))
    pattern = "depth-{folder}/x-{name}.npy"
    config = config_of(tmp_path / "s", "depth", [shards], labels_pattern=pattern)
    assert statuses(evaluate.run(config, [str(tmp_path / "tree")])) == ["scored"] * 6
    wrong = config.model_copy(update={"labels_pattern": "{stem}.npy"})
    with pytest.raises(ValueError, match=r"--labels-pattern '\{stem\}.npy'.*use \{key\}"):
        evaluate.run(wrong, [str(tmp_path / "tree")])


def benchmark_shards(folder: Path, frames: list[Sample], source: str) -> Artifact:
    """As `prepare` would leave them: the dataset's name in every frame and in the manifest."""
    rows = [encode_row(replace(frame, source=source)) for frame in frames]
    config = PrepareConfig(out=str(folder), source=SyntheticSource(family="indoor"))
    details = {"shard_schema_version": 1, "rows_of_part": [len(rows)], "source": source}
    files = {part_path(0): encode_part(rows)}
    store = open_store(str(folder))
    return write_artifact(store, KIND, config, files=files, counts={}, details=details)


def test_a_part_of_a_benchmark_is_marked_incomplete_in_every_table(
    tmp_path: Path, frames: list[Sample]
) -> None:
    shards = benchmark_shards(tmp_path / "scannet", frames, "scannet")
    labels = write_labels(tmp_path / "l", "depth", {f.key: affine(f) for f in frames}, shards)
    scores = evaluate.run(config_of(tmp_path / "s", "depth", [shards]), [labels.uri])
    summary = json.loads(scores.store.read(SUMMARY))
    assert summary["protocol"] == "least-squares-depth" and summary["complete"] is False
    assert summary["domains"]["scannet"]["expected"] == 800
    report = scores.store.read("report.md").decode()
    assert "**Incomplete: scannet.**" in report
    assert "scannet (6 of 800, incomplete)" in report
    assert "(incomplete: 6 of 800)" in report
    published = "| Marigold, end to end | 0.0580 | 0.9620 | published: arXiv 2409.11355v2 |"
    assert published in report
    assert "(incomplete: 6 of 800)" in evaluate.comparison_table([scores, scores])
    assert not evaluate.headline(scores).complete


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
    values = [evaluate.headline(artifact).value for artifact in scores]
    assert mean == pytest.approx(values[0] - values[1], rel=1e-9) and 0 < low < mean < high
    with pytest.raises(ValueError, match="median_deg over all pixels is no average"):
        evaluate.paired_difference(*scores, "median_deg")
    assert "Mean over all pixels" in scores[0].store.read("report.md").decode()


def test_what_was_published_is_known_in_our_units() -> None:
    (table,) = published_tables("least-squares-depth")
    ours = table.scores["Marigold, end to end"]
    assert ours["nyuv2", "abs_rel"] == pytest.approx(0.052)
    assert ours["diode", "delta1"] == pytest.approx(0.779)
    tables = published_tables("pooled-pixels")
    assert tables[0].scores["DSINE"]["sintel-normals", "pct_11_25"] == 21.5
    assert published_tables("least-squares-disparity") == ()
    assert ("diode", "abs_rel") not in published_tables("ransac-log-depth")[0].scores["GenPercept"]
