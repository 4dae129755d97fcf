"""MLflow that asks for logins, forbids, or keeps its artifacts where they cannot be had: real
servers, each behind a proxy that says no. One line each, within seconds."""

import base64
import copy
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from e2eft.config import TrackingConfig
from e2eft.tracking import (
    Run,
    TrackingError,
    check_tracking,
    download_model,
    register_model,
    start_run,
)
from e2eft.tracking import artifacts as artifacts_module
from e2eft.tracking import connection as connection_module
from e2eft.tracking.connection import client_of
from tests.fault_proxy import Answer, FaultProxy, Request
from tests.registered import registered
from tests.services import MlflowServer, PostgresServer, S3Server

NAME, PASSWORD = "painter", "vermilion+carmine"
DIRECT = "artifacts-on-s3"


def said(status: int, body: bytes, kind: str) -> Answer:
    headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
    return Answer(status, "No", headers, body)


BODIES = {
    "MLflow's text": lambda status: said(status, b"You are not authenticated.", "text/plain"),
    "a gateway's JSON": lambda status: said(status, b'{"detail": "no"}', "application/json"),
    "a proxy's page": lambda status: said(status, b"<html><h1>No</h1></html>", "text/html"),
}


@pytest.fixture(scope="module")
def door(mlflow_server: MlflowServer) -> Iterator[FaultProxy]:
    """A proxy before MLflow."""
    client_of(mlflow_server.uri).search_experiments()  # its import takes seconds
    with FaultProxy(mlflow_server.uri) as proxy:
        yield proxy


