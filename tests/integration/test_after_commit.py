"""What follows a commit is finished by the same command, wherever the first one was killed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from e2eft import evaluate, label, prepare
from e2eft.artifacts import MANIFEST, Artifact
from e2eft.config import LabelConfig, ModelConfig, TrackingConfig, TrainConfig
from e2eft.data.shards import KIND as SHARDS
from e2eft.data.shards import open_shards
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.label.job import GALLERY
from e2eft.labels.index import DEGRADED, OK, REJECTED
from e2eft.labels.index import KIND as LABELS
from e2eft.model.card import ModelCard
from e2eft.model.pretrained import export_model, load_estimator
from e2eft.model.source import MODEL_FOLDER, MODEL_KIND, find_model
from e2eft.prepare import PrepareConfig
from e2eft.storage import open_store
from e2eft.tracking import (
    Run,
    TrackingError,
    register_model,
    registered_version,
    resolve_version,
    start_run,
)
from e2eft.tracking import connection as connection_module
from e2eft.tracking.connection import client_of
from e2eft.train import driver
from tests.artifacts import begin, write_artifact
from tests.scored_frames import affine, config_of, make_frame, write_labels, write_shards
from tests.services import free_ports
from tests.training import train_config


class KilledError(BaseException):
    """Nothing that runs afterwards in a process that is killed may catch it."""


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> TrackingConfig:
    return TrackingConfig(tracking_uri=f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> TrackingConfig:
    """A server that is not there, which takes a second to say."""
    monkeypatch.setattr(connection_module, "ANSWER_S", 1.0)
    (port,) = free_ports(1)
    return TrackingConfig(tracking_uri=f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model in diffusers' layout."""
    folder = tmp_path_factory.mktemp("model")
    source = find_model("blank", folder)
    estimator = load_estimator(source, ModelConfig(initial_latent="gaussian"))
    return export_model(estimator, source, folder / "model", ModelCard(task="depth"))


def run_of(tracking: TrackingConfig, out: str) -> Any:
    """The one MLflow run of an output folder."""
    client = client_of(connection_module.resolve_uri(tracking))
    experiment = client.get_experiment_by_name(tracking.experiment)
    (found,) = client.search_runs([experiment.experiment_id], f"tags.`e2eft.out` = '{out}'")
    return found


def versions_of(tracking: TrackingConfig, name: str) -> list[str]:
    client = client_of(connection_module.resolve_uri(tracking))
    return [str(version.version) for version in client.search_model_versions(f"name = '{name}'")]


def killed_in(monkeypatch: pytest.MonkeyPatch, place: Any, name: str) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    monkeypatch.setattr(place, name, killed)


def _kill_points() -> dict[str, Callable[[], tuple[Any, str]]]:
    import mlflow.tracking._model_registry.fluent as registering

    client = type(client_of("http://host"))
    return {
        "before the upload": lambda: (client, "log_model_artifacts"),
        "before the version": lambda: (registering, "_register_model"),
        "before the alias": lambda: (client, "set_registered_model_alias"),
    }


@pytest.mark.parametrize("point", ["before the upload", "before the version", "before the alias"])
def test_a_killed_registration_is_completed_and_never_doubled(
    point: str, tracking: TrackingConfig, exported: Path
) -> None:
    name = point.replace(" ", ".") + "'s"
    run = start_run(tracking, "test", point, {})
    tags = {"e2eft.artifact.digest": "d" * 64}
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KilledError):
        killed_in(patched, *_kill_points()[point]())
        register_model(tracking, run, name, exported, tags=tags)
    assert registered_version(tracking, name, *next(iter(tags.items()))) is None
    for _ in range(2):
        assert register_model(tracking, run, name, exported, tags=tags).version == "1"
    client = client_of(run.uri)
    (version,) = client.search_model_versions(f'name = "{name}"')
    assert version.tags["e2eft.artifact.digest"] == "d" * 64
    assert resolve_version(tracking, f"models:/{name}@challenger") == (name, "1")
    assert registered_version(tracking, name, *next(iter(tags.items()))) == "1"
    logged = client.search_logged_models([client.get_run(run.run_id).info.experiment_id])
    states = [
        str(model.status) for model in logged if model.name == name.translate({46: 45, 39: 45})
    ]
    assert states.count("READY") == 1 and "PENDING" not in states
    run.finish()


def test_the_challenger_never_goes_back(tracking: TrackingConfig, exported: Path) -> None:
    run = start_run(tracking, "test", "challenger", {})
    register_model(tracking, run, "forward", exported)
    (exported / "README.md").write_text("changed")
    register_model(tracking, run, "forward", exported)
    (exported / "README.md").unlink()
    assert register_model(tracking, run, "forward", exported).version == "1"
    assert resolve_version(tracking, "models:/forward@challenger") == ("forward", "2")
    run.finish()


