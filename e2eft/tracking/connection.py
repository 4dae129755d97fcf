"""Which MLflow it is, with which credentials, and whether it answers: asked for seconds at most."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Event, Thread
from typing import Any, TypeVar
from urllib.parse import urlparse

from e2eft.config import TrackingConfig
from e2eft.imports import uncollected
from e2eft.secrets import DATABASES, shown, without_secrets
from e2eft.storage import resolved
from e2eft.storage.s3_errors import is_transient
from e2eft.tracking.probes import probe_database, probe_server, require_known
from e2eft.tracking.refusals import (
    TrackingError,
    database_fault,
    is_limit,
    login_fault,
    refused_status,
    s3_error,
    telling,
    tls_fault,
)

T = TypeVar("T")

DEFAULT_URI = "sqlite:///mlflow.db"
HANDED_DOWN = "E2EFT_TRACKING_URI"
"""The tracking URI with its userinfo, for child processes: the environment is their only source."""

ANSWER_S = 8.0
"""How long a server may take to answer at all."""
WORK_S = 30.0
"""How long a server that answers may take for one thing that is waited for."""
TABLES_S = 180.0
"""The same of a database, whose tables may have to be created first."""
RETRY_S = 0.5
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "true",
    # Whoever asks, asks again; MLflow's own patience is minutes a request.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # It prints the URI with its userinfo.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
PASSING_CODES = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}
OR_WITHOUT = ", or use --no-tracking"

_credentialed: dict[str, str] = {}


def resolve_uri(config: TrackingConfig) -> str:
    """The tracking URI; relative SQLite paths are made absolute, so all processes mean one file.

    It may hold a password: `shown` is what others may see, and what `client_of` accepts from then
    on.
    """
    given = config.tracking_uri, os.environ.get("MLFLOW_TRACKING_URI"), DEFAULT_URI
    uri = next(uri.strip() for uri in given if uri and uri.strip())
    prefix = "sqlite:///"
    if uri.startswith(prefix) and uri[len(prefix) :] not in ("", ":memory:"):
        return f"{prefix}{resolved(uri[len(prefix) :])}"
    if shown(uri) != uri:
        _credentialed[shown(uri)] = uri
    return uri


def is_server(uri: str) -> bool:
    """Whether processes on other machines can reach this tracking URI."""
    scheme = urlparse(uri).scheme.partition("+")[0]
    return scheme in {"http", "https", "databricks", *DATABASES}


def with_credentials(uri: str) -> str:
    """The URI that is shown as `uri`, as this process or its environment knows it."""
    if uri in _credentialed:
        return _credentialed[uri]
    for variable in (HANDED_DOWN, "MLFLOW_TRACKING_URI"):
        known = os.environ.get(variable, "").strip()
        if known and shown(known) == uri:
            return known
    return uri


def client_of(uri: str) -> Any:
    """An `MlflowClient` for a tracking URI, shown or whole, whose requests fail within seconds."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with uncollected():
        from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It prints tracebacks of what is said here in one line, and whole URIs.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    whole = with_credentials(uri)
    return MlflowClient(tracking_uri=whole, registry_uri=whole)


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later: no answer, or one that blames the server."""
    from mlflow.exceptions import InvalidUrlException, MlflowException
    from requests import RequestException
    from sqlalchemy.exc import OperationalError

    if refused_status(error) or tls_fault(error):
        return False
    if refusal := s3_error(error):
        return is_transient(refusal)
    if isinstance(error, MlflowException):
        return not isinstance(error, InvalidUrlException) and error.error_code in PASSING_CODES
    if isinstance(error, RequestException):
        response = error.response
        return response is None or response.status_code in (408, 429) or response.status_code >= 500
    if isinstance(error, OperationalError):
        return database_fault(error) is None
    return isinstance(error, OSError)


def explained(error: BaseException, uri: str) -> str:
    """What an exception of MLflow says, in one short line without secrets.

    Of one that may pass, what lies deepest: above it, layers say that they asked in vain.
    """
    deepest = error
    while is_passing(error) and (below := deepest.__cause__ or deepest.__context__):
        deepest = below
    return without_secrets(telling(deepest), uri, with_credentials(uri))[:200]


def unavailable(uri: str, error: BaseException, *, optional: bool = False) -> TrackingError:
    """What a person is told when `uri` does not answer, or not to him.

    Args:
        optional: whether the same command can do its work without MLflow.
    """
    if isinstance(error, TrackingError):
        return error
    from mlflow.exceptions import MlflowException

    reason, name = explained(error, uri), shown(uri)
    without = OR_WITHOUT if optional else ""
    if status := refused_status(error):
        fault = login_fault(status, with_credentials(uri))
        return TrackingError(f"MLflow at {name} {fault}{without} ({reason})")
    if fault := tls_fault(error):
        return TrackingError(f"MLflow at {name} {fault}{without} ({reason})")
    if fault := database_fault(error):
        return TrackingError(f"MLflow's database {name} {fault}{without} ({reason})")
    if is_limit(error):
        return TrackingError(
            f"MLflow at {name} takes no more requests for now ({reason}); run the same command "
            f"again later, or raise the limit of what stands before it{without}"
        )
    if isinstance(error, MlflowException) and not is_passing(error):
        return TrackingError(f"MLflow at {name} refuses: {reason}")
    start = "start it, correct" if optional else "start it, or correct"
    return TrackingError(
        f"MLflow at {name} does not answer ({reason}); {start} --tracking-uri or "
        f"MLFLOW_TRACKING_URI{without}"
    )


def asked(ask: Callable[[], T], limit_s: float) -> T:
    """What `ask` returns, tried again while what it raises may pass, for `limit_s` in all.

    In a thread, which is left behind if it does not come back: neither sockets nor database drivers
    keep to a time.

    Raises:
        TimeoutError: if there was no answer at all; else what was raised last.
    """
    answer: Future[T] = Future()
    raised: list[Exception] = []
    given_up = Event()

    def keep_asking() -> None:
        while not given_up.is_set():
            try:
                answer.set_result(ask())
                return
            except BaseException as error:
                if not (isinstance(error, Exception) and is_passing(error)):
                    answer.set_exception(error)
                    return
                raised.append(error)
            given_up.wait(RETRY_S)

    Thread(target=keep_asking, name="e2eft-mlflow-ask", daemon=True).start()
    answered, _ = wait([answer], limit_s)
    given_up.set()
    if answered:
        return answer.result()
    raise raised[-1] if raised else TimeoutError(f"nothing came back within {limit_s:.0f} s")


def connect(uri: str, *, optional: bool = False) -> Any:
    """A client of an MLflow that has just answered.

    Args:
        optional: as of `unavailable`.

    Raises:
        TrackingError: if it does not answer within seconds, or refuses the credentials.
    """
    import mlflow

    whole = with_credentials(uri)
    try:
        require_known(whole)
        if urlparse(whole).scheme.partition("+")[0] in {"sqlite", *DATABASES}:
            import mlflow.store.db.utils  # noqa: F401

            asked(lambda: probe_database(whole), ANSWER_S)
            return asked(lambda: client_of(whole), TABLES_S)
        client = client_of(whole)
        if urlparse(whole).scheme in {"http", "https"}:
            asked(lambda: probe_server(whole), ANSWER_S)
        else:
            asked(lambda: client.search_experiments(max_results=1), ANSWER_S)
        return client
    except TrackingError as error:
        raise TrackingError(f"{error}{OR_WITHOUT if optional else ''}") from None
    except Exception as error:
        raise unavailable(uri, error, optional=optional) from None


def within(uri: str, ask: Callable[[], T]) -> T:
    """`asked` of an MLflow that answers, for as long as its kind may take."""
    return asked(ask, WORK_S if urlparse(uri).scheme in {"http", "https"} else TABLES_S)


def hand_down(uri: str) -> None:
    """Lets processes that this one starts find the userinfo of `uri`, which no argument carries."""
    if shown(uri) != uri:
        os.environ[HANDED_DOWN] = uri


def searchable(text: str) -> str:
    """Text that MLflow's filters can hold: they know no escapes, so not both kinds of quotes."""
    return text.replace("'", "%27") if "'" in text and '"' in text else text


def quoted(text: str) -> str:
    """A literal of MLflow's filters for `searchable` text."""
    return f'"{text}"' if "'" in text else f"'{text}'"
