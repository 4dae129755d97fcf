"""What can be known of MLflow before the work, so that nothing fails of it after."""

from e2eft.config import TrackingConfig
from e2eft.tracking.connection import TrackingError, connect, hand_down, resolve_uri

LONGEST_NAME = 256
"""Characters that a SQL registry has for a name."""


def check_tracking(config: TrackingConfig, register_as: str | None = None) -> None:
    """MLflow answers, to this user, and would take the name.

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
        uri = resolve_uri(config)
        connect(uri)
        hand_down(uri)


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
