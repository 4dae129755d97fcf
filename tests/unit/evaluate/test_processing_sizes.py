"""At which sizes a model sees a benchmark: the protocol's, recorded with the scores, and kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2eft import cli, evaluate, score
from e2eft.artifacts import CLAIM, Artifact, ArtifactError
from e2eft.config import EvaluateConfig
from e2eft.data.shards import open_shards
from e2eft.datasets import DATASETS
from e2eft.evaluate import stage
from e2eft.evaluate.chunks import Pair
from e2eft.evaluate.pairing import protocol_for, seen_otherwise
from e2eft.labels.index import open_labels
from tests.labelling import scored_here, without_cluster, write_model
from tests.scored_frames import affine, config_of, make_frame, write_labels, write_shards
from tests.tiny_models import edit_json

__all__ = ["scored_here", "without_cluster"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), "depth")


@pytest.fixture
def eth3d(tmp_path: Path) -> Artifact:
    return write_shards(tmp_path / "shards", [make_frame(1)], [1], "eth3d")


def ransac(out: Path, model: Path, data: Artifact, **fields: Any) -> EvaluateConfig:
    fields = {"protocol": "ransac-log-depth", "model": str(model), "labels": ()} | fields
    return config_of(out, "depth", [data], **fields)


def test_eth3d_is_seen_by_a_model_at_the_protocols_size(
    model: Path, eth3d: Artifact, tmp_path: Path
) -> None:
    place = stage.look_at(ransac(tmp_path / "scores", model, eth3d))
    config = stage.as_found(place)
    assert config.identity()["processing_px"] == [1088]
    (labelling,) = score.labelling(config)
    assert (labelling.processing_size, labelling.native_size) == (1088, False)
    assert 1088 * round(1088 * 4032 / 6048 / 8) * 8 / 64 < 13_000, "latents of an image"
    own = stage.look_at(ransac(tmp_path / "own", model, eth3d, protocol="least-squares-depth"))
    assert own.config.identity()["processing_px"] == [756]
    labels = config_of(tmp_path / "labels", "depth", [eth3d])
    assert labels.identity()["processing_px"] == []


@pytest.mark.usefixtures("without_cluster")
def test_a_model_that_the_protocol_does_not_score_is_refused_before_anything_is_written(
    model: Path, eth3d: Artifact, tmp_path: Path
) -> None:
    config = ransac(tmp_path / "scores", model, eth3d, protocol="least-squares-disparity")
    with pytest.raises(ValueError, match=r"scores affine_disparity, but --model predicts affine_d"):
        score.run(config)
    assert not (tmp_path / "scores").exists()


def begun(config: EvaluateConfig) -> dict[str, Any]:
    """Begins scores with their first labels; the configuration that their claim holds."""
    with stage.look_at(config).take() as claim:
        claim.writer.create("labels/00/_claim.json", b"{}")
    return json.loads((Path(config.out) / CLAIM).read_text())["config"]


def test_scores_at_another_size_are_other_scores(
    model: Path, eth3d: Artifact, tmp_path: Path
) -> None:
    config = ransac(tmp_path / "scores", model, eth3d)
    recorded = begun(config)
    edit_json(tmp_path / "scores/_claim.json", config=recorded | {"processing_px": [756]})
    with pytest.raises(ArtifactError, match=r"processing_px \[756\] -> \[1088\]; accepted"):
        stage.look_at(config)


def test_scores_that_recorded_no_size_go_on_at_what_it_was(
    model: Path, eth3d: Artifact, tmp_path: Path
) -> None:
    config = ransac(tmp_path / "scores", model, eth3d)
    recorded = begun(config)
    del recorded["processing_px"]
    edit_json(tmp_path / "scores/_claim.json", config=recorded)
    place = stage.look_at(config)
    assert place.record and not place.replaces
    assert score.labelling(stage.as_found(place))[0].native_size
    anew = stage.look_at(config.model_copy(update={"out": str(tmp_path / "anew")}))
    assert not score.labelling(stage.as_found(anew))[0].native_size


@pytest.mark.usefixtures("without_cluster", "scored_here")
def test_a_model_is_scored_at_once_on_benchmarks_that_it_sees_at_different_sizes(
    model: Path, tmp_path: Path
) -> None:
    frame = make_frame(1)
    strip = {name: getattr(frame, name)[8:16] for name in ("rgb", "depth_m", "normals_cam")}
    data = [
        write_shards(tmp_path / name, [replace(frame, **strip)], [1], name)
        for name in ("scannet", "diode")
    ]
    fields = {"model": str(model), "labels": (), "panels": 0, "protocol": "least-squares-depth"}
    scores = cli.execute(config_of(tmp_path / "scores", "depth", data, **fields))
    assert scores.config["processing_px"] == [0, 640] and scores.counts["scored"] == 2
    made = [open_labels(parent.uri) for parent in scores.parents if parent.role == "labels"]
    seen = [
        (row["processing_width"], row["processing_height"]) for one in made for row in one.rows()
    ]
    assert seen == [(32, 8), (640, 160)]
    assert len({labels.artifact.details["model"]["digest"] for labels in made}) == 1


@pytest.mark.parametrize(
    ("protocol", "source", "seen", "said"),
    [
        ("least-squares-depth", "eth3d", 64, "seen at 64 px instead of 756 px"),
        ("least-squares-depth", "eth3d", None, "seen at their own size instead of 756 px"),
        ("least-squares-depth", "eth3d", 756, ""),
        ("least-squares-depth", "nyuv2", 768, "seen at 768 px instead of their own size"),
        ("least-squares-depth", "nyuv2", None, ""),
        ("least-squares-depth", "nyuv2", 640, ""),
        ("per-image-mean", "nyuv2-normals", None, ""),
        ("pooled-pixels", "oasis-normals", 768, "seen at 768 px instead of their own size"),
        ("least-squares-depth", "hypersim", 64, ""),
    ],
)
def test_labels_of_another_size_than_the_protocols_are_known(
    tmp_path: Path, protocol: str, source: str, seen: int | None, said: str
) -> None:
    task, frame = ("normals" if source.endswith("-normals") else "depth"), make_frame(1)
    shards = write_shards(tmp_path / "shards", [frame], [1], source)
    labels = write_labels(tmp_path / "l", task, {frame.key: "none"}, made={"processing_size": seen})
    pair = Pair(open_shards(shards.uri), open_labels(labels.uri))
    config = config_of(tmp_path / "s", task, [shards], protocol=protocol)
    assert seen_otherwise(pair, protocol_for(config, [pair.shards])) == said


@pytest.mark.usefixtures("scored_here")
def test_a_score_of_labels_of_another_size_is_marked_beside_what_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = make_frame(1)
    small = replace(DATASETS["diode"], images=1, frame_size=frame.size)
    monkeypatch.setitem(DATASETS, "diode", small)
    shards = write_shards(tmp_path / "shards", [frame], [1], "diode")
    rows: dict[int, str] = {}
    for seen in (640, 64):
        how = {"processing_size": seen, "sampling": {"steps": 1, "spacing": "trailing"}}
        labels = write_labels(
            tmp_path / f"l{seen}", "depth", {frame.key: affine(frame)}, shards, made=how
        )
        config = config_of(tmp_path / f"s{seen}", "depth", [shards], panels=0)
        scores = evaluate.run(config, [labels.uri])
        report = scores.store.read("report.md").decode()
        (rows[seen],) = (line for line in report.splitlines() if "**this run**" in line)
        table = evaluate.comparison_table([scores])
        assert ("(seen at 64 px instead of 640 px)" in table) == (seen == 64)
    assert "seen" not in rows[640]
    assert rows[64].count("** (seen at 64 px instead of 640 px) |") == 2


@pytest.mark.deep
@pytest.mark.usefixtures("without_cluster", "scored_here")
def test_scores_say_at_which_size_they_were_made(
    model: Path, eth3d: Artifact, tmp_path: Path
) -> None:
    config = ransac(tmp_path / "scores", model, eth3d, panels=0)
    scores = cli.execute(config)
    (labels,) = json.loads(scores.store.read("scores.json"))["labels"]
    assert labels["processing_size"] == 1088 and scores.config["processing_px"] == [1088]
    assert "1 step, trailing, longest side 1088 px" in scores.store.read("report.md").decode()
    assert cli.execute(config) == scores
    assert evaluate.score_of(scores).terms["labelled"]["processing_size"] == 1088
    shutil.rmtree(eth3d.uri.removeprefix("file://"))
    assert cli.execute(config) == scores, "of data that has gone since"
