"""The one boto3 client of a process, and what its errors mean."""

import os
from functools import lru_cache
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from e2eft.errors import (
    ConflictError,
    DeniedError,
    MissingError,
    StorageError,
    UnreachableError,
)

CONNECT_S, READ_S = 5.0, 60.0
FIRST_CONNECT_S, FIRST_READ_S = 3.0, 4.0
"""Of a store that has never answered: it is to be told soon that it does not."""
CONNECTIONS = 32
_LOCK = Lock()

_AGAIN = {
    *("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted"),
    *("ConditionalRequestConflict", "Throttling", "ThrottlingException", "TooManyRequests"),
    *("RequestLimitExceeded", "BandwidthLimitExceeded", "409", "429"),
}
_MISSING = {"NoSuchKey", "404", "NotFound"}
_THERE = {"PreconditionFailed", "412"}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"}


def _settings() -> tuple[tuple[str, str], ...]:
    """What boto3's chain looks at of the environment; clients are made anew when it changes."""
    return tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))


def client_for(*, heard: bool, exclusive: bool) -> Any:
    """The client of this process and environment.

    Args:
        heard: whether the store has answered before; otherwise time-outs are short.
        exclusive: what it puts is refused where something is.
    """
    with _LOCK:
        return _client(_settings(), heard, exclusive)


def endpoint_of() -> str:
    """The server that clients of this environment talk to."""
    with _LOCK:
        return _endpoint(_settings())


@lru_cache(maxsize=8)
def _endpoint(settings: tuple[tuple[str, str], ...]) -> str:
    return _client(settings, False, False).meta.endpoint_url


@lru_cache(maxsize=8)
def _session(settings: tuple[tuple[str, str], ...]) -> Any:
    from boto3.session import Session
    from botocore.exceptions import BotoCoreError

    try:
        return Session()
    except BotoCoreError as error:
        raise _unusable(error) from error


@lru_cache(maxsize=32)
def _client(settings: tuple[tuple[str, str], ...], heard: bool, exclusive: bool) -> Any:
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    session = _session(settings)

    def made(**s3: str) -> Any:
        config = Config(
            connect_timeout=CONNECT_S if heard else FIRST_CONNECT_S,
            read_timeout=READ_S if heard else FIRST_READ_S,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=CONNECTIONS,
            **({"s3": s3} if s3 else {}),
        )  # type: ignore[arg-type]
        return session.client("s3", config=config)

    try:
        client = made()
        chosen = (session._session.get_scoped_config().get("s3") or {}).get("addressing_style")
        host = urlsplit(client.meta.endpoint_url).hostname or ""
        if not chosen and ".amazonaws." not in f"{host}.":
            # Servers of one's own seldom have a name for every bucket.
            client = made(addressing_style="path")
    except (BotoCoreError, ValueError) as error:
        raise _unusable(error) from error
    if exclusive:
        for operation in ("PutObject", "CompleteMultipartUpload"):
            event = f"before-parameter-build.s3.{operation}"
            client.meta.events.register(event, _only_if_nothing_is_there)
    return client


def _unusable(error: Exception) -> StorageError:
    return StorageError(f"S3 settings cannot be used: {error}; check AWS_PROFILE, AWS_* and ~/.aws")


def _only_if_nothing_is_there(params: dict[str, Any], **_: Any) -> None:
    params["IfNoneMatch"] = "*"


def refusal(error: Exception) -> str:
    """The code of an answer that is an error; "" for anything else."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def is_transient(error: Exception) -> bool:
    """Whether the same request may well succeed later: no answer, half of one, or a busy server."""
    from boto3.exceptions import RetriesExceededError, S3UploadFailedError
    from botocore import exceptions as boto
    from urllib3.exceptions import HTTPError

    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return refusal(error) in _AGAIN or (status >= 500 and refusal(error) != "NotImplemented")
    if isinstance(error, S3UploadFailedError):
        return isinstance(error.__cause__, Exception) and is_transient(error.__cause__)
    if isinstance(error, boto.SSLError):
        return False
    kinds = (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError)
    return isinstance(
        error, (*kinds, HTTPError, RetriesExceededError, ConnectionError, TimeoutError)
    )


def explained(error: Exception, where: str, bucket: str) -> StorageError:
    """What a person can do about an error, as the type that fits it."""
    from boto3.exceptions import S3UploadFailedError

    if isinstance(error, S3UploadFailedError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    code, name = refusal(error), type(error).__name__
    if code in _MISSING:
        return MissingError(f"{where} is not there")
    if code in _THERE:
        return ConflictError(f"{where} is there already")
    if code == "NoSuchBucket":
        return StorageError(f"{where}: bucket {bucket!r} does not exist; create it first")
    denials = {
        "InvalidAccessKeyId": "the access key is unknown; check AWS_ACCESS_KEY_ID",
        "SignatureDoesNotMatch": "the secret is wrong; check AWS_SECRET_ACCESS_KEY",
        "AccessDenied": "these credentials may not do this; check the key's policy",
        "ExpiredToken": "the session token has expired; get new credentials",
        "InvalidToken": "the session token is not valid; check AWS_SESSION_TOKEN",
        "403": "access denied; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        "401": "access denied; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    }
    if code in denials:
        return DeniedError(f"{where}: {denials[code]}")
    if name in _NO_CREDENTIALS:
        hint = "no S3 credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return DeniedError(f"{where}: {hint}")
    if is_transient(error) and not code:
        endpoint = endpoint_of()
        return UnreachableError(
            f"{where}: no answer from {endpoint}; check AWS_ENDPOINT_URL and the network"
        )
    if is_transient(error):
        return UnreachableError(f"{where}: the store keeps answering {code}; try again later")
    return StorageError(f"{where}: {' '.join(str(error).split())}")