@pytest.fixture
def open_door(door: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    for variable in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{variable}", raising=False)
    monkeypatch.delenv(connection_module.HANDED_DOWN, raising=False)
    monkeypatch.setattr(connection_module, "_credentialed", {})
    yield door
    door.gate = lambda request: None
    door.be("up")


def ask_login(door: FaultProxy, answer: Callable[[int], Answer]) -> None:
    right = base64.b64encode(f"{NAME}:{PASSWORD}".encode()).decode()

    def gate(request: Request) -> Answer | None:
        return None if request.header("authorization") == f"Basic {right}" else answer(401)

    door.gate = gate


def refused_line(ask: Callable[[], Any], within_s: float = 6.0) -> str:
    started = time.monotonic()
    with pytest.raises(TrackingError) as error:
        ask()
    assert time.monotonic() - started < within_s
    line = str(error.value)
    assert "\n" not in line and PASSWORD not in line and "does not answer" not in line
    return line


@pytest.mark.parametrize("body", BODIES)
def test_a_login_that_is_missing_or_wrong_is_asked_for(
    body: str, open_door: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_login(open_door, BODIES[body])
    config = TrackingConfig(tracking_uri=open_door.endpoint)
    for ask in (lambda: check_tracking(config), lambda: start_run(config, "n", "login", {})):
        line = refused_line(ask)
        assert line.startswith(f"MLflow at {open_door.endpoint} asks for a login; set MLFLOW_TRACK")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", NAME)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "chalk")
    line = refused_line(lambda: check_tracking(config))
    assert "refuses these credentials, the login of painter; correct MLFLOW_TRACKING_USER" in line
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    check_tracking(config)
    run = start_run(config, "n", f"login {body}", {})
    run.finish()
    assert client_of(run.uri).get_run(run.run_id).data.tags["mlflow.user"] == NAME


@pytest.mark.parametrize("body", BODIES)
def test_what_is_forbidden_is_said_to_be(body: str, open_door: FaultProxy) -> None:
    open_door.gate = lambda request: BODIES[body](403)
    config = TrackingConfig(
        tracking_uri=open_door.endpoint.replace("://", f"://{NAME}:{PASSWORD}@")
    )
    line = refused_line(lambda: check_tracking(config))
    assert "forbids this to the login of painter" in line and "ask for the permission" in line


def test_what_is_no_mlflow_is_said_to_be(open_door: FaultProxy) -> None:
    config = TrackingConfig(tracking_uri=open_door.endpoint)
    for answer in (said(200, b"<html>Sign in</html>", "text/html"), BODIES["a proxy's page"](404)):
        open_door.gate = lambda request, answer=answer: answer
        line = refused_line(lambda: check_tracking(config))
        assert f"what answers at {open_door.endpoint} is no MLflow" in line


def test_a_certificate_that_is_not_trusted_is_said_to_be(
    mlflow_server: MlflowServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FaultProxy(mlflow_server.uri, tls=context) as proxy:
        config = TrackingConfig(tracking_uri=proxy.endpoint)
        line = refused_line(lambda: check_tracking(config))
        assert "certificate that is not trusted; set MLFLOW_TRACKING_SERVER_CERT_PATH" in line
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        check_tracking(config)
    plain = TrackingConfig(tracking_uri=mlflow_server.uri.replace("http:", "https:"))
    assert "is it http:// in place of https://?" in refused_line(lambda: check_tracking(plain))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is registered as it is; nobody loads it."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "model_index.json").write_text("{}")
    return folder


@pytest.mark.parametrize("status", [401, 403])
def test_artifacts_that_a_server_forbids_are_named(
    status: int, open_door: FaultProxy, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrackingConfig(tracking_uri=open_door.endpoint)
    run = start_run(config, "n", f"forbidden {status}", {})
    name = f"forbidden-{status}"
    place = client_of(run.uri).get_run(run.run_id).info.artifact_uri
    registered(config, name, 1, place, run.run_id)

    def gate(request: Request) -> Answer | None:
        return BODIES["a gateway's JSON"](status) if "mlflow-artifacts" in request.target else None

    open_door.gate = gate
    word = {401: "asks for a login", 403: "forbids this to anyone without a login"}[status]
    for ask in (
        lambda: check_tracking(config, "a-name"),
        lambda: download_model(config, f"models:/{name}/1"),
        lambda: register_model(config, run, name, model),
    ):
        line = refused_line(ask)
        assert word in line and "artifacts at mlflow-artifacts:/" in line
    open_door.gate = lambda request: (
        BODIES["MLflow's text"](status) if "model-versions" in request.target else None
    )
    line = refused_line(lambda: register_model(config, run, name, model))
    assert line.startswith(f"cannot register '{name}' at ") and word in line
    assert "artifacts" not in line
    # Work that only logs goes on, and is told what will be missing.
    open_door.gate = gate
    check_tracking(config)
    (warned,) = [r.getMessage() for r in caplog.records if r.name == "e2eft.tracking.checks"]
    assert word in warned and "no pictures and files are kept with the run" in warned
    run.finish()


@pytest.fixture(scope="module")
def store(s3_server: S3Server) -> Iterator[FaultProxy]:
    """A proxy before S3."""
    with FaultProxy(s3_server.endpoint) as proxy:
        yield proxy


class Direct:
    """A registry whose clients go to S3 themselves, through the proxy."""

    def __init__(self, config: TrackingConfig, store: FaultProxy, run: Run, uri: str) -> None:
        self.config, self.store, self.run, self.uri = config, store, run, uri


@pytest.fixture
def direct(
    mlflow_server: MlflowServer, s3_env: S3Server, store: FaultProxy, model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Direct]:  # fmt: skip
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.endpoint)
    forget_clients()
    client = client_of(mlflow_server.uri)
    config = TrackingConfig(tracking_uri=mlflow_server.uri, experiment=DIRECT)
    if client.get_experiment_by_name(DIRECT) is None:
        place = f"s3://{s3_env.mlflow_bucket}/direct"
        client.create_experiment(DIRECT, place)
        registered(config, "on-s3", 1, f"{place}/model")
    run = start_run(config, "n", "direct", {})
    yield Direct(config, store, run, "models:/on-s3/1")
    store.gate = lambda request: None
    store.be("up")
    forget_clients()
    run.finish()


def forget_clients() -> None:
    """A process asks for its keys once."""
    from mlflow.store.artifact import s3_artifact_repo

    s3_artifact_repo._cached_get_s3_client.cache_clear()
    boto3.DEFAULT_SESSION = None


def xml(status: int, code: str) -> Callable[[Request], Answer]:
    body = f"<Error><Code>{code}</Code><Message>{code}, it says</Message></Error>".encode()
    return lambda request: said(status, body, "application/xml")


def no_keys(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


def wrong_key(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")


def wrong_secret(direct: Direct, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")


def answering(status: int, code: str) -> Callable[[Direct, pytest.MonkeyPatch], None]:
    return lambda direct, _: setattr(direct.store, "gate", xml(status, code))


def being(state: Any) -> Callable[[Direct, pytest.MonkeyPatch], None]:
    return lambda direct, _: direct.store.be(state)


S3_FAULTS: dict[str, tuple[Callable[[Direct, pytest.MonkeyPatch], None], str]] = {
    "no keys": (no_keys, "no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "wrong key": (wrong_key, "the access key is unknown; check AWS_ACCESS_KEY_ID"),
    "wrong secret": (wrong_secret, "the secret is wrong; check AWS_SECRET_ACCESS_KEY"),
    "401": (answering(401, "Unauthorized"), "access denied; check AWS_ACCESS_KEY_ID"),
    "403": (answering(403, "AccessDenied"), "these credentials may not do this"),
    "503": (being("busy"), "keeps answering SlowDown"),
    "gone": (being("refusing"), "no answer from http://127.0.0.1"),
    "hanging": (being("hanging"), "nothing came back within 2 s"),
}


PASSING = ("503", "gone", "hanging")
"""What is asked for as long as it may pass."""


@pytest.mark.parametrize("fault", S3_FAULTS)
def test_s3_that_does_not_give_the_artifacts_is_named(
    fault: str, direct: Direct, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, why = S3_FAULTS[fault]
    apply(direct, monkeypatch)
    forget_clients()
    if fault in PASSING:
        # Of which one answer that says why takes two at most.
        monkeypatch.setattr(artifacts_module, "ANSWER_S", 2.0 if fault == "hanging" else 4.5)
    asks: list[Callable[[], Any]] = [
        lambda: download_model(direct.config, direct.uri, tmp_path / "copy"),
        lambda: check_tracking(direct.config, "a-name"),
        lambda: register_model(direct.config, direct.run, "on-s3", model),
    ]
    for ask in asks[:1] if fault in PASSING else asks:
        line = refused_line(ask)
        assert why in line and "s3://mlflow/direct" in line


@pytest.mark.deep
def test_a_store_that_refuses_the_server_is_not_taken_for_a_login(
    services_folder: Path, s3_server: S3Server, store: FaultProxy, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(artifacts_module, "ANSWER_S", 4.5)
    keys = copy.copy(s3_server)
    keys.endpoint = store.endpoint
    server = MlflowServer(services_folder / "behind", store_uri=None, s3=keys, prefix="behind")
    try:
        config = TrackingConfig(tracking_uri=server.wait_ready().uri)
        check_tracking(config, "a-name")
        for status, code in ((403, "AccessDenied"), (403, "InvalidAccessKeyId")):
            store.gate = xml(status, code)
            line = refused_line(lambda: check_tracking(config, "a-name"))
            assert f"MLflow at {server.uri} is refused by the store of its artifacts (" in line
            assert code in line and "login" not in line
        for status, code in ((401, "Unauthorized"), (503, "SlowDown")):
            store.gate = xml(status, code)
            line = refused_line(lambda: check_tracking(config, "a-name"))
            assert "answers, but its artifacts at mlflow-artifacts:/0 cannot be had" in line
        store.gate = lambda request: None
        store.be("hanging")
        monkeypatch.setattr(artifacts_module, "ANSWER_S", 2.0)
        line = refused_line(lambda: check_tracking(config, "a-name"))
        assert "cannot be had (nothing came back within 2 s)" in line
    finally:
        store.gate = lambda request: None
        store.be("up")
        server.stop()


@pytest.mark.parametrize("name", ["nobody@{place}/postgres", "mlflow@{place}/nothing"])
def test_a_database_that_refuses_says_what(name: str, postgres_server: PostgresServer) -> None:
    place = postgres_server.uri.partition("@")[2].partition("/")[0]
    uri = "postgresql+psycopg://" + name.format(place=place)
    line = refused_line(lambda: check_tracking(TrackingConfig(tracking_uri=uri)))
    why = "refuses this login" if "nobody" in name else "has no database of that name"
    assert why in line and "use --no-tracking" in line
