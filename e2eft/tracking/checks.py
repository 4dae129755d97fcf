"""What can be known of MLflow before the work, so that nothing fails of it after."""

import logging
from pathlib import Path
from typing import Any

from e2eft.config import TrackingConfig
from e2eft.secrets import shown
from e2eft.tracking.artifacts import check_artifacts
from e2eft.tracking.connection import (
    TrackingError,
    connect,
    hand_down,
    is_server,
    resolve_uri,
    unavailable,
    within,
)

log = logging.getLogger(__name__)

LONGEST_NAME = 256
"""Characters that a SQL database has for a name."""
UNFINDABLE = set("@?")
"""Characters that set an alias apart, or end a path, in MLflow's URIs."""


def check_tracking(config: TrackingConfig, register_as: str | None = None) -> None:
    """MLflow answers, to this user, and would take runs of the experiment, the name, and its files.

    Where only the files of runs would not be taken, a line says so, and the work goes on.

    To be called before anything is claimed or deleted, and before a local cluster is started, whose
    processes find the credentials in the environment that they inherit.

    Raises:
        TrackingError: if one of these is not so; within seconds.
    """
    if register_as is not None:
        check_registry_name(register_as)
        if not config.enabled:
            raise needs_tracking(register_as)
    if config.enabled:
        _check_experiment_name(config.experiment)
        uri, optional = resolve_uri(config), register_as is None
        client = connect(uri, optional=optional)
        hand_down(uri)
        location = _location(client, uri, config.experiment, optional)
        try:
            check_artifacts(uri, location)
        except TrackingError as error:
            if register_as is not None:
                raise
            log.warning("%s; until then no pictures and files are kept with the run", error)


def require_there(config: TrackingConfig) -> Any:
    """A client of an MLflow that answers, and is no database that would have to be made first.

    Raises:
        TrackingError: if one of these is not so; within seconds.
    """
    uri = resolve_uri(config)
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        raise TrackingError(
            f"MLflow's database {uri} is not there; give another with --tracking-uri or "
            "MLFLOW_TRACKING_URI"
        )
    return connect(uri)


def _check_experiment_name(name: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_experiment_name

    try:
        _validate_experiment_name(name)
    except MlflowException as error:
        raise TrackingError(f"--experiment {name!r}: {error.message}") from None
    if len(name) > LONGEST_NAME:
        raise TrackingError(
            f"--experiment {name[:40]}...: a name of {len(name)} characters; the most are "
            f"{LONGEST_NAME}"
        )


def _location(client: Any, uri: str, name: str, optional: bool) -> str:
    """Where artifacts of the experiment are, or, of one that is not there yet, where others' are.

    Raises:
        TrackingError: if the experiment has been deleted: MLflow keeps its name.
    """
    try:
        found = within(uri, lambda: client.get_experiment_by_name(name))
        other = found or (is_server(uri) and within(uri, lambda: _any_experiment(client)))
    except Exception as error:
        raise unavailable(uri, error, optional=optional) from None
    if found is not None and found.lifecycle_stage != "active":
        raise TrackingError(
            f"--experiment {name} was deleted in MLflow at {shown(uri)}; restore it (mlflow "
            f"experiments restore --experiment-id {found.experiment_id}), or give another name"
        )
    return str(other.artifact_location) if other else ""


def _any_experiment(client: Any) -> Any:
    return next(iter(client.search_experiments(max_results=1)), None)


def check_registry_name(name: str) -> None:
    """Raises TrackingError for a name that MLflow's registry would refuse, or by which the model
    could not be found again."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.utils.models import _parse_model_uri
    from mlflow.utils.validation import _validate_model_name

    try:
        _validate_model_name(name)
        read = _parse_model_uri(f"models:/{name}/1"), _parse_model_uri(f"models:/{name}@champion")
    except MlflowException as error:
        raise TrackingError(f"--register {name!r}: {error.message}") from None
    again = name == read[0].name == read[1].name and read[0].version == "1"
    quotes = "'" in name and '"' in name
    if not again or quotes or set(name) & UNFINDABLE or name in (".", ".."):
        raise TrackingError(
            f"--register {name!r}: it could not be found again; a name has no '@' (it sets an "
            "alias apart), no '?', tabs or line breaks, and not both kinds of quotes"
        )
    if len(name) > LONGEST_NAME:
        raise TrackingError(
            f"--register {name[:40]}...: a name of {len(name)} characters; the most are "
            f"{LONGEST_NAME}"
        )


def needs_tracking(name: str) -> TrackingError:
    """What is said to who registers a model without tracking."""
    return TrackingError(f"--register {name} needs MLflow; leave out --no-tracking")
