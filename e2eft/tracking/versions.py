"""Which version of a registered model `models:/...` means."""

import hashlib
import re
from typing import Any

from e2eft.config import TrackingConfig
from e2eft.secrets import shown
from e2eft.tracking.checks import require_there
from e2eft.tracking.connection import (
    ANSWER_S,
    TrackingError,
    asked,
    explained,
    is_passing,
    quoted,
    resolve_uri,
    unavailable,
    within,
)
from e2eft.tracking.refusals import refused_status

DIGEST_TAG = "e2eft.model_digest"
PREFIX = "models:/"
NEWEST = 10
"""As many versions of a name are listed to who named none of them."""
_FIXED = re.compile(r"([^/@]+)(?:/(\d+)|@([^/@]+))")
_LOGGED = re.compile(r"m-[0-9a-f]{32}")


def is_registry_uri(model: str) -> bool:
    """Whether a model is named by the MLflow registry."""
    return model.startswith(PREFIX)


def resolve_version(config: TrackingConfig, model: str) -> tuple[str, str]:
    """`models:/name@alias` or `models:/name/version` -> (name, version), fixed from now on.

    Raises:
        TrackingError: if it names something else, if there is no such model, alias or version, or
            no answer within seconds.
    """
    uri, path = resolve_uri(config), model.removeprefix(PREFIX)
    named = _FIXED.fullmatch(path)
    if named is None:
        logged = ", but a logged one" if _LOGGED.fullmatch(path) else ""
        raise TrackingError(
            f"{model} names no version of a registered model{logged}; {_instead(config, path)}"
        )
    name, version, alias = named.groups()
    client = require_there(config)

    def look() -> tuple[str, str]:
        if alias:
            return name, str(client.get_model_version_by_alias(name, alias).version)
        return name, str(client.get_model_version(name, version).version)

    try:
        return within(uri, look)
    except Exception as error:
        if is_passing(error) or refused_status(error):
            raise unavailable(uri, error) from None
        raise TrackingError(
            f"{model} is not in the registry at {shown(uri)} ({explained(error, uri)}); "
            f"{_instead(config, path)}"
        ) from None


def _instead(config: TrackingConfig, path: str) -> str:
    """What to write, and, if MLflow can be asked, what there is of the name."""
    name = re.split("[/@]", path)[0]

    def look(client: Any) -> str:
        aliases = client.get_registered_model(name).aliases
        found = client.search_model_versions(
            f"name = {quoted(name)}", NEWEST, order_by=["version_number DESC"]
        )
        versions = ", ".join(str(version.version) for version in found) or "none"
        led = ", ".join(f"{alias} ({aliases[alias]})" for alias in sorted(aliases)) or "none"
        return f"; the newest versions of {name} are {versions}, its aliases {led}"

    try:
        client = require_there(config)
        there = asked(lambda: look(client), ANSWER_S)
    except Exception:
        there = "; models are registered with e2eft evaluate ... --register NAME"
    return f"write models:/NAME@champion or models:/NAME/VERSION{there}"


def version_digest(config: TrackingConfig, model: str) -> str:
    """SHA-256 of which version a registered model is, and of what it holds: the digest of the files
    that it was registered with, or, of one that others registered, where they are and since when.

    Raises:
        TrackingError: as `resolve_version`.
    """
    name, number = resolve_version(config, model)
    uri = resolve_uri(config)
    try:
        client = require_there(config)
        version = within(uri, lambda: client.get_model_version(name, number))
    except Exception as error:
        raise unavailable(uri, error) from None
    content = version.tags.get(DIGEST_TAG) or f"{version.source} {version.creation_timestamp}"
    return hashlib.sha256(f"{name} {number} {content}".encode()).hexdigest()
