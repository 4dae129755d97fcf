"""How a stage finds its Ray cluster, and whether the cluster can hold it."""

import logging
import os
import secrets
import socket
import stat
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from e2eft.head import CORRECT, ClusterError, require_head
from e2eft.ray_lines import quiet_ray_servers
from e2eft.signals import keeping_sigterm
from e2eft.stderr import without_lines

LOOPBACK = "127.0.0.1"
JOB_ID = "E2EFT_RAY_JOB_ID"
"""Set by a process that has joined a cluster, for what it says of itself."""
ACTOR_ARGUMENTS = b" has constructor arguments in the object store and max_restarts > 0"

T = TypeVar("T")


def is_local() -> bool:
    """Whether `connect` starts a cluster of its own, on this machine."""
    return os.environ.get("RAY_ADDRESS", "") in ("", "local")


def connect() -> None:
    """Joins the cluster of this job or RAY_ADDRESS, or starts a local one with every CPU of the
    machine.

    A local cluster listens on the loopback interface only, talks to nobody without its token, and
    keeps its sockets and logs in a folder that no other user can enter. Its processes inherit this
    one's environment. On a real cluster secrets belong in the nodes' environment: a job's runtime
    environment is shown to everyone who can list jobs.

    Raises:
        ClusterError: if nobody answers at RAY_ADDRESS, or a local cluster does not start.
    """
    import ray

    if ray.is_initialized():
        quiet_ray_data()
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": True}
    with keeping_sigterm():
        if is_local():
            _start_local(options)
        else:
            _join(os.environ["RAY_ADDRESS"], options)
    os.environ[JOB_ID] = ray.get_runtime_context().get_job_id()
    quiet_ray_servers()
    quiet_ray_data()


def _join(address: str, options: dict[str, Any]) -> None:
    import ray

    require_head(address)
    try:
        ray.init(**options)
    except Exception as error:  # Ray has no type of its own for most of what may be wrong here.
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ClusterError(f"RAY_ADDRESS {address}: {said[0]}; {CORRECT}") from error


def _start_local(options: dict[str, Any]) -> None:
    import ray
    from ray._private import ray_constants

    logical = max(4, os.cpu_count() or 1)
    options |= {
        # Not what the file /tmp/ray/ray_current_cluster says, which anybody may write.
        "address": "local",
        "include_dashboard": False,
        "num_cpus": int(os.environ.get("E2EFT_LOCAL_CPUS", logical)),
        "runtime_env": {"worker_process_setup_hook": "e2eft.cluster.quiet_worker"},
        "_node_ip_address": LOOPBACK,
    }
    if "RAY_TMPDIR" not in os.environ:
        options["_temp_dir"] = str(private_folder() / "ray")
    # Ray warns that it asks for a token.
    setup = "ray._private.authentication.authentication_token_setup"
    logging.getLogger(setup).setLevel(logging.ERROR)
    # Else Ray takes the machine's address in place of the loopback's, and listens on all of them.
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment(local_environment()):
            ray.init(**options)
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        raise ClusterError(
            "Ray did not start within 30 s: the machine is too busy; run the same command again"
        ) from error
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = clusters


def local_environment() -> dict[str, str]:
    """What the processes of a local cluster have in their environment besides this one's.

    The token is random, unless the environment names one, and is kept in no file.
    """
    variables = {
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # as `_start_local` says, for those processes
        # There is no dashboard. Ray Train would look for one, among other people's clusters too.
        "RAY_API_SERVER_ADDRESS": f"http://{LOOPBACK}:0",
    }
    loopback = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if loopback:
        variables["GLOO_SOCKET_IFNAME"] = loopback[0]
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        variables["RAY_AUTH_TOKEN"] = _token()
    return variables


@cache
def _token() -> str:
    """One for the life of this process, since Ray reads it only once."""
    return secrets.token_hex(32)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """These variables, for processes that are started meanwhile."""
    # Ray sets the mode itself, and would then ask for a token on a cluster that has none.
    before = {name: os.environ.get(name) for name in (*variables, "RAY_AUTH_MODE")}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def private_folder() -> Path:
    """A folder of this user that nobody else can enter; short, since sockets lie below it."""
    folder = Path(tempfile.gettempdir(), f"e2eft-{os.getuid()}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return folder
    return Path(tempfile.mkdtemp(prefix="e2eft-"))


def quiet_worker() -> None:
    """Silences what a local cluster's processes would repeat every second."""
    # Ray Train's cleaner asks the dashboard, which a local cluster does without.
    cleaner = "ray.train.v2._internal.execution.controller.placement_group_cleaner"
    logging.getLogger(cleaner).setLevel(logging.ERROR)


def quiet_ray_train() -> None:
    """Silences, in a worker, what Ray Train writes for every report of every rank, and what torch
    says of its own functions."""
    for name in list(logging.root.manager.loggerDict):
        if name.endswith("ray/train/v2/_internal/execution/context.py"):  # it is called by its file
            logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")


def quiet_ray_data() -> None:
    """Stages print their own progress."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # They advise on memory and on operators, which are none of a user's.
    context.issue_detectors_config.detectors = []
    context.print_on_execution_start = False
    # How often it tries again can be said in no other way yet.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


def quietly_started(blocks: Iterable[T]) -> Iterator[T]:
    """The same blocks of a Ray Data graph with actors, of which Ray says as an error that what they
    are made of is kept in the object store: so it is with all of Ray Data's."""
    coming = iter(blocks)
    with without_lines(ACTOR_ARGUMENTS):
        first = list(islice(coming, 1))
    yield from first
    yield from coming


def count_gpus() -> int:
    """GPUs of the whole cluster."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


def require_room(workers: int, cpus: float, gpus: float, flag: str = "--num-workers") -> None:
    """Raises ValueError, which names `flag`, if the cluster could never place these workers,
    however idle it is."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fits = 0
    for resources in nodes:
        by_cpu = resources.get("CPU", 0) // cpus if cpus else workers
        by_gpu = resources.get("GPU", 0) // gpus if gpus else workers
        fits += int(min(by_cpu, by_gpu))
    if fits < workers:
        needs = f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")
        raise ValueError(
            f"{flag} {workers} needs {needs} each, but the cluster's {len(nodes)} node(s) "
            f"can hold {fits}; use {flag} {max(1, fits)} or a larger cluster"
        )
