"""Passwords and tokens do not belong into what is shown or stored.

`shown` is for a URI, `shown_in` for a JSON tree, `without_secrets` for text of others, such as an
exception's, that may quote a URI whole, in pieces or encoded.
"""

import base64
import logging
import os
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
DATABASES = ("postgres", "postgresql", "mysql", "mariadb", "mssql", "oracle")
PLACES = ("s3", "s3a", "s3n", "gs", "file")
"""Schemes in whose paths '?' and '#' are ordinary characters."""
SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD",
    "RAY_AUTH_TOKEN",
)
URI_VARIABLES = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "E2EFT_TRACKING_URI",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_TRACKING_URI",
)
SHORTEST = 4
"""Characters of a secret that is looked for by itself; a shorter one would be found in words."""

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*"
_URI = re.compile(rf"(?<![A-Za-z0-9+.-]){_SCHEME}://[^\s\"'<>]*")
_ENCODED_URI = re.compile(rf"(?<![A-Za-z0-9+.-]){_SCHEME}%3A%2F%2F[^\s\"'<>&]*", re.IGNORECASE)
_PARAMETER = re.compile(
    r"([?&#;][^=&#;\s]*(?:pass|pwd|token|secret|sig|cred|key|auth)[^=&#;\s]*=)[^&#;\s]+",
    re.IGNORECASE,
)


def shown(uri: str) -> str:
    """`uri` without userinfo and without the values of secret parameters of its query.

    What is no URI, or a path that only looks like one, is left as it is.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or not re.fullmatch(_SCHEME, scheme):
        return uri
    rest = rest[len(_userinfo(scheme, rest)) :]
    return f"{scheme}://{rest if scheme.lower() in PLACES else _masked(rest)}"


def shown_in(tree: Any) -> Any:
    """A JSON tree with `shown` applied to every string of it."""
    if isinstance(tree, dict):
        return {name: shown_in(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [shown_in(value) for value in tree]
    return shown(tree) if isinstance(tree, str) else tree


def without_secrets(text: str, *uris: str) -> str:
    """`text` without what is secret in `uris`, in this process's environment, and in any URI that
    stands in the text."""
    secrets = set(_environment_secrets())
    for uri in uris:
        secrets.update(_secrets_of(uri))
    for secret in sorted(filter(lambda s: len(s) >= SHORTEST, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _ENCODED_URI.sub(lambda match: quote(shown(unquote(match[0])), safe=""), text)
    return _URI.sub(lambda match: shown(match[0]), text)


class DiscreetFormatter(logging.Formatter):
    """Log records, tracebacks included, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def _userinfo(scheme: str, rest: str) -> str:
    """What stands before the host in `rest`, '@' included; empty if nothing does.

    Passwords need not be encoded to be accepted somewhere, or to be quoted by who refuses them: the
    last '@' ends one, and it may hold '/', '?' and '#' where a port would have digits.
    """
    end = rest.rfind("@") + 1
    if not end:
        return ""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host, colon, port = authority.partition(":")
    after = rest[len(authority) : len(authority) + 1]
    if scheme.lower().partition("+")[0] in DATABASES:
        # As SQLAlchemy reads them: name:password@, where only the name is without '/'.
        has = bool(re.match(r"[^:/?#@\[]*(:[^@]*)?@", rest))
    elif not authority:
        has = False
    else:
        no_port = bool(colon) and not host.startswith("[") and not port.isdigit()
        has = "@" in authority or no_port or after in ("?", "#")
    return rest[:end] if has else ""


def _masked(text: str) -> str:
    return _PARAMETER.sub(rf"\1{HIDDEN}", text)


def _secrets_of(uri: str) -> Iterator[str]:
    """What is secret in a URI, as it is written there, decoded and in usual encodings."""
    scheme, _, rest = uri.partition("://")
    userinfo = _userinfo(scheme, rest).removesuffix("@")
    name, _, password = userinfo.partition(":")
    secret = password or name
    # Who reads such a URI wrongly may quote what stood between two of these.
    parts = {userinfo, secret}
    for plain in (secret, unquote(secret)):
        parts |= {*re.split("[@/?#]", plain), plain.rpartition("@")[2]}
    parts |= {match[0].partition("=")[2] for match in _PARAMETER.finditer(rest)}
    for part in filter(None, parts):
        yield from _forms(part)


def _forms(secret: str) -> Iterator[str]:
    for plain in {secret, unquote(secret)}:
        yield from (plain, quote(plain, safe=""), quote(plain), quote_plus(plain))
        yield base64.b64encode(plain.encode()).decode()


def _environment_secrets() -> Iterator[str]:
    for name in SECRET_VARIABLES:
        if value := os.environ.get(name):
            yield from _forms(value)
    for name in URI_VARIABLES:
        if value := os.environ.get(name) or os.environ.get(name.lower()):
            yield from _secrets_of(value)
