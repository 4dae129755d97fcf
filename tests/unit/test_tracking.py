"""Runs and the registry, on a SQLite file."""

import ast
import getpass
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft import cluster
from e2eft.config import TrackingConfig
from e2eft.tracking import (
    NoRun,
    Run,
    TrackingError,
    check_registry_name,
    check_tracking,
    complete_run,
    connection,
    download_model,
    is_registry_uri,
    is_server,
    model_folder,
    origin,
    promote_if_better,
    register_model,
    registered_version,
    resolve_uri,
    resolve_version,
    start_run,
    version_digest,
)
from e2eft.tracking.connection import client_of, with_credentials
from e2eft.tracking.packaging import (
    copy_served_source,
    serving_requirements,
    serving_signature,
)
from e2eft.tracking.registry import DIGEST_TAG
from e2eft.tracking.runs import flatten
from tests.registered import registered, score
from tests.services import free_ports
from tests.tracking_servers import answering_server

DATA = "a" * 64
HERE = Path(__file__).parent


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


def stored(run: Run) -> Any:
    run.flush()
    return client_of(run.uri).get_run(run.run_id)


@pytest.mark.parametrize("look_up", [resolve_version, version_digest])
def test_looking_a_model_up_makes_no_database(look_up: Any, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    config = TrackingConfig(tracking_uri=uri, enabled=False)
    with pytest.raises(TrackingError) as refused:
        look_up(config, "models:/depth@champion")
    assert str(refused.value) == (
        f"MLflow's database {uri} is not there; give "
        "another with --tracking-uri or MLFLOW_TRACKING_URI"
    )
    assert not list(tmp_path.iterdir())


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
    with pytest.raises(TrackingError, match=f"127.0.0.1:{port} does not answer") as error:
        resolve_version(config, "models:/x@champion")
    assert "--no-tracking" not in str(error.value)  # which would be no way to read a registry


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://h:99999", "--tracking-uri http://h:99999 is no server's; write http://HOST:PORT"),
        ("http://me:carmine@h:abc", "--tracking-uri http://h:abc is no server's"),
        ("https://", "--tracking-uri https:// is no server's"),
        ("http://a b", "--tracking-uri http://a b is no server's"),
        ("sqlite:///", "--tracking-uri sqlite:/// names no file; write sqlite:///mlflow.db"),
        ("sqlite:///:memory:", "--tracking-uri sqlite:///:memory: names no file"),
    ],
)
def test_a_tracking_uri_that_cannot_be_is_told_what_one_is(uri: str, said: str) -> None:
    with pytest.raises(TrackingError) as error:
        check_tracking(TrackingConfig(tracking_uri=uri))
    assert str(error.value).startswith(said)
    assert str(error.value).endswith(", or use --no-tracking")


def test_blanks_around_a_tracking_uri_are_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "\thttp://me:carmine@mlflow:5000 \n")
    assert resolve_uri(TrackingConfig()) == "http://me:carmine@mlflow:5000"
    assert resolve_uri(TrackingConfig(tracking_uri=" http://other ")) == "http://other"
    monkeypatch.setattr(connection, "_credentialed", {})
    assert with_credentials("http://mlflow:5000") == "http://me:carmine@mlflow:5000"


@pytest.mark.parametrize("body", [b"{}", b'{"status": "ok"}', b"[]"])
def test_a_server_that_says_the_same_to_everything_is_no_mlflow(body: bytes) -> None:
    with (
        answering_server(200, body=body) as place,
        pytest.raises(TrackingError, match=f"what answers at http://{place} is no MLflow"),
    ):
        check_tracking(TrackingConfig(tracking_uri=f"http://{place}"))


def test_a_server_that_takes_no_more_requests_is_not_to_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "ANSWER_S", 0.8)
    with (
        answering_server(429, body=b"{}") as place,
        pytest.raises(TrackingError, match=r"takes no more requests .*again later, or raise the"),
    ):
        check_tracking(TrackingConfig(tracking_uri=f"http://{place}"))


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("181f10493468", "was made by an older MLflow (its schema is 181f10493468, here it is "),
        ("ffffffffffff", "was made by a newer MLflow, or by another program (its schema is ffff"),
        (None, "was made by an older MLflow (its schema is not said, here it is "),
    ],
)
def test_a_database_of_another_mlflow_is_left_as_it_is(
    schema: str | None, said: str, tracking: TrackingConfig, tmp_path: Path
) -> None:
    check_tracking(tracking)  # makes it
    file = tmp_path / "runs.db"
    shutil.copyfile(str(tracking.tracking_uri).removeprefix("sqlite:///"), file)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DELETE FROM alembic_version")
        if schema:
            database.execute("INSERT INTO alembic_version VALUES (?)", (schema,))
        database.execute("DROP TABLE webhook_events")  # what an older one does not have
    content = file.read_bytes()
    started = time.monotonic()
    with pytest.raises(TrackingError) as error:
        check_tracking(TrackingConfig(tracking_uri=f"sqlite:///{file}"))
    assert time.monotonic() - started < 5 and file.read_bytes() == content
    line = str(error.value)
    assert line.startswith(f"MLflow's database sqlite:///{file} {said}")
    fix = f"run `mlflow db upgrade sqlite:///{file}`, or correct --tracking-uri"
    assert (fix in line) == (schema == "181f10493468")


