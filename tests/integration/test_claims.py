"""Claims on a real S3 server: raced, interrupted, stopped, and on servers without conditions."""

import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from e2eft.artifacts import (
    CLAIM,
    MANIFEST,
    Artifact,
    ArtifactError,
    Claim,
    DisplacedError,
    OccupiedError,
    load_artifact,
    look,
    verify,
)
from e2eft.prepare import PrepareConfig
from e2eft.storage import DeniedError, S3Store, Store, open_store
from tests.artifacts import (
    DISPLACED,
    KIND,
    OWNED,
    PARTS,
    REFUSED,
    config_of,
    ended,
    forked,
    work,
    work_in,
)
from tests.fault_proxy import EMPTY, Answer, FaultProxy, Request, lost, refused
from tests.services import S3Server

NEWCOMERS = 4
CHANGES = ("PUT", "POST", "DELETE")


@pytest.fixture
def store(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    monkeypatch.setenv("E2EFT_OWNER_PATIENCE_S", "2.4")
    opened = open_store(s3_env.uri(f"claims-{secrets.token_hex(4)}"))
    assert isinstance(opened, S3Store)
    return opened


def taken(store: Store, seed: int = 0, **fields: Any) -> Claim:
    return look(store, KIND, config_of(store, seed, **fields), (), OWNED).take()


def contents(store: Store) -> dict[str, bytes]:
    return {path: store.read(path) for path, _ in store.list()}


def test_looking_changes_nothing(store: S3Store) -> None:
    def seen(seed: int, overwrite: bool) -> None:
        before = contents(store)
        try:
            look(store, KIND, config_of(store, seed, overwrite=overwrite), (), OWNED)
        except ArtifactError as error:
            assert "\n" not in str(error)
        assert contents(store) == before

    states = (
        lambda: None,
        lambda: taken(store).release("failed"),
        lambda: work(config_of(store)),
    )
    for state in states:
        state()
        for seed in (0, 7):
            for overwrite in (False, True):
                seen(seed, overwrite)


def test_of_many_newcomers_one_gets_the_folder(store: S3Store) -> None:
    barrier = threading.Barrier(NEWCOMERS)

    def come(_: int) -> Claim | OccupiedError:
        barrier.wait()
        try:
            return taken(store)
        except OccupiedError as error:
            return error

    with ThreadPoolExecutor(NEWCOMERS) as pool:
        results = list(pool.map(come, range(NEWCOMERS)))
    claims = [result for result in results if isinstance(result, Claim)]
    assert len(claims) == 1
    owner = claims[0].epochs.owner(1)
    for error in results:
        if isinstance(error, OccupiedError):
            assert f"@{owner.host}, process {owner.pid}, since" in str(error)
    assert work_in(claims[0]) == load_artifact(store.uri)
    claims[0].release("finished")


def test_processes_that_come_at_once(store: S3Store) -> None:
    def job() -> None:
        with taken(store) as claim:
            time.sleep(4)
            work_in(claim)

    codes = [ended(child) for child in [forked(job) for _ in range(3)]]
    assert sorted(codes) == [0, REFUSED, REFUSED]
    assert load_artifact(store.uri).made["epoch"] == 1


def test_an_owner_that_stands_still_is_replaced(store: S3Store) -> None:
    first = taken(store)
    first.heart._stop.set()
    started = time.monotonic()
    with taken(store) as second:
        assert time.monotonic() - started >= 2.4 and second.epoch == 2
        with pytest.raises(DisplacedError):
            first.commit(files=[], counts={})
        assert work_in(second) == load_artifact(store.uri)


def test_overwriting_deletes_in_order_and_only_what_is_its_own(store: S3Store) -> None:
    work(config_of(store))
    for name in ("holiday.jpg", "data/holiday.jpg", "parts/README"):
        store.write(name, b"mine")
    work(config_of(open_store(f"{store.uri}/data/below"), seed=3))
    artifact = work(config_of(store, seed=1, overwrite=True))
    assert verify(artifact) == [] and [file.path for file in artifact.files] == list(PARTS)
    for name in ("holiday.jpg", "data/holiday.jpg", "parts/README"):
        assert store.read(name) == b"mine"
    assert verify(load_artifact(f"{store.uri}/data/below")) == []
    epochs = [path for path, _ in store.list("_epochs/")]
    assert {path.split("/")[1] for path in epochs} == {artifact.made["claim"]}


class Failing(S3Store):
    """Refuses deletions after so many requests."""

    left = 0

    def _count(self) -> None:
        if self.left <= 0:
            raise DeniedError(f"{self.uri}: these credentials may not do this")
        self.left -= 1

    def delete(self, path: str) -> None:
        self._count()
        super().delete(path)

    def delete_exactly(self, path: str, content: bytes) -> None:
        self._count()
        super().delete_exactly(path, content)

    def delete_many(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._count()
            super().delete_many([path])


@pytest.mark.parametrize("after", range(1, 10))
def test_an_interrupted_deletion_is_never_finished_and_can_be_gone_on_with(
    after: int, store: S3Store
) -> None:
    old = work(config_of(store))
    config = config_of(store, seed=1, overwrite=True)
    failing = Failing(store.bucket, store.prefix)
    failing.left = after
    with pytest.raises(DeniedError):
        look(failing, KIND, config, (), OWNED).take()
    if after > 1:
        with pytest.raises(ArtifactError, match="not a finished artifact"):
            load_artifact(store.uri)
        assert look(store, KIND, config, (), OWNED).finished is None
    again = work(config_of(store))
    assert verify(again) == [] and [f.sha256 for f in again.files] == [f.sha256 for f in old.files]
    assert verify(work(config)) == []


# -- Stopped before any request that changes something


def stopped_before(number: int, config: PrepareConfig) -> int:
    """A child process that stopped itself when this request was signed, but not sent; 0 if it makes
    fewer."""

    def job() -> None:
        from botocore.httpsession import URLLib3Session

        send, count = URLLib3Session.send, iter(range(1 << 30))

        def sending(self: Any, request: Any) -> Any:
            if request.method in CHANGES and next(count) == number:
                os.kill(os.getpid(), signal.SIGSTOP)
            return send(self, request)

        URLLib3Session.send = sending  # type: ignore[method-assign]
        work(config)

    child = forked(job)
    return child if ended(child) == -signal.SIGSTOP else 0


def is_finished(config: PrepareConfig) -> bool:
    try:
        place = look(open_store(config.out), KIND, config, (), OWNED)
    except ArtifactError:
        return False
    return place.finished is not None


def committed(artifact: Artifact) -> dict[str, bytes]:
    paths = [MANIFEST, CLAIM, *(file.path for file in artifact.files)]
    return {path: artifact.store.read(path) for path in paths}


@pytest.mark.parametrize(
    "there",
    [pytest.param(None, id="same"), pytest.param(0, id="overwriting", marks=pytest.mark.deep)],
)
def test_stopped_before_any_request_and_replaced(there: int | None, s3_env: S3Server) -> None:
    number, displaced = 0, 0
    folder = s3_env.uri(f"stopped-{secrets.token_hex(4)}")
    while True:
        store = open_store(f"{folder}/{number}")
        first: dict[str, Any] = {}
        if there is not None:
            work(config_of(store, there))
            first = {"seed": 1, "overwrite": True}
        config = config_of(store, **first)
        child = stopped_before(number, config)
        if not child:
            break
        had_committed = is_finished(config)
        second = first if there is None else first | {"seed": 2}
        artifact = work(config_of(store, take_over=True, **second))
        before = committed(artifact)
        os.kill(child, signal.SIGCONT)
        code = ended(child)
        displaced += code == DISPLACED
        assert code in (DISPLACED, REFUSED, 0), number
        assert code != 0 or first == second or had_committed, number
        assert committed(artifact) == before, f"stopped before request {number}"
        assert load_artifact(store.uri) == artifact and verify(artifact) == []
        number += 1
    assert number > 10 and displaced > 3


# -- Servers


class CreatesOverOthers(FaultProxy):
    """A server that does not know If-None-Match: what is there is replaced."""

    server: S3Server

    def _forward(self, request: Request) -> Answer:
        answer = super()._forward(request)
        if answer.status == 412 and request.header("if-none-match"):
            bucket, _, key = request.target.partition("?")[0].lstrip("/").partition("/")
            client = self.server.client()
            client.delete_object(Bucket=bucket, Key=key)
            client.close()
            answer = super()._forward(request)
        return answer


class KnowsNoConditions(FaultProxy):
    """A server that refuses a header that it does not know."""

    def _forward(self, request: Request) -> Answer:
        is_change = request.method in CHANGES
        if is_change and (request.header("if-none-match") or request.header("if-match")):
            answer = refused(501, "NotImplemented")(EMPTY)
            assert answer is not None
            return answer
        return super()._forward(request)


@pytest.fixture
def behind(s3_env: S3Server, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a server of that kind before the store."""
    started: list[FaultProxy] = []

    def put(kind: type[FaultProxy]) -> FaultProxy:
        proxy = kind(s3_env.endpoint)
        if isinstance(proxy, CreatesOverOthers):
            proxy.server = s3_env
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        started.append(proxy)
        return proxy

    yield put
    for proxy in started:
        proxy.__exit__()


@pytest.mark.parametrize("kind", [CreatesOverOthers, KnowsNoConditions])
def test_a_store_that_cannot_create_exclusively_is_refused_without_single_writer(
    kind: type[FaultProxy], store: S3Store, behind: Callable[[type[FaultProxy]], FaultProxy]
) -> None:
    behind(kind)
    with pytest.raises(
        ArtifactError, match=r"does not refuse to create .*--single-writer"
    ) as error:
        work(config_of(store))
    assert "\n" not in str(error.value) and list(store.list()) == []
    artifact = work(config_of(store, single_writer=True))
    assert verify(artifact) == [] and load_artifact(store.uri) == artifact
    assert work(config_of(store, single_writer=True)) == artifact
    replaced = work(config_of(store, seed=1, overwrite=True, single_writer=True))
    assert verify(replaced) == [] and load_artifact(store.uri) == replaced


def test_a_first_creation_that_meets_a_conflict_is_tried_again(
    store: S3Store, behind: Callable[[type[FaultProxy]], FaultProxy]
) -> None:
    """409: another one creates at this moment, and may come through or not."""
    proxy = behind(FaultProxy)
    assert list(store.list()) == []
    proxy.once("PutObject", refused(409, "ConditionalRequestConflict"), forwards=False, times=3)
    assert work(config_of(store)).made["epoch"] == 1


@pytest.mark.parametrize("number", range(0, 13, 3))
def test_a_lost_answer_to_a_creation_does_not_lose_the_folder(
    number: int, store: S3Store, behind: Callable[[type[FaultProxy]], FaultProxy]
) -> None:
    proxy = behind(FaultProxy)
    assert list(store.list()) == []
    count = iter(range(1 << 30))

    def lose_one(answer: Answer) -> Answer | None:
        return lost(answer) if next(count) == number else answer

    proxy.once("PutObject", lose_one, times=1000)
    artifact = work(config_of(store))
    assert artifact.made["epoch"] == 1 and verify(artifact) == [] and next(count) > number
    assert [file.path for file in artifact.files] == list(PARTS)


def test_what_is_deleted_exactly_is_what_was_read(store: S3Store) -> None:
    store.write("x", b"old")
    store.delete_exactly("x", b"another")
    assert store.read("x") == b"old"
    store.delete_exactly("x", b"old")
    assert not store.exists("x")
    store.delete_exactly("x", b"old")

    class Between(S3Store):
        """Somebody writes between the reading and the deleting."""

        def _call(self, method: str, path: str, **arguments: Any) -> Any:
            if method == "delete_object":
                store.write("x", b"new")
            return super()._call(method, path, **arguments)

    store.write("x", b"old")
    Between(store.bucket, store.prefix).delete_exactly("x", b"old")
    assert store.read("x") == b"new"
