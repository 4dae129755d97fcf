"""What can be known of MLflow before the work, so that nothing fails of it after."""

from typing import Any

from e2eft.config import TrackingConfig
from e2eft.secrets import shown
from e2eft.tracking.connection import (
    TrackingError,
    connect,
    hand_down,
    resolve_uri,
    unavailable,
    within,
)

LONGEST_NAME = 256
"""Characters that a SQL registry has for a name."""


def check_tracking(config: TrackingConfig, register_as: str | None = None) -> None:
    """MLflow answers, to this user, and would take runs of the experiment, and the name.

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
        uri = resolve_uri(config)
        client = connect(uri)
        hand_down(uri)
        _require_active(client, uri, config.experiment)


def _check_experiment_name(name: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_experiment_name

    try:
        _validate_experiment_name(name)
    except MlflowException as error:
        raise TrackingError(f"--experiment {name!r}: {error.message}") from None


def _require_active(client: Any, uri: str, name: str) -> None:
    """Raises TrackingError if the experiment has been deleted: MLflow keeps its name."""
    try:
        found = within(uri, lambda: client.get_experiment_by_name(name))
    except Exception as error:
        raise unavailable(uri, error) from None
    if found is not None and found.lifecycle_stage != "active":
        raise TrackingError(
            f"--experiment {name} was deleted in MLflow at {shown(uri)}; restore it (mlflow "
            f"experiments restore --experiment-id {found.experiment_id}), or give another name"
        )


def check_registry_name(name: str) -> None:
    """Raises TrackingError for a name that MLflow's registry would refuse, or `models:/` URIs not
    hold."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_model_name

    try:
        _validate_model_name(name)
    except MlflowException as error:
        raise TrackingError(f"--register {name!r}: {error.message}") from None
    if "@" in name or ("'" in name and '"' in name) or len(name) > LONGEST_NAME:
        raise TrackingError(
            f"--register {name!r}: a name has no '@' (it sets an alias apart), not both kinds of "
            f"quotes, and at most {LONGEST_NAME} characters"
        )


def needs_tracking(name: str) -> TrackingError:
    """What is said to who registers a model without tracking."""
    return TrackingError(f"--register {name} needs MLflow; leave out --no-tracking")
