"""What format 1 left on disk, unpacked where its absolute paths say: see `fixtures/freeze.py`."""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

ROOT = Path("/tmp/e2eft-frozen-1")
ARCHIVE = Path(__file__).parent / "fixtures" / "frozen-1.tar.xz"
ARCHIVE_SHA256 = "5d994f3f2e3691d6db2d46b987947fd7f0a337ad072aef0f05d1fafe6764f51e"
LOCK_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Frozen:
    """The unpacked archive. An artifact's name is its path, such as `runs/half`.

    registered: name of the registered model; commands: stage and arguments that made, or would have
    made, each artifact.
    """

    registered: str
    commands: dict[str, list[str]]

    def folder(self, name: str) -> Path:
        return ROOT / name

    def uri(self, name: str) -> str:
        return str(ROOT / name)

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{ROOT}/mlflow.db"

    def run(self, name: str, *more: str) -> int:
        """Runs the command again in this process, perhaps with more flags or other values of them;
        its exit code."""
        from e2eft import cli

        stage, *argv = self.commands[name]
        for flag in {word for word in more if word.startswith("--")} & set(argv):
            at = argv.index(flag)
            del argv[at : at + 2]
        return cli.run_stage(stage, [*argv, *more])


def unpack() -> None:
    """Puts a fresh copy in the place of whatever is there."""
    digest = hashlib.sha256(ARCHIVE.read_bytes()).hexdigest()
    assert digest == ARCHIVE_SHA256, f"{ARCHIVE.name} was made anew: it must stay as it is"
    if ROOT.exists():
        shutil.rmtree(ROOT)
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(ROOT.parent, filter="data")


def written(folder: Path, *patterns: str) -> dict[str, tuple[int, bytes]]:
    """Files below a folder, by their paths in it: when each was written, and what is in it."""
    paths = {path for pattern in patterns or ("**/*",) for path in folder.glob(pattern)}
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(paths)
        if path.is_file()
    }


class Place:
    """The folder, for this process alone."""

    fresh = False

    def copy(self) -> Frozen:
        """A fresh copy, perhaps the one that is there."""
        if not self.fresh:
            unpack()
        self.fresh = True
        facts = json.loads((ROOT / "frozen.json").read_text())
        return Frozen(facts["registered"], facts["commands"])


@pytest.fixture(scope="module")
def frozen_place() -> Iterator[Place]:
    """The folder locked, and Ray and MLflow set for it."""
    with pytest.MonkeyPatch.context() as patch, FileLock(f"{ROOT}.lock", timeout=LOCK_TIMEOUT_S):
        for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
            patch.delenv(name, raising=False)
        # A connection that is kept would go on with the database of an earlier copy.
        patch.setenv("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")
        yield Place()
        stop_ray()
        if ROOT.exists():
            shutil.rmtree(ROOT)


@pytest.fixture
def frozen(frozen_place: Place) -> Iterator[Frozen]:
    """A fresh copy, that the test may write to."""
    yield frozen_place.copy()
    frozen_place.fresh = False


@pytest.fixture
def untouched(frozen_place: Place) -> Frozen:
    """A fresh copy, that the test leaves as it is."""
    return frozen_place.copy()


def ray_is_running() -> bool:
    """Whether this process has joined or started a cluster."""
    import ray

    return ray.is_initialized()


def stop_ray() -> None:
    import ray

    ray.shutdown()


def only_run(frozen: Frozen, name: str) -> Any:
    """The one MLflow run of the work on an artifact."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=frozen.tracking_uri)
    experiment = client.get_experiment_by_name("e2eft")
    assert experiment is not None
    query = f"tags.`e2eft.out` = '{frozen.uri(name)}'"
    (run,) = client.search_runs([experiment.experiment_id], query)
    return run


def logged_steps(frozen: Frozen, name: str) -> list[int]:
    """Steps at which the run of a training logged its loss, in the order of time."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=frozen.tracking_uri)
    history = client.get_metric_history(only_run(frozen, name).info.run_id, "loss")
    return [point.step for point in sorted(history, key=lambda point: point.timestamp)]
