"""The model registry: models that serve themselves, and the alias `challenger` of the newest."""

import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2eft.config import TrackingConfig
from e2eft.secrets import shown
from e2eft.storage import StorageError
from e2eft.tracking.artifacts import check_artifacts, no_artifacts
from e2eft.tracking.checks import check_registry_name, needs_tracking
from e2eft.tracking.connection import (
    TrackingError,
    connect,
    explained,
    quoted,
    resolve_uri,
    unavailable,
    with_credentials,
    within,
)
from e2eft.tracking.packaging import (
    PACKAGE,
    copy_served_source,
    serving_requirements,
    serving_signature,
)
from e2eft.tracking.refusals import artifacts_fault, refused_status, server_said
from e2eft.tracking.runs import NoRun, Run
from e2eft.tracking.versions import DIGEST_TAG, resolve_version
from e2eft.walk import digest_files, walk_files

CHALLENGER = "challenger"
UPLOADING = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "120", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""Settings while files of gigabytes come and go, which no other thread is held up by."""
URI_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


@dataclass(frozen=True)
class RegisteredModel:
    """A registered version: its fixed URI, its version, and a local folder in diffusers' layout."""

    uri: str
    name: str
    version: str
    folder: Path


def model_folder(registered: RegisteredModel | Path) -> Path:
    """The folder in diffusers' layout (`model_index.json`) in a registered model's files.

    Raises:
        TrackingError: if there is none, or more than one.
    """
    root = registered if isinstance(registered, Path) else registered.folder
    if (root / "model_index.json").is_file():
        return root
    found = sorted(root.glob("artifacts/*/model_index.json"))
    if len(found) != 1:
        raise TrackingError(
            f"{root} holds {len(found)} models in diffusers' layout, expected one; "
            "register models with e2eft evaluate ... --register NAME"
        )
    return found[0].parent


def download_model(
    config: TrackingConfig, model: str, folder: Path | None = None
) -> RegisteredModel:
    """Copies a registered model's files below `folder` (default: a new temporary one).

    Raises:
        TrackingError: if it is not there, or not one of this project's.
    """
    from mlflow.artifacts import download_artifacts

    name, version = resolve_version(config, model)
    uri, registry = f"models:/{name}/{version}", resolve_uri(config)
    target = folder or Path(tempfile.mkdtemp(prefix="e2eft-registered-"))
    target.mkdir(parents=True, exist_ok=True)
    client = connect(registry)
    location = ""
    try:
        location = within(registry, lambda: client.get_model_version_download_uri(name, version))
        check_artifacts(registry, location)
        with _default_tracking(registry):
            root = download_artifacts(artifact_uri=uri, dst_path=str(target))
    except Exception as error:
        reason = no_artifacts(registry, location, error)
        raise TrackingError(f"cannot download {uri}: {reason}") from None
    return RegisteredModel(uri, name, version, model_folder(Path(root)))


def _folder_digest(folder: Path) -> str:
    return digest_files({file.name: file.path for file in walk_files(folder)})


def _without_links(folder: Path, scratch: Path) -> Path:
    """The folder, or a copy if parts of it lie elsewhere: MLflow takes no links out of a folder."""
    files = list(walk_files(folder))
    top = folder.resolve()
    if all(file.path.resolve() == top / file.name for file in files):
        return folder
    for file in files:
        target = scratch / folder.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.path, target)
    return scratch / folder.name


