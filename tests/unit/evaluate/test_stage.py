"""Scores of label artifacts, on analytic frames whose scores are known in closed form."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from e2eft import evaluate
from e2eft.artifacts import Artifact, ArtifactError, Parent, Place, load_artifact, verify
from e2eft.config import TrackingConfig
from e2eft.data.sample import Sample
from e2eft.data.shards import ROWS_PER_GROUP
from e2eft.evaluate import job, stage
from e2eft.evaluate.chunks import Job, score_chunk
from e2eft.evaluate.protocols import LeastSquaresDepth, PerImageMean
from e2eft.evaluate.scores import SUMMARY, TABLE
from e2eft.labels import index as label_files
from e2eft.tracking import TrackingError
from tests.scored_frames import (
    HEIGHT,
    WIDTH,
    affine,
    config_of,
    make_frame,
    write_labels,
    write_shards,
)


def rows_of(scores: Artifact) -> list[dict[str, Any]]:
    return evaluate.read_table(scores)[1].to_pylist()


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks in this process, the last one first."""

    def rows(function: Callable[..., Any], chunks: list[Any], task: Job, tasks: int | None) -> Any:
        return (row for chunk in reversed(chunks) for row in function(chunk, task))

    monkeypatch.setattr(job, "_rows_as_they_come", rows)


@pytest.fixture
def frames() -> list[Sample]:
    return [make_frame(n, "plane") for n in range(20)] + [make_frame(n, "wall") for n in range(13)]


@pytest.fixture
def shards(tmp_path: Path, frames: list[Sample]) -> Artifact:
    """33 frames in two parts whose ends are no ends of chunks or row groups."""
    return write_shards(tmp_path / "shards", frames, [19, 14])


