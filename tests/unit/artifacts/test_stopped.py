"""A job that is stopped between any two changes, replaced, and continued does no harm."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from e2eft.artifacts import Artifact, ArtifactError, load_artifact, look, verify
from e2eft.prepare import PrepareConfig
from e2eft.storage import LocalStore, open_store
from tests.artifacts import (
    DISPLACED,
    KIND,
    OWNED,
    REFUSED,
    before_change,
    config_of,
    ended,
    forked,
    work,
    work_in,
)

OVERWRITING = {"seed": 1, "overwrite": True}


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes stop here, machines do not."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def stopped_before(number: int, config: PrepareConfig) -> int:
    """A child process that stopped itself before this change; 0 if it makes fewer."""

    def job() -> None:
        before_change(number, lambda: os.kill(os.getpid(), signal.SIGSTOP))
        work(config)

    child = forked(job)
    return child if ended(child) == -signal.SIGSTOP else 0


def committed(artifact: Artifact) -> dict[str, bytes]:
    """What must not change any more: the manifest and all that it lists."""
    paths = ["manifest.json", "_claim.json", *(file.path for file in artifact.files)]
    return {path: artifact.store.read(path) for path in paths}


def found(config: PrepareConfig) -> Artifact | None:
    with suppress(ArtifactError):
        return look(open_store(config.out), KIND, config, (), OWNED).finished


def replaced(config: PrepareConfig) -> Artifact | None:
    """What another job with --take-over makes of it; None if it may not."""
    try:
        return work(config.model_copy(update={"take_over": True}))
    except ArtifactError as error:
        assert "--overwrite to delete what is there" in str(error)
        return None


def continued(child: int) -> int:
    os.kill(child, signal.SIGCONT)
    return ended(child)


@pytest.mark.parametrize(
    ("there", "first", "second"),
    [
        pytest.param(None, {}, {}, id="same"),
        pytest.param(
            None, {}, {"seed": 1, "overwrite": True}, id="overwritten", marks=pytest.mark.deep
        ),
        pytest.param(0, OVERWRITING, OVERWRITING, id="overwriting-same", marks=pytest.mark.deep),
        pytest.param(0, OVERWRITING, {"seed": 2, "overwrite": True}, id="overwriting-other"),
        pytest.param(0, OVERWRITING, {"seed": 0}, id="overwriting-old", marks=pytest.mark.deep),
    ],
)
def test_stopped_before_any_change_and_replaced(
    there: int | None, first: dict[str, object], second: dict[str, object], tmp_path: Path
) -> None:
    number, replacements, displaced = 0, 0, 0
    while True:
        store = LocalStore(tmp_path / str(number))
        if there is not None:
            work(config_of(store, there))
        child = stopped_before(number, config_of(store, **first))  # type: ignore[arg-type]
        if not child:
            break
        config = config_of(store, **second)  # type: ignore[arg-type]
        if there is not None and found(config):
            # Nothing is to be done by the other job, and the stopped one may go on.
            assert continued(child) == 0 and verify(load_artifact(store.uri)) == []
            number += 1
            continue
        had_committed = found(config_of(store, **first)) is not None  # type: ignore[arg-type]
        artifact = replaced(config)
        before = committed(artifact) if artifact else {}
        code = continued(child)
        if artifact:
            replacements += 1
            displaced += code == DISPLACED
            assert code in (0, DISPLACED, REFUSED)
            assert code != 0 or first == second or had_committed
            assert committed(artifact) == before, f"stopped before change {number}"
            assert verify(artifact) == [] and load_artifact(store.uri) == artifact
            assert found(config) == artifact
        else:
            assert code == 0 and verify(load_artifact(store.uri)) == []
        number += 1
    assert number > 20 and replacements > 10 and displaced > 5


def test_a_late_commit_does_not_become_the_artifact(store: LocalStore) -> None:
    """Of a job whose folder was given to another configuration, which is not finished yet."""
    late = look(store, KIND, config_of(store), (), OWNED).take()
    made = late.put("data/part-0", b"of the first")
    config = config_of(store, seed=1, overwrite=True, take_over=True)
    claim = look(store, KIND, config, (), OWNED).take()
    mine = claim.put("data/part-0", b"of the second")
    # As if it had been stopped between its check and its write.
    late.require_owner = lambda **_: None  # type: ignore[method-assign]
    late.commit(files=[made], counts={"frames": 1})
    with pytest.raises(ArtifactError, match="of a job that was replaced"):
        load_artifact(store.uri)
    assert look(store, KIND, config, (), OWNED).finished is None
    artifact = claim.commit(files=[mine], counts={"frames": 1})
    claim.release("finished")
    assert load_artifact(store.uri) == artifact and verify(artifact) == []
    assert artifact.config["source"]["seed"] == 1


def test_stopped_before_its_manifest_while_another_works(store: LocalStore) -> None:
    """Its late manifest is there for a moment, and is taken back."""

    def job() -> None:
        link = os.link

        def linking(source: str, target: Path) -> None:
            if Path(target).name == "manifest.json":
                os.kill(os.getpid(), signal.SIGSTOP)
            link(source, target)

        os.link = linking  # type: ignore[assignment]
        work(config_of(store))

    child = forked(job)
    assert ended(child) == -signal.SIGSTOP
    config = config_of(store, seed=1, overwrite=True, take_over=True)
    with look(store, KIND, config, (), OWNED).take() as claim:
        assert continued(child) == DISPLACED
        assert not store.exists("manifest.json")
        artifact = work_in(claim)
    assert load_artifact(store.uri) == artifact and verify(artifact) == []


def test_what_a_displaced_job_writes_lies_beside(store: LocalStore) -> None:
    first = look(store, KIND, config_of(store), (), OWNED).take()
    second = look(store, KIND, config_of(store, take_over=True), (), OWNED).take()
    ours = second.put("data/part-0", b"ours")
    record = f"parts/{second.record.id}/part-0.json"
    assert second.writer.create(record, b"ours") and not first.writer.create(record, b"theirs")
    theirs = first.put("data/part-0", b"theirs")
    assert ours.path == "data/part-0" and theirs.path != ours.path
    assert store.read(ours.path) == b"ours" and store.read(theirs.path) == b"theirs"
    second.release("finished")


def test_a_stopped_job_is_waited_for_and_then_replaced(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --take-over: it does not say that it has ended, and its process is there."""
    monkeypatch.setenv("E2EFT_OWNER_PATIENCE_S", "2")
    child = stopped_before(12, config_of(store))
    assert child
    started = time.monotonic()
    artifact = work(config_of(store))
    assert 2 <= time.monotonic() - started < 30 and artifact.made["epoch"] == 2
    assert f"process {child}" in capsys.readouterr().out
    before = committed(artifact)
    assert continued(child) == DISPLACED and committed(artifact) == before
    assert load_artifact(store.uri) == artifact and verify(artifact) == []
