"""Whether what a tracking URI names can be MLflow, asked once and without MLflow's own patience."""

import os
import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlparse

from e2eft.secrets import shown
from e2eft.tracking.refusals import TrackingError

SEARCH = "/api/2.0/mlflow/experiments/search"
BY_NAME = "/api/2.0/mlflow/experiments/get-by-name"
NOBODYS = "e2eft-asks-whether-this-is-mlflow"
"""A name that no experiment has."""
CORRECT = "correct --tracking-uri or MLFLOW_TRACKING_URI"


def require_known(uri: str) -> None:
    """Raises TrackingError for a URI of which MLflow would make a folder of files, or nothing."""
    scheme = urlparse(uri).scheme
    if scheme in ("", "file") or re.fullmatch(r"[^/:]+:\d+(/.*)?", uri):
        raise TrackingError(
            f"--tracking-uri {shown(uri)} is a place for files, which MLflow no longer keeps runs "
            "in; give http://HOST:PORT of a server, or a database such as sqlite:///mlflow.db"
        )
    if scheme == "sqlite" and not re.match("sqlite:///(?!:memory:$).", uri):
        raise TrackingError(
            f"--tracking-uri {uri} names no file; write sqlite:///mlflow.db, or with an absolute "
            "path sqlite:////folder/mlflow.db"
        )
    if scheme in ("http", "https") and not _has_host_and_port(shown(uri)):
        raise TrackingError(
            f"--tracking-uri {shown(uri)} is no server's; write http://HOST:PORT, with a port up "
            "to 65535"
        )


def _has_host_and_port(uri: str) -> bool:
    try:
        parsed = urlparse(uri)
        return bool(parsed.hostname) and parsed.port != 0 and not re.search(r"\s", uri)
    except ValueError:
        return False


def probe_server(uri: str) -> None:
    """Not with MLflow's client, which forgets the status of an answer that a proxy puts as JSON."""
    from mlflow.utils.rest_utils import verify_rest_response

    answer = _request(uri, SEARCH, "POST", json={"max_results": 1})
    status = answer.status_code
    if status in (401, 403, 429):
        answer.raise_for_status()
    if status == 404 or (status < 400 and not _is_mlflow(uri, answer)):
        raise TrackingError(
            f"what answers at {shown(uri)} is no MLflow (status {status} for {SEARCH}); {CORRECT}"
        )
    verify_rest_response(answer, SEARCH)


def _is_mlflow(uri: str, answer: Any) -> bool:
    """Whether an answer is one of MLflow's: experiments, or `{}` for none.

    Others say `{}` too, and say it of an experiment that is not there.
    """
    said = _json(answer)
    if not isinstance(said, dict):
        return False
    if "experiments" in said:
        return True
    one = _request(uri, BY_NAME, "GET", params={"experiment_name": NOBODYS})
    return one.status_code >= 400


def _request(uri: str, path: str, method: str, **content: Any) -> Any:
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    return http_request(get_default_host_creds(uri), path, method, raise_on_status=False, **content)


def _json(answer: Any) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def probe_database(uri: str) -> None:
    """Not with MLflow, which tries again for an hour."""
    from sqlalchemy import NullPool, create_engine, text

    is_file = uri.startswith("sqlite:")
    if is_file and not _is_file_there(uri):
        return
    engine = create_engine(uri, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("PRAGMA schema_version" if is_file else "SELECT 1"))
        _require_same_schema(connection, shown(uri))


def _is_file_there(uri: str) -> bool:
    """Whether a file is there and can be used; raises TrackingError if none can be."""
    path = Path(uri[len("sqlite:///") :])
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    try:
        with TemporaryFile(dir=folder):  # the journal lies beside the database
            pass
    except OSError as error:
        raise TrackingError(
            f"MLflow's database {shown(uri)} cannot be there: {folder} is no folder that can be "
            f"written to ({error.strerror}); {CORRECT}"
        ) from None
    if not path.exists():
        return False
    if path.is_dir():
        raise TrackingError(
            f"MLflow's database {shown(uri)} is a folder; name a file, such as "
            f"{shown(uri)}/mlflow.db"
        )
    if not os.access(path, os.W_OK):
        raise TrackingError(
            f"MLflow's database {shown(uri)} cannot be written to; allow it, or {CORRECT}"
        )
    return True


def _require_same_schema(connection: Any, name: str) -> None:
    """Raises TrackingError for a database that another MLflow uses: this one would change it under
    the other, or wait for it.

    One without experiments is being made, or its maker was killed; MLflow goes on where that was.
    """
    from alembic.migration import MigrationContext
    from sqlalchemy import inspect, text

    found = MigrationContext.configure(connection).get_current_heads()
    newest, known = _schemas()
    if found == (newest,):
        return
    versions = f"(its schema is {', '.join(found) or 'not said'}, here it is {newest})"
    if not known.issuperset(found):
        raise TrackingError(
            f"MLflow's database {name} was made by a newer MLflow, or by another program "
            f"{versions}; use that MLflow, or {CORRECT}"
        )
    if not inspect(connection).has_table("experiments"):
        return
    if connection.execute(text("SELECT experiment_id FROM experiments")).first():
        fix = f"run `mlflow db upgrade {name}`" if found else "put its table alembic_version right"
        raise TrackingError(
            f"MLflow's database {name} was made by an older MLflow {versions}; back it up and "
            f"{fix}, or {CORRECT}"
        )


@cache
def _schemas() -> tuple[str, frozenset[str]]:
    """The schema of the MLflow that is installed, and all that it can upgrade."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    scripts = ScriptDirectory.from_config(_get_alembic_config(""))
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return str(scripts.get_current_head()), known