@pytest.mark.usefixtures("without_ray")
def test_a_perfect_depth_scores_zero_and_the_constant_is_each_images_mean_depth(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    write_labels(tmp_path / "labels", "depth", {f.key: affine(f) for f in frames}, shards)
    config = config_of(tmp_path / "scores", "depth", [shards])
    scores = evaluate.run(config, [str(tmp_path / "labels")])
    rows = rows_of(scores)
    assert [row["key"] for row in rows] == [frame.key for frame in frames]
    for row, frame in zip(rows, frames, strict=True):
        scored = np.isfinite(frame.depth_m) & (frame.depth_m < 80)
        assert row["pixels"] == scored.sum() == HEIGHT * WIDTH - 4 * WIDTH - 8 - 6
        assert (row["domain"], row["scene"]) == (frame.source, frame.scene)
        assert row["abs_rel"] < 2e-4 and row["delta1"] == 1
        truth = frame.depth_m[scored].astype(float)
        expected = np.mean(np.abs(truth.mean() - truth) / truth)
        assert row["constant_abs_rel"] == pytest.approx(expected, rel=1e-3)
        assert row["constant_rmse"] == pytest.approx(truth.std(), rel=1e-3)
    assert scores.counts == {"images": 33, "scored": 33}
    assert verify(scores) == []


@pytest.mark.usefixtures("without_ray")
def test_the_summary_is_the_mean_over_images_of_each_domain_and_of_all(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    generator = np.random.default_rng(0)
    noisy = {
        f.key: np.clip(affine(f) + generator.normal(0, 0.002, f.size), 0, 1).astype(np.float32)
        for f in frames
    }
    labels = write_labels(tmp_path / "labels", "depth", noisy, shards)
    scores = evaluate.run(config_of(tmp_path / "scores", "depth", [shards]), [labels.uri])
    rows, summary = rows_of(scores), json.loads(scores.store.read(SUMMARY))
    assert summary["complete"] is True and summary["protocol"] == "least-squares-depth to 80 m"
    for name, group in {"": summary["overall"], **summary["domains"]}.items():
        mine = [row for row in rows if name in ("", row["domain"])]
        numbers = group["metrics"]["abs_rel"]
        assert group["scored"] == len(mine) == {"": 33, "plane": 20, "wall": 13}[name]
        assert numbers["mean"] == pytest.approx(np.mean([row["abs_rel"] for row in mine]))
        assert numbers["low"] < numbers["mean"] < numbers["high"] < numbers["constant"]
        constants = [row["constant_abs_rel"] for row in mine]
        assert numbers["constant"] == pytest.approx(np.mean(constants))
    report = scores.store.read("report.md").decode()
    assert "| abs_rel ↓ |" in report and "plane (20 of 20)" in report
    inverse = summary["domains"]["plane"]["metrics"]["i_rmse_capped"]
    assert f"**{inverse['mean']:.4f} 1/m**" in report
    assert "Incomplete" not in report
    found = evaluate.primary_score(scores)
    assert (found.metric_name, found.lower_is_better, found.complete) == ("abs_rel", True, True)
    assert found.value == summary["overall"]["metrics"]["abs_rel"]["mean"]


@pytest.mark.usefixtures("without_ray")
def test_what_cannot_be_scored_is_counted_listed_and_makes_the_score_incomplete(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    predictions: dict[str, np.ndarray | str] = {frame.key: affine(frame) for frame in frames}
    keys = list(predictions)
    del predictions[keys[0]]
    predictions[keys[1]] = "decode_truncated"
    predictions[keys[2]] = affine(frames[2])[:, :-1]
    in_sky, on_ground = affine(frames[3]).copy(), affine(frames[4]).copy()
    in_sky[0, 0] = on_ground[20, 20] = np.nan
    predictions[keys[3]], predictions[keys[4]] = in_sky, on_ground
    labels = write_labels(tmp_path / "labels", "depth", predictions, shards)
    paths = {row["key"]: row["npy_path"] for row in label_files.open_labels(labels.uri).rows()}
    (tmp_path / "labels" / paths[keys[5]]).unlink()
    (tmp_path / "labels" / paths[keys[6]]).write_bytes(b"\x93NUMPY no array")
    scores = evaluate.run(config_of(tmp_path / "scores", "depth", [shards]), [labels.uri])
    status = {row["key"]: row["status"] for row in rows_of(scores)}
    expected = {0: "missing", 1: "rejected", 2: "wrong_size", 3: "scored", 4: "not_finite"}
    expected |= {5: "missing", 6: "unreadable", 7: "scored"}
    assert {number: status[keys[number]] for number in expected} == expected
    assert scores.counts["scored"] == 27 and scores.counts["missing"] == 2
    summary = json.loads(scores.store.read(SUMMARY))
    assert summary["complete"] is False and not evaluate.primary_score(scores).complete
    assert {entry["key"] for entry in summary["problems"]} == {keys[n] for n in (0, 1, 2, 4, 5, 6)}
    detail = next(e["detail"] for e in summary["problems"] if e["status"] == "not_finite")
    assert detail == f"1 of {HEIGHT * WIDTH - 4 * WIDTH - 14} scored pixels"
    assert "Incomplete" in scores.store.read("report.md").decode()


@pytest.mark.usefixtures("without_ray")
def test_a_frame_without_truth_in_range_is_not_the_models_fault(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    far = make_frame(99)
    far.depth_m[:] = 300.0
    data = write_shards(tmp_path / "far", [*frames[:3], far], [4])
    predictions = {frame.key: affine(frame) for frame in [*frames[:3], far]}
    labels = write_labels(tmp_path / "labels", "depth", predictions, data)
    scores = evaluate.run(config_of(tmp_path / "scores", "depth", [data]), [labels.uri])
    assert scores.counts == {"images": 4, "scored": 3, "nothing_to_score": 1}
    assert evaluate.primary_score(scores).complete


@pytest.mark.usefixtures("without_ray")
def test_a_frame_of_another_size_than_its_benchmarks_leaves_it_incomplete(tmp_path: Path) -> None:
    small, frame = make_frame(1), make_frame(2)
    arrays = ("rgb", "depth_m", "normals_cam")
    large = {name: getattr(frame, name).repeat(20, 0).repeat(20, 1) for name in arrays}
    fitting = replace(frame, **large)
    data = write_shards(tmp_path / "nyu", [small, fitting], [2], "nyuv2")
    predictions = {small.key: affine(small), frame.key: affine(fitting)}
    labels = write_labels(tmp_path / "labels", "depth", predictions)
    config = config_of(tmp_path / "scores", "depth", [data], bootstrap=1, panels=0)
    scores = evaluate.run(config, [labels.uri])
    assert scores.counts == {"images": 2, "scored": 1, "unfit_frame": 1}
    (problem,) = json.loads(scores.store.read(SUMMARY))["problems"]
    said = f"{small.key} has 32 x 24 pixels; NYUv2's window is for 640 x 480"
    assert (problem["key"], problem["detail"]) == (small.key, said)
    only = write_shards(tmp_path / "small", [small], [1], "nyuv2")
    with pytest.raises(ValueError, match=rf"^none of 1 images could be scored.*\({said}\)$"):
        evaluate.run(config_of(tmp_path / "none", "depth", [only]), [labels.uri])


@pytest.mark.usefixtures("without_ray")
@pytest.mark.parametrize(
    ("task", "protocol", "array"),
    [("normals", "pooled-pixels", "normals_cam"), ("depth", "least-squares-depth", "depth_m")],
)
def test_data_without_what_a_protocol_scores_are_said_to_be_so(
    task: Any, protocol: Any, array: str, tmp_path: Path
) -> None:
    frame = make_frame(1)
    bare = replace(frame, **{array: getattr(frame, array) * np.float32(np.nan)})
    data = write_shards(tmp_path / "data", [bare], [1])
    prediction = frame.normals_cam if task == "normals" else affine(frame)
    labels = write_labels(tmp_path / "labels", task, {frame.key: prediction})
    config = config_of(tmp_path / "scores", task, [data], protocol=protocol)
    said = rf"nothing_to_score \(the image has no {task}, which {protocol} scores\)"
    with pytest.raises(ValueError, match=said):
        evaluate.run(config, [labels.uri])


@pytest.mark.usefixtures("without_ray")
def test_a_range_that_a_benchmarks_own_stands_above_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = make_frame(1)
    data = {name: write_shards(tmp_path / name, [frame], [1], name) for name in ("scannet", "x")}
    labels = write_labels(tmp_path / "labels", "depth", {frame.key: affine(frame)})
    normals = write_labels(tmp_path / "normals", "normals", {frame.key: frame.normals_cam})
    said = "--max-depth-m 5 has no effect"
    ruled = f"{said} on scannet: least-squares-depth has a range of its own there\n"
    cases = [
        ("depth", ("scannet",), labels, ruled),
        ("depth", ("x",), labels, ""),
        ("depth", ("x", "scannet"), labels, ruled),
        ("normals", ("x",), normals, f"{said}: per-image-mean scores normals, at any depth\n"),
    ]
    for number, (task, names, scored, line) in enumerate(cases):
        shards = [data[name] for name in names]
        fields = {"max_depth_m": 5, "bootstrap": 1, "panels": 0}
        config = config_of(tmp_path / str(number), task, shards, **fields)
        evaluate.run(config, [scored.uri] * len(names))
        lines = [one for one in capsys.readouterr().out.splitlines(True) if said in one]
        assert "".join(lines) == line


@pytest.mark.usefixtures("without_ray")
def test_a_frame_of_a_few_known_pixels_which_any_fit_meets_gets_no_score(
    tmp_path: Path, frames: list[Sample]
) -> None:
    """Scale and shift make of two pixels a perfect score, whatever was predicted."""
    known = {"none": 0, "one": 1, "two": 2, "nineteen": 19, "twenty": 20, "many": 300}
    sparse: list[Sample] = []
    for (name, count), frame in zip(known.items(), frames, strict=False):
        places = np.flatnonzero(np.isfinite(frame.depth_m) & (frame.depth_m < 80))[:count]
        depth_m = np.full(frame.depth_m.size, np.nan, np.float32)
        depth_m[places] = frame.depth_m.flat[places]
        sparse.append(replace(frame, key=name, depth_m=depth_m.reshape(frame.size)))
    data = write_shards(tmp_path / "sparse", sparse, [len(sparse)])
    wrong = {f.key: np.random.default_rng(0).random(f.size).astype(np.float32) for f in sparse}
    labels = write_labels(tmp_path / "labels", "depth", wrong, data)
    scores = evaluate.run(config_of(tmp_path / "scores", "depth", [data]), [labels.uri])
    few = dict.fromkeys(("one", "two", "nineteen"), "too_few_pixels")
    status = {"none": "nothing_to_score", **few, "twenty": "scored", "many": "scored"}
    rows = rows_of(scores)
    assert {row["key"]: row["status"] for row in rows} == status
    assert {row["key"]: row["pixels"] for row in rows} == known
    assert min(row["abs_rel"] for row in rows if row["status"] == "scored") > 0.01
    assert scores.counts["too_few_pixels"] == 3 and evaluate.primary_score(scores).complete
    report = scores.store.read("report.md").decode()
    assert "1 nothing to score, 3 too few pixels" in report
    assert "- `two`: too_few_pixels, 2 in the protocol's range, a fit needs 20" in report
    assert "plane (2 of 6)" in report
    # Normals are not fitted: a single one tells something.
    one = replace(sparse[1], normals_cam=np.full_like(sparse[1].normals_cam, np.nan))
    one.normals_cam[9, 9] = frames[1].normals_cam[9, 9]
    assert len(PerImageMean().sampled_pixels(one, 9)) == PerImageMean().least_pixels == 1


@pytest.mark.usefixtures("without_ray")
def test_normals_turned_by_ten_degrees_are_ten_degrees_off(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    angle = np.deg2rad(10)
    turned: dict[str, np.ndarray | str] = {}
    for frame in frames:
        normal = np.nan_to_num(frame.normals_cam, nan=0.5)
        across = np.cross(normal, [1.0, 0.2, 0.1])
        across /= np.linalg.norm(across, axis=-1, keepdims=True)
        turned[frame.key] = (np.cos(angle) * normal + np.sin(angle) * across).astype(np.float32)
    labels = write_labels(tmp_path / "labels", "normals", turned, shards)
    scores = evaluate.run(config_of(tmp_path / "scores", "normals", [shards]), [labels.uri])
    for row, frame in zip(rows_of(scores), frames, strict=True):
        assert row["mean_deg"] == pytest.approx(10, abs=0.05)
        assert row["pct_11_25"] == 100 and row["pct_7_5"] == 0
        assert row["pixels"] == np.isfinite(frame.normals_cam).all(-1).sum()


@pytest.mark.usefixtures("without_ray")
def test_the_constant_normal_is_the_best_of_its_domain(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    facing = {f.key: np.broadcast_to(np.float32([0, 0, -1]), (*f.size, 3)).copy() for f in frames}
    labels = write_labels(tmp_path / "labels", "normals", facing, shards)
    scores = evaluate.run(config_of(tmp_path / "scores", "normals", [shards]), [labels.uri])
    summary = json.loads(scores.store.read(SUMMARY))
    grid = np.random.default_rng(0).normal((0, -0.5, -1), 1, (3000, 3))
    grid /= np.linalg.norm(grid, axis=1, keepdims=True)
    for domain, group in summary["domains"].items():
        mine = [frame.normals_cam.reshape(-1, 3) for frame in frames if frame.source == domain]
        known = [normals[np.isfinite(normals).all(1)] for normals in mine]
        angles = [np.rad2deg(np.arccos(np.clip(n @ grid.T, -1, 1))).mean(0) for n in known]
        best = np.mean(angles, axis=0).min()
        numbers = group["metrics"]["mean_deg"]
        assert best - 0.2 < numbers["constant"] < min(best + 0.2, numbers["mean"])


@pytest.mark.usefixtures("without_ray")
def test_no_score_and_no_constant_depends_on_the_order_of_the_frames(
    tmp_path: Path, frames: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    noisy: dict[str, np.ndarray | str] = {}
    for frame in frames:
        normals = np.nan_to_num(frame.normals_cam, nan=0.5) + generator.normal(0, 0.3, (24, 32, 3))
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        noisy[frame.key] = normals.astype(np.float32)
    labels = write_labels(tmp_path / "labels", "normals", noisy)
    found, baselines, fit = [], [], job._fit_baselines

    def noting(*of: Any) -> dict[str, list[float]]:
        baselines.append(fit(*of))
        return baselines[-1]

    monkeypatch.setattr(job, "_fit_baselines", noting)
    for order in (1, -1):
        data = write_shards(tmp_path / f"shards{order}", frames[::order], [19, 14])
        config = config_of(tmp_path / f"scores{order}", "normals", [data], panels=0)
        summary = json.loads(evaluate.run(config, [labels.uri]).store.read(SUMMARY))
        found.append((summary["overall"], summary["domains"]))
    assert found[0] == found[1]
    assert baselines[0] == baselines[1] and set(baselines[0]) == {"plane", "wall"}


@pytest.mark.usefixtures("without_ray")
def test_eight_bit_normals_cost_little_and_sixteen_bit_depth_nothing(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    depth = {f.key: affine(f) for f in frames}
    normals = {f.key: np.nan_to_num(f.normals_cam, nan=0.57735027) for f in frames}
    found = {}
    for task, predictions in {"depth": depth, "normals": normals}.items():
        labels = write_labels(tmp_path / task, task, predictions, shards, npy=False)
        scores = evaluate.run(config_of(tmp_path / f"s-{task}", task, [shards]), [labels.uri])
        found[task] = evaluate.primary_score(scores).value
    assert found["depth"] < 5e-4
    assert 0.05 < found["normals"] < 0.4


def test_scores_do_not_depend_on_how_the_frames_are_cut(
    tmp_path: Path, frames: list[Sample], without_ray: None
) -> None:
    tables = []
    for number, parts in enumerate([[19, 14], [33], [8, 8, 8, 9]]):
        data = write_shards(tmp_path / f"shards-{number}", frames, parts)
        predictions = {f.key: np.sqrt(affine(f)) for f in frames}
        labels = write_labels(tmp_path / f"labels-{number}", "depth", predictions, data)
        scores = evaluate.run(config_of(tmp_path / f"s-{number}", "depth", [data]), [labels.uri])
        tables.append([{**row, "dataset": ""} for row in rows_of(scores)])
    assert tables[0] == tables[1] == tables[2]
    assert ROWS_PER_GROUP == 8


@pytest.mark.usefixtures("without_ray")
def test_panels_show_the_worst_and_the_middle(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    predictions = {f.key: affine(f) for f in frames}
    predictions[frames[21].key] = np.random.default_rng(0).random(frames[21].size, np.float32)
    labels = write_labels(tmp_path / "labels", "depth", predictions, shards)
    config = config_of(tmp_path / "scores", "depth", [shards], panels=2)
    scores = evaluate.run(config, [labels.uri])
    names = [entry.path for entry in scores.files if entry.path.startswith("panels/")]
    assert names == [f"panels/{n}.png" for n in ("median-1", "median-2", "worst-1", "worst-2")]
    worst, middle = (np.asarray(Image.open(tmp_path / "scores" / n)) for n in (names[2], names[0]))
    assert worst.shape == middle.shape
    errors = np.s_[-60:-20, -WIDTH - 10 :]
    assert np.abs(worst[errors].astype(int) - middle[errors]).mean() > 20


@pytest.mark.usefixtures("without_ray")
def test_the_lineage_names_data_and_labels_by_digest(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    labels = write_labels(tmp_path / "labels", "depth", {f.key: affine(f) for f in frames}, shards)
    scores = evaluate.run(config_of(tmp_path / "scores", "depth", [shards]), [labels.uri])
    assert scores.parents == (shards.as_parent("data"), labels.as_parent("labels"))
    table = pq.read_table(tmp_path / "scores" / TABLE)
    assert table["abs_rel"].null_count == 0


@pytest.mark.usefixtures("without_ray")
def test_finished_scores_are_found_and_scores_of_other_labels_are_refused(
    tmp_path: Path, frames: list[Sample], shards: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = tmp_path / "scores" / "labels"
    labels = write_labels(inside, "depth", {f.key: affine(f) for f in frames}, shards)
    config = config_of(tmp_path / "scores", "depth", [shards])
    first = evaluate.run(config, [labels.uri])
    assert evaluate.run(config, [labels.uri]) == first
    assert "nothing to do" in capsys.readouterr().out
    shutil.rmtree(inside)
    other = {f.key: affine(f) ** 2 for f in frames}
    labels = write_labels(inside, "depth", other, shards, model=Parent("model", "other", "d"))
    with pytest.raises(ArtifactError, match=r"labels .* holds something else than"):
        evaluate.run(config, [labels.uri])
    again = evaluate.run(config.model_copy(update={"overwrite": True}), [labels.uri])
    assert again.digest != first.digest
    assert evaluate.primary_score(again).value > evaluate.primary_score(first).value


@pytest.mark.usefixtures("without_ray")
def test_wrong_pairs_are_refused_by_name(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    others = write_shards(tmp_path / "others", frames[:5], [5])
    predictions = {f.key: affine(f) for f in frames}
    labels = write_labels(tmp_path / "labels", "depth", predictions, shards)
    with pytest.raises(ArtifactError, match=f"made from {shards.uri}.*not from {others.uri}"):
        evaluate.run(config_of(tmp_path / "a", "depth", [others]), [labels.uri])
    with pytest.raises(ArtifactError, match="holds depth labels; per-image-mean scores normals"):
        evaluate.run(config_of(tmp_path / "b", "normals", [shards]), [labels.uri])
    with pytest.raises(ValueError, match="the same shards are given as --data twice"):
        evaluate.run(config_of(tmp_path / "c", "depth", [shards, shards]), [labels.uri] * 2)
    with pytest.raises(ValueError, match="1 labels for 2 --data"):
        evaluate.run(config_of(tmp_path / "d", "depth", [shards, others]), [labels.uri])
    wrong = config_of(tmp_path / "e", "depth", [shards], protocol="per-image-mean")
    with pytest.raises(ValueError, match="--protocol per-image-mean does not score depth"):
        evaluate.run(wrong, [labels.uri])
    nothing = write_labels(tmp_path / "none", "depth", {"x": affine(frames[0])})
    with pytest.raises(ValueError, match=r"none of 33 images could be scored.*missing"):
        evaluate.run(config_of(tmp_path / "f", "depth", [shards]), [nothing.uri])


@pytest.fixture
def two_scores(
    tmp_path: Path, frames: list[Sample], shards: Artifact, without_ray: None
) -> tuple[Artifact, Artifact]:
    """A worse and a better model on the same images."""
    scores = []
    for name, power in {"worse": 3.0, "better": 1.5}.items():
        predictions = {f.key: affine(f) ** power for f in frames}
        labels = write_labels(tmp_path / f"l-{name}", "depth", predictions, shards)
        config = config_of(tmp_path / name, "depth", [shards])
        scores.append(evaluate.run(config, [labels.uri]))
    return scores[0], scores[1]


def test_a_paired_difference_is_the_mean_difference_with_its_own_interval(
    two_scores: tuple[Artifact, Artifact],
) -> None:
    worse, better = two_scores
    rows = [[row["abs_rel"] for row in rows_of(scores)] for scores in two_scores]
    mean, low, high = evaluate.paired_difference(worse.uri, better, "abs_rel")
    assert mean == pytest.approx(np.mean(rows[0]) - np.mean(rows[1]), abs=1e-12)
    assert 0 < low < mean < high
    deviation = np.std(np.subtract(*rows)) / np.sqrt(len(rows[0]))
    assert high - low == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    mirrored = evaluate.paired_difference(better, f"{worse.uri}/{TABLE}", "abs_rel")
    assert np.allclose(mirrored, (-mean, -high, -low), atol=1e-12)
    assert evaluate.paired_difference(worse, worse, "delta1") == (0, 0, 0)
    assert evaluate.paired_difference(worse, better, "abs_rel", seed=1)[1:] != (low, high)


def test_only_like_is_compared_with_like(
    two_scores: tuple[Artifact, Artifact], tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    worse, _ = two_scores
    predictions = {f.key: affine(f) for f in frames}
    labels = write_labels(tmp_path / "l", "depth", predictions, shards)
    nearer = config_of(tmp_path / "near", "depth", [shards], max_depth_m=20.0)
    near = evaluate.run(nearer, [labels.uri])
    with pytest.raises(ValueError, match=r"to 80 m.*to 20 m.*not comparable"):
        evaluate.paired_difference(worse, near, "abs_rel")
    predictions.pop(frames[7].key)
    fewer_labels = write_labels(tmp_path / "l2", "depth", predictions, shards)
    fewer = evaluate.run(config_of(tmp_path / "few", "depth", [shards]), [fewer_labels.uri])
    with pytest.raises(ValueError, match=f"{frames[7].key} only in {worse.uri}, none only in"):
        evaluate.paired_difference(worse, fewer, "abs_rel")
    with pytest.raises(ValueError, match=r"no metric 'mean_deg'.*abs_rel"):
        evaluate.paired_difference(worse, worse, "mean_deg")
    # As a release before this metric left them.
    older = {"metrics": [name for name in worse.details["metrics"] if name != "i_rmse_capped"]}
    before = replace(worse, details=worse.details | older)
    with pytest.raises(ValueError, match=r"no metric 'i_rmse_capped'.*abs_rel"):
        evaluate.paired_difference(worse, before, "i_rmse_capped")


@pytest.mark.usefixtures("without_ray")
def test_a_table_whose_reader_left_ends_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    from pipelines import compare

    frame = make_frame(1)
    shards = write_shards(tmp_path / "shards", [frame], [1])
    labels = write_labels(tmp_path / "labels", "depth", {frame.key: affine(frame)}, shards)
    config = config_of(tmp_path / "scores", "depth", [shards], bootstrap=1, panels=0)
    scores = evaluate.run(config, [labels.uri])
    monkeypatch.setattr(sys, "argv", ["compare.py", scores.uri])
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        with pytest.raises(SystemExit) as ended:
            compare.main()
    assert ended.value.code == 1


def test_the_same_shards_elsewhere_are_the_same_images(
    two_scores: tuple[Artifact, Artifact], tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    moved = tmp_path / "moved"
    Path(shards.uri).rename(moved)
    data = load_artifact(str(moved))
    predictions = {f.key: affine(f) for f in frames}
    labels = write_labels(tmp_path / "l3", "depth", predictions, data)
    scores = evaluate.run(config_of(tmp_path / "s3", "depth", [data]), [labels.uri])
    mean, low, _ = evaluate.paired_difference(two_scores[0], scores, "abs_rel")
    assert 0 < low < mean
    assert (
        evaluate.primary_score(scores).data_digest
        == evaluate.primary_score(two_scores[0]).data_digest
    )


def test_the_depth_protocol_ignores_scale_shift_and_whatever_is_out_of_range() -> None:
    frame, protocol = make_frame(3), LeastSquaresDepth(80.0)
    noise = np.random.default_rng(1).normal(0, 0.3, frame.size)
    prediction = np.where(protocol.scored(frame), frame.depth_m + noise, 0)
    scores = protocol.errors(prediction, frame)
    changed = np.where(protocol.scored(frame), 0.01 * prediction + 0.3, 77.0)
    for name, value in protocol.errors(changed, frame).items():
        assert value == pytest.approx(scores[name], rel=1e-6, nan_ok=True), name
    scored = protocol.scored(frame)
    slope, shift = np.polyfit(prediction[scored], frame.depth_m[scored], 1)
    aligned = np.clip(slope * prediction[scored] + shift, 1e-5, 80)
    truth = frame.depth_m[scored]
    assert scores["abs_rel"] == pytest.approx(np.mean(np.abs(aligned - truth) / truth), rel=1e-9)
    assert set(scores) == set(protocol.metrics)


def test_sampled_pixels_lie_all_over_the_image_and_images_weigh_the_same() -> None:
    protocol, frame = PerImageMean(), make_frame(4)
    taken = protocol.sampled_pixels(frame, 16)
    known = frame.normals_cam[np.isfinite(frame.normals_cam).all(-1)]
    assert taken.shape == (16, 3)
    assert (taken[0] == known[0]).all() and (taken[-1] == known[-1]).all()
    few, many = np.float32([[0, -1, 0]] * 2), np.float32([[0, 0, -1]] * 300)
    third = np.float32([[0, -1, 0]])
    assert np.allclose(protocol.fit_baseline([few, many, third]), [0, -1, 0])
    assert protocol.fit_baseline([]) == [0, 0, -1]


def test_a_chunk_scores_only_its_own_frames(
    tmp_path: Path, frames: list[Sample], shards: Artifact
) -> None:
    from e2eft.data.shards import open_shards
    from e2eft.evaluate.chunks import Pair, plan_chunks
    from e2eft.labels.index import open_labels

    labels = write_labels(tmp_path / "labels", "depth", {f.key: affine(f) for f in frames}, shards)
    task = Job(LeastSquaresDepth(80.0), (Pair(open_shards(shards.uri), open_labels(labels.uri)),))
    chunks = plan_chunks(task, [[frame.key for frame in frames]], 32)
    assert [len(json.loads(chunk["chunk"])["labels"]) for chunk in chunks] == [19, 14]
    assert [row["key"] for row in score_chunk(chunks[1], task)] == [f.key for f in frames[19:]]


CHAMPION = "models:/depth@champion"


def test_an_alias_that_leads_elsewhere_meanwhile_is_another_model(
    tmp_path: Path, shards: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {CHAMPION: "7" * 64, "models:/depth/7": "7" * 64}

    def answer(_: TrackingConfig, model: str) -> str:
        if model not in digests:
            raise TrackingError("the registry does not answer")
        return digests[model]

    monkeypatch.setattr(stage, "version_digest", answer)

    def look_at(model: str = CHAMPION) -> Place:
        fields = {"model": model, "labels": ()}
        return stage.look_at(config_of(tmp_path / "scores", "depth", [shards], **fields))

    place = look_at()
    assert place.inputs[-1] == Parent("model", CHAMPION, "7" * 64)
    with place.take() as claim:
        claim.writer.create("labels/00/_claim.json", b"{}")
    assert look_at().record and look_at("models:/depth/7").record
    digests[CHAMPION] = "8" * 64
    with pytest.raises(ArtifactError, match=r"model .*@champion holds something else than"):
        look_at()
    assert look_at("models:/depth/7").record
    del digests[CHAMPION]
    with pytest.raises(TrackingError, match="does not answer"):
        look_at()
    # A claim that is older than such digests.
    digests[CHAMPION] = "8" * 64
    claim_file = tmp_path / "scores/_claim.json"
    claim_file.write_text(claim_file.read_text().replace("7" * 64, ""))
    assert look_at().record and not look_at().replaces


def test_the_last_line_of_progress_is_of_all_frames(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole: Any = SimpleNamespace(pairs=[SimpleNamespace(shards=range(3))])
    came = [{"pair": 0, "row": row} for row in (2, 0, 1)]
    monkeypatch.setattr(job, "_rows_as_they_come", lambda *_: iter(came))
    rows = job._map_chunks(score_chunk, [], whole, None, "scored")
    assert [row["row"] for row in rows] == [0, 1, 2]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("3/3 frames scored  ")
