import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2eft import artifacts
from e2eft.artifacts import (
    CLAIM,
    MANIFEST,
    Artifact,
    ArtifactError,
    FileEntry,
    Parent,
    Place,
    load_artifact,
    look,
    sha256,
    verify,
)
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.prepare import PrepareConfig
from e2eft.storage import DamagedError, LocalStore, StorageError
from tests.artifacts import EVERYTHING, begin, write_artifact

KIND = "shards"


def config_of(store: LocalStore, seed: int = 0, **fields: Any) -> PrepareConfig:
    return PrepareConfig(
        out=store.uri, source=SyntheticSource(family="indoor", seed=seed), **fields
    )


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def found(store: LocalStore, config: PrepareConfig) -> Place:
    return look(store, KIND, config, (), EVERYTHING)


def make(store: LocalStore, config: PrepareConfig | None = None) -> Artifact:
    """Two files, committed."""
    return write_artifact(
        store,
        KIND,
        config or config_of(store),
        files={f"data/{name}": name.encode() * 10 for name in ("b", "a")},
        counts={"frames": 2},
        parents=(Parent("data", "s3://bucket/raw", "0" * 64),),
        details={"rows_of_part": [1, 1]},
    )


def edit_manifest(store: LocalStore, **changes: Any) -> None:
    body = json.loads(store.read(MANIFEST))
    store.write(MANIFEST, json.dumps(body | changes).encode())


def test_a_committed_artifact_is_loaded_as_it_was_made(store: LocalStore) -> None:
    made = make(store)
    loaded = load_artifact(store.uri, KIND)
    assert loaded == made and loaded.digest == made.digest
    assert loaded.files == (
        FileEntry("data/a", 10, sha256(b"a" * 10)),
        FileEntry("data/b", 10, sha256(b"b" * 10)),
    )
    assert loaded.config["source"]["family"] == "indoor"
    assert "out" not in loaded.config and "overwrite" not in loaded.config
    assert loaded.parents == (Parent("data", "s3://bucket/raw", "0" * 64),)
    assert loaded.as_parent("data") == Parent("data", store.uri, made.digest)


def test_the_digest_names_the_content_not_the_place(tmp_path: Path) -> None:
    here, there = LocalStore(tmp_path / "here"), LocalStore(tmp_path / "there")
    first, second = make(here), make(there)
    assert first.uri != second.uri and first.digest == second.digest
    other = LocalStore(tmp_path / "other")
    assert make(other, config_of(other, seed=1)).digest != first.digest


def test_a_finished_artifact_is_found_again(store: LocalStore) -> None:
    made = make(store)
    assert found(store, config_of(store)).finished == made
    assert found(store, config_of(store, overwrite=True)).finished == made


def test_an_unfinished_one_is_resumed_with_its_parts(store: LocalStore) -> None:
    config = config_of(store)
    with begin(store, KIND, config) as first:
        first.put("data/part", b"work")
    # The place, the patience and the number of processes are not part of what is made.
    again = config.model_copy(update={"out": "elsewhere", "cpus_per_task": 4.0})
    assert found(store, again).finished is None
    with begin(store, KIND, again) as second:
        assert store.read("data/part") == b"work"
        assert (second.epoch, second.digest) == (2, first.digest)
        assert second.is_resumed and not first.is_resumed


def test_another_configuration_is_refused_naming_the_field(store: LocalStore) -> None:
    make(store)
    with pytest.raises(ArtifactError) as error:
        found(store, config_of(store, seed=7, frames_per_part=3))
    message = str(error.value)
    assert "--seed 0 -> 7" in message and "--frames-per-part 64 -> 3" in message
    assert "accepted: " in message and "--height" not in message
    assert "use another --out, or --overwrite" in message
    assert load_artifact(store.uri).config["source"]["seed"] == 0


def test_another_kind_is_refused(store: LocalStore) -> None:
    write_artifact(store, "labels", config_of(store), files={}, counts={})
    with pytest.raises(ArtifactError, match="kind: 'labels' -> 'shards'"):
        found(store, config_of(store))


def test_overwrite_empties_the_folder_for_the_new_configuration(store: LocalStore) -> None:
    make(store)
    with begin(store, KIND, config_of(store, seed=7, overwrite=True)) as claim:
        assert {path for path, _ in store.list()} == {
            CLAIM, claim.epochs.path(1), claim.epochs.path(1, "beat")
        }  # fmt: skip
    assert json.loads(store.read(CLAIM))["config"]["source"]["seed"] == 7
    assert found(store, config_of(store, seed=7)).finished is None


def test_committing_twice_keeps_the_first_manifest(store: LocalStore) -> None:
    made = make(store)
    before = store.read(MANIFEST)
    with begin(store, KIND, config_of(store)) as claim:
        assert claim.finished == made
        assert claim.commit(files=[], counts={"frames": 0}) == made
    assert store.read(MANIFEST) == before


def test_a_folder_without_manifest_is_told_from_one_that_was_started(store: LocalStore) -> None:
    with pytest.raises(ArtifactError, match="not a finished artifact") as error:
        load_artifact(store.uri)
    assert "run it again" not in str(error.value)
    with (
        begin(store, KIND, config_of(store)),
        pytest.raises(ArtifactError, match="was started but has not finished: run it again"),
    ):
        load_artifact(store.uri)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: edit_manifest(s, schema_version=99), "version 99, this program reads up to 2"),
        (lambda s: edit_manifest(s, kind="labels"), "is a 'labels' artifact; expected shards"),
        (lambda s: edit_manifest(s, format="other"), "not a manifest of this project"),
        (lambda s: s.write(MANIFEST, b'{"format"'), "is not JSON"),
    ],
)
def test_manifests_that_cannot_be_used_are_refused(
    store: LocalStore, damage: Callable[[LocalStore], None], message: str
) -> None:
    make(store)
    damage(store)
    with pytest.raises((ArtifactError, DamagedError), match=message):
        load_artifact(store.uri, KIND)


def test_a_store_that_cannot_be_read_is_not_an_absent_artifact(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(store)

    def refuse(*_: object) -> bytes:
        raise StorageError("no answer from the store")

    monkeypatch.setattr(LocalStore, "read", refuse)
    with pytest.raises(StorageError, match="no answer"):
        load_artifact(store.uri)


def test_verify_finds_changed_and_missing_files(store: LocalStore) -> None:
    made = make(store)
    assert verify(made) == []
    store.write("data/a", b"a" * 9 + b"b")
    assert verify(made) == ["data/a"]
    store.delete("data/b")
    assert verify(made) == ["data/a", "data/b"]
    store.write("extra", b"not in the manifest")
    assert verify(made) == ["data/a", "data/b"]


def test_the_manifest_version_is_the_one_that_is_written(store: LocalStore) -> None:
    assert make(store).schema_version == artifacts.SCHEMA_VERSION