def test_models_whose_folders_are_links_are_told_apart_and_served_whole(
    tracking: TrackingConfig, exported: Path, tmp_path: Path
) -> None:
    from e2eft.tracking import download_model

    run = start_run(tracking, "test", "links", {})
    for number in range(2):
        unet = tmp_path / f"unet-{number}"
        unet.mkdir()
        for path in (exported / "unet").iterdir():
            (unet / path.name).write_bytes(path.read_bytes())
        (unet / "note.txt").write_text(str(number))
        folder = tmp_path / f"model-{number}"
        folder.mkdir()
        for path in exported.iterdir():
            (folder / path.name).symlink_to(unet if path.name == "unet" else path)
        assert register_model(tracking, run, "links", folder).version == str(number + 1)
    run.finish()
    for number in range(2):
        fetched = download_model(tracking, f"models:/links/{number + 1}").folder
        assert (fetched / "unet" / "note.txt").read_text() == str(number)
        for path in (exported / "unet").iterdir():
            assert (fetched / "unet" / path.name).read_bytes() == path.read_bytes()


@dataclass(frozen=True)
class Trained:
    """A committed training run that nothing followed."""

    config: TrainConfig
    artifact: Artifact


def trained(folder: Path, exported: Path, tracking: TrackingConfig, name: str | None) -> Trained:
    shards = write_shards(folder / "shards", [make_frame(number) for number in range(4)], [4])
    config = train_config(shards.uri, out=str(folder / "run"), tracking=tracking, register_as=name)
    config = driver._with_depth_ranges(config, [open_shards(shards.uri)])
    paths = (path for path in exported.rglob("*") if path.is_file())
    files = {
        f"{MODEL_FOLDER}/{path.relative_to(exported).as_posix()}": path.read_bytes()
        for path in paths
    }
    store = open_store(config.out)
    artifact = write_artifact(store, MODEL_KIND, config, files=files, counts={"steps": 2})
    start_run(tracking, *driver._work(config, artifact.work)).flush()
    return Trained(config, artifact)


