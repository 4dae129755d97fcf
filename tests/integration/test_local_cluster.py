"""The cluster that a stage starts on one machine: who can reach it, and what it gives away."""

import ipaddress
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import ray

from e2eft.cluster import local_environment
from tests.local_ray import Access, joined, local_cluster
from tests.secret_search import Search

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "local/wJalrXUtnFEMI+K7MDENG=bPxRfiCY",
    "AWS_SESSION_TOKEN": "local/FwoGZXIvYXdzEJr//////////wEaDK+planted==",
    "MLFLOW_TRACKING_URI": "http://tracker:local-pass/word+planted@127.0.0.1:9",
    "MLFLOW_TRACKING_PASSWORD": "local-tracking/password+planted",
    "MLFLOW_TRACKING_TOKEN": "local-tracking/token+planted",
    "HF_TOKEN": "hf_local+planted/token",
}
SETTINGS = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "HF_HOME": "/nowhere", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Local:
    """others: this process's children that were there before, such as the other tests' servers."""

    access: Access
    others: set[psutil.Process]
    session: Path
    home: Path

    @property
    def token(self) -> str:
        return self.access["RAY_AUTH_TOKEN"]

    def processes(self) -> list[psutil.Process]:
        """The cluster's: children of this process, and theirs."""
        started = [child for child in psutil.Process().children() if child not in self.others]
        return started + [below for child in started for below in child.children(recursive=True)]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    home = tmp_path_factory.mktemp("home")
    others = set(psutil.Process().children())
    with local_cluster(cpus=2, HOME=str(home), **SECRETS, **SETTINGS) as access:
        yield Local(
            access, others, Path(ray._private.worker._global_node.get_session_dir_path()), home
        )


@ray.remote
def environment_of_a_worker() -> dict[str, str]:
    return dict(os.environ)


def test_nothing_of_it_listens_beyond_the_loopback_interface(local: Local) -> None:
    ray.get(environment_of_a_worker.remote())  # so that there is a worker too
    listening: dict[str, str] = {}
    for process in [psutil.Process(), *local.processes()]:
        for connection in process.net_connections():
            if connection.status == psutil.CONN_LISTEN:
                listening[f"{connection.laddr}"] = connection.laddr.ip
    assert len(listening) > 5, "the cluster's ports were not found"
    for place, address in listening.items():
        ip = ipaddress.ip_address(address)
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        assert (mapped or ip).is_loopback, place


def test_another_process_gets_in_with_the_token_only(local: Local) -> None:
    without = {k: v for k, v in local.access.items() if k != "RAY_AUTH_TOKEN"}
    accesses = {
        "right": local.access,
        "none": without | {"RAY_AUTH_MODE": "disabled"},
        "wrong": without | {"RAY_AUTH_TOKEN": "0" * 64},
    }
    code = "import ray; ray.init(log_to_driver=False); print(ray.cluster_resources()['CPU'])"
    joining = {
        name: subprocess.Popen(
            [sys.executable, "-c", code],
            env=joined(access) | {"RAY_gcs_rpc_server_connect_timeout_s": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for name, access in accesses.items()
    }  # fmt: skip
    for name, process in joining.items():
        said, complaint = process.communicate(timeout=120)
        if name == "right":
            assert (process.returncode, said) == (0, "2.0\n"), complaint
        else:
            assert process.returncode != 0 and not said and "ConnectionError" in complaint, name


def test_workers_inherit_what_was_there_at_the_start(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "set when it was too late")
    environment = ray.get(environment_of_a_worker.remote())
    known = SECRETS | SETTINGS
    assert {name: environment.get(name) for name in known} == known
    assert environment["OMP_NUM_THREADS"] == "1"


def test_no_secret_is_in_a_file_a_command_line_or_what_the_cluster_tells(local: Local) -> None:
    secrets = SECRETS | {"password in a URI": "local-pass/word+planted", "Ray": local.token}
    search = Search(secrets).folder(local.session)
    assert search.looked_at > 20
    for process in local.processes():
        search.text(f"process {process.pid}", "\0".join(process.cmdline()))
    search.text("nodes", ray.nodes())
    jobs = ray._private.state.state.job_table()
    assert len(jobs) >= 1
    search.text("jobs", jobs)
    search.text("runtime environment", ray.get_runtime_context().runtime_env)
    assert not search.finds


def test_its_files_are_closed_to_other_users_and_its_token_is_in_none(local: Local) -> None:
    above = local.session.parents[1]
    assert stat.S_IMODE(above.stat().st_mode) == 0o700 and above.stat().st_uid == os.getuid()
    assert not (local.home / ".ray").exists()
    assert "RAY_AUTH_TOKEN" not in os.environ and "RAY_AUTH_MODE" not in os.environ
    assert len(local.token) == 64


def test_a_token_that_the_environment_names_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/somewhere/token")
    assert "RAY_AUTH_TOKEN" not in local_environment()
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    assert "RAY_AUTH_TOKEN" not in local_environment()


def test_no_process_is_left_when_it_ends(local: Local) -> None:
    before = local.processes()
    assert len(before) > 3
    ray.shutdown()
    _, alive = psutil.wait_procs(before, timeout=20)
    assert [p for p in alive if p.status() != psutil.STATUS_ZOMBIE] == []
