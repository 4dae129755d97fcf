"""Labels whose model or images hold something else when the same command comes again."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from e2eft import cli, evaluate, label
from e2eft.artifacts import ArtifactError
from e2eft.config import EvaluateConfig, LabelConfig, SamplingConfig
from e2eft.errors import DamagedError
from e2eft.label import LabelError, graph
from e2eft.label.opening import MODEL_PIN
from e2eft.labels.index import open_labels, part_path
from e2eft.model.pinned import files_digest, pin_model
from e2eft.storage import open_store
from tests.artifacts import write_artifact
from tests.corpora import write_plain_corpus
from tests.frames import analytic_frame, write_shards
from tests.labelling import (
    label_config,
    run_graph_in_process,
    scored_here,
    without_cluster,
    write_model,
)
from tests.scored_frames import config_of as scoring_config
from tests.scored_frames import make_frame
from tests.scored_frames import write_shards as write_scored_shards

__all__ = ["scored_here", "without_cluster"]
pytestmark = pytest.mark.usefixtures("without_cluster")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two of the same shape."""
    return (
        write_model(tmp_path_factory.mktemp("one"), "depth", seed=0),
        write_model(tmp_path_factory.mktemp("two"), "depth", seed=1),
    )


@pytest.fixture
def model(models: tuple[Path, Path], tmp_path: Path) -> Path:
    """The first one, where it can be replaced."""
    return Path(shutil.copytree(models[0], tmp_path / "model"))


