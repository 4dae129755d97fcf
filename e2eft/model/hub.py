"""Models of the hub, fixed to a commit: `owner/name`, or `owner/name@revision`."""

import re
from contextlib import suppress
from pathlib import Path

from e2eft.errors import E2eftError

TIMEOUT_S = 10.0
MAIN = "main"


class ModelError(E2eftError):
    """A model that cannot be found or does not fit; the message names it and what would."""


def hub_id(name: str) -> tuple[str, str] | None:
    """(owner/name, revision or ""), if a name that is no folder can be a hub id."""
    repository, _, revision = name.partition("@")
    if name.startswith((".", "/", "~", "models:")) or repository.count("/") != 1 or "://" in name:
        return None
    return repository, revision


def pinned(name: str, commit: str) -> str:
    """The name of a model of the hub that means this commit for ever."""
    return f"{name.partition('@')[0]}@{commit}"


def commit_of(name: str) -> str:
    """The commit (SHA-1, hexadecimal) that a hub id means now; where the hub does not tell, what it
    meant when it was last fetched to this machine.

    Raises:
        ModelError: if neither is known.
    """
    found = hub_id(name)
    if found is None:
        raise ModelError(f"model {name!r} is no hub id (owner/name, owner/name@revision)")
    repository, revision = found[0], found[1] or MAIN
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(repository, revision=revision, timeout=TIMEOUT_S).sha
    except Exception as error:  # The network's, the server's, and those of a name that is none.
        if commit := _cached(repository, revision):
            return commit
        raise ModelError(
            f"model {name!r}: {one_line(error)}; nor is it in this machine's cache (HF_HOME)"
        ) from error
    assert commit is not None
    return commit


def _cached(repository: str, revision: str) -> str | None:
    """What a revision was when it was fetched, if that is still here."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type="model"))
    with suppress(OSError):
        commit = (folder / "refs" / revision).read_text().strip()
        if (folder / "snapshots" / commit).is_dir():
            return commit
    return None


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