def test_training_killed_after_its_commit_is_registered_and_ended(
    tracking: TrackingConfig, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = trained(tmp_path, exported, tracking, "e2eft-depth")
    assert run_of(tracking, done.config.out).info.status == "RUNNING"
    for _ in range(2):
        assert driver.run(done.config).digest == done.artifact.digest
        found = run_of(tracking, done.config.out)
        assert found.info.status == "FINISHED"
        assert found.data.tags["e2eft.model.digest"] == done.artifact.digest
        assert found.data.params["optimizer.lr"]
        assert versions_of(tracking, "e2eft-depth") == ["1"]
        assert resolve_version(tracking, "models:/e2eft-depth@challenger")[1] == "1"
    said = capsys.readouterr().out
    assert said.count("nothing to do") == 2 and said.count("registered models:/e2eft-depth/1") == 1


def test_without_an_answer_finished_work_is_a_warning_and_an_asked_registration_an_error(
    tracking: TrackingConfig,
    nowhere: TrackingConfig,
    exported: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def asked(name: str | None) -> TrainConfig:
        config = trained(
            tmp_path / f"for {name}".replace("/", " "), exported, tracking, name
        ).config
        return config.model_copy(update={"tracking": nowhere})

    with caplog.at_level(logging.WARNING, logger="e2eft"):
        driver.run(asked(None))
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("the work is done, but its MLflow run was not ended: MLflow at http://")
    assert "Connection refused" in said and len(said) < 350
    for name, reason in {"m": "does not answer", "a/b": "--register 'a/b'"}.items():
        config = asked(name)
        with pytest.raises(TrackingError) as error:
            driver.run(config)
        assert f"{config.out} is finished but not registered: " in str(error.value)
        assert reason in str(error.value) and "\n" not in str(error.value)
        assert str(error.value).endswith("the same command registers it")


@pytest.mark.parametrize("name", ["a/b", "a:b", "a@b", "", " ", "..", "a" * 257])
def test_names_that_the_registry_refuses_are_refused_before_anything_is_deleted(
    name: str, tmp_path: Path, tracking: TrackingConfig
) -> None:
    shards = write_shards(tmp_path / "shards", [make_frame(0)], [1])
    out = open_store(str(tmp_path / "out"))
    begin(out, MODEL_KIND, train_config(shards.uri, out=out.uri, seed=7)).release("failed")
    out.write("model/weights", b"precious")
    before = dict(out.list())
    config = train_config(
        shards.uri, out=out.uri, tracking=tracking, register_as=name, overwrite=True
    )
    with pytest.raises(TrackingError, match="--register"):
        driver.run(config)
    scoring = config_of(
        out.uri, "depth", [shards], tracking=tracking, labels=(), model="tiny-sd"
    ).model_copy(update={"register_as": name, "overwrite": True})
    with pytest.raises(TrackingError, match="--register"):
        evaluate.look_at(scoring)
    assert dict(out.list()) == before


def test_a_server_that_does_not_answer_leaves_every_stages_folder_as_it_was(
    nowhere: TrackingConfig, exported: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (32, 32)).save(images / "a.png")
    shards = write_shards(tmp_path / "shards", [make_frame(0)], [1])
    out = str(tmp_path / "out")
    for run in (
        lambda: driver.run(train_config(shards.uri, out=out, tracking=nowhere)),
        lambda: prepare.run(prepared(out, nowhere)),
        lambda: label.run(labelling(out, nowhere, exported, images)),
        lambda: evaluate.look_at(
            config_of(out, "depth", [shards], tracking=nowhere, labels=(), model="tiny-sd")
        ),
    ):
        with pytest.raises(TrackingError, match="does not answer"):
            run()
        assert not Path(out).exists()


def prepared(out: str, tracking: TrackingConfig) -> PrepareConfig:
    return PrepareConfig(out=out, source=SyntheticSource(family="indoor"), tracking=tracking)


def labelling(out: str, tracking: TrackingConfig, model: Path, images: Path) -> LabelConfig:
    return LabelConfig(
        model=str(model), images=str(images), out=out, task="depth", tracking=tracking
    )


def test_shards_whose_run_is_missing_get_one(tracking: TrackingConfig, tmp_path: Path) -> None:
    config = prepared(str(tmp_path / "shards"), tracking)
    store = open_store(config.out)
    artifact = write_artifact(store, SHARDS, config, files={}, counts={"frames": 3})
    for _ in range(2):
        prepare.run(config)
        found = run_of(tracking, config.out)
        assert found.info.status == "FINISHED" and found.data.metrics["frames"] == 3
        assert found.data.tags["e2eft.data.digest"] == artifact.digest


def test_equal_shards_at_two_places_have_a_run_each(
    tracking: TrackingConfig, tmp_path: Path
) -> None:
    for name in ("here", "there"):
        config = prepared(str(tmp_path / name), tracking)
        write_artifact(open_store(config.out), SHARDS, config, files={}, counts={"frames": 3})
        prepare.run(config)
    assert run_of(tracking, str(tmp_path / "here")) != run_of(tracking, str(tmp_path / "there"))


def test_labels_whose_run_was_left_running_end_it(
    tracking: TrackingConfig, exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    config = labelling(str(tmp_path / "labels"), tracking, exported, tmp_path / "images")
    store = open_store(config.out)
    counts = {"planned": 1, OK: 1, DEGRADED: 0, REJECTED: 0}
    details = {"task": "depth", "model": {"digest": "m" * 64, "uri": "m"}}
    details |= {"degradations": {}, "reject_reasons": {}, "excluded": {}, "sampling": {}}
    page = {GALLERY: b"<html>gallery</html>"}
    artifact = write_artifact(store, LABELS, config, files=page, counts=counts, details=details)
    for _ in range(2):
        label.run(config)
        found = run_of(tracking, config.out)
        assert found.info.status == "FINISHED" and found.data.metrics["planned"] == 1
        assert found.data.tags["e2eft.labels.digest"] == artifact.digest
    client = client_of(connection_module.resolve_uri(tracking))
    assert [entry.path for entry in client.list_artifacts(found.info.run_id)] == [GALLERY]


def test_scores_whose_run_was_left_running_are_logged_and_registered(
    tracking: TrackingConfig, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from e2eft.evaluate import job

    monkeypatch.setattr(
        job,
        "_rows_as_they_come",
        lambda function, chunks, task, _: (
            row for chunk in chunks for row in function(chunk, task)
        ),
    )
    frames = [make_frame(number) for number in range(4)]
    shards = write_shards(tmp_path / "shards", frames, [4])
    labels = write_labels(
        tmp_path / "labels", "depth", {frame.key: affine(frame) for frame in frames}, shards
    )
    config = config_of(tmp_path / "scores", "depth", [shards], tracking=tracking)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KilledError):
        killed_in(patched, Run, "tags")  # the first thing after the commit that is not queued
        patched.setattr(Run, "finish", lambda self, status="": None)
        evaluate.run(config, [labels.uri])
    assert open_store(config.out).exists(MANIFEST)
    assert run_of(tracking, config.out).info.status == "RUNNING"
    for _ in range(2):
        scores = evaluate.run(config, [labels.uri])
        found = run_of(tracking, config.out)
        assert found.info.status == "FINISHED"
        assert found.data.tags["e2eft.scores.digest"] == scores.digest
        assert found.data.metrics["images/scored"] == 4
    config = config.model_copy(update={"register_as": "scored"})
    for _ in range(2):
        evaluate.register(config, scores, exported)
        assert versions_of(tracking, "scored") == ["1"]
        assert resolve_version(tracking, "models:/scored@champion")[1] == "1"
        assert run_of(tracking, config.out).info.status == "FINISHED"
