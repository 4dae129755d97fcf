"""Runs: parameters, metrics, pictures, text and the artifacts that were read."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
from PIL import Image

from e2eft.config import TrackingConfig
from e2eft.errors import E2eftError

log = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
PARAM_LIMIT = 500


class TrackingError(E2eftError):
    """An MLflow server, model or alias that cannot be reached or found."""


def resolve_uri(config: TrackingConfig) -> str:
    """The tracking URI; relative SQLite paths are made absolute, so all processes mean one file."""
    uri = config.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    prefix = "sqlite:///"
    if uri.startswith(prefix):
        return f"{prefix}{Path(uri[len(prefix) :]).expanduser().resolve()}"
    return uri


def is_server(uri: str) -> bool:
    """Whether processes on other machines can reach this tracking URI."""
    return urlparse(uri).scheme in {"http", "https", "postgresql", "mysql", "databricks"}


def client_of(uri: str) -> Any:
    """An `MlflowClient` that gives up on a server that is not there within seconds."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _artifact_location(uri: str) -> str | None:
    """Beside the SQLite file, not in whatever folder a process happens to run in."""
    if uri.startswith("sqlite:///"):
        return (Path(uri[len("sqlite:///") :]).parent / "mlartifacts").as_uri()
    return None


@dataclass(frozen=True)
class Run:
    """An MLflow run that any process may write to; a failure to write never stops the work."""

    uri: str
    run_id: str

    def _try(self, what: str, write: Any) -> None:
        try:
            write()
        except Exception as error:
            log.warning("MLflow: could not log %s (%s); the work goes on", what, error)

    def params(self, values: dict[str, Any]) -> None:
        """Logs flattened parameters; those of a resumed run are there already."""
        flat = {name: str(value)[:PARAM_LIMIT] for name, value in flatten(values).items()}

        def write() -> None:
            from mlflow.entities import Param

            client = client_of(self.uri)
            known = client.get_run(self.run_id).data.params
            new = [Param(name, value) for name, value in flat.items() if name not in known]
            client.log_batch(self.run_id, params=new)

        self._try("parameters", write)

    def metrics(self, values: dict[str, float], step: int = 0) -> None:

        def write() -> None:
            from mlflow.entities import Metric
            from mlflow.utils.time import get_current_time_millis

            now = get_current_time_millis()
            batch = [Metric(name, value, now, step) for name, value in values.items()]
            client_of(self.uri).log_batch(self.run_id, metrics=batch)

        self._try("metrics", write)

    def image(self, picture: np.ndarray | Image.Image, name: str) -> None:
        """A picture (uint8 `[h w 3]`) under the run's artifacts."""
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        self._try(name, lambda: client_of(self.uri).log_image(self.run_id, image, name))

    def json(self, content: Any, name: str) -> None:
        self._try(name, lambda: client_of(self.uri).log_dict(self.run_id, content, name))

    def text(self, content: str, name: str) -> None:
        self._try(name, lambda: client_of(self.uri).log_text(self.run_id, content, name))

    def tags(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            self._try(name, lambda n=name, v=value: client_of(self.uri).set_tag(self.run_id, n, v))

    def dataset(self, uri: str, digest: str, context: str) -> None:
        """An artifact that the run read, by its manifest's digest."""

        def write() -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            source = json.dumps({"uri": uri, "manifest_sha256": digest})
            name = uri.rstrip("/").rsplit("/", 1)[-1]
            dataset = Dataset(name, digest[:32], source_type="e2eft-artifact", source=source)
            entry = DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
            client_of(self.uri).log_inputs(self.run_id, [entry])

        self._try("dataset", write)

    def finish(self, status: str = "FINISHED") -> None:
        self._try("status", lambda: client_of(self.uri).set_terminated(self.run_id, status))


class NoRun(Run):
    """Tracking switched off: the same calls, and nothing happens, not even an import of MLflow."""

    def __init__(self) -> None:
        super().__init__("", "")

    def _try(self, what: str, write: Any) -> None:
        return None


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def start_run(config: TrackingConfig, name: str, identity: str, tags: dict[str, str]) -> Run:
    """The run of this piece of work: found by `identity` if it was begun before, else new.

    Raises:
        TrackingError: if the server does not answer.
    """
    if not config.enabled:
        return NoRun()
    uri = resolve_uri(config)
    from mlflow.exceptions import MlflowException

    try:
        client = client_of(uri)
        experiment = client.get_experiment_by_name(config.experiment)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else client.create_experiment(config.experiment, _artifact_location(uri))
        )
        found = client.search_runs(
            [experiment_id], f"tags.`e2eft.identity` = '{identity}'", max_results=1
        )
        if found:
            run_id = found[0].info.run_id
            client.update_run(run_id, status="RUNNING")
            return Run(uri, run_id)
        run = client.create_run(
            experiment_id, run_name=name, tags={"e2eft.identity": identity, **tags}
        )
        return Run(uri, run.info.run_id)
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0][:200]
        raise TrackingError(
            f"MLflow at {uri} does not answer ({reason}); start it, correct --tracking-uri or "
            "MLFLOW_TRACKING_URI, or use --no-tracking"
        ) from error
