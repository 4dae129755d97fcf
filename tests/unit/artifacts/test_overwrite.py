"""Replacing an artifact: in which order it is deleted, what stays, what an end half-way leaves."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from e2eft.artifacts import (
    CLAIM,
    MANIFEST,
    ArtifactError,
    Owned,
    load_artifact,
    look,
    verify,
)
from e2eft.storage import DeniedError, LocalStore, StorageError
from tests.artifacts import (
    KIND,
    OWNED,
    PARTS,
    before_change,
    begin,
    config_of,
    contents,
    ended,
    forked,
    work,
)

USERS = (
    "holiday.jpg", "data/holiday.jpg", "data/part-0.note", "parts/README", "data/part-9x",
    "data/part-0.20261128",
)  # fmt: skip
NESTED = "data/part-nested"
NOBODY = 65534


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes end here, machines do not."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A finished artifact, files of the user's in its folders, and another artifact below it."""
    store = LocalStore(tmp_path / "out")
    work(config_of(store))
    for name in USERS:
        store.write(name, b"mine")
    work(config_of(LocalStore(store.folder / NESTED), seed=3))
    return store


def require_the_users(store: LocalStore) -> None:
    for name in USERS:
        assert store.read(name) == b"mine"
    below = load_artifact(f"{store.uri}/{NESTED}")
    assert verify(below) == [] and below.config["source"]["seed"] == 3


def test_what_the_protocol_wrote_is_deleted_and_nothing_else(store: LocalStore) -> None:
    artifact = work(config_of(store, seed=1, overwrite=True))
    assert verify(artifact) == [] and artifact.config["source"]["seed"] == 1
    assert [file.path for file in artifact.files] == list(PARTS)
    require_the_users(store)
    claim = artifact.made["claim"]
    mine = {path for path, _ in store.list() if path not in USERS and NESTED not in path}
    assert mine == {
        CLAIM,
        MANIFEST,
        *PARTS,
        *(f"parts/{claim}/part-{number}.json" for number in range(3)),
        f"_epochs/{claim}/000001.json",
        f"_epochs/{claim}/000001.beat",
    }
    assert not list(store.folder.rglob("*.tmp"))


