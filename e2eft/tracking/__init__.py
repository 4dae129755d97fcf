"""The one room that knows MLflow: runs, metrics, pictures, models and the alias `champion`."""

from e2eft.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    Promotion,
    RegisteredModel,
    download_model,
    is_registry_uri,
    model_folder,
    promote_if_better,
    record_score,
    register_model,
    resolve_version,
)
from e2eft.tracking.runs import (
    NoRun,
    Run,
    TrackingError,
    is_server,
    resolve_uri,
    start_run,
)

__all__ = [
    "CHALLENGER",
    "CHAMPION",
    "NoRun",
    "Promotion",
    "RegisteredModel",
    "Run",
    "TrackingError",
    "download_model",
    "is_registry_uri",
    "is_server",
    "model_folder",
    "promote_if_better",
    "record_score",
    "register_model",
    "resolve_uri",
    "resolve_version",
    "start_run",
]
