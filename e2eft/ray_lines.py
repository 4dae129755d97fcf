"""What of Ray's own lines comes to the driver of a job."""

import re
from collections.abc import Callable
from typing import Any

SERVERS = frozenset({"raylet", "gcs_server"})
LOGGED = re.compile(r"\[[^\]]* [DIWE] \d+ \d+\] \((raylet|gcs_server)\) ")
"""How Ray's servers begin a line of their logs, but for the one with which they die."""
FOR_USERS = ("memory pressure", "% full")
"""Of what they log as errors: that a node lacks memory or disk, which only its user can mend."""


def quiet_ray_servers() -> None:
    """Keeps in Ray's logs what its servers say to each other there, as of connections to processes
    that end. Ray copies their errors to every driver, and has no option for it but one that takes
    the workers' lines along. To be called once Ray is initialized; a second call changes nothing.
    """
    from ray._private.ray_logging import global_worker_stdstream_dispatcher as dispatcher

    printing = [
        (name, handle) for name, handle in dispatcher.handlers if not isinstance(handle, _Chosen)
    ]
    for name, handle in printing:
        dispatcher.remove_handler(name)
        dispatcher.add_handler(name, _Chosen(handle))


def for_users(lines: list[str]) -> list[str]:
    """Those of Ray's servers' `lines` that a user of the job should see."""
    return [
        line for line in lines if not LOGGED.match(line) or any(word in line for word in FOR_USERS)
    ]


class _Chosen:
    """Hands on batches of lines: `pid`, which names a server or is a worker's number, `lines`, and
    what else Ray prints of where they come from."""

    def __init__(self, handle: Callable[[dict[str, Any]], None]) -> None:
        self._handle = handle

    def __call__(self, batch: dict[str, Any]) -> None:
        if batch.get("pid") in SERVERS:
            batch = batch | {"lines": for_users(batch.get("lines", []))}
        self._handle(batch)
