"""Errors of Ray Data's workers as data; here the stages follow each other in one process."""

import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import cloudpickle
import pyarrow as pa
import pytest

from e2eft import head
from e2eft.carried import STOPPED_BY, WorkerError, carried, raise_carried
from e2eft.cluster import connect, quiet_ray_data
from e2eft.errors import ConflictError, MissingError, StorageError
from e2eft.head import ClusterError, require_head
from e2eft.images.reasons import ImageError
from tests.tracking_servers import answering_server, silent_server


def shipped(stage: Any) -> Any:
    """As a worker gets it."""
    return pickle.loads(cloudpickle.dumps(carried(stage)))


def flow(items: Iterable[Any], *stages: Callable[[Any], Iterable[Any]]) -> Iterator[Any]:
    """Every item through all of the stages."""
    for stage in stages:
        items = [made for item in items for made in shipped(stage)(item)]
    return raise_carried(items)


def table(*numbers: int) -> pa.Table:
    return pa.table({"number": numbers})


def counted(given: pa.Table) -> Iterator[pa.Table]:
    for number in given["number"].to_pylist():
        if number == 3:
            raise ConflictError("3 is somebody else's")
        yield table(number)


def doubled(given: pa.Table) -> pa.Table:
    return table(*(2 * number for number in given["number"].to_pylist()))


def test_what_does_not_fail_arrives_as_it_is() -> None:
    assert list(flow([table(1, 2)], counted, doubled)) == [table(2), table(4)]


def test_an_error_passes_the_stages_that_follow() -> None:
    came = flow([table(1, 3, 2)], counted, doubled)
    assert next(came) == table(2)
    with pytest.raises(ConflictError, match=r"^3 is somebody else's$"):
        list(came)


def test_an_error_in_one_block_with_good_rows_is_found() -> None:
    """Ray may put a task's tables into one block, whose other columns are then null."""
    (failed,) = shipped(counted)(table(3))
    block = pa.concat_tables([table(1), failed], promote_options="default")
    with pytest.raises(ConflictError):
        list(flow([block], doubled))
    with pytest.raises(ConflictError):
        list(raise_carried([block]))


def test_rows_carry_errors_too() -> None:
    def once(row: dict[str, Any]) -> dict[str, Any]:
        if row["n"] == 2:
            raise ImageError("too_small", "2 pixels")
        return row

    def thrice(row: dict[str, Any]) -> list[dict[str, Any]]:
        return [row] * 3

    came = flow([{"n": 1}, {"n": 2}], once, thrice)
    assert [next(came) for _ in range(3)] == [{"n": 1}] * 3
    with pytest.raises(ImageError) as caught:
        next(came)
    assert (caught.value.reason, caught.value.detail) == ("too_small", "2 pixels")


class Adder:
    def __init__(self, number: int) -> None:
        if number < 0:
            raise MissingError(f"there is no {number}")
        self.number = number

    def __call__(self, given: pa.Table) -> pa.Table:
        return table(*(n + self.number for n in given["number"].to_pylist()))


def test_an_actor_that_cannot_be_made_says_so_at_its_first_call() -> None:
    assert shipped(Adder).__name__ == "Adder"
    assert list(shipped(Adder)(4)(table(1))) == [table(5)]
    (failed,) = shipped(Adder)(-1)(table(1))
    assert failed.column_names == [STOPPED_BY]
    with pytest.raises(StorageError) as caught:
        list(raise_carried([failed]))
    assert type(caught.value) is MissingError and str(caught.value) == "there is no -1"


def test_other_exceptions_go_their_own_way() -> None:
    def broken(given: pa.Table) -> pa.Table:
        raise ValueError("a fault of the program")

    with pytest.raises(ValueError, match="a fault of the program"):
        list(flow([table(1)], broken))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"])
def test_a_head_that_is_not_there_is_named_at_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(
        ClusterError, match=rf"^RAY_ADDRESS {address}: no Ray cluster answers there"
    ):
        connect()


@pytest.mark.parametrize(
    "address",
    ["cluster-name", "localhost", "ray://", "ray://:10001", ":6379", "h:x", "ray://h:10001/a",
     "redis://h:6379", "2001:db8::1", " "],
)  # fmt: skip
def test_what_is_no_address_of_a_cluster_is_told_what_one_is(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is no address of a cluster: write HOST:PORT of" in refused(address, monkeypatch)


def test_of_an_address_that_a_module_knows_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "someones_clusters.py").write_text("class ClientBuilder: ...")
    monkeypatch.syspath_prepend(tmp_path)
    require_head("someones_clusters://mine")


def refused(address: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(head, "HEAD_ANSWERS_S", 2.0)
    monkeypatch.setenv("RAY_ADDRESS", address)
    started = time.monotonic()
    with pytest.raises(ClusterError) as error:
        connect()
    assert time.monotonic() - started < 5
    line = str(error.value)
    assert line.startswith(f"RAY_ADDRESS {address}") and "\n" not in line
    assert "unset it to work on this machine alone" in line
    return line


@pytest.mark.parametrize("scheme", ["", "ray://"])
@pytest.mark.parametrize(
    "server", [silent_server, lambda: answering_server(404)], ids=["silent", "web page"]
)
def test_what_listens_and_is_no_cluster_is_not_waited_for(
    server: Any, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server() as place:
        assert "no Ray cluster" in refused(f"{scheme}{place}", monkeypatch)


@pytest.mark.parametrize("address", ["no-such-head.invalid:6379", "ray://no-such-head.invalid"])
def test_a_name_that_nobody_knows_is_not_waited_for(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no Ray cluster answers there" in refused(address, monkeypatch)


def test_a_name_that_is_looked_up_for_ever_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = Event()
    monkeypatch.setattr(head.socket, "create_connection", lambda *_: over.wait(20))
    try:
        assert "nothing within 2 s" in refused("slow:6379", monkeypatch)
    finally:
        over.set()


def test_the_address_of_the_dashboard_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "where jobs are submitted" in refused("http://127.0.0.1:8265", monkeypatch)


def test_auto_without_a_cluster_on_this_machine_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services

    # The machine may have others' clusters.
    monkeypatch.setattr(services, "find_gcs_addresses", frozenset)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: None)
    assert "no Ray cluster runs on this machine" in refused("auto", monkeypatch)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: "127.0.0.1:1")
    assert "no Ray cluster answers there" in refused("auto", monkeypatch)


def test_ray_data_advises_nobody() -> None:
    from ray.data import DataContext

    quiet_ray_data()
    assert DataContext.get_current().copy().issue_detectors_config.detectors == []


def deep_in(table: pa.Table) -> pa.Table:
    return pa.table({"n": [1 // (table["item"].to_pylist()[0] - 1)]})


def test_a_defect_is_carried_in_one_line_with_its_traceback_beside(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = pa.table({"item": [1]})
    with pytest.raises(ZeroDivisionError):
        list(carried(deep_in)(given))
    said = "a worker failed with ZeroDivisionError: integer division or modulo by zero"
    with pytest.raises(WorkerError, match=rf"^{said} \(test_cluster.py:\d+\)$"):
        list(raise_carried(carried(deep_in, defects=True)(given)))
    assert "in deep_in" in caplog.text
