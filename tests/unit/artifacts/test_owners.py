"""Two jobs and one folder: who gets it, who waits, and whom nobody waits for."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from e2eft.artifacts import (
    CLAIM,
    ArtifactError,
    Claim,
    DisplacedError,
    OccupiedError,
    load_artifact,
    look,
)
from e2eft.artifacts.ownership import Owner
from e2eft.storage import LocalStore
from e2eft.storage.local import STAGED_SUFFIX
from tests.artifacts import KIND, OWNED, REFUSED, config_of, contents, ended, forked, work, work_in

NEWCOMERS = 6


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """How long a newcomer waits here; hearts beat accordingly."""
    monkeypatch.setenv("E2EFT_OWNER_PATIENCE_S", "1.6")
    return 1.6


def taken(store: LocalStore, seed: int = 0, **fields: Any) -> Claim:
    return look(store, KIND, config_of(store, seed, **fields), (), OWNED).take()


@pytest.fixture
def owner(store: LocalStore, impatient: float) -> Iterator[Claim]:
    """A living job's claim."""
    claim = taken(store)
    yield claim
    claim.release("finished")


def stop_heart(claim: Claim) -> None:
    """As if the process had stopped or lost the store: no beat any more, and no last one."""
    claim.heart._stop.set()
    claim.heart._thread.join()


def edit_owner(claim: Claim, **changes: Any) -> None:
    path = claim.epochs.path(claim.epoch)
    content = json.loads(claim.store.read(path))
    content["owner"] |= changes
    claim.store.write(path, json.dumps(content).encode())


def outcomes(take: Callable[[int], Claim]) -> tuple[list[Claim], list[OccupiedError]]:
    """Of newcomers who come at once."""
    barrier = threading.Barrier(NEWCOMERS)

    def come(number: int) -> Claim | OccupiedError:
        barrier.wait()
        try:
            return take(number)
        except OccupiedError as error:
            return error

    with ThreadPoolExecutor(NEWCOMERS) as pool:
        results = list(pool.map(come, range(NEWCOMERS)))
    claims = [result for result in results if isinstance(result, Claim)]
    return claims, [result for result in results if isinstance(result, OccupiedError)]


def require_one_line(error: Exception, owner: Owner) -> None:
    message = str(error)
    assert "\n" not in message
    assert f"@{owner.host}, process {owner.pid}" in message and f"since {owner.since}" in message


@pytest.mark.parametrize("state", ["free", "begun", "killed"])
def test_of_many_newcomers_one_gets_the_folder(
    state: str, store: LocalStore, impatient: float
) -> None:
    if state == "begun":
        taken(store).release("failed")
    if state == "killed":
        assert ended(forked(lambda: (taken(store), os._exit(9)))) == 9
    claims, refused = outcomes(lambda _: taken(store))
    assert len(claims) == 1 and len(refused) == NEWCOMERS - 1
    for error in refused:
        require_one_line(error, claims[0].epochs.owner(claims[0].epoch))
    assert work_in(claims[0]) == load_artifact(store.uri)
    claims[0].release("finished")


def test_of_many_configurations_one_gets_the_folder(store: LocalStore, impatient: float) -> None:
    def take(number: int) -> Claim:
        try:
            return taken(store, number)
        except OccupiedError:
            raise
        except ArtifactError as error:
            assert "was made with another configuration" in str(error)
            raise OccupiedError(str(error)) from error

    claims, _ = outcomes(take)
    assert len(claims) == 1 and claims[0].record.id == json.loads(store.read(CLAIM))["id"]
    claims[0].release("finished")