@contextmanager
def _default_tracking(uri: str) -> Iterator[None]:
    """MLflow's model saving, downloads and SQL registry look at the process-wide default URIs.

    Both are set, and put back with the environment variables that MLflow sets beside them: a
    registry named elsewhere, by MLFLOW_REGISTRY_URI say, would else get the models.
    """
    import mlflow

    uri = with_credentials(uri)
    variables = {name: os.environ.pop(name, None) for name in (*URI_VARIABLES, *UPLOADING)}
    # Asked without the variables, MLflow says what was set in this process.
    tracking = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    registry = mlflow.get_registry_uri()
    registry = None if registry == mlflow.get_tracking_uri() else registry
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    os.environ.update(UPLOADING)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(tracking)  # type: ignore[arg-type]
        mlflow.set_registry_uri(registry)  # type: ignore[arg-type]
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what MLflow prints of a registration, which is said in one line by who asked for it.

    What goes wrong is raised.
    """
    import mlflow.types.responses  # noqa: F401  # The first import of it switches printing on.
    from mlflow.utils.logging_utils import MLFLOW_LOGGING_STREAM

    was = MLFLOW_LOGGING_STREAM.enabled
    MLFLOW_LOGGING_STREAM.enabled = False
    try:
        yield
    finally:
        MLFLOW_LOGGING_STREAM.enabled = was


def register_model(
    config: TrackingConfig,
    run: Run,
    name: str,
    folder: Path,
    *,
    card: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
) -> RegisteredModel:
    """Registers a model folder (diffusers' layout) as a pyfunc and gives it the alias `challenger`.

    Nothing is pickled: the pyfunc is `e2eft/serve.py` as source. The same files registered again
    under the same name give the version that is there.

    What a killed registration left undone is done: a model that was uploaded gets its version, a
    version its alias and tags. The alias never goes back to an older version.

    Raises:
        TrackingError: without tracking, for an unusable name, or if the server does not answer.
        StorageError: if a part of the folder is a link that leads nowhere, or may not be read.
    """
    if isinstance(run, NoRun):
        raise needs_tracking(name)
    check_registry_name(name)
    source = model_folder(folder)
    labels = {
        DIGEST_TAG: _folder_digest(source),
        **{f"e2eft.{field}": str(value) for field, value in (card or {}).items()},
        **(tags or {}),
    }
    labels = {key: shown(value) for key, value in labels.items()}
    client = connect(run.uri)
    location = ""
    try:
        version = within(
            run.uri, lambda: _version_with(client, name, DIGEST_TAG, labels[DIGEST_TAG])
        )
        if version is None:
            location = within(run.uri, lambda: _location_of(client, run))
            check_artifacts(run.uri, location)
            with _quiet():
                version = _log_and_register(client, run, name, source, labels)
        within(run.uri, lambda: _complete_version(client, name, version, labels))
    except StorageError:
        raise
    except Exception as error:
        reason: object = explained(error, run.uri)
        if artifacts_fault(error, location) or server_said(error):
            reason = no_artifacts(run.uri, location, error)
        elif isinstance(error, TrackingError) or refused_status(error):
            reason = unavailable(run.uri, error)
        raise TrackingError(f"cannot register {name!r} at {shown(run.uri)} ({reason})") from None
    return RegisteredModel(f"models:/{name}/{version}", name, version, source)


@contextmanager
def registering(artifact: str) -> Iterator[None]:
    """Says of what goes wrong in it that the work is done, and what registers its result."""
    try:
        yield
    except TrackingError as error:
        raise TrackingError(
            f"{artifact} is finished but not registered: {error}; put that right, and the same "
            "command registers it"
        ) from None


def registered_version(config: TrackingConfig, name: str, tag: str, value: str) -> str | None:
    """The version under `name` with this tag, if its registration was completed.

    Raises:
        TrackingError: as `register_model`.
    """
    if not config.enabled:
        raise needs_tracking(name)
    check_registry_name(name)
    uri = resolve_uri(config)
    client = connect(uri)

    def look() -> str | None:
        version = _version_with(client, name, tag, value)
        if version is None:
            return None
        challenger = client.get_registered_model(name).aliases.get(CHALLENGER)
        return version if challenger and int(challenger) >= int(version) else None

    try:
        return within(uri, look)
    except Exception as error:
        raise unavailable(uri, error) from None


def _version_with(client: Any, name: str, tag: str, value: str) -> str | None:
    versions = client.search_model_versions(f"name = {quoted(name)}")
    same = [int(v.version) for v in versions if v.tags.get(tag) == value]
    return str(max(same)) if same else None


def _location_of(client: Any, run: Run) -> str:
    """Where the files of the run's experiment lie, and those of models that are logged in it."""
    experiment = client.get_run(run.run_id).info.experiment_id
    return str(client.get_experiment(experiment).artifact_location)


def _complete_version(client: Any, name: str, version: str, labels: dict[str, str]) -> None:
    known = client.get_model_version(name, version).tags
    for key in labels.keys() - known.keys():
        client.set_model_version_tag(name, version, key, labels[key])
    challenger = client.get_registered_model(name).aliases.get(CHALLENGER)
    if challenger is None or int(challenger) < int(version):
        client.set_registered_model_alias(name, CHALLENGER, version)


def _log_and_register(client: Any, run: Run, name: str, folder: Path, tags: dict[str, str]) -> str:
    import mlflow
    from mlflow.models import Model

    # Names of logged models have fewer characters than those of registered ones.
    logged_name = re.sub("""[/:.%"']""", "-", name)
    experiment = client.get_run(run.run_id).info.experiment_id
    uploaded = _uploaded(client, experiment, logged_name, tags[DIGEST_TAG])
    if uploaded:
        with _default_tracking(run.uri):
            return str(mlflow.register_model(f"models:/{uploaded}", name, tags=tags).version)
    logged = client.create_logged_model(
        experiment,
        name=logged_name,
        source_run_id=run.run_id,
        tags=tags,
        model_type="geometry-estimator",
    )
    with (
        tempfile.TemporaryDirectory(prefix="e2eft-register-") as scratch,
        _default_tracking(run.uri),
        warnings.catch_warnings(),
    ):
        # An example's only use would be to infer the signature, which is given.
        warnings.filterwarnings("ignore", message="(?s).*input example was not provided")
        info = Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            name=logged_name,
            run_id=run.run_id,
            model_id=logged.model_id,
            registered_model_name=name,
            tags=tags,
            python_model=str(PACKAGE / "serve.py"),
            artifacts={"model": str(_without_links(folder, Path(scratch, "model")))},
            code_paths=[str(copy_served_source(Path(scratch, "source")))],
            signature=serving_signature(),
            pip_requirements=serving_requirements(),
        )
    return str(info.registered_model_version)


def _uploaded(client: Any, experiment: str, name: str, digest: str) -> str | None:
    """A model with these files that was uploaded whole, and never got its version.

    Those that were not uploaded whole are marked as failed.
    """
    from mlflow.entities import LoggedModelStatus

    found = client.search_logged_models(
        [experiment], f"name = '{name}' AND tags.`{DIGEST_TAG}` = '{digest}'"
    )
    for model in found:
        if model.status == LoggedModelStatus.PENDING:
            client.finalize_logged_model(model.model_id, LoggedModelStatus.FAILED)
    ready = (model.model_id for model in found if model.status == LoggedModelStatus.READY)
    return next(ready, None)
