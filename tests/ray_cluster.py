"""A Ray cluster of several nodes on one machine, with token authentication, and jobs on it."""

import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection
from typing import Any, Self
from urllib.request import Request, urlopen

from tests.services import ServiceError, ServiceProcess, free_ports, isolated_env

REPOSITORY = Path(__file__).resolve().parent.parent
OBJECT_STORE_BYTES = 150_000_000


@dataclass(frozen=True)
class JobResult:
    """How a submitted job ended, by the job server's own record."""

    submission_id: str
    status: str
    """SUCCEEDED, FAILED or STOPPED."""
    logs: str
    message: str
    driver_exit_code: int | None
    cli_exit_code: int | None = None
    """What `ray job submit` returned, where that command was used: not proof of success."""

    def require_success(self) -> Self:
        """Raises `ServiceError` with the end of the logs unless the job succeeded."""
        if self.status != "SUCCEEDED":
            raise ServiceError(
                f"job {self.submission_id} ended as {self.status}: {self.message}\n"
                f"End of its logs:\n{self.logs[-8000:]}"
            )
        return self


class RayCluster:
    """A head and workers, each `ray start --block` in a process group of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        env: Mapping[str, str],
        head_cpus: int = 2,
        worker_cpus: Sequence[int] = (3, 3),
    ) -> None:
        """Start the head; `env` reaches every driver and worker.

        `folder` must be short: Ray puts Unix sockets (107 characters at most) below it.
        """
        folder.mkdir(parents=True)
        self.folder = folder
        self._env = dict(env)
        self.token = secrets.token_hex(32)
        self.token_path = folder / "token"
        self.token_path.touch(mode=0o600)
        self.token_path.write_text(self.token)
        self._worker_cpus = tuple(worker_cpus)
        self._nodes_started = 0
        self._cpus: dict[int, int] = {}
        self.workers: list[ServiceProcess] = []
        self._gcs_port, dashboard_port, client_port = free_ports(3)
        self.address = f"http://127.0.0.1:{dashboard_port}"
        self.head = self._start_node(
            head_cpus,
            "--head",
            f"--port={self._gcs_port}",
            "--include-dashboard=true",
            "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard_port}",
            f"--ray-client-server-port={client_port}",
        )

    def _start_node(self, num_cpus: int, *flags: str) -> ServiceProcess:
        # One temporary directory a node: nodes that share one take each other's sockets and
        # delete each other's copy of the job's working directory.
        name = f"n{self._nodes_started}"
        self._nodes_started += 1
        node = self.folder / name
        node.mkdir()
        argv = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *flags]
        argv += [f"--temp-dir={node}", "--node-ip-address=127.0.0.1", f"--num-cpus={num_cpus}"]
        argv += [f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"]
        # Zero means "any free port" here; the default range runs into other servers' ports.
        argv += ["--min-worker-port=0", "--max-worker-port=0"]
        argv += [f"--dashboard-agent-listen-port={free_ports(1)[0]}"]
        return ServiceProcess(name, argv, folder=node, env=self._env | self.client_env())

    def add_worker(self, num_cpus: int) -> ServiceProcess:
        """Start one more node (it joins seconds later, see `wait_ready`)."""
        worker = self._start_node(num_cpus, f"--address=127.0.0.1:{self._gcs_port}")
        self._cpus[worker.pid] = num_cpus
        self.workers.append(worker)
        return worker

    def kill_worker(self, worker: ServiceProcess) -> None:
        """Take a node away without a warning, as a revoked spot machine goes.

        Returns when the head has noticed, some 10 s later.
        """
        self.workers.remove(worker)
        worker.kill()
        self.head.wait_until(self._has_every_node, timeout_s=60)

    @property
    def gcs_address(self) -> str:
        """Where a driver that is no job joins."""
        return f"127.0.0.1:{self._gcs_port}"

    def client_env(self) -> dict[str, str]:
        """What a process needs to talk to this cluster."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "RAY_API_SERVER_ADDRESS": self.address,
            "RAY_USAGE_STATS_ENABLED": "0",
            # A worker process for each logical CPU at once would only fight for the real ones.
            "RAY_prestart_worker_first_driver": "0",
            "RAY_enable_worker_prestart": "0",
        }

    def wait_ready(self, timeout_s: float = 120.0) -> Self:
        """Start the first workers once the head takes nodes; return when all nodes are in."""
        deadline = time.monotonic() + timeout_s
        self.head.wait_until(self._takes_nodes, timeout_s)
        if not self.workers:
            for num_cpus in self._worker_cpus:
                self.add_worker(num_cpus)
        self.head.wait_until(self._has_every_node, deadline - time.monotonic())
        return self

    def _takes_nodes(self) -> bool:
        with create_connection(("127.0.0.1", self._gcs_port), timeout=1):
            return True

    def _has_every_node(self) -> bool:
        for worker in list(self.workers):
            if not worker.is_running:
                self._replace(worker)
        return self.alive_nodes() == 1 + len(self.workers)

    def _replace(self, worker: ServiceProcess) -> None:
        """Starts a node again that was too slow for Ray: it gives itself 30 s, whatever else the
        machine does."""
        failure = worker.failure("ended before it joined the cluster")
        if "timed out during startup" not in str(failure):
            raise failure
        self.workers.remove(worker)
        self.add_worker(self._cpus[worker.pid])

    def alive_nodes(self) -> int:
        """Nodes that the head holds to be alive; raises `OSError` when the head does not answer."""
        states = [node["state"] for node in self._get("/api/v0/nodes")["data"]["result"]["result"]]
        return states.count("ALIVE")

    def told(self) -> dict[str, Any]:
        """All that the job server and the state API tell of jobs and what they ran."""
        kinds = ("actors", "tasks", "workers", "nodes", "runtime_envs", "placement_groups")
        answers = {kind: self._get(f"/api/v0/{kind}?detail=true&limit=10000") for kind in kinds}
        return answers | {"jobs": self._get("/api/jobs/")}

    def _get(self, path: str) -> Any:
        request = Request(self.address + path, headers=self._headers())
        with urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def submit(
        self,
        entrypoint_args: Sequence[str],
        *,
        working_dir: Path = REPOSITORY,
        runtime_env: Mapping[str, Any] | None = None,
        timeout_s: float = 300.0,
    ) -> JobResult:
        """Run `python ENTRYPOINT_ARGS` as a job, with a copy of `working_dir`, to its end.

        Raises `ServiceError` when the job is not over after `timeout_s` (it is then stopped).
        """
        client = self._job_client()
        submission_id = client.submit_job(
            entrypoint=entrypoint(entrypoint_args),
            runtime_env={"working_dir": str(working_dir), **(runtime_env or {})},
        )
        return self._wait(client, submission_id, timeout_s)

    def submit_cli(
        self,
        entrypoint_args: Sequence[str],
        *,
        working_dir: Path = REPOSITORY,
        runtime_env: Mapping[str, Any] | None = None,
        timeout_s: float = 300.0,
    ) -> JobResult:
        """The same by the command `ray job submit`; it exits with 0 for a job it lost sight of."""
        submission_id = f"cli-{secrets.token_hex(6)}"
        argv = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit"]
        argv += ["--submission-id", submission_id, "--working-dir", str(working_dir)]
        if runtime_env is not None:
            argv += ["--runtime-env-json", json.dumps(dict(runtime_env))]
        command = subprocess.run(
            [*argv, "--", sys.executable, *entrypoint_args],
            env=isolated_env(self.client_env()),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        client = self._job_client()
        if submission_id not in {job.submission_id for job in client.list_jobs()}:
            raise ServiceError(f"ray job submit made no job:\n{command.stdout}\n{command.stderr}")
        return self._wait(client, submission_id, timeout_s, command.returncode)

    def _job_client(self) -> Any:
        from ray.job_submission import JobSubmissionClient

        return JobSubmissionClient(self.address, headers=self._headers())

    def _wait(
        self, client: Any, submission_id: str, timeout_s: float, cli_exit_code: int | None = None
    ) -> JobResult:
        deadline = time.monotonic() + timeout_s
        while not (info := client.get_job_info(submission_id)).status.is_terminal():
            if time.monotonic() > deadline:
                logs = client.get_job_logs(submission_id)
                client.stop_job(submission_id)
                raise ServiceError(
                    f"job {submission_id} still {info.status} after {timeout_s:.0f} s. "
                    f"End of its logs:\n{logs[-8000:]}"
                )
            time.sleep(0.25)
        return JobResult(
            submission_id=submission_id,
            status=str(info.status),
            logs=client.get_job_logs(submission_id),
            message=info.message or "",
            driver_exit_code=info.driver_exit_code,
            cli_exit_code=cli_exit_code,
        )

    def stop(self) -> None:
        """Kill every node: asked politely, they would wait for each other."""
        for node in [*self.workers, self.head]:
            node.kill()


def entrypoint(args: Sequence[str]) -> str:
    """The job's command line: this interpreter by its full path, for PATH's may be another."""
    return shlex.join([sys.executable, *map(os.fspath, args)])
