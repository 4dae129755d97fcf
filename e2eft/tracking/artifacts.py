"""Where an MLflow keeps its artifacts, and whether they may be read by this process, in seconds."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from e2eft.secrets import shown, without_secrets
from e2eft.tracking.connection import (
    ANSWER_S,
    TrackingError,
    asked,
    explained,
    is_server,
    with_credentials,
)
from e2eft.tracking.refusals import (
    artifacts_fault,
    login_fault,
    refused_status,
    server_said,
)

NOTHING = "e2eft-asks-whether-it-may-read"
"""A folder that is in no store of artifacts."""
CONNECT_S, READ_S, TRIES = 5, 20, 2
"""Of MLflow's own client of S3, whose defaults are minutes."""


def check_artifacts(uri: str, location: str) -> None:
    """Asks for a listing at the place of an experiment's, or a version's, files.

    Raises:
        TrackingError: if it is refused, or not answered within seconds.
    """
    scheme = urlparse(location).scheme
    if scheme in ("", "file"):
        _require_here(uri, location)
        return
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    bound_s3()
    whole = with_credentials(uri)

    def ask() -> Any:
        return get_artifact_repository(location, tracking_uri=whole).list_artifacts(NOTHING)

    try:
        asked(ask, ANSWER_S)
    except Exception as error:
        raise no_artifacts(uri, location, error) from None


def _require_here(uri: str, location: str) -> None:
    """A plain path is one of this machine, also where a server on another one names it."""
    path = Path(urlparse(location).path)
    folder = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if is_server(uri) and not os.access(folder, os.W_OK):
        raise TrackingError(
            f"MLflow at {shown(uri)} keeps its artifacts in {path}, which cannot be written on "
            "this machine; mount it, or start the server with --artifacts-destination in place of "
            "--default-artifact-root"
        )


def bound_s3() -> None:
    """Gives MLflow's client of S3 a patience of seconds, unless the process has set its own."""
    import boto3
    from botocore.config import Config

    if boto3.DEFAULT_SESSION is None:
        boto3.setup_default_session()
    session = boto3.DEFAULT_SESSION._session
    if session.get_default_client_config() is None:
        patience = {"connect_timeout": CONNECT_S, "read_timeout": READ_S}
        session.set_default_client_config(Config(**patience, retries={"total_max_attempts": TRIES}))


def no_artifacts(uri: str, location: str, error: BaseException) -> TrackingError:
    """What a person is told when the artifacts at `location` cannot be had."""
    if isinstance(error, TrackingError):
        return error
    name, place, reason = shown(uri), shown(location), explained(error, uri)
    if fault := artifacts_fault(error, location):
        return TrackingError(f"MLflow at {name} keeps its artifacts on S3; {fault}")
    if own := without_secrets(server_said(error)):
        return TrackingError(
            f"MLflow at {name} is refused by the store of its artifacts ({own[:200]}); correct the "
            "keys or the bucket that the server was started with"
        )
    if status := refused_status(error):
        fault = login_fault(status, with_credentials(uri))
        return TrackingError(f"artifacts at {place}: MLflow at {name} {fault} ({reason})")
    return TrackingError(
        f"MLflow at {name} answers, but its artifacts at {place} cannot be had ({reason}); put "
        "that store, or the server's way to it, right"
    )
