"""Where a run comes from: who started it, from which source and commit, as which job of Ray, in
which image."""

import getpass
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlparse

from e2eft.secrets import shown

PACKAGE = Path(__file__).resolve().parent.parent
IMAGE_VARIABLE = "E2EFT_IMAGE_DIGEST"
"""The container image's digest, set by who starts the container: inside it cannot be seen."""
RAY_JOB_VARIABLE = "E2EFT_RAY_JOB_ID"
"""Set by a process that has joined a cluster, for itself."""
SUBMISSION_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""What Ray tells the entrypoint of a submitted job."""
GIT_ANSWERS_S = 5.0


def origin(uri: str = "") -> dict[str, str]:
    """Tags of a run at `uri`, by MLflow's own names where it has some; what is not known is left
    out."""
    submission = _submission()
    tags = {
        "mlflow.user": user(uri),
        "mlflow.source.name": shown(sys.argv[0] or "<console>"),
        "mlflow.source.type": "JOB" if submission else "LOCAL",
        **_commit(),
        "ray.submission_id": submission,
        "ray.job_id": os.environ.get(RAY_JOB_VARIABLE, ""),
        "e2eft.image_digest": os.environ.get(IMAGE_VARIABLE, ""),
    }
    return {name: value for name, value in tags.items() if value}


def user(uri: str = "") -> str:
    """The login at MLflow, or the account's name, or its number where it has none."""
    from mlflow.utils.credentials import read_mlflow_creds

    login = urlparse(uri).username if uri.startswith("http") else None
    if login := read_mlflow_creds().username or login:
        return unquote(login)
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):
        return str(os.getuid())


def _submission() -> str:
    try:
        settings = json.loads(os.environ.get(SUBMISSION_VARIABLE) or "{}")
        return str(settings.get("metadata", {}).get("job_submission_id", ""))
    except (ValueError, AttributeError):
        return ""


@cache
def _commit() -> dict[str, str]:
    """Of the repository that this package is a part of, not of one that it is installed in."""
    if not _git("ls-files", "--error-unmatch", "__init__.py"):
        return {}
    changed = _git("status", "--porcelain", "--untracked-files=no", ".")
    return {
        "mlflow.source.git.commit": _git("rev-parse", "HEAD"),
        "mlflow.source.git.dirty": "true" if changed else "",
    }


def _git(*arguments: str) -> str:
    """What git says; "" if there is none, or it refuses."""
    try:
        return subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_ANSWERS_S,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
