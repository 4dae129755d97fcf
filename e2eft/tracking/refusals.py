"""What those mean who refuse: MLflow's server, its database, the store of its artifacts. Cause and
fix, as a person reads them."""

import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlparse

from e2eft.errors import E2eftError
from e2eft.secrets import shown
from e2eft.storage.s3_errors import explained

LOGIN = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
_STATUSES = {"UNAUTHENTICATED": 401, "CUSTOMER_UNAUTHORIZED": 401, "PERMISSION_DENIED": 403}
_SAID_STATUS = re.compile(r"\b(401|403)(?: !=| Client Error)")
_DATABASE_LOGINS = {"28000", "28P01", 1044, 1045}
_DATABASE_NAMES = {"3D000", 1049}
"""Codes of PostgreSQL and of MySQL; a connection that fails has none, only a text."""
_NO_LOGIN = re.compile(r'authentication failed|no password supplied|role "[^"]*" does not exist')
_OF_S3 = re.compile(r"s3://|An error occurred \(\w+\) when calling")
_NO_DATABASE = re.compile(r'database "[^"]*" does not exist')


class TrackingError(E2eftError):
    """An MLflow server, model or alias that cannot be reached or found."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it was raised from or during."""
    seen: set[int] = set()
    below: BaseException | None = error
    while below is not None and id(below) not in seen:
        seen.add(id(below))
        yield below
        below = below.__cause__ or below.__context__


def refused_status(error: BaseException) -> int:
    """401 or 403 if that is what it comes down to, else 0."""
    for cause in causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            return int(status)
        if status := _STATUSES.get(getattr(cause, "error_code", "")):
            return status
        if match := _SAID_STATUS.search(str(cause)):
            return int(match[1])
    return 0


def is_limit(error: BaseException) -> bool:
    """Whether it is a 429: more requests than somebody allows."""
    return any(
        getattr(getattr(cause, "response", None), "status_code", None) == 429
        or getattr(cause, "error_code", "") == "REQUEST_LIMIT_EXCEEDED"
        for cause in causes(error)
    )


def tls_fault(error: BaseException) -> str | None:
    """What is wrong with the encryption of a connection to a server; None: nothing."""
    from requests.exceptions import SSLError

    found = next((cause for cause in causes(error) if isinstance(cause, SSLError)), None)
    if found is None:
        return None
    if "CERTIFICATE_VERIFY_FAILED" in str(found):
        return "has a certificate that is not trusted; set MLFLOW_TRACKING_SERVER_CERT_PATH to its"
    return "does not speak TLS as it is spoken here; is it http:// in place of https://?"


def login_fault(status: int, uri: str) -> str:
    """What a 401 or 403 of the server at `uri`, which may hold a login, asks for."""
    from mlflow.utils.credentials import read_mlflow_creds

    name = read_mlflow_creds().username or urlparse(uri).username
    given = name or os.environ.get("MLFLOW_TRACKING_TOKEN")
    if status == 401 and not given:
        return f"asks for a login; set {LOGIN}, or MLFLOW_TRACKING_TOKEN"
    who = f"the login of {name}" if name else "this token" if given else "anyone without a login"
    if status == 401:
        return f"refuses these credentials, {who}; correct {LOGIN}"
    fix = f"ask for the permission, or correct {LOGIN}" if given else f"set {LOGIN}"
    return f"forbids this to {who}; {fix}"


def database_fault(error: BaseException) -> str | None:
    """What a database that answers refuses, or what is missing to ask it; None: nothing of it."""
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

    if "unsupported URI" in str(error):
        return "is of no kind that is known here; correct --tracking-uri"
    if isinstance(error, ModuleNotFoundError):
        return f"needs the Python package {error.name}; install it"
    if isinstance(error, NoSuchModuleError):
        return "is of no kind that is known here; correct --tracking-uri or install its driver"
    if isinstance(error, ArgumentError):
        return "is no URI of a database; correct --tracking-uri"
    if not isinstance(error, SQLAlchemyError):
        return None
    original: Any = getattr(error, "orig", None)
    said = str(original or error)
    arguments = getattr(original, "args", None) or ("",)
    code = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or arguments[0]
    if code in _DATABASE_LOGINS or _NO_LOGIN.search(said):
        return "refuses this login; correct the user and the password in its URI"
    if code in _DATABASE_NAMES or _NO_DATABASE.search(said):
        return "has no database of that name; create it, or correct the URI"
    if "file is not a database" in said:
        return "is a file of another kind; correct --tracking-uri"
    return None


def s3_error(error: BaseException) -> Exception | None:
    """What boto3 raised, of which MLflow keeps only some kinds apart."""
    from botocore.exceptions import BotoCoreError, ClientError

    found = (cause for cause in causes(error) if isinstance(cause, BotoCoreError | ClientError))
    return next(found, None)


def artifacts_fault(error: BaseException, location: str) -> str | None:
    """What is wrong with S3 at `location`; None if the error does not come from there."""
    cause = s3_error(error)
    if cause is None:
        return None
    names = ("MLFLOW_S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    endpoint = next((os.environ[name] for name in names if os.environ.get(name)), "S3")
    return str(explained(cause, shown(location), urlparse(location).netloc, shown(endpoint)))


def server_said(error: BaseException) -> str:
    """What MLflow's server says of the store behind it, whose refusals it hands on; "" if it says
    nothing of one."""
    for cause in causes(error):
        response: Any = getattr(cause, "response", None)
        try:
            said = str(response.json()["message"])
        except (AttributeError, ValueError, KeyError, TypeError):
            continue
        if _OF_S3.search(said):
            return telling(Exception(said))
    return ""


def telling(error: BaseException) -> str:
    """The line of an exception's text that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # MLflow's own headings of what went wrong with each of many files.
    said = [line for line in lines[1:] if not line.startswith(("#####", "Traceback"))]
    return said[0] if said and lines[0].startswith("The following failures") else lines[0]