def test_no_database_is_made_by_who_reads_a_registry(tmp_path: Path) -> None:
    config = TrackingConfig(tracking_uri=f"sqlite:///{tmp_path}/not/there/mlflow.db")
    for read in (resolve_version, version_digest, download_model):
        with pytest.raises(TrackingError, match=r"there/mlflow.db is not there; give another"):
            read(config, "models:/x@champion")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    ["a/b", "a:b", "a@b", "a?b", "a\tb", "a\nb", "..", "", " ", "n" * 257, """a'b"c"""],
)
def test_a_name_by_which_a_model_could_not_be_found_again_is_refused(name: str) -> None:
    with pytest.raises(TrackingError, match=r"^--register ") as error:
        check_registry_name(name)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["it's", 'say "x"', "a b%20#c;d[e]"])
def test_a_name_that_is_taken_is_found_again(
    name: str, tracking: TrackingConfig, tmp_path: Path
) -> None:
    check_registry_name(name)
    registered(tracking, name, 1, tmp_path)
    client_of(resolve_uri(tracking)).set_registered_model_alias(name, "champion", "1")
    for uri in (f"models:/{name}/1", f"models:/{name}@champion"):
        assert resolve_version(tracking, uri) == (name, "1")
    assert registered_version(tracking, name, "tag", "none") is None


def test_a_name_of_an_experiment_that_a_database_cannot_hold_is_refused(
    tracking: TrackingConfig,
) -> None:
    long = tracking.model_copy(update={"experiment": "e" * 257})
    with pytest.raises(TrackingError, match=r"--experiment e+\.\.\.: a name of 257 characters"):
        check_tracking(long)


@pytest.mark.parametrize("out", ["/tmp/it's", '/tmp/"a"', """/tmp/it's "a\"""", "/tmp/a`b\\c"])
def test_quotes_in_a_place_are_no_reason_to_fail(out: str, tracking: TrackingConfig) -> None:
    runs = [start_run(tracking, "n", f"scores:1:{out}", {"e2eft.out": out}) for _ in range(2)]
    assert runs[0] == runs[1]
    complete_run(tracking, "n", f"scores:1:{out}", {}, lambda run: None)
    assert stored(runs[0]).data.tags["e2eft.out"] == out


def test_a_run_says_who_started_it_from_where(
    tracking: TrackingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"metadata": {"job_submission_id": "raysubmit_1"}}
    monkeypatch.setenv("E2EFT_IMAGE_DIGEST", "sha256:12")
    monkeypatch.setenv(origin.SUBMISSION_VARIABLE, json.dumps(job))
    monkeypatch.setenv(cluster.JOB_ID, "02000000")
    monkeypatch.setattr(sys, "argv", ["pipelines/train.py", "--tracking-uri", "secret"])
    run = start_run(tracking, "n", "who", {})
    tags = stored(run).data.tags
    assert (
        tags["mlflow.user"]
        == getpass.getuser()
        == client_of(run.uri).get_run(run.run_id).info.user_id
    )
    assert tags["mlflow.source.name"] == "pipelines/train.py"
    assert tags["mlflow.source.type"] == "JOB"
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE)
    assert tags["mlflow.source.git.commit"] == head.stdout.strip() and len(head.stdout) == 41
    assert tags["ray.submission_id"] == "raysubmit_1" and tags["ray.job_id"] == "02000000"
    assert tags["e2eft.image_digest"] == "sha256:12"
    assert origin.user("http://painter@host:5000") == "painter"


def test_the_commit_of_a_repository_that_this_package_is_no_part_of_is_not_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "__init__.py").touch()
    monkeypatch.setattr(origin, "PACKAGE", tmp_path)
    origin._commit.cache_clear()
    assert origin._commit() == {}
    origin._commit.cache_clear()


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


def test_names_that_are_not_registered_say_so(tracking: TrackingConfig, two_versions: str) -> None:
    client_of(resolve_uri(tracking)).set_registered_model_alias(two_versions, "mine", "2")
    there = f"; the newest versions of {two_versions} are 2, 1, its aliases mine (2)"
    for model in ("models:/nobody@champion", f"models:/{two_versions}/99"):
        with pytest.raises(
            TrackingError, match=r"is not in the registry.*@champion or models:/NAME/VERSION; "
        ) as error:
            download_model(tracking, model)
        assert str(error.value).endswith(there) == (two_versions in model)
    for what in ("", "/latest", "@mine@mine"):
        with pytest.raises(TrackingError, match="names no version of a registered") as error:
            resolve_version(tracking, f"models:/{two_versions}{what}")
        assert str(error.value).endswith(there)
    for model, logged in (("models:/", ""), (f"models:/m-{'0a' * 16}", ", but a logged one")):
        with pytest.raises(TrackingError) as error:
            resolve_version(tracking, model)
        said = f"{model} names no version of a registered model{logged}; write models:/NAME@champ"
        assert str(error.value).startswith(said)
    with pytest.raises(TrackingError, match="99"):
        promote_if_better(tracking, two_versions, "99", score(0.1))


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


def test_what_the_served_source_imports_is_declared(tmp_path: Path) -> None:
    not_served = {"OpenEXR", "boto3", "botocore", "h5py", "scipy", "urllib3"}
    copy_served_source(tmp_path)
    imported: set[str] = set()
    for file in tmp_path.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module)
    roots = {name.split(".")[0] for name in imported} - sys.stdlib_module_names - {"e2eft"}
    declared = {line.partition("==")[0] for line in serving_requirements()} | {"huggingface_hub"}
    found = metadata.packages_distributions()
    undeclared = {root for root in roots if not declared & {*found.get(root, ()), root}}
    assert undeclared == not_served & roots
    ours = {name.replace(".", "/") for name in imported if name.startswith("e2eft.")}
    absent = {name for name in ours if not [*tmp_path.glob(f"{name}.py"), *tmp_path.glob(name)]}
    assert not absent
