"""The model registry: models that serve themselves, and the aliases `champion` and `challenger`."""

import hashlib
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from e2eft.config import TrackingConfig
from e2eft.tracking.runs import NoRun, Run, TrackingError, client_of, resolve_uri

CHAMPION, CHALLENGER = "champion", "challenger"
PACKAGE = Path(__file__).parent.parent
URI_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")

SERVED_SOURCE = (
    "__init__.py",
    "artifacts.py",
    "config",
    "errors.py",
    "storage",
    "data",
    "geometry",
    "model",
    "tasks",
    "views",
    "walk.py",
)
"""What `e2eft/serve.py` imports of this package, shipped with every registered model."""
SERVING_PACKAGES = (
    "accelerate",
    "diffusers",
    "jaxtyping",
    "mlflow",
    "numpy",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "safetensors",
    "tenacity",
    "torch",
    "transformers",
    "tyro",
)
"""What that source imports, declared as the registered model's requirements."""
SERVING_PARAMS = ("processing_size", "steps", "seed")
"""Integers a request may set; see `e2eft.serve`."""


def is_registry_uri(model: str) -> bool:
    """Whether a model is named by the MLflow registry."""
    return model.startswith("models:/")


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


def resolve_version(config: TrackingConfig, model: str) -> tuple[str, str]:
    """`models:/name@alias` or `models:/name/version` -> (name, version), fixed from now on.

    Raises:
        TrackingError: if there is no such model, alias or version.
    """
    from mlflow.exceptions import MlflowException

    path = model.removeprefix("models:/")
    try:
        client = client_of(resolve_uri(config))
        if "@" in path:
            name, alias = path.split("@", 1)
            return name, str(client.get_model_version_by_alias(name, alias).version)
        name, version = path.rsplit("/", 1)
        return name, str(client.get_model_version(name, version).version)
    except (MlflowException, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise TrackingError(
            f"{model} is not in the registry at {resolve_uri(config)} ({reason}); "
            "write models:/NAME@champion or models:/NAME/VERSION; models are registered with "
            "e2eft evaluate ... --register NAME"
        ) from error


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
    with _default_tracking(registry):
        root = download_artifacts(artifact_uri=uri, dst_path=str(target))
    return RegisteredModel(uri, name, version, model_folder(Path(root)))


def serving_signature() -> Any:
    """Encoded image files in; encoded arrays, JSON and an error code out. See `e2eft.serve`."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    kinds = {"depth": "binary", "normals": "binary", "meta": "string", "error_code": "string"}
    return ModelSignature(
        inputs=Schema([ColSpec("binary", "image")]),
        outputs=Schema([ColSpec(kind, name) for name, kind in kinds.items()]),
        params=ParamSchema([ParamSpec(name, "long", 0) for name in SERVING_PARAMS]),
    )


def serving_requirements() -> list[str]:
    """What a process needs to serve a model, pinned to the versions installed here."""
    releases = {name: metadata.version(name).split("+")[0] for name in SERVING_PACKAGES}
    return [f"{name}=={release}" for name, release in releases.items()]


def _copy_served_source(folder: Path) -> Path:
    """The part of this package that serving imports: source only, no weights."""
    package = PACKAGE
    for room in SERVED_SOURCE:
        files = [package / room] if room.endswith(".py") else (package / room).rglob("*.py")
        for file in files:
            target = folder / package.name / file.relative_to(package)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    return folder / package.name


def _folder_digest(folder: Path) -> str:
    whole = hashlib.sha256()
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    for name, path in sorted(files.items()):
        whole.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()


@contextmanager
def _default_tracking(uri: str) -> Iterator[None]:
    """MLflow's model saving, downloads and SQL registry look at the process-wide default URIs.

    Both are set, and put back with the environment variables that MLflow sets beside them: a
    registry named elsewhere, by MLFLOW_REGISTRY_URI say, would else get the models.
    """
    import mlflow

    variables = {name: os.environ.pop(name, None) for name in URI_VARIABLES}
    # Asked without the variables, MLflow says what was set in this process.
    tracking = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    registry = mlflow.get_registry_uri()
    registry = None if registry == mlflow.get_tracking_uri() else registry
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(tracking)  # type: ignore[arg-type]
        mlflow.set_registry_uri(registry)  # type: ignore[arg-type]
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


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

    Raises:
        TrackingError: without tracking, for an unusable name, or if the server does not answer.
    """
    if isinstance(run, NoRun):
        raise TrackingError(f"--register {name} needs MLflow; leave out --no-tracking")
    from mlflow.exceptions import MlflowException

    digest = _folder_digest(model_folder(folder))
    labels = {
        "e2eft.model_digest": digest,
        **{f"e2eft.{field}": str(value) for field, value in (card or {}).items()},
        **(tags or {}),
    }
    try:
        client = client_of(run.uri)
        version = _version_with(client, name, "e2eft.model_digest", digest)
        if version is None:
            version = _log_and_register(client, run, name, model_folder(folder), labels)
        client.set_registered_model_alias(name, CHALLENGER, version)
    except MlflowException as error:
        reason = str(error).splitlines()[0][:200]
        raise TrackingError(f"cannot register {name!r} at {run.uri}: {reason}") from error
    return RegisteredModel(f"models:/{name}/{version}", name, version, model_folder(folder))


def _version_with(client: Any, name: str, tag: str, value: str) -> str | None:
    quoted = name.replace("'", "''")
    versions = client.search_model_versions(f"name = '{quoted}'")
    same = [int(v.version) for v in versions if v.tags.get(tag) == value]
    return str(max(same)) if same else None


def _log_and_register(client: Any, run: Run, name: str, folder: Path, tags: dict[str, str]) -> str:
    import mlflow.pyfunc
    from mlflow.models import Model

    experiment = client.get_run(run.run_id).info.experiment_id
    logged = client.create_logged_model(
        experiment, name=name, source_run_id=run.run_id, tags=tags, model_type="geometry-estimator"
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
            name=name,
            run_id=run.run_id,
            model_id=logged.model_id,
            registered_model_name=name,
            tags=tags,
            python_model=str(PACKAGE / "serve.py"),
            artifacts={"model": str(folder)},
            code_paths=[str(_copy_served_source(Path(scratch)))],
            signature=serving_signature(),
            pip_requirements=serving_requirements(),
        )
    return str(info.registered_model_version)


@dataclass(frozen=True)
class Promotion:
    """Whether the alias `champion` moved, and why; true if it did."""

    promoted: bool
    reason: str

    def __bool__(self) -> bool:
        return self.promoted


def _score_tag(metric_name: str, protocol: str, data_digest: str) -> str:
    return f"score.{metric_name}.{protocol}.{data_digest[:16]}"


def record_score(
    config: TrackingConfig,
    name: str,
    version: str,
    metric_name: str,
    value: float,
    protocol: str,
    data_digest: str,
) -> None:
    """Notes on a registered version what it scored under a protocol on some data.

    Raises:
        TrackingError: if there is no such version.
    """
    name, version = resolve_version(config, f"models:/{name}/{version}")
    tag = _score_tag(metric_name, protocol, data_digest)
    client_of(resolve_uri(config)).set_model_version_tag(name, version, tag, repr(float(value)))


def promote_if_better(
    config: TrackingConfig,
    name: str,
    version: str,
    metric_name: str,
    value: float,
    lower_is_better: bool,
    protocol: str,
    data_digest: str,
) -> Promotion:
    """Moves the alias `champion` to a version that beats the present one on the same terms.

    The same terms are the same metric, protocol and data: numbers of different protocols or data
    are never compared, so a champion without a score on this data keeps its alias until it has one.

    Raises:
        TrackingError: if there is no such version.
    """
    record_score(config, name, version, metric_name, value, protocol, data_digest)
    client = client_of(resolve_uri(config))
    champion = client.get_registered_model(name).aliases.get(CHAMPION)
    if not math.isfinite(value):
        return Promotion(False, f"version {version} has no finite {metric_name} ({value})")
    if str(champion) == str(version):
        return Promotion(False, f"version {version} is the champion already")
    terms = f"{metric_name} under {protocol} on data {data_digest[:16]}"
    if champion is not None:
        tag = _score_tag(metric_name, protocol, data_digest)
        recorded = client.get_model_version(name, champion).tags.get(tag)
        if recorded is None:
            return Promotion(
                False,
                f"version {champion} stays champion: it has no {terms} to compare {value:.4g} "
                f"with; score it (e2eft evaluate ... --model models:/{name}@{CHAMPION} with the "
                f"same --data), then evaluate version {version} again",
            )
        rival = float(recorded)
        if not (value < rival if lower_is_better else value > rival):
            return Promotion(
                False,
                f"version {champion} stays champion: {terms} is {rival:.4g}, version {version} "
                f"has {value:.4g}",
            )
        reason = f"{terms} is {value:.4g}, version {champion} had {rival:.4g}"
    else:
        reason = f"the first champion: {terms} is {value:.4g}"
    client.set_registered_model_alias(name, CHAMPION, version)
    return Promotion(True, reason)