def replace(folder: Path, by: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(by, folder)


def model_of(labels: Path) -> str:
    return open_labels(str(labels)).artifact.details["model"]["digest"]


def label_once(config: LabelConfig, killed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels, or is killed when the first part is there."""

    def until_killed(*arguments: Any) -> Iterator[tuple[int, pa.Table]]:
        for number, rows in enumerate(run_graph_in_process(*arguments)):
            if number == 3:
                raise KeyboardInterrupt
            yield rows

    if not killed:
        label.run(config)
        return
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(graph, "run_graph", until_killed)
        label.run(config)


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "finished"])
def test_a_model_that_was_replaced_is_refused_and_overwrite_labels_anew(
    killed: bool, model: Path, models: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = label_config(write_plain_corpus(tmp_path / "images", 9), tmp_path / "out", model)
    label_once(config, killed, monkeypatch)
    replace(model, models[1])
    with pytest.raises(ArtifactError, match=r"model .* holds something else .*--overwrite"):
        label.run(config)
    again = label.run(config.model_copy(update={"overwrite": True}))
    label.run(label_config(tmp_path / "images", tmp_path / "new", model))
    assert model_of(tmp_path / "out") == model_of(tmp_path / "new")
    assert label.run(config) == again


def test_finished_labels_are_found_when_the_model_is_gone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_plain_corpus(tmp_path / "images", 2)
    monkeypatch.chdir(tmp_path)
    made = label.run(label_config(images, tmp_path / "out", model))
    shutil.rmtree(model)
    for name in (str(model), "model", "./model"):
        assert label.run(label_config(images, tmp_path / "out", name)) == made
    with pytest.raises(ValueError, match="is not there"):
        label.run(label_config(images, tmp_path / "out", "other"))


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "finished"])
def test_shards_that_were_replaced_are_refused_and_overwrite_labels_anew(
    killed: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = str(tmp_path / "shards")
    write_shards(shards, [analytic_frame(number, 16, 24) for number in range(9)])
    config = label_config(shards, tmp_path / "out", model)
    label_once(config, killed, monkeypatch)
    shutil.rmtree(shards)
    frames = [analytic_frame(number, 16, 24) for number in range(9)]
    for frame in frames:
        frame.rgb[...] = 255 - frame.rgb
    write_shards(shards, frames)
    with pytest.raises(ArtifactError, match=r"images .* holds something else .*--overwrite"):
        label.run(config)
    made = label.run(config.model_copy(update={"overwrite": True}))
    anew = label.run(label_config(shards, tmp_path / "new", model))
    ours, theirs = ({row["key"]: row["source_sha256"] for row in open_labels(a.uri).rows()}
                    for a in (made, anew))  # fmt: skip
    assert ours == theirs
    shutil.rmtree(shards)
    assert label.run(config) == made


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b'{"a": 1}', b'{"name": "m", "digest": "0"}', b"\xff"]
)
def test_a_damaged_pin_is_named(content: bytes, model: Path, tmp_path: Path) -> None:
    images = write_plain_corpus(tmp_path / "images", 2)
    config = label_config(images, tmp_path / "out", model)
    label.run(config)
    (tmp_path / "out" / MODEL_PIN).write_bytes(content)
    with pytest.raises(DamagedError, match=f"out/{MODEL_PIN} .*put back what was there"):
        label.run(config)


@pytest.mark.parametrize("path", ["plan/images.parquet", part_path(0)])
def test_a_damaged_plan_or_index_is_named(path: str, model: Path, tmp_path: Path) -> None:
    images = write_plain_corpus(tmp_path / "images", 2)
    config = label_config(images, tmp_path / "out", model)
    label.run(config)
    (tmp_path / "out/manifest.json").unlink()
    (tmp_path / "out" / path).write_bytes(b"no table")
    with pytest.raises(DamagedError, match=rf"/out/{path} .*put back what was there"):
        label.run(config)


def test_an_initial_latent_that_the_model_does_not_take_deletes_nothing(
    model: Path, tmp_path: Path
) -> None:
    images = write_plain_corpus(tmp_path / "images", 2)
    made = label.run(label_config(images, tmp_path / "out", model))
    config = label_config(
        images, tmp_path / "out", model, sampling=SamplingConfig(initial_latent="none"),
        overwrite=True,
    )  # fmt: skip
    with pytest.raises(LabelError, match=r"--initial-latent none: .* choose gaussian or zeros"):
        label.run(config)
    assert label.run(label_config(images, tmp_path / "out", model)) == made


def scores_of(config: EvaluateConfig) -> list[float]:
    return evaluate.read_table(cli.execute(config))[1]["abs_rel"].to_pylist()


@pytest.mark.usefixtures("scored_here")
@pytest.mark.parametrize("changed", ["model", "data"])
def test_overwritten_scores_are_of_what_is_there_now(
    changed: str, model: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    data = write_scored_shards(shards, [make_frame(number) for number in range(4)], [4])
    config = scoring_config(tmp_path / "out", "depth", [data], model=str(model), labels=())
    before = scores_of(config)
    if changed == "model":
        replace(model, models[1])
    else:
        shutil.rmtree(shards)
        write_scored_shards(shards, [make_frame(10 + number) for number in range(4)], [4])
    with pytest.raises(ArtifactError, match="holds something else"):
        cli.execute(config)
    after = scores_of(config.model_copy(update={"overwrite": True}))
    assert after == scores_of(config.model_copy(update={"out": str(tmp_path / "new")}))
    assert after != before
    assert scores_of(config) == after


@pytest.mark.usefixtures("scored_here")
def test_scores_whose_labels_are_of_other_data_say_what_helps(model: Path, tmp_path: Path) -> None:
    """As an overwriting run leaves them that was killed between the scores and the labels."""
    shards = tmp_path / "shards"
    data = write_scored_shards(shards, [make_frame(number) for number in range(4)], [4])
    config = scoring_config(tmp_path / "out", "depth", [data], model=str(model), labels=())
    scores_of(config)
    for path in ("manifest.json", "_claim.json", "scores.json", "scores/per_image.parquet"):
        (tmp_path / "out" / path).unlink()
    for path in (*tmp_path.glob("out/panels/*"), *tmp_path.glob("out/report.md")):
        path.unlink()
    shutil.rmtree(shards)
    write_scored_shards(shards, [make_frame(10 + number) for number in range(4)], [4])
    with pytest.raises(ArtifactError, match=r"images .* holds something else .*--overwrite"):
        cli.execute(config)
    assert scores_of(config.model_copy(update={"overwrite": True}))


def test_each_job_at_a_place_has_a_run_of_its_own(
    model: Path, models: tuple[Path, Path], tmp_path: Path
) -> None:
    """One artifact has one, however its place is written; what replaces it has another."""
    from mlflow import MlflowClient

    from e2eft.config import TrackingConfig

    tracking = TrackingConfig(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    images = write_plain_corpus(tmp_path / "images", 2)
    os.symlink(tmp_path, tmp_path / "link")
    config = label_config(images, tmp_path / "out", model, tracking=tracking)
    first = label.run(config)
    for out in (f"file://{tmp_path}/out", f"{tmp_path}/link/out/", f"file://{tmp_path}/link/out"):
        assert label.run(config.model_copy(update={"out": out})) == first
    client = MlflowClient(tracking.tracking_uri)
    (experiment,) = client.search_experiments(filter_string="name = 'e2eft'")

    def digests() -> set[str]:
        runs = client.search_runs([experiment.experiment_id])
        assert {run.info.status for run in runs} == {"FINISHED"}
        found = [run.data.tags["e2eft.labels.digest"] for run in runs]
        assert len(found) == len(set(found))
        return set(found)

    assert digests() == {first.digest}
    replace(model, models[1])
    second = label.run(config.model_copy(update={"overwrite": True}))
    assert digests() == {first.digest, second.digest}
    assert json.loads((tmp_path / "out" / MODEL_PIN).read_text())["digest"] == model_of(
        tmp_path / "out"
    )


@pytest.mark.usefixtures("scored_here")
@pytest.mark.parametrize("lost", ["model", "data"])
def test_finished_scores_are_found_when_what_was_scored_is_gone(
    lost: str, model: Path, tmp_path: Path
) -> None:
    shards = tmp_path / "shards"
    data = write_scored_shards(shards, [make_frame(number) for number in range(4)], [4])
    config = scoring_config(tmp_path / "out", "depth", [data], model=str(model), labels=())
    scores = cli.execute(config)
    folder = model if lost == "model" else shards
    shutil.rmtree(folder)
    assert cli.execute(config) == scores
    # Something else in its place is not nothing.
    folder.mkdir()
    (folder / "note.txt").touch()
    with pytest.raises(ValueError, match=f"{folder} h"):
        cli.execute(config)


def test_a_models_digest_is_the_same_wherever_and_however_it_is_read(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    files = {f"model/{path.relative_to(models[0]).as_posix()}": path.read_bytes()
             for path in models[0].rglob("*") if path.is_file()}  # fmt: skip
    run = str(tmp_path / "run")
    config = label_config("i", run, "m")
    write_artifact(open_store(run), "model", config, files=files, counts={})
    wanted = pin_model("m", "m", str(models[0]), tmp_path / "scratch").digest
    for uri in (run, str(models[0]), f"file://{run}", f"file://{models[0]}"):
        assert files_digest(uri) == wanted, uri
    assert files_digest(str(models[1])) != wanted
