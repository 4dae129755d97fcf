"""The boto3 clients of a process: settings from boto3's own chain, made once each."""

import logging
import os
from functools import lru_cache
from threading import Lock
from typing import Any, Literal
from urllib.parse import urlsplit

from e2eft.errors import StorageError

Kind = Literal["first", "usual", "slow"]
TIMEOUTS_S: dict[Kind, tuple[float, float]] = {
    "first": (3.0, 7.0),
    "usual": (5.0, 20.0),
    "slow": (5.0, 60.0),
}
"""To connect, and between two packets. `first`: of a store that has never answered; `slow`: after
SLOW_AFTER failures, when it may be there and take its time."""
SLOW_AFTER = 3
CONNECTIONS = 32
_lock = Lock()


def client_for(kind: Kind) -> Any:
    """The client of this process and environment, safe for threads.

    Raises:
        StorageError: if the settings cannot be used.
    """
    with _lock:
        return _client(_settings(), kind)


def endpoint_of() -> str:
    """The server that clients of this environment talk to."""
    return client_for("usual").meta.endpoint_url


def _settings() -> tuple[tuple[str, str], ...]:
    """What boto3 looks at of the environment; clients are made anew when it changes."""
    others = ("HOME", "REQUESTS_CA_BUNDLE", "BOTO_CONFIG")
    return tuple(
        sorted(
            (name, value)
            for name, value in os.environ.items()
            if name.startswith("AWS_") or name in others or name.lower().endswith("_proxy")
        )
    )


@lru_cache(maxsize=8)
def _session(settings: tuple[tuple[str, str], ...]) -> Any:
    from boto3.session import Session

    # A worker's log takes in what is informative: where keys and endpoint were found, each time.
    logging.getLogger("botocore").setLevel(logging.WARNING)
    return Session()


@lru_cache(maxsize=24)
def _client(settings: tuple[tuple[str, str], ...], kind: Kind) -> Any:
    from botocore.exceptions import BotoCoreError

    try:
        session = _session(settings)
        client = _made(session, kind)
        chosen = (session._session.get_scoped_config().get("s3") or {}).get("addressing_style")
        host = urlsplit(client.meta.endpoint_url).hostname or ""
        if not chosen and ".amazonaws." not in f"{host}.":
            # Servers of one's own seldom have a name for every bucket.
            client = _made(session, kind, addressing_style="path")
    except (BotoCoreError, ValueError) as error:
        text = " ".join(str(error).split())
        raise StorageError(
            f"S3 settings cannot be used: {text}; check AWS_PROFILE, AWS_* and ~/.aws"
        ) from error
    client.meta.events.register("before-parse.s3", _require_whole)
    return client


def _made(session: Any, kind: Kind, **s3: str) -> Any:
    from botocore.config import Config

    connect_s, read_s = TIMEOUTS_S[kind]
    # Repeating is the business of `patience`, bodies included.
    config = Config(
        connect_timeout=connect_s,
        read_timeout=read_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
        **({"s3": s3} if s3 else {}),
    )  # type: ignore[arg-type]
    return session.client("s3", config=config)


def _require_whole(operation_model: Any, response_dict: dict[str, Any], **_: Any) -> None:
    """Raises ConnectionError for half an answer, which boto3 would take for an empty one: a listing
    without files, a deletion without errors."""
    body = response_dict["body"]
    promised = response_dict["headers"].get("content-length")
    if operation_model.http["method"] == "HEAD" or not isinstance(body, bytes) or not promised:
        return
    if len(body) != int(promised):
        raise ConnectionError(f"{len(body)} of {promised} bytes of an answer arrived")


def _forget() -> None:
    """In a forked process: connections and locks are the parent's."""
    global _lock
    _lock = Lock()
    _client.cache_clear()
    _session.cache_clear()


os.register_at_fork(after_in_child=_forget)
