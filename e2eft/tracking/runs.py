"""Runs: parameters, metrics, pictures, text and the artifacts that were read."""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from e2eft.config import TrackingConfig
from e2eft.secrets import shown, shown_in, without_secrets
from e2eft.tracking.connection import (
    TrackingError,
    connect,
    hand_down,
    quoted,
    resolve_uri,
    searchable,
    unavailable,
    with_credentials,
    within,
)
from e2eft.tracking.origin import origin
from e2eft.tracking.writer import BATCH, Write, settle, writer

T = TypeVar("T")

log = logging.getLogger(__name__)

PARAM_LIMIT = 500
NAMES_A_REQUEST = 100
"""Parameters or tags in one request, the most that MLflow takes."""
FINISHED = "FINISHED"


@dataclass(frozen=True)
class Run:
    """An MLflow run that any process may write to.

    Writing never holds up the work, nor stops it: a thread sends what is written, `finish` waits
    for it, for a bounded time, and says what could not be sent. `uri` is without userinfo; who
    needs it finds it in the environment.
    """

    uri: str
    run_id: str

    def _put(self, kind: str, count: int, send: Callable[[Any], None], size: int = 0) -> None:
        writer().put(Write(self.uri, self.run_id, kind, count, send, size=size))

    def params(self, values: dict[str, Any]) -> None:
        """Logs flattened parameters; those of a resumed run are there already."""
        flat = {name: str(value) for name, value in flatten(values).items()}

        def send(client: Any) -> None:
            from mlflow.entities import Param

            known = client.get_run(self.run_id).data.params
            new = [
                Param(name, without_secrets(value, with_credentials(self.uri))[:PARAM_LIMIT])
                for name, value in flat.items()
                if name not in known
            ]
            for some in _some(new, NAMES_A_REQUEST):
                client.log_batch(self.run_id, params=some)

        self._put("parameters", len(flat), send)

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        now = int(time.time() * 1000)
        rows = [(name, float(value), now, step) for name, value in values.items()]
        for some in _some(rows, BATCH):
            writer().put(Write(self.uri, self.run_id, "metrics", len(some), metrics=tuple(some)))

    def image(self, picture: np.ndarray | Image.Image, name: str) -> None:
        """A picture (uint8 `[h w 3]`) under the run's artifacts."""
        pixels = np.array(picture)

        def send(client: Any) -> None:
            client.log_image(self.run_id, Image.fromarray(pixels), name)

        self._put("pictures", 1, send, pixels.nbytes)

    def json(self, content: Any, name: str) -> None:
        self.text(json.dumps(shown_in(content), indent=2, default=str), name)

    def text(self, content: str, name: str) -> None:

        def send(client: Any) -> None:
            clean = without_secrets(content, with_credentials(self.uri))
            client.log_text(self.run_id, clean, name)

        self._put("files", 1, send, len(content))

    def tags(self, values: dict[str, str]) -> None:
        clean = {name: shown(value) for name, value in values.items()}

        def send(client: Any) -> None:
            from mlflow.entities import RunTag

            for some in _some([*clean.items()], NAMES_A_REQUEST):
                client.log_batch(self.run_id, tags=[RunTag(*pair) for pair in some])

        self._put("tags", len(clean), send)

    def dataset(self, uri: str, digest: str, context: str) -> None:
        """An artifact that the run read, by its manifest's digest."""
        source = json.dumps({"uri": shown(uri), "manifest_sha256": digest})
        name = shown(uri).rstrip("/").rsplit("/", 1)[-1]

        def send(client: Any) -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            dataset = Dataset(name, digest[:32], source_type="e2eft-artifact", source=source)
            entry = DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
            client.log_inputs(self.run_id, [entry])

        self._put("datasets", 1, send)

    def flush(self) -> None:
        """Waits for what this process has written; a process that ends normally does so itself."""
        settle(self.run_id)

    def catch_up(self) -> None:
        """What was written until now is sent, if the server takes it; to be called before something
        after which it would not be written again, such as a checkpoint."""
        writer().catch_up(self.run_id)

    def finish(self, status: str = FINISHED) -> None:
        """Ends the run, and waits as `flush` does."""
        now = int(time.time() * 1000)
        self._put("final states", 1, lambda client: client.set_terminated(self.run_id, status, now))
        self.flush()


class NoRun(Run):
    """Tracking switched off: the same calls, and nothing happens, not even an import of MLflow."""

    def __init__(self) -> None:
        super().__init__("", "")

    def _put(self, kind: str, count: int, send: Callable[[Any], None], size: int = 0) -> None:
        return None

    def metrics(self, values: dict[str, float], step: int = 0) -> None:
        return None

    def flush(self) -> None:
        return None

    def catch_up(self) -> None:
        return None


def _some(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


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
        TrackingError: if the server does not answer within seconds.
    """
    if not config.enabled:
        return NoRun()
    uri = resolve_uri(config)
    client = connect(uri, optional=True)
    hand_down(uri)
    identity = searchable(identity)
    clean = {key: shown(value) for key, value in (origin(uri) | tags).items()}
    clean["e2eft.identity"] = identity

    def find_or_create() -> tuple[str, str]:
        experiment = client.get_experiment_by_name(config.experiment)
        experiment_id = (
            experiment.experiment_id
            if experiment
            else client.create_experiment(config.experiment, _artifact_location(uri))
        )
        if found := _find(client, experiment_id, identity):
            client.update_run(found.info.run_id, status="RUNNING")
            return experiment_id, found.info.run_id
        created = client.create_run(experiment_id, run_name=name, tags=clean)
        return experiment_id, created.info.run_id

    try:
        experiment_id, run_id = within(uri, find_or_create)
    except Exception as error:
        raise unavailable(uri, error, optional=True) from None
    if uri.startswith("http"):
        log.info("MLflow run: %s/#/experiments/%s/runs/%s", shown(uri), experiment_id, run_id)
    return Run(shown(uri), run_id)


def complete_run(
    config: TrackingConfig,
    name: str,
    identity: str,
    tags: dict[str, str],
    write: Callable[[Run], None],
) -> None:
    """Ends the run of work that is committed, and writes it first if it is missing or unfinished.

    One search if there is nothing to do. A server that does not answer is a warning: the work is
    done, and the same command mends its run another time.
    """
    if not config.enabled:
        return
    try:
        if _status(config, identity) == FINISHED:
            return
        run = start_run(config, name, identity, tags)
    except TrackingError as error:
        log.warning("the work is done, but its MLflow run was not ended: %s", error)
        return
    write(run)
    run.finish()


def _status(config: TrackingConfig, identity: str) -> str | None:
    uri, identity = resolve_uri(config), searchable(identity)
    client = connect(uri, optional=True)

    def look() -> str | None:
        experiment = client.get_experiment_by_name(config.experiment)
        found = experiment and _find(client, experiment.experiment_id, identity)
        return found.info.status if found else None

    try:
        return within(uri, look)
    except Exception as error:
        raise unavailable(uri, error, optional=True) from None


def _find(client: Any, experiment_id: str, identity: str) -> Any:
    found = client.search_runs(
        [experiment_id], f"tags.`e2eft.identity` = {quoted(identity)}", max_results=1
    )
    return found[0] if found else None


def _artifact_location(uri: str) -> str | None:
    """Beside the SQLite file, not in whatever folder a process happens to run in."""
    if uri.startswith("sqlite:///"):
        return (Path(uri[len("sqlite:///") :]).parent / "mlartifacts").as_uri()
    return None
