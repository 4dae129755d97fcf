"""How a stage finds its Ray cluster, whether the cluster can hold it, and how errors come back."""

import json
import logging
import os
import secrets
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, wraps
from pathlib import Path
from typing import Any

import pyarrow as pa

from e2eft.errors import E2eftError, as_json, from_json
from e2eft.storage import be_patient

LOOPBACK = "127.0.0.1"
HEAD_ANSWERS_S = 8.0


class ClusterError(E2eftError):
    """A cluster that cannot be worked on."""


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
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": True}
    if is_local():
        _start_local(options)
    else:
        require_head(os.environ["RAY_ADDRESS"])
        ray.init(**options)
    quiet_ray_data()


def require_head(address: str) -> None:
    """Raises ClusterError if nobody listens at a RAY_ADDRESS, which Ray would find out in a minute.

    Args:
        address: host:port, with or without ray://; of anything else nothing is said.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), HEAD_ANSWERS_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"RAY_ADDRESS {address}: no Ray cluster answers there ({error}); start or correct it, "
            "or unset it to work on this machine alone"
        ) from None


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
        options["_temp_dir"] = str(_private_folder() / "ray")
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


def _private_folder() -> Path:
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
    """Silences, in a worker, what Ray Train writes for every report of every rank."""
    for name in list(logging.root.manager.loggerDict):
        if name.endswith("ray/train/v2/_internal/execution/context.py"):  # it is called by its file
            logging.getLogger(name).setLevel(logging.WARNING)


def quiet_ray_data() -> None:
    """Stages print their own progress."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)


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


STOPPED_BY = "e2eft_stopped_by"
"""Column, or key of a row, in which an error travels to the driver as data."""


def carried(function: Any) -> Any:
    """`function`, or an actor's class, whose `E2eftError` reaches the driver with its type.

    For `flat_map` of rows and for `map_batches` of pyarrow tables. Ray would keep an exception's
    text only; as a row it passes the stages that follow, each of which is `carried` too, to
    `raise_carried`. An actor that could not be made says so at its first call. Any other exception
    goes Ray's way.
    """
    if isinstance(function, type):
        return _carried_class(function)

    @wraps(function)
    def carrying(given: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        be_patient()
        return _outputs(lambda: function(given, *args, **kwargs), given)

    return carrying


def _carried_class(kind: type) -> type:
    class Carrying:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.actor: Any = None
            be_patient()
            try:
                self.actor = kind(*args, **kwargs)
            except E2eftError as error:
                self.stopped_by = as_json(error)

        def __call__(self, given: Any) -> Iterator[Any]:
            return _outputs(lambda: self._call(given), given)

        def _call(self, given: Any) -> Any:
            if self.actor is None:
                raise from_json(self.stopped_by)
            return self.actor(given)

    # Ray names a stage after its class.
    Carrying.__name__ = Carrying.__qualname__ = kind.__name__
    return Carrying


def _outputs(call: Callable[[], Any], given: Any) -> Iterator[Any]:
    """What `call` returns, item by item if it is a list or an iterator; the error if it raises
    one, or the error that is `given`."""
    try:
        _raise_if_stopped(given)
        made = call()
        if isinstance(made, (list, Iterator)):
            yield from made
        else:
            yield made
    except E2eftError as error:
        said = json.dumps(as_json(error), default=str)
        yield pa.table({STOPPED_BY: [said]}) if isinstance(given, pa.Table) else {STOPPED_BY: said}


def _raise_if_stopped(item: Any) -> None:
    said: list[str | None] = []
    if isinstance(item, pa.Table):
        if STOPPED_BY in item.column_names:
            said = item[STOPPED_BY].to_pylist()
    elif isinstance(item, dict):
        said = [item.get(STOPPED_BY)]
    for text in filter(None, said):
        raise from_json(json.loads(text))


def raise_carried(items: Iterable[Any]) -> Iterator[Any]:
    """The rows or tables that came back; raises the error that is among them.

    Raises:
        E2eftError: of the kind, and with the text, that it had in its worker.
    """
    for item in items:
        _raise_if_stopped(item)
        yield item
