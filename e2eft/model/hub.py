"""Models of the hub, fixed to a commit: `owner/name`, or `owner/name@revision`."""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from e2eft.errors import E2eftError

MAIN = "main"
_ID = re.compile(r"(?!.*(--|\.\.))(?!.*\.git$)\w[\w.-]*(?<![.-])/\w[\w.-]{0,95}(?<![.-])", re.ASCII)
"""What the hub takes for one."""
REMEMBERED_S = 60.0
"""How long a hub that was out of reach counts as that, so that it is waited for once a command."""


class ModelError(E2eftError):
    """A model that cannot be found or does not fit; the message names it and what would."""


def hub_id(name: str) -> tuple[str, str] | None:
    """(owner/name, revision or ""), if a name that is no folder can be a hub id."""
    repository, _, revision = name.partition("@")
    return (repository, revision) if _ID.fullmatch(repository) else None


def pinned(name: str, commit: str) -> str:
    """The name of a model of the hub that means this commit for ever."""
    return f"{name.partition('@')[0]}@{commit}"


def commit_of(name: str) -> str:
    """The commit (SHA-1, hexadecimal) that a hub id means now; where the hub does not tell, what it
    meant when it was last fetched to this machine.

    Raises:
        ModelError: if neither is known.
    """
    repository, revision = _parts(name)
    if re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    try:
        return _asked(repository, revision)[0]
    except Exception as error:  # The network's, the server's, and those of a name that is none.
        if commit := _cached(repository, revision):
            return commit
        raise neither(name, error) from error


def fetched(name: str, wanted: Callable[[list[str]], list[str]]) -> Path:
    """The folder in this machine's cache of a model of the hub, called by its commit. Where the hub
    does not answer, it has what was fetched before.

    Args:
        wanted: of the names of its files those that shall be there.

    Raises:
        ModelError: if neither the hub nor the cache has it.
    """
    from huggingface_hub import snapshot_download

    repository, revision = _parts(name)
    try:
        commit, files = _asked(repository, revision)
    except Exception as error:
        if commit := _cached(repository, revision):
            return _snapshot(repository, commit)
        raise neither(name, error) from error
    patterns = wanted(files)
    try:
        folder = snapshot_download(repository, revision=commit, allow_patterns=patterns)
    except Exception as error:
        raise neither(name, error) from error
    if meant := _meant.get((repository, commit)):
        # Else nobody would know, once the hub is away, that this is what the name stood for.
        ref = _repository(repository) / "refs" / meant
        ref.parent.mkdir(parents=True, exist_ok=True)
        ref.write_text(commit)
    return Path(folder)


def content_of(name: str, path: str) -> bytes | None:
    """A small file of a model of the hub; None if it has none of that name.

    Raises:
        ModelError: if neither the hub nor the cache has the model.
    """
    from huggingface_hub import hf_hub_download

    repository, commit = _parts(name)[0], commit_of(name)
    here = _snapshot(repository, commit) / path
    if here.is_file():
        return here.read_bytes()
    try:
        if path not in _asked(repository, commit)[1]:
            return None
        return Path(hf_hub_download(repository, path, revision=commit)).read_bytes()
    except Exception as error:
        if _snapshot(repository, commit).is_dir():
            return None  # What was fetched of it is what there is.
        raise neither(name, error) from error


def names_of(name: str) -> list[str]:
    """The names of the files of a model of the hub; none where it does not tell."""
    with suppress(Exception):
        return _asked(_parts(name)[0], commit_of(name))[1]
    return []


def neither(name: str, error: Exception) -> ModelError:
    """What to say of a name that is no folder here, and for which the hub has no answer."""
    from huggingface_hub import constants

    return ModelError(
        f"model {name!r}: there is no folder {Path(name).absolute()}; as a model of the hub it is "
        f"not in this machine's cache (HF_HOME) either, and {constants.ENDPOINT}: {one_line(error)}"
    )


_away: dict[str, tuple[float, Exception]] = {}
_told: dict[tuple[str, str, str], list[str]] = {}
_meant: dict[tuple[str, str], str] = {}


def _asked(repository: str, revision: str) -> tuple[str, list[str]]:
    """The commit and the names of its files, as the hub says, which is not waited for longer than
    HF_HUB_ETAG_TIMEOUT.

    Raises:
        Exception: of the network, the server, or of huggingface_hub.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    endpoint = constants.ENDPOINT
    if files := _told.get((endpoint, repository, revision)):
        return revision, files
    since, error = _away.get(endpoint, (0.0, None))
    if error is not None and time.monotonic() - since < REMEMBERED_S:
        raise error.with_traceback(None)
    try:
        found = HfApi(endpoint).model_info(
            repository, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT
        )
    except (HfHubHTTPError, OfflineModeIsEnabled, ValueError):
        raise  # an answer, or one that takes no time
    except Exception as error:
        _away[endpoint] = time.monotonic(), error
        raise
    assert found.sha is not None
    files = [file.rfilename for file in found.siblings or ()]
    _told[endpoint, repository, found.sha] = files
    if revision != found.sha:
        _meant[repository, found.sha] = revision
    return found.sha, files


def _parts(name: str) -> tuple[str, str]:
    """Raises ModelError for a name that is no hub id."""
    found = hub_id(name)
    if found is None:
        raise ModelError(f"model {name!r} is no hub id (owner/name, owner/name@revision)")
    return found[0], found[1] or MAIN


def _repository(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository, repo_type="model"))


def _snapshot(repository: str, commit: str) -> Path:
    return _repository(repository) / "snapshots" / commit


def _cached(repository: str, revision: str) -> str | None:
    """The commit of a revision when it was fetched, if that is still here."""
    with suppress(OSError):
        commit = revision
        if not re.fullmatch(r"[0-9a-f]{40}", revision):
            commit = (_repository(repository) / "refs" / revision).read_text().strip()
        if _snapshot(repository, commit).is_dir():
            return commit
    return None


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
