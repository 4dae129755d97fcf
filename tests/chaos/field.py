"""What jobs run on under attack: S3 behind a proxy, MLflow, and a Ray cluster of three nodes."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from e2eft.storage import open_store
from tests.chaos.hook.sitecustomize import MARK
from tests.chaos.jobs import Job, Place, write_inputs
from tests.chaos.watch import Watch
from tests.fault_proxy import FaultProxy
from tests.ray_cluster import REPOSITORY, RayCluster
from tests.services import MlflowServer, S3Server, ServiceProcess

HOOK = Path(__file__).parent / "hook"
PATIENCE_S = 3.0
"""How long a newcomer looks at a heart that stands still."""
QUIET = {
    "OMP_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
    "E2EFT_OWNER_PATIENCE_S": str(PATIENCE_S),
}


@dataclass
class Field:
    """code: the tree whose program is attacked. cluster, mlflow: None if drivers start a local
    cluster of their own, and MLflow is a file."""

    folder: Path
    code: Path
    s3: S3Server
    proxy: FaultProxy
    mlflow: MlflowServer | None
    cluster: RayCluster | None
    watch: Watch
    inputs: Path
    started: int = 0

    def out(self, place: Place, name: str) -> str:
        """URI of an artifact that is watched."""
        below = f"{MARK.strip('/')}/{name}"
        return self.s3.uri(below) if place == "s3" else str(self.folder / below)

    def start(self, job: Job, out: str) -> ServiceProcess:
        """The job's driver, in a process group of its own; its log is in the field's folder."""
        self.started += 1
        logs = self.folder / "logs"
        logs.mkdir(exist_ok=True)
        argv = job.argv(self.inputs, out)
        argv[0] = str(self.code / argv[0])
        return ServiceProcess(
            f"driver-{self.started:05d}",
            [sys.executable, *argv, "--tracking-uri", self.tracking_uri],
            folder=logs,
            env=self.env,
        )

    @property
    def tracking_uri(self) -> str:
        return self.mlflow.uri if self.mlflow else f"sqlite:///{self.folder}/mlflow.db"

    @property
    def env(self) -> dict[str, str]:
        """Of a driver."""
        env = environment(self.s3, self.proxy, self.watch, self.code)
        if self.cluster:
            env |= self.cluster.client_env() | {"RAY_ADDRESS": self.cluster.gcs_address}
        return env

    def node_of(self, pid: int) -> ServiceProcess:
        """The worker node that a process belongs to; the first one if to none."""
        assert self.cluster, "a local cluster has no other nodes"
        above: set[int] = set()
        with suppress(psutil.Error):
            above = {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
        nodes = self.cluster.workers
        return next((node for node in nodes if node.pid in above), nodes[0])

    def delete(self, out: str) -> None:
        """Removes an artifact that is no longer needed."""
        store = open_store(out)
        store.delete_many([path for path, _ in store.list()])


def environment(s3: S3Server, proxy: FaultProxy, watch: Watch, code: Path) -> dict[str, str]:
    """Of every process under attack."""
    return (
        QUIET
        | s3.env()
        | {
            "AWS_ENDPOINT_URL": proxy.endpoint,
            "PYTHONPATH": f"{HOOK}:{code}",
            "E2EFT_CHAOS_SOCKET": str(watch.place),
        }
    )


@contextmanager
def field(folder: Path, code: Path = REPOSITORY, *, nodes: bool = True) -> Iterator[Field]:
    """Everything started, and ended at the end.

    Args:
        folder: keeps inputs, outputs and drivers' logs.
        nodes: a cluster of three and an MLflow server; else drivers start what they need.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_inputs(folder / "inputs")
    # Unix sockets have paths of 107 characters at most.
    short = Path(tempfile.mkdtemp(prefix="x-", dir="/tmp"))
    with ExitStack() as ends:
        ends.callback(shutil.rmtree, short, ignore_errors=True)
        watch = Watch(short / "watch")
        ends.callback(watch.close)
        s3 = S3Server(short / "s3")
        ends.callback(s3.stop)
        s3.wait_ready()
        proxy = ends.enter_context(FaultProxy(s3.endpoint))
        patch = ends.enter_context(pytest.MonkeyPatch.context())
        for name, value in s3.env().items():  # for those who look from outside
            patch.setenv(name, value)
        mlflow = cluster = None
        if nodes:
            mlflow = MlflowServer(short / "mlflow", store_uri=None, s3=s3, prefix="chaos")
            ends.callback(mlflow.stop)
            cluster = RayCluster(short / "ray", env=environment(s3, proxy, watch, code))
            ends.callback(cluster.stop)
            cluster.wait_ready()
            mlflow.wait_ready()
        yield Field(folder, code, s3, proxy, mlflow, cluster, watch, folder / "inputs")
