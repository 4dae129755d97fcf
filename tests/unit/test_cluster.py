"""Errors of Ray Data's workers as data; here the stages follow each other in one process."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle
import pyarrow as pa
import pytest

from e2eft.cluster import STOPPED_BY, ClusterError, carried, connect, raise_carried, require_head
from e2eft.data.sources.images import ImageError
from e2eft.errors import ConflictError, MissingError, StorageError


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


def test_of_addresses_without_a_port_nothing_is_known() -> None:
    for address in ("auto", "cluster-name", "ray://name"):
        require_head(address)
