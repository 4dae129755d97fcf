"""Ray's own lines, as its servers wrote them."""

from typing import Any

from ray._private.ray_logging import WorkerStandardStreamDispatcher

from e2eft import ray_lines
from e2eft.ray_lines import for_users, quiet_ray_servers

LOST = (
    "[2026-11-28 23:38:02,341 E 23241 23241] (gcs_server) gcs_actor_scheduler.cc:538: Failed to "
    "kill actor: RPC error: Socket closed rpc_code: 14"
)
KILLED = (
    "[2026-11-28 23:38:02,341 E 23300 23300] (raylet) node_manager.cc:3193: 2 Workers (tasks / "
    "actors) killed due to memory pressure (OOM), 0 Workers crashed due to other reasons"
)
FULL = (
    "[2026-11-28 23:38:02,341 E 23300 23311] (raylet) file_system_monitor.cc:116: "
    "/tmp/ray/session_1 is over 95% full, available space: 3 GB; capacity: 90 GB."
)
DYING = (
    "[2026-11-28 23:38:02,341 C 23300 23300] (raylet) agent_manager.cc:81: The raylet exited "
    "immediately because one Ray agent failed"
)
CRASHED = "*** SIGSEGV received at time=1764373082 on cpu 1 ***"


def test_servers_say_what_a_user_can_mend_and_why_they_die() -> None:
    lines = [LOST, KILLED, FULL, DYING, CRASHED, ":info_message:No node has a GPU"]
    assert for_users(lines) == lines[1:]


def test_workers_say_everything(monkeypatch: Any) -> None:
    import ray._private.ray_logging

    dispatcher = WorkerStandardStreamDispatcher()
    monkeypatch.setattr(ray._private.ray_logging, "global_worker_stdstream_dispatcher", dispatcher)
    printed: list[dict[str, Any]] = []
    dispatcher.add_handler("ray_print_logs", printed.append)
    quiet_ray_servers()
    quiet_ray_servers()
    assert len(dispatcher.handlers) == 1
    batches = [
        {"pid": 4711, "ip": "127.0.0.1", "lines": [LOST, "a worker's"]},
        {"pid": "gcs_server", "ip": "127.0.0.1", "lines": [LOST]},
        {"pid": "raylet", "ip": "127.0.0.1", "lines": [LOST.replace("gcs_server", "raylet"), FULL]},
    ]
    for batch in batches:
        dispatcher.emit(batch)
    assert [batch["lines"] for batch in printed] == [[LOST, "a worker's"], [], [FULL]]
    assert [batch["ip"] for batch in printed] == ["127.0.0.1"] * 3
    dispatcher.remove_handler("ray_print_logs")
    assert not dispatcher.handlers


def test_what_ray_calls_its_servers_is_what_is_looked_for() -> None:
    """Were they renamed, their lines would come through again."""
    from inspect import getsource

    from ray._private import log_monitor

    for name in ray_lines.SERVERS:
        assert f'file_info.worker_pid = "{name}"' in getsource(log_monitor)
