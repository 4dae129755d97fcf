"""Tracking never holds up the work: servers that hang, that refuse, that are full or away."""

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

from e2eft.config import TrackingConfig
from e2eft.tracking import (
    Run,
    TrackingError,
    check_tracking,
    register_model,
    resolve_uri,
    resolve_version,
    start_run,
)
from e2eft.tracking import connection as connection_module
from e2eft.tracking import writer as writer_module
from e2eft.tracking.connection import client_of
from e2eft.tracking.writer import Write, Writer
from tests.services import free_ports
from tests.tracking_servers import answering_server, silent_server

PASSWORD = "hunter22"
RUN = "0123456789abcdef0123456789abcdef"
SERVERS: dict[str, Callable[[], AbstractContextManager[str]]] = {
    "silent": silent_server,
    "bad gateway": lambda: answering_server(502),
}


@pytest.fixture(params=sorted(SERVERS))
def away(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URI, with a password, of something that is not an MLflow that answers."""
    with SERVERS[request.param]() as address:
        yield f"http://me:{PASSWORD}@{address}"


@pytest.fixture
def fresh_writer(monkeypatch: pytest.MonkeyPatch) -> Writer:
    """A writer of this test's own, which gives up after a second."""
    monkeypatch.setattr(writer_module, "FLUSH_S", 1.0)
    monkeypatch.setattr(writer_module, "GIVEN_UP_S", 0.2)
    own = Writer()
    monkeypatch.setattr(writer_module, "_writer", (os.getpid(), own))
    client_of("http://host")  # MLflow is imported, as where a run was started
    return own


def test_writing_to_a_server_that_hangs_costs_nothing_and_is_one_line_at_the_end(
    away: str, fresh_writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    address = away.partition("@")[2]
    run = Run(f"http://{address}", RUN)
    started = time.monotonic()
    for step in range(1000):
        run.metrics({"loss": 1.0, "learning_rate": 1e-5}, step)
    run.params({"optimizer": {"lr": 1e-5, "eps": 1e-8}})
    run.image(np.zeros((480, 640, 3), np.uint8), "panels/step-000500.png")
    run.text("# report", "report.md")
    run.json({"config": {}}, "config.json")
    run.tags({"e2eft.complete": "true"})
    run.dataset("s3://bucket/shards", "a" * 64, "training")
    assert time.monotonic() - started < 1
    run.finish()
    assert time.monotonic() - started < 5
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(
        f"MLflow at http://{address} did not take 1 dataset, 2 files, 1 final state, "
        f"2000 metrics, 2 parameters, 1 picture, 1 tag of run {RUN} ("
    )
    assert PASSWORD not in said and "\n" not in said
    caplog.clear()
    run.flush()
    assert not caplog.records


def test_what_waits_for_a_server_says_soon_that_it_does_not_answer(
    away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrackingConfig(tracking_uri=away)
    monkeypatch.delenv(connection_module.HANDED_DOWN, raising=False)
    assert connection_module.ANSWER_S < 10
    monkeypatch.setattr(connection_module, "ANSWER_S", 1.0)
    errors = []
    run = Run(away.replace(f"me:{PASSWORD}@", ""), RUN)
    for ask in (
        lambda: start_run(config, "n", "i", {}),
        lambda: check_tracking(config, "e2eft-depth"),
        lambda: resolve_version(config, "models:/x@champion"),
        lambda: register_model(config, run, "x", model_of_nothing(monkeypatch)),
    ):
        started = time.monotonic()
        with pytest.raises(TrackingError) as error:
            ask()
        assert 1 <= time.monotonic() - started < 6
        errors.append(error)
    # A registered model can neither be found nor made without MLflow.
    advised = ["--no-tracking" in str(error.value) for error in errors]
    assert advised == [True, False, False, False]
    address = away.partition("@")[2]
    for error in errors:
        said = str(error.value)
        assert said.startswith(f"MLflow at http://{address} does not answer (")
        assert "\n" not in said and PASSWORD not in said
        assert error.value.__cause__ is None


def model_of_nothing(monkeypatch: pytest.MonkeyPatch) -> Path:
    from e2eft.tracking import registry

    monkeypatch.setattr(registry, "model_folder", lambda folder: folder)
    monkeypatch.setattr(registry, "_folder_digest", lambda folder: "digest")
    return Path("nothing")


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "refuses these credentials, the login of me"), (403, "forbids this to the login of me")],
)
def test_credentials_that_are_refused_are_named_at_once(status: int, said: str) -> None:
    with answering_server(status) as address:
        started = time.monotonic()
        with pytest.raises(TrackingError, match=said) as error:
            check_tracking(TrackingConfig(tracking_uri=f"http://me:{PASSWORD}@{address}"))
        assert time.monotonic() - started < 4
    assert PASSWORD not in str(error.value)


