"""The harness itself: real servers that behave as the product needs them to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from tests.services import (
    MlflowServer,
    S3Server,
    ServiceError,
    ServiceProcess,
    free_ports,
    isolated_env,
)


@contextmanager
def s3_client(server: S3Server, credentials: tuple[str, str] | None = None) -> Iterator[Any]:
    client = server.client(credentials)
    try:
        yield client
    finally:
        client.close()


def refusal(error: pytest.ExceptionInfo[ClientError]) -> int:
    return error.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_s3_object_round_trip(s3_server: S3Server) -> None:
    body = os.urandom(3_000_000)
    with s3_client(s3_server) as client:
        client.put_object(Bucket=s3_server.bucket, Key="services/blob", Body=body)
        answer = client.get_object(Bucket=s3_server.bucket, Key="services/blob")
        assert answer["Body"].read() == body


def test_s3_refuses_to_create_an_object_twice(s3_server: S3Server) -> None:
    where = {"Bucket": s3_server.bucket, "Key": "services/once"}
    with s3_client(s3_server) as client:
        client.put_object(**where, Body=b"first", IfNoneMatch="*")
        with pytest.raises(ClientError) as error:
            client.put_object(**where, Body=b"second", IfNoneMatch="*")
        assert refusal(error) == 412
        assert client.get_object(**where)["Body"].read() == b"first"


def test_s3_refuses_a_wrong_secret_and_a_reader_who_writes(s3_server: S3Server) -> None:
    where = {"Bucket": s3_server.bucket, "Key": "services/locked"}
    key, _ = s3_server.credentials
    for credentials in [(key, "wrong"), s3_server.read_only_credentials]:
        with s3_client(s3_server, credentials) as client, pytest.raises(ClientError) as error:
            client.put_object(**where, Body=b"x")
        assert refusal(error) == 403
    with s3_client(s3_server, s3_server.read_only_credentials) as client:
        assert client.list_objects_v2(Bucket=s3_server.bucket)["ResponseMetadata"]


def test_s3_is_reached_by_environment_alone(s3_env: S3Server) -> None:
    from pyarrow import fs

    store, path = fs.FileSystem.from_uri(s3_env.uri("services", "by-environment"))
    with store.open_output_stream(path) as stream:
        stream.write(b"hello")
    with store.open_input_stream(path) as stream:
        assert stream.read() == b"hello"


def mlflow_round_trip(server: MlflowServer, s3: S3Server, folder: Path) -> None:
    """Run, metric, artifact through the server into the store, registry and alias."""
    from mlflow import MlflowClient
    from mlflow.artifacts import download_artifacts

    client = MlflowClient(tracking_uri=server.uri, registry_uri=server.uri)
    run = client.create_run(client.create_experiment("services"))
    client.log_metric(run.info.run_id, "abs_rel", 0.05, step=3)
    source = folder / "weights.bin"
    source.write_bytes(os.urandom(100_000))
    client.log_artifact(run.info.run_id, str(source))
    artifacts_uri = run.info.artifact_uri
    assert artifacts_uri is not None and artifacts_uri.startswith("mlflow-artifacts:")
    copy = download_artifacts(
        run_id=run.info.run_id,
        artifact_path="weights.bin",
        dst_path=str(folder / "copy"),
        tracking_uri=server.uri,
    )
    assert Path(copy).read_bytes() == source.read_bytes()
    with s3_client(s3) as store:
        keys = [o["Key"] for o in store.list_objects_v2(Bucket=s3.mlflow_bucket)["Contents"]]
    assert any(run.info.run_id in key and key.endswith("weights.bin") for key in keys)

    client.create_registered_model("services")
    version = client.create_model_version("services", artifacts_uri, run.info.run_id)
    client.set_registered_model_alias("services", "champion", version.version)
    assert client.get_model_version_by_alias("services", "champion").run_id == run.info.run_id
    assert client.get_run(run.info.run_id).data.metrics == {"abs_rel": 0.05}


def test_mlflow_over_sqlite(
    mlflow_server: MlflowServer,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow_round_trip(mlflow_server, s3_server, tmp_path)


def test_mlflow_over_postgres(
    mlflow_server_on_postgres: MlflowServer,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow_round_trip(mlflow_server_on_postgres, s3_server, tmp_path)


def test_a_server_that_dies_shows_its_last_words(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "print('port is taken'); raise SystemExit(7)"]
    process = ServiceProcess("broken", argv, folder=tmp_path, env={})
    with pytest.raises(ServiceError, match=r"(?s)broken.*exit code 7.*port is taken"):
        process.wait_until(lambda: False, timeout_s=20)
    process.stop()


def test_stopping_a_server_ends_what_it_left_in_another_session(tmp_path: Path) -> None:
    child = "import subprocess, sys, time; p = subprocess.Popen(['sleep', '300'], start_new_session=True); print(p.pid, flush=True)"  # noqa: E501
    process = ServiceProcess("parent", [sys.executable, "-c", child], folder=tmp_path, env={})
    while process.is_running:
        time.sleep(0.05)
    orphan = psutil.Process(int(process.log_tail()))
    assert orphan.is_running()
    process.stop()
    psutil.wait_procs([orphan], timeout=5)
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_a_killed_test_session_takes_its_servers_along(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tests.services import ServiceProcess\n"
        "p = ServiceProcess('s', ['sleep', '300'], folder=Path(sys.argv[1]), env={})\n"
        "print(p._process.pid, flush=True); time.sleep(300)\n"
    )
    argv = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as session:
        assert session.stdout is not None
        server = psutil.Process(int(session.stdout.readline()))
        time.sleep(0.5)
        session.send_signal(signal.SIGKILL)
    psutil.wait_procs([server], timeout=5)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE


def test_servers_do_not_inherit_the_settings_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("RAY_ADDRESS", "production:6379")
    env = isolated_env({"AWS_REGION": "here"})
    assert {k: v for k, v in env.items() if k.startswith(("AWS_", "RAY_"))} == {
        "AWS_REGION": "here"
    }
    assert env["PATH"] == os.environ["PATH"]


def test_free_ports_are_distinct_and_outside_rays_ranges() -> None:
    ports = free_ports(40)
    assert len(set(ports)) == 40
    assert all(20_000 <= port < 32_768 for port in ports)
