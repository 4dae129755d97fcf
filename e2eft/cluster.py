"""How a stage finds its Ray cluster, whether the cluster can hold it, and how errors come back."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any

import pyarrow as pa

from e2eft.errors import E2eftError, as_json, from_json

SHIPPED_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_DEFAULT_REGION",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_TOKEN",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "E2EFT_RENDER_VARIANT",
    "DRJIT_LIBLLVM_PATH",
)
"""Environment of the driver that a local cluster's processes also get. On a real cluster these
belong in
the nodes' environment: secrets in a job's runtime environment are shown to everyone who can list
jobs."""


def connect() -> None:
    """Joins the cluster of this job or RAY_ADDRESS, or starts a local one with every CPU of the
    machine."""
    import ray

    if ray.is_initialized():
        return
    # Without this a local cluster writes an authentication token into the user's home.
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    variables = {name: os.environ[name] for name in SHIPPED_VARIABLES if name in os.environ}
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": True}
    if not os.environ.get("RAY_ADDRESS"):
        variables |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        environment = {
            "env_vars": variables,
            "worker_process_setup_hook": "e2eft.cluster.quiet_worker",
        }
        options |= {"include_dashboard": False, "runtime_env": environment}
        logical = max(4, os.cpu_count() or 1)
        options["num_cpus"] = int(os.environ.get("E2EFT_LOCAL_CPUS", logical))
    ray.init(**options)
    quiet_ray_data()


def quiet_worker() -> None:
    """Silences what a local cluster's processes would repeat every second."""
    # Ray Train's cleaner asks the dashboard, which a local cluster does without.
    cleaner = "ray.train.v2._internal.execution.controller.placement_group_cleaner"
    logging.getLogger(cleaner).setLevel(logging.ERROR)


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
        return _outputs(lambda: function(given, *args, **kwargs), given)

    return carrying


def _carried_class(kind: type) -> type:
    class Carrying:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.actor: Any = None
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
