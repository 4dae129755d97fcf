"""The one room that knows MLflow: runs, metrics, pictures, models and the alias `champion`."""

from e2eft.tracking.checks import check_registry_name, check_tracking
from e2eft.tracking.connection import TrackingError, is_server, resolve_uri
from e2eft.tracking.promotion import CHAMPION, Promotion, promote_if_better, record_score
from e2eft.tracking.registry import (
    CHALLENGER,
    RegisteredModel,
    download_model,
    is_registry_uri,
    model_folder,
    register_model,
    registered_version,
    registering,
    resolve_version,
    version_digest,
)
from e2eft.tracking.runs import NoRun, Run, complete_run, start_run

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "NoRun",
    "Promotion",
    "RegisteredModel",
    "Run",
    "TrackingError",
    "check_registry_name",
    "check_tracking",
    "complete_run",
    "download_model",
    "is_registry_uri",
    "is_server",
    "model_folder",
    "promote_if_better",
    "record_score",
    "register_model",
    "registered_version",
    "registering",
    "resolve_uri",
    "resolve_version",
    "start_run",
    "version_digest",
]
