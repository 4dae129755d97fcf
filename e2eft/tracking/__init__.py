"""The one room that knows MLflow: runs, metrics, pictures, models and the alias `champion`."""

from e2eft.tracking.champion import CHAMPION, Promotion, roll_back, standing_of
from e2eft.tracking.checks import check_registry_name, check_tracking, require_there
from e2eft.tracking.connection import TrackingError, is_server, resolve_uri
from e2eft.tracking.promotion import promote_if_better, record_score
from e2eft.tracking.records import Score
from e2eft.tracking.registry import (
    CHALLENGER,
    RegisteredModel,
    download_model,
    model_folder,
    register_model,
    registered_version,
    registering,
)
from e2eft.tracking.runs import NoRun, Run, complete_run, start_run
from e2eft.tracking.versions import is_registry_uri, resolve_version, version_digest

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "NoRun",
    "Promotion",
    "RegisteredModel",
    "Run",
    "Score",
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
    "require_there",
    "resolve_uri",
    "resolve_version",
    "roll_back",
    "standing_of",
    "start_run",
    "version_digest",
]
