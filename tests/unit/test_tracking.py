"""Runs and the registry, on a SQLite file."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft.config import TrackingConfig
from e2eft.tracking import (
    NoRun,
    Run,
    TrackingError,
    connection,
    download_model,
    is_registry_uri,
    is_server,
    model_folder,
    promote_if_better,
    record_score,
    register_model,
    resolve_uri,
    resolve_version,
    start_run,
    version_digest,
)
from e2eft.tracking.connection import client_of
from e2eft.tracking.packaging import serving_requirements, serving_signature
from e2eft.tracking.registry import DIGEST_TAG
from e2eft.tracking.runs import flatten
from tests.services import free_ports

DATA, OTHER_DATA = "a" * 64, "b" * 64
PROTOCOL = "least-squares-depth to 80 m"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> TrackingConfig:
    return TrackingConfig(tracking_uri=f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/runs.db")


@pytest.fixture
def run(tracking: TrackingConfig, request: pytest.FixtureRequest) -> Iterator[Run]:
    run = start_run(tracking, "test", request.node.name, {"stage": "test"})
    yield run
    run.finish()


@pytest.fixture
def two_versions(tracking: TrackingConfig, run: Run, request: pytest.FixtureRequest) -> str:
    """A registered model with two versions without files; its name."""
    client, name = client_of(run.uri), request.node.name
    client.create_registered_model(name)
    source = client.get_run(run.run_id).info.artifact_uri
    for _ in range(2):
        client.create_model_version(name, source, run.run_id)
    return name


def aliases(run: Run, name: str) -> dict[str, str]:
    return {k: str(v) for k, v in client_of(run.uri).get_registered_model(name).aliases.items()}


def stored(run: Run) -> Any:
    run.flush()
    return client_of(run.uri).get_run(run.run_id)


def test_a_run_keeps_what_is_logged(run: Run, tmp_path: Path) -> None:
    run.params({"optimizer": {"lr": 3e-5}, "long": "x" * 10_000})
    run.metrics({"abs_rel/synthetic-indoor": 0.05, "steps": 7.0}, step=3)
    run.tags({"e2eft.complete": "true"})
    run.text("# report", "report.md")
    run.json({"a": [1]}, "scores.json")
    run.image(np.zeros((4, 6, 3), np.uint8), "panels/worst-1.png")
    run.dataset("s3://bucket/shards/indoor", DATA, "ground truth")
    data = stored(run).data
    assert data.params["optimizer.lr"] == "3e-05" and len(data.params["long"]) == 500
    assert data.metrics == {"abs_rel/synthetic-indoor": 0.05, "steps": 7.0}
    assert data.tags["e2eft.complete"] == "true" and data.tags["stage"] == "test"
    client = client_of(run.uri)
    assert {a.path for a in client.list_artifacts(run.run_id)} == {
        "panels", "report.md", "scores.json",
    }  # fmt: skip
    (entry,) = stored(run).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("indoor", DATA[:32])
    assert "s3://bucket/shards/indoor" in entry.dataset.source
    assert entry.tags[0].value == "ground truth"


def test_the_same_piece_of_work_has_one_run(tracking: TrackingConfig) -> None:
    first = start_run(tracking, "train", "model:abc", {})
    first.params({"lr": 1})
    first.finish("FAILED")
    again = start_run(tracking, "train", "model:abc", {})
    again.params({"lr": 2, "new": 3})
    assert again == first
    assert stored(again).data.params == {"lr": "1", "new": "3"}
    assert stored(again).info.status == "RUNNING"
    again.finish()
    assert stored(again).info.status == "FINISHED"
    assert start_run(tracking, "train", "model:other", {}) != first


def test_without_tracking_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = start_run(TrackingConfig(enabled=False), "n", "i", {})
    assert isinstance(run, NoRun)
    run.params({"a": 1})
    run.metrics({"b": 2.0})
    run.image(np.zeros((2, 2, 3), np.uint8), "x.png")
    run.dataset("u", DATA, "c")
    run.tags({"a": "b"})
    run.finish()
    assert list(tmp_path.iterdir()) == []


def test_without_tracking_mlflow_need_not_be_there() -> None:
    program = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from e2eft.config import TrackingConfig\n"
        "from e2eft.tracking import start_run\n"
        "run = start_run(TrackingConfig(enabled=False), 'n', 'i', {})\n"
        "run.params({'a': 1}); run.metrics({'b': 2.0}); run.dataset('u', 'd', 'c'); run.finish()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_server_that_is_not_there_is_one_clear_line_within_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (port,) = free_ports(1)
    config = TrackingConfig(tracking_uri=f"http://127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(TrackingError, match=f"127.0.0.1:{port} does not answer") as error:
        start_run(config, "n", "i", {})
    assert time.monotonic() - started < 10
    assert "\n" not in str(error.value) and "--no-tracking" in str(error.value)
    monkeypatch.setattr(connection, "ANSWER_S", 1.0)
    with pytest.raises(TrackingError, match=f"127.0.0.1:{port} does not answer"):
        resolve_version(config, "models:/x@champion")


def test_relative_databases_are_made_absolute_and_files_are_no_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(TrackingConfig()) == f"sqlite:///{tmp_path}/mlflow.db"
    relative = TrackingConfig(tracking_uri="sqlite:///a/b.db")
    assert resolve_uri(relative) == f"sqlite:///{tmp_path}/a/b.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert resolve_uri(TrackingConfig()) == "http://mlflow:5000"
    assert is_server("http://mlflow:5000") and not is_server(f"sqlite:///{tmp_path}/mlflow.db")
    assert is_registry_uri("models:/a@champion") and not is_registry_uri("s3://models/a")
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}


def test_only_a_better_version_becomes_champion(
    tracking: TrackingConfig, run: Run, two_versions: str
) -> None:
    terms = ("abs_rel", True, PROTOCOL, DATA)

    def promote(version: str, value: float) -> Any:
        metric, lower, protocol, data = terms
        return promote_if_better(
            tracking, two_versions, version, metric, value, lower, protocol, data
        )

    first = promote("1", 0.10)
    assert first and "first champion" in first.reason
    assert aliases(run, two_versions) == {"champion": "1"}
    worse = promote("2", 0.11)
    assert not worse and "0.1," in worse.reason and "0.11" in worse.reason
    assert not promote("2", 0.10)
    assert aliases(run, two_versions) == {"champion": "1"}
    assert not promote("2", float("nan"))
    better = promote("2", 0.09)
    assert better and aliases(run, two_versions) == {"champion": "2"}
    assert "champion already" in promote("2", 0.05).reason


def test_where_more_is_better_more_wins(
    tracking: TrackingConfig, run: Run, two_versions: str
) -> None:
    terms = (False, PROTOCOL, DATA)
    assert promote_if_better(tracking, two_versions, "1", "delta1", 0.9, *terms)
    assert not promote_if_better(tracking, two_versions, "2", "delta1", 0.8, *terms)
    assert promote_if_better(tracking, two_versions, "2", "delta1", 0.95, *terms)


def test_scores_of_other_data_or_protocols_never_promote(
    tracking: TrackingConfig, run: Run, two_versions: str
) -> None:
    assert promote_if_better(tracking, two_versions, "1", "abs_rel", 0.5, True, PROTOCOL, DATA)
    for protocol, data in ((PROTOCOL, OTHER_DATA), ("least-squares-depth to 20 m", DATA)):
        answer = promote_if_better(
            tracking, two_versions, "2", "abs_rel", 0.01, True, protocol, data
        )
        assert not answer and "version 1 stays champion" in answer.reason
        assert f"models:/{two_versions}@champion" in answer.reason and protocol in answer.reason
    assert aliases(run, two_versions) == {"champion": "1"}
    record_score(tracking, two_versions, "1", "abs_rel", 0.4, PROTOCOL, OTHER_DATA)
    assert promote_if_better(
        tracking, two_versions, "2", "abs_rel", 0.01, True, PROTOCOL, OTHER_DATA
    )


def test_names_that_are_not_registered_say_so(tracking: TrackingConfig, two_versions: str) -> None:
    for model in ("models:/nobody@champion", f"models:/{two_versions}/99", "models:/nothing"):
        with pytest.raises(
            TrackingError, match=r"is not in the registry.*@champion or models:/NAME"
        ):
            download_model(tracking, model)
    with pytest.raises(TrackingError, match="99"):
        promote_if_better(tracking, two_versions, "99", "abs_rel", 0.1, True, PROTOCOL, DATA)


@pytest.mark.parametrize("name", ["../stolen", "{top}/stolen", "a/../../stolen"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_registered_model_is_not_copied_elsewhere(
    is_folder: bool,
    name: str,
    tracking: TrackingConfig,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the server that holds its files says they are called."""
    from mlflow.entities import FileInfo
    from mlflow.store.artifact import artifact_repository_registry as registry
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    listed = FileInfo(name.format(top=tmp_path), is_folder, 4)

    class Foreign(LocalArtifactRepository):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__(str(tmp_path))

        def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
            return [] if path else [listed]

        def _download_file(self, remote_file_path: str, local_path: str) -> None:
            Path(local_path).write_bytes(b"mine")

    known = registry._artifact_repository_registry._registry
    monkeypatch.setitem(known, "foreign", Foreign)
    client, model = client_of(run.uri), f"foreign-{is_folder}-{len(name)}"
    client.create_registered_model(model)
    client.create_model_version(model, "foreign://server/model", run.run_id)
    with pytest.raises(TrackingError, match=rf"cannot download models:/{model}/1"):
        download_model(tracking, f"models:/{model}/1", tmp_path / "copy" / "of")
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]
    assert [path.name for path in tmp_path.rglob("*")] == ["copy", "of"]