def test_databases_that_cannot_be_there_are_named_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "ANSWER_S", 2.0)
    (tmp_path / "file").write_text("no database, and longer than the header of one" * 10)
    (port,) = free_ports(1)
    with silent_server() as address:
        for uri, said in {
            f"sqlite:///{tmp_path}/file/mlflow.db": f"{tmp_path}/file is no folder",
            f"sqlite:///{tmp_path}/file": "/file is a file of another kind; correct --tracking-uri",
            f"sqlite:///{tmp_path}": f"{tmp_path} is a folder; name a file, such as ",
            "sqlite://": "names no file; write sqlite:///mlflow.db",
            "mlruns": "no longer keeps runs in; give http://HOST:PORT",
            "localhost:5000": "no longer keeps runs in; give http://HOST:PORT",
            "paper://desk": "is of no kind that is known here; correct --tracking-uri",
            "mysql+pymysql://host/db": "needs the Python package pymysql; install it",
            f"postgresql+psycopg://me:{PASSWORD}@{address}/db": f"{address}/db does not answer (",
            f"postgresql+psycopg://me:{PASSWORD}@127.0.0.1:{port}/db": "Connection refused); start",
        }.items():
            started = time.monotonic()
            with pytest.raises(TrackingError) as error:
                check_tracking(TrackingConfig(tracking_uri=uri))
            assert time.monotonic() - started < 4, uri
            assert said in str(error.value) and PASSWORD not in str(error.value)
            assert "\n" not in str(error.value)


def test_when_the_queue_is_full_the_oldest_metrics_go_first(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "FLUSH_S", 1.0)
    gate, sent = Event(), list[Any]()

    def attempt(writes: list[Write]) -> None:
        gate.wait(10)
        sent.extend(value[0] for write in writes for value in write.metrics)
        sent.extend(write.kind for write in writes if write.send)

    monkeypatch.setattr(writer_module, "_attempt", attempt)
    writer = Writer(queue_writes=10, queue_bytes=100)

    def metric(name: str) -> Write:
        return Write("http://host", RUN, "metrics", 1, metrics=((name, 1.0, 0, 0),))

    def other(kind: str, size: int = 0) -> Write:
        return Write("http://host", RUN, kind, 1, lambda client: None, size=size)

    writer.put(other("first"))
    while not writer._flying:
        time.sleep(0.01)
    for number in range(20):
        writer.put(metric(f"m{number}"))
    for kind in ("tags", "parameters"):
        writer.put(other(kind))
    writer.put(other("pictures", 90))
    writer.put(other("files", 60))
    gate.set()
    writer.settle()
    assert sent == ["first", "tags", "parameters", "files"]
    (said,) = [record.getMessage() for record in caplog.records]
    assert "did not take 20 metrics, 1 picture of run" in said and "more was waiting" in said