def test_the_manifest_goes_first_and_the_claim_last(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone: list[str] = []
    unlink, rename = os.unlink, os.rename

    def note(path: object) -> None:
        name = Path(os.fspath(path)).relative_to(store.folder).as_posix()  # type: ignore[arg-type]
        if not name.endswith(".tmp"):
            gone.append(name)

    monkeypatch.setattr(os, "unlink", lambda path: (note(path), unlink(path))[1])
    monkeypatch.setattr(os, "rename", lambda path, to: (note(path), rename(path, to))[1])
    old = json.loads(store.read(CLAIM))["id"]
    look(store, KIND, config_of(store, 1, overwrite=True), (), OWNED).take().release("")
    assert gone[0].startswith("_epochs/probe-") and gone[1] == MANIFEST
    of_the_claim = gone[1 : gone.index(CLAIM) + 1]
    assert set(PARTS) < set(of_the_claim) and f"_epochs/{old}/000001.json" in of_the_claim
    # What is left is the epoch of who deletes: until the claim is gone, nobody else may enter.
    assert all(name.startswith(f"_epochs/{old}/000002.") for name in gone[gone.index(CLAIM) + 1 :])


def outcome(store: LocalStore, seed: int) -> bool:
    """Whether a job with this configuration would be told that it is done; then it must be."""
    try:
        place = look(store, KIND, config_of(store, seed, overwrite=True), (), OWNED)
        loaded = load_artifact(store.uri) if place.finished else None
    except ArtifactError:
        return False
    if loaded is None:
        return False
    assert loaded == place.finished and verify(loaded) == []
    assert loaded.config["source"]["seed"] == seed
    return True


def killed_before(number: int, store: LocalStore) -> bool:
    """Runs the overwriting job, killed before this change; False if it makes fewer."""

    def job() -> None:
        before_change(number, lambda: os._exit(9))
        work(config_of(store, seed=1, overwrite=True))

    return ended(forked(job)) == 9


def test_killed_between_any_two_changes(store: LocalStore, tmp_path: Path) -> None:
    """By then no artifact is finished that is not whole; either job, run again, ends well."""
    number, saw_neither = 0, 0
    while True:
        here, again = LocalStore(tmp_path / "killed"), LocalStore(tmp_path / "again")
        shutil.copytree(store.folder, here.folder)
        if not killed_before(number, here):
            break
        old, new = outcome(here, 0), outcome(here, 1)
        assert not (old and new)
        saw_neither += not old and not new
        if not old and not new:
            with pytest.raises(ArtifactError):
                load_artifact(here.uri)
        shutil.copytree(here.folder, again.folder)
        require_the_users(here)
        done = work(config_of(here, seed=1, overwrite=True))
        assert verify(done) == [] and load_artifact(here.uri) == done
        require_the_users(here)
        if json.loads(again.read(CLAIM) if again.exists(CLAIM) else b"{}").get("config") == (
            config_of(again).identity()
        ):
            resumed = work(config_of(again))
            assert verify(resumed) == [] and resumed.config["source"]["seed"] == 0
        for folder in (here.folder, again.folder):
            shutil.rmtree(folder)
        number += 1
    assert outcome(here, 1) and number > 40 and saw_neither > 20


class Failing(LocalStore):
    """Refuses deletions after so many."""

    def __init__(self, folder: Path, after: int) -> None:
        super().__init__(folder)
        self.left = after

    def delete(self, path: str) -> None:
        if self.left <= 0:
            raise DeniedError(f"{self.uri}/{path}: these credentials may not do this")
        self.left -= 1
        super().delete(path)


@pytest.mark.parametrize("after", range(1, 9))
def test_a_deletion_that_is_refused_half_way_can_be_gone_on_with(
    after: int, store: LocalStore
) -> None:
    config = config_of(store, seed=1, overwrite=True)
    with pytest.raises(DeniedError, match="may not do this"):
        look(Failing(store.folder, after), KIND, config, (), OWNED).take()
    assert not outcome(store, 0) and not outcome(store, 1)
    if store.exists(CLAIM):
        with pytest.raises(ArtifactError, match="--overwrite to delete what is there"):
            work(config_of(store, seed=1))
    resumed = work(config_of(store))
    assert verify(resumed) == [] and resumed.config["source"]["seed"] == 0
    assert verify(work(config)) == []
    require_the_users(store)


class Forgetting(LocalStore):
    """Says that it has deleted what it has not."""

    def delete_many(self, paths: Iterable[str]) -> None:
        super().delete_many([path for path in paths if path != PARTS[1]])


def test_a_deletion_that_leaves_something_is_an_error(store: LocalStore) -> None:
    config = config_of(store, seed=1, overwrite=True)
    with pytest.raises(StorageError, match="part-1 is there again after it was deleted"):
        look(Forgetting(store.folder), KIND, config, (), OWNED).take()
    assert store.exists(CLAIM) and not store.exists(MANIFEST)


def test_a_folder_that_may_not_be_changed_is_an_error() -> None:
    """Seen as a user who is not root."""
    with tempfile.TemporaryDirectory() as scratch:
        store = LocalStore(Path(scratch) / "out")
        work(config_of(store))

        def job() -> None:
            if os.geteuid() == 0:
                os.setuid(NOBODY)
            with pytest.raises(DeniedError, match=r"cannot delete .*data/part-"):
                work(config_of(store, seed=1, overwrite=True))

        (store.folder / "data").chmod(0o500)
        if os.geteuid() == 0:
            Path(scratch).chmod(0o711)
            for path in (store.folder, *store.folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
        assert ended(forked(job)) == 0
        assert not store.exists(MANIFEST) and store.exists(CLAIM)
        (store.folder / "data").chmod(0o700)


def test_a_file_beside_another_is_deleted_with_it(store: LocalStore) -> None:
    """Under its name lay what somebody else had written."""
    other = LocalStore(store.folder.with_name("other"))
    with begin(other, KIND, config_of(other)) as claim:
        other.write(PARTS[0], b"of another job")
        made = claim.put(PARTS[0], b"mine")
        assert made.called == PARTS[0] and made.path != PARTS[0] and made.path in OWNED
    assert verify(work(config_of(other, seed=1, overwrite=True))) == []
    assert not other.exists(made.path)


def test_a_kind_that_says_it_owns_all_does_not_own_the_protocols_files(store: LocalStore) -> None:
    config = config_of(store, seed=1, overwrite=True)
    with look(store, KIND, config, (), Owned((), results=(".*",))).take() as claim:
        assert claim.epoch == 1 and not store.exists("holiday.jpg")
        claim.require_owner(fresh=True)
    below = load_artifact(f"{store.uri}/{NESTED}")
    assert verify(below) == []


def test_nothing_is_deleted_for_what_is_refused(store: LocalStore) -> None:
    before = contents(store.folder)
    with pytest.raises(ArtifactError, match="--overwrite to delete what is there"):
        work(config_of(store, seed=1))
    assert work(config_of(store, overwrite=True)).config["source"]["seed"] == 0
    assert contents(store.folder) == before