def test_the_digest_of_a_registered_model_is_of_its_version_and_content(
    tracking: TrackingConfig, two_versions: str, run: Run
) -> None:
    client, name = client_of(run.uri), two_versions
    client.set_registered_model_alias(name, "champion", "1")
    first, second = (version_digest(tracking, f"models:/{name}/{number}") for number in (1, 2))
    assert version_digest(tracking, f"models:/{name}@champion") == first != second
    client.set_registered_model_alias(name, "champion", "2")
    assert version_digest(tracking, f"models:/{name}@champion") == second
    client.set_model_version_tag(name, "1", DIGEST_TAG, DATA)
    client.set_model_version_tag(name, "2", DIGEST_TAG, DATA)
    same = [version_digest(tracking, f"models:/{name}/{number}") for number in (1, 2)]
    assert len({first, second, *same}) == 4
    with pytest.raises(TrackingError, match="is not in the registry"):
        version_digest(tracking, "models:/nobody@champion")


def test_registering_needs_tracking(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="leave out --no-tracking"):
        register_model(TrackingConfig(), NoRun(), "e2eft-depth", tmp_path)


def test_the_model_folder_is_found_at_the_root_or_among_the_artifacts(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match="0 models"):
        model_folder(tmp_path)
    for place in ("plain", "wrapped/artifacts/export"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "model_index.json").write_text("{}")
    assert model_folder(tmp_path / "plain") == tmp_path / "plain"
    assert model_folder(tmp_path / "wrapped") == tmp_path / "wrapped/artifacts/export"
    assert model_folder(tmp_path / "wrapped/artifacts/export").name == "export"


def test_what_a_served_model_declares() -> None:
    requirements = dict(line.split("==") for line in serving_requirements())
    assert {"torch", "mlflow", "diffusers"} <= requirements.keys()
    assert not {"ray", "deepspeed", "mitsuba", "e2eft"} & requirements.keys()
    assert "+" not in requirements["torch"]
    signature = serving_signature().to_dict()
    assert signature["inputs"] == '[{"type": "binary", "name": "image", "required": true}]'