def test_of_many_who_overwrite_one_does(store: LocalStore, impatient: float) -> None:
    work(config_of(store, seed=99))
    places = [
        look(store, KIND, config_of(store, number, overwrite=True), (), OWNED)
        for number in range(NEWCOMERS)
    ]

    def take(number: int) -> Claim:
        try:
            return places[number].take()
        except ArtifactError as error:
            raise OccupiedError(str(error)) from error

    claims, _ = outcomes(take)
    assert len(claims) == 1
    claims[0].require_owner(fresh=True)
    artifact = work_in(claims[0])
    assert artifact == load_artifact(store.uri)
    claims[0].release("finished")
    # None of the others, who had looked before, may come late and delete it.
    for place in places:
        if place.config != claims[0].place.config:
            with pytest.raises(ArtifactError, match="was made with another configuration"):
                place.take()
    assert load_artifact(store.uri) == artifact


def test_processes_that_come_at_once(store: LocalStore, impatient: float) -> None:
    def job() -> None:
        with taken(store) as claim:
            time.sleep(3)
            if claim.finished is None:
                work_in(claim)

    codes = [ended(child) for child in [forked(job) for _ in range(3)]]
    assert sorted(codes) == [0, REFUSED, REFUSED]
    assert load_artifact(store.uri).made["epoch"] == 1


def test_a_heart_that_beats_is_seen(owner: Claim, store: LocalStore) -> None:
    def there() -> dict[str, Any]:
        """Without a beat that is being written."""
        found = contents(store.folder).items()
        return {name: content for name, content in found if not name.endswith(STAGED_SUFFIX)}

    before = there()
    for fields in ({}, {"seed": 5, "overwrite": True}):
        with pytest.raises(OccupiedError, match="its heartbeat moves; wait for it") as error:
            taken(store, **fields)
        require_one_line(error.value, owner.epochs.owner(1))
    after = there()
    beat = owner.epochs.path(owner.epoch, "beat")
    assert set(after) == set(before)
    assert all(after[name] == before[name] for name in before if name != beat)
    owner.require_owner(fresh=True)


def test_a_heart_that_stands_still_is_replaced_by_the_newcomers_own_clock(
    owner: Claim, store: LocalStore, impatient: float
) -> None:
    """What the owner says of the time does not matter."""
    stop_heart(owner)
    store.write(
        owner.epochs.path(1, "beat"),
        json.dumps({"count": 7, "at": "2999-01-01T00:00:00", "doing": "working"}).encode(),
    )
    edit_owner(owner, since="2999-01-01T00:00:00+00:00")
    started = time.monotonic()
    with taken(store) as second:
        assert time.monotonic() - started >= impatient and second.epoch == 2
        with pytest.raises(DisplacedError, match=r"taken over by .* this job ends"):
            owner.require_owner(fresh=True)
        with pytest.raises(DisplacedError):
            owner.commit(files=[], counts={})
        second.require_owner(fresh=True)


def test_a_displaced_owner_notices_by_itself(store: LocalStore, owner: Claim) -> None:
    second = taken(store, take_over=True)
    deadline = time.monotonic() + 20
    while not owner.heart.displaced_by:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with pytest.raises(DisplacedError):
        owner.require_owner()
    owner.release("failed")
    assert b"failed" not in owner.epochs.beat(2), "it spoke for the other one"
    with pytest.raises(OccupiedError):
        taken(store)
    second.release("finished")


def test_take_over_does_not_wait(owner: Claim, store: LocalStore, impatient: float) -> None:
    started = time.monotonic()
    with taken(store, take_over=True) as second:
        assert time.monotonic() - started < impatient and second.epoch == 2


