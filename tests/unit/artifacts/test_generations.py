"""What is added to a finished artifact: a manifest of its own, beside the one that stays."""

import json
from pathlib import Path

import pytest

from e2eft.artifacts import GENERATION, MANIFEST, Artifact, load_artifact, look, verify
from e2eft.errors import DamagedError
from e2eft.storage import LocalStore, Store
from tests.artifacts import KIND, OWNED, config_of, contents, work


def added(store: Store, name: str = "data/part-9") -> Artifact:
    """A further generation, with a file more."""
    with look(store, KIND, config_of(store), (), OWNED).take() as claim:
        assert claim.finished is not None
        files = [*claim.finished.files, claim.put(name, name.encode())]
        return claim.commit(files=files, counts={"frames": len(files)}, after=claim.finished)


def test_a_generation_adds_and_nothing_that_was_there_changes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = work(config_of(store))
    before = contents(tmp_path)
    second = added(store)
    after = contents(tmp_path)
    kept = {name for name in before if not name.startswith("_epochs/")}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert "manifest-2.json" in after and "manifest-3.json" not in after

    assert load_artifact(store.uri) == second and second.generation == 2
    assert second.parents == (first.as_parent(GENERATION),) and verify(second) == []
    assert first.generation == 1 and second.digest != first.digest
    assert work(config_of(store)) == second

    third = added(store, "data/part-10")
    assert load_artifact(store.uri) == third and third.generation == 3
    assert third.parents == (second.as_parent(GENERATION),)


def test_committing_a_generation_twice_returns_the_first_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = work(config_of(store))
    second = added(store)
    with look(store, KIND, config_of(store), (), OWNED).take() as claim:
        again = claim.commit(files=list(first.files), counts={"frames": 99}, after=first)
    assert again == second == load_artifact(store.uri)


def test_generations_go_with_the_artifact(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    work(config_of(store))
    added(store)
    made = work(config_of(store, seed=5, overwrite=True))
    assert load_artifact(store.uri) == made and made.generation == 1
    assert not store.exists("manifest-2.json") and not store.exists("data/part-9")


def test_a_generation_that_a_replaced_job_has_left_does_not_count_and_gives_way(
    tmp_path: Path,
) -> None:
    store = LocalStore(tmp_path)
    work(config_of(store))
    added(store)
    left = store.read("manifest-2.json")
    work(config_of(store, seed=5, overwrite=True))
    # The same content, so that the first manifests have one digest; but another claim.
    first = work(config_of(store, overwrite=True))
    store.write("manifest-2.json", left)
    assert load_artifact(store.uri) == first
    second = added(store)
    assert load_artifact(store.uri) == second
    assert json.loads(store.read("manifest-2.json"))["made"]["claim"] == first.made["claim"]


def test_a_damaged_generation_is_named(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    work(config_of(store))
    added(store)
    store.write("manifest-2.json", b"{")
    with pytest.raises(DamagedError, match=r"manifest-2.json is not JSON"):
        load_artifact(store.uri)


def test_without_its_first_manifest_an_artifact_is_not_finished(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    work(config_of(store))
    added(store)
    store.delete(MANIFEST)
    with pytest.raises(ValueError, match="is not a finished artifact"):
        load_artifact(store.uri)