def test_one_write_that_always_fails_does_not_keep_the_others_waiting(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up once the server answers otherwise, and not while nothing is answered."""
    tried, answers = list[str](), [False, True]
    monkeypatch.setattr(writer_module, "LONGEST_WAIT_S", 0.01)

    def attempt(writes: list[Write]) -> Exception | None:
        tried.append(writes[0].kind)
        return OSError("500: no room") if writes[0].kind == "pictures" else None

    def asked(*_: Any) -> None:
        if not answers.pop(0):
            raise TimeoutError

    monkeypatch.setattr(writer_module, "_attempt", attempt)
    monkeypatch.setattr(writer_module, "asked", asked)
    writer = Writer()
    for kind in ("pictures", "tags"):
        writer.put(Write("http://host", RUN, kind, 1, lambda client: None))
    writer.settle()
    assert tried == ["pictures"] * (writer_module.ATTEMPTS + 1) + ["tags"] and not answers
    (said,) = [record.getMessage() for record in caplog.records]
    assert "did not take 1 picture of run" in said and "(500: no room)" in said


def test_in_a_long_queue_dropping_stays_cheap() -> None:
    writer = Writer(queue_writes=5000)
    writer._thread = object()  # type: ignore[assignment]  # nobody sends
    for number in range(6000):
        writer.put(Write("u", RUN, "metrics", 1, metrics=((f"m{number}", 1.0, 0, 0),)))
    started = time.monotonic()
    for number in range(1000):
        writer.put(Write("u", RUN, "metrics", 1, metrics=((f"m{number}", 1.0, 0, 0),)))
    assert time.monotonic() - started < 0.5


def test_catching_up_waits_for_a_server_that_answers_and_once_for_one_that_does_not(
    config: TrackingConfig, away: str, fresh_writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start_run(config, "n", f"catching up {away}", {})
    for step in range(20):
        run.metrics({"loss": float(step)}, step)
    run.catch_up()
    assert len(client_of(run.uri).get_metric_history(run.run_id, "loss")) == 20
    monkeypatch.setattr(writer_module, "CATCH_UP_S", 1.0)
    gone = Run(f"http://{away.partition('@')[2]}", RUN)
    started = time.monotonic()
    for step in range(20):
        gone.metrics({"loss": 1.0}, step)
        gone.catch_up()
    assert time.monotonic() - started < 2
    gone.flush()


def test_a_server_that_was_given_up_does_not_shorten_the_patience_with_another(
    caplog: pytest.LogCaptureFixture, fresh_writer: Writer
) -> None:
    def away(client: Any) -> None:
        raise ConnectionError

    fresh_writer.put(Write("http://away", RUN, "tags", 1, away))
    fresh_writer.settle()
    assert len(caplog.records) == 1
    caplog.clear()
    slow = Event()
    fresh_writer.put(Write("http://slow", RUN, "tags", 1, lambda client: slow.wait(0.4)))
    fresh_writer.settle()
    assert not caplog.records


@pytest.fixture
def config(tracking: TrackingConfig) -> TrackingConfig:
    return tracking


def test_what_is_refused_is_dropped_alone_and_said(
    config: TrackingConfig, caplog: pytest.LogCaptureFixture
) -> None:
    run = start_run(config, "n", "refused", {})
    for step in range(5):
        run.metrics({"loss": float(step)}, step)
    run.metrics({"no\x00name": 1.0}, 5)
    run.tags({"": "a tag without a name"})
    run.metrics({"loss": 6.0}, 6)
    run.finish()
    history = client_of(run.uri).get_metric_history(run.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [
        (step, float(step)) for step in (0, 1, 2, 3, 4, 6)
    ]
    (said,) = [r.getMessage() for r in caplog.records if r.name == writer_module.__name__]
    assert f"did not take 1 metric, 1 tag of run {run.run_id}" in said
    assert client_of(run.uri).get_run(run.run_id).info.status == "FINISHED"


def test_a_process_that_ends_loses_nothing(config: TrackingConfig) -> None:
    run = start_run(config, "n", "process", {})
    program = (
        "import pickle, sys, numpy as np\n"
        "run = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "for step in range(500): run.metrics({'loss': float(step)}, step)\n"
        "run.image(np.zeros((4, 4, 3), np.uint8), 'panel.png')\n"
    )
    subprocess.run([sys.executable, "-c", program, pickle.dumps(run).hex()], check=True)
    client = client_of(run.uri)
    history = client.get_metric_history(run.run_id, "loss")
    assert [point.step for point in history] == list(range(500))
    assert [entry.path for entry in client.list_artifacts(run.run_id)] == ["panel.png"]


def test_a_password_is_in_nothing_that_is_stored_shown_or_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"http://me:{PASSWORD}@host:5000"
    config = TrackingConfig(tracking_uri=uri)
    assert config.model_dump()["tracking_uri"] == resolve_uri(config) == uri
    run = Run("http://host:5000", RUN)
    for text in (config.model_dump_json(), repr(config), str(config), repr(run), pickle.dumps(run)):
        assert PASSWORD not in str(text)
    assert json.loads(config.model_dump_json())["tracking_uri"] == "http://host:5000"
    # Another process finds it in the environment, and nowhere else.
    for variable in (connection_module.HANDED_DOWN, "MLFLOW_TRACKING_URI"):
        monkeypatch.setattr(connection_module, "_credentialed", {})
        assert connection_module.with_credentials(run.uri) == run.uri
        monkeypatch.setenv(variable, uri)
        assert connection_module.with_credentials(run.uri) == uri
        assert connection_module.with_credentials("http://other") == "http://other"
        monkeypatch.delenv(variable)