def test_an_owner_that_has_ended_is_not_waited_for(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2EFT_OWNER_PATIENCE_S", "1000")
    for epoch in (1, 2, 3):
        with pytest.raises(RuntimeError), taken(store) as claim:
            assert claim.epoch == epoch
            raise RuntimeError
    assert b"failed: RuntimeError" in claim.epochs.beat(3)


def test_a_process_that_was_killed_here_is_not_waited_for(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2EFT_OWNER_PATIENCE_S", "1000")
    assert ended(forked(lambda: (taken(store), os._exit(9)))) == 9
    assert work(config_of(store)).made["epoch"] == 2


@pytest.mark.parametrize(
    "elsewhere",
    [{"machine": "another boot/pid:[4026531836]"}, {"machine": ""}, {"machine": None}],
)
def test_a_process_of_another_machine_is_waited_for(
    elsewhere: dict[str, Any], store: LocalStore, impatient: float
) -> None:
    """There may well be none of its number here."""
    taken(store).release("failed")

    def job() -> None:
        claim = taken(store)
        edit_owner(claim, **elsewhere)
        os._exit(9)

    assert ended(forked(job)) == 9
    started = time.monotonic()
    with taken(store) as claim:
        assert time.monotonic() - started >= impatient and claim.epoch == 3


def test_another_process_of_the_same_number_is_not_the_owner(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2EFT_OWNER_PATIENCE_S", "1000")
    claim = taken(store)
    stop_heart(claim)
    edit_owner(claim, started="12")
    with taken(store) as second:
        assert second.epoch == 2


def test_beats_that_cannot_be_read_are_only_compared(
    owner: Claim, store: LocalStore, impatient: float
) -> None:
    stop_heart(owner)
    store.write(owner.epochs.path(1, "beat"), b'{"cou')
    started = time.monotonic()
    with taken(store) as second:
        assert time.monotonic() - started >= impatient and second.epoch == 2


def test_an_owner_of_a_newer_program_is_understood(owner: Claim, store: LocalStore) -> None:
    edit_owner(owner, pod="pod-7", host="node-7")
    with pytest.raises(OccupiedError, match=r"@node-7, process \d+"):
        taken(store)


def test_a_claim_that_came_to_nothing_is_free_for_another_configuration(
    store: LocalStore,
) -> None:
    taken(store).release("failed")
    artifact = work(config_of(store, seed=5))
    assert artifact.config["source"]["seed"] == 5 and load_artifact(store.uri) == artifact


def finish_a_part(claim: Claim) -> None:
    made = claim.put("data/part-0", b"work")
    record = f"parts/{claim.record.id}/part-0.json"
    assert claim.writer.create(record, json.dumps(vars(made)).encode())


def test_a_claim_with_a_finished_part_is_not(store: LocalStore) -> None:
    with taken(store) as claim:
        finish_a_part(claim)
    with pytest.raises(ArtifactError, match="--overwrite to delete what is there"):
        taken(store, seed=5)
    assert store.read("data/part-0") == b"work"


def test_a_claim_that_is_no_longer_void_when_it_is_taken_is_left(store: LocalStore) -> None:
    taken(store).release("failed")
    place = look(store, KIND, config_of(store, seed=5), (), OWNED)
    assert place.replaces
    with taken(store) as claim:
        finish_a_part(claim)
    with pytest.raises(ArtifactError, match="--overwrite to delete what is there"):
        place.take()
    artifact = work(config_of(store))
    assert artifact.made["claim"] == claim.record.id and len(artifact.files) == 3


def test_a_living_claim_with_nothing_in_it_is_not_void(owner: Claim, store: LocalStore) -> None:
    with pytest.raises(ArtifactError, match="was made with another configuration"):
        taken(store, seed=5)
    owner.require_owner(fresh=True)


def test_nobody_withdraws_what_is_anothers(owner: Claim, store: LocalStore) -> None:
    """A newcomer that is refused, and one that fails after it was replaced."""
    with pytest.raises(OccupiedError):
        taken(store)
    second = taken(store, take_over=True)
    with pytest.raises(DisplacedError), owner:
        owner.require_owner(fresh=True)
    second.require_owner(fresh=True)
    artifact = work_in(second)
    second.release("finished")
    assert load_artifact(store.uri) == artifact


@pytest.mark.parametrize("said", ["soon", "-1", "0", "nan", "inf"])
def test_a_patience_that_is_no_time_is_refused(
    said: str, store: LocalStore, owner: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E2EFT_OWNER_PATIENCE_S", said)
    with pytest.raises(ArtifactError, match=r"E2EFT_OWNER_PATIENCE_S=.* is no number of seconds"):
        taken(store)
