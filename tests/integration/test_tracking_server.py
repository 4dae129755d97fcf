"""A real MLflow server that is stopped and goes on, is given a password in its URI, or has many
who move its aliases."""

import base64
import io
import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from e2eft.config import TrackingConfig
from e2eft.tracking import (
    Run,
    TrackingError,
    check_tracking,
    promote_if_better,
    roll_back,
    standing_of,
    start_run,
)
from e2eft.tracking import connection as connection_module
from e2eft.tracking.connection import client_of
from tests.registered import champion, registered, score
from tests.services import MlflowServer, S3Server

STEPS = 300
PASSWORD = "pl@nted/secret+of=this:test"


@pytest.fixture
def stopped(mlflow_server: MlflowServer) -> Iterator[Callable[[], None]]:
    """Stops the server's processes, which go on after the test at the latest."""
    group = mlflow_server.process._process.pid
    try:
        yield lambda: os.killpg(group, signal.SIGSTOP)
    finally:
        os.killpg(group, signal.SIGCONT)


@pytest.fixture
def server(tmp_path: Path, s3_server: S3Server) -> Iterator[MlflowServer]:
    """An MLflow server of this test's own, that may be killed."""
    own = MlflowServer(tmp_path / "mlflow", store_uri=None, s3=s3_server, prefix="killed")
    try:
        yield own.wait_ready()
    finally:
        own.stop()


def test_what_is_written_while_a_server_stands_still_is_there_in_order_when_it_goes_on(
    mlflow_server: MlflowServer,
    stopped: Callable[[], None],
    services_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = TrackingConfig(tracking_uri=mlflow_server.uri)
    run = start_run(config, "train", "stopped", {})
    run.metrics({"loss": -1.0}, 0)
    run.flush()
    stopped()
    started = time.monotonic()
    for step in range(1, STEPS + 1):
        run.metrics({"loss": float(step), "learning_rate": 1.0 / step}, step)
    run.image(np.full((8, 8, 3), 7, np.uint8), "panels/step-000300.png")
    run.tags({"e2eft.rgb_latents": "encoded"})
    run.tags({"e2eft.rgb_latents": "cached"})
    assert time.monotonic() - started < 1
    with monkeypatch.context() as patched:
        patched.setattr(connection_module, "ANSWER_S", 3.0)
        with pytest.raises(TrackingError, match="does not answer"):
            check_tracking(config)
    time.sleep(12)  # longer than a request waits: the first ones have been tried again
    os.killpg(mlflow_server.process._process.pid, signal.SIGCONT)
    run.finish()
    assert not [r for r in caplog.records if r.name == "e2eft.tracking.writer"]
    found = client_of(run.uri).get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.tags["e2eft.rgb_latents"] == "cached"
    files = client_of(run.uri).list_artifacts(run.run_id, "panels")
    assert [entry.path for entry in files] == ["panels/step-000300.png"]
    with closing(sqlite3.connect(services_folder / "mlflow" / "mlflow.db")) as database:
        rows = database.execute(
            "SELECT step, value FROM metrics WHERE key = 'loss' AND run_uuid = ? ORDER BY rowid",
            [run.run_id],
        ).fetchall()
    assert rows == [(0, -1.0), *((step, float(step)) for step in range(1, STEPS + 1))]


@pytest.mark.deep
def test_a_server_that_is_gone_at_the_end_is_one_line(
    server: MlflowServer, caplog: pytest.LogCaptureFixture
) -> None:
    run = start_run(TrackingConfig(tracking_uri=server.uri), "train", "gone", {})
    run.flush()
    server.process.kill()
    for step in range(10):
        run.metrics({"loss": 1.0}, step)
    started = time.monotonic()
    run.finish("FAILED")
    assert time.monotonic() - started < 25
    (said,) = [r.getMessage() for r in caplog.records if r.name == "e2eft.tracking.writer"]
    assert said == (
        f"MLflow at {server.uri} did not take 1 final state, 10 metrics of run {run.run_id} "
        "([Errno 111] Connection refused); the work itself is not affected"
    )


def test_a_password_in_the_uri_is_stored_nowhere(
    mlflow_server: MlflowServer, s3_server: S3Server, capfd: pytest.CaptureFixture[str]
) -> None:
    with_password = mlflow_server.uri.replace("://", f"://me:{quote(PASSWORD, safe='')}@")
    config = TrackingConfig(tracking_uri=with_password)
    run = start_run(config, "train", "secret", {"e2eft.out": with_password})
    run.params({"tracking": config.model_dump(), "uri": with_password})
    run.json({"config": config.model_dump(), "said": f"at {with_password}"}, "config.json")
    run.text(f"<p>{PASSWORD} and {quote(PASSWORD, safe='')}</p>", "page.html")
    run.tags({"uri": with_password})
    run.dataset(with_password, "d" * 64, "training")
    run.finish()
    assert run == Run(mlflow_server.uri, run.run_id)
    stored = client_of(run.uri).get_run(run.run_id)
    kept = [json.dumps(stored.to_dictionary()), str(stored.inputs)]
    client = s3_server.client()
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=s3_server.mlflow_bucket):
        for entry in page.get("Contents", []):
            if run.run_id in entry["Key"]:
                body = client.get_object(Bucket=s3_server.mlflow_bucket, Key=entry["Key"])["Body"]
                kept.append(io.TextIOWrapper(body).read())
    client.close()
    assert sum(run.run_id in text for text in kept) >= 1 and len(kept) == 4
    kept += [*capfd.readouterr(), mlflow_server.process.log_path.read_text()]
    forms = {PASSWORD, quote(PASSWORD, safe=""), quote(PASSWORD)}
    forms |= {base64.b64encode(form.encode()).decode() for form in (PASSWORD, f"me:{PASSWORD}")}
    for text in kept:
        assert not [form for form in forms if form in text]


def test_a_server_of_many_evaluations_at_once_has_the_best_champion_and_rolls_back(
    mlflow_server: MlflowServer,
) -> None:
    config = TrackingConfig(tracking_uri=mlflow_server.uri)
    run = start_run(config, "evaluate", "racing", {})
    place = client_of(run.uri).get_run(run.run_id).info.artifact_uri
    registered(config, "racing", 4, place, run.run_id)
    values = {"1": 0.13, "2": 0.11, "3": 0.10, "4": 0.12}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda v: promote_if_better(config, "racing", v, score(values[v])), values))
    assert champion(config, "racing") == "3"
    moves = standing_of(config, "racing").moves
    led = [move.to for move in moves]
    assert all(move.done for move in moves) and [m.was for m in moves] == [None, *led[:-1]]
    for before in reversed([None, *led[:-1]]):
        assert roll_back(config, "racing") and champion(config, "racing") == before
    run.finish()
