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
    claim,
    commit,
    differing_fields,
    entries,
    load_artifact,
    sha256,
    verify,
)
from e2eft.config import PrepareConfig, SyntheticSource
from e2eft.storage import LocalStore, StorageError

KIND = "shards"


def config_of(store: LocalStore, seed: int = 0, **fields: Any) -> PrepareConfig:
    return PrepareConfig(
        out=store.uri, source=SyntheticSource(family="indoor", seed=seed), **fields
    )


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def make(store: LocalStore, config: PrepareConfig | None = None) -> Artifact:
    """Two files, committed."""
    config = config or config_of(store)
    assert claim(store, KIND, config) is None
    for name in ("b", "a"):
        store.write(f"data/{name}", name.encode() * 10)
    return commit(
        store,
        KIND,
        config,
        files=entries(store, ["data/b", "data/a"]),
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
    assert claim(store, KIND, config_of(store)) == made
    assert claim(store, KIND, config_of(store, overwrite=True), overwrite=True) == made


def test_an_unfinished_one_is_resumed_with_its_parts(store: LocalStore) -> None:
    config = config_of(store)
    assert claim(store, KIND, config) is None
    store.write("data/part", b"work")
    # The place, the patience and the number of processes are not part of what is made.
    again = config.model_copy(update={"out": "elsewhere", "cpus_per_task": 4.0})
    assert claim(store, KIND, again) is None
    assert store.read("data/part") == b"work"


def test_another_configuration_is_refused_naming_the_field(store: LocalStore) -> None:
    make(store)
    with pytest.raises(ArtifactError) as error:
        claim(store, KIND, config_of(store, seed=7, frames_per_part=3))
    message = str(error.value)
    assert "config.source.seed: 0 -> 7" in message
    assert "config.frames_per_part: 64 -> 3" in message
    assert "config.source.height" not in message
    assert "use another --out, or --overwrite" in message
    assert load_artifact(store.uri).config["source"]["seed"] == 0


def test_another_kind_is_refused(store: LocalStore) -> None:
    claim(store, "labels", config_of(store))
    with pytest.raises(ArtifactError, match="kind: 'labels' -> 'shards'"):
        claim(store, KIND, config_of(store))


def test_overwrite_empties_the_folder_for_the_new_configuration(store: LocalStore) -> None:
    make(store)
    assert claim(store, KIND, config_of(store, seed=7), overwrite=True) is None
    assert [path for path, _ in store.list()] == [CLAIM]
    assert json.loads(store.read(CLAIM))["config"]["source"]["seed"] == 7
    assert claim(store, KIND, config_of(store, seed=7)) is None


def test_committing_twice_keeps_the_first_manifest(store: LocalStore) -> None:
    made = make(store)
    before = store.read(MANIFEST)
    again = commit(store, KIND, config_of(store), files=[], counts={"frames": 0})
    assert again == made and store.read(MANIFEST) == before


def test_a_folder_without_manifest_is_told_from_one_that_was_started(store: LocalStore) -> None:
    with pytest.raises(ArtifactError, match="not a finished artifact") as error:
        load_artifact(store.uri)
    assert "run it again" not in str(error.value)
    claim(store, KIND, config_of(store))
    with pytest.raises(ArtifactError, match="was started but has not finished: run it again"):
        load_artifact(store.uri)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: edit_manifest(s, schema_version=99), "version 99, this program reads up to 1"),
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
    with pytest.raises(ArtifactError, match=message):
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
    assert verify(made) == ["data/b", "data/a"]
    store.write("extra", b"not in the manifest")
    assert verify(made) == ["data/b", "data/a"]


def test_differing_fields_names_leaves() -> None:
    old = {"a": 1, "b": {"c": [1, 2], "d": None}, "gone": True}
    new = {"a": 1, "b": {"c": [1, 3], "d": None, "e": "x"}}
    assert differing_fields(old, new) == [
        "b.c: [1, 2] -> [1, 3]",
        "b.e: None -> 'x'",
        "gone: True -> None",
    ]
    assert differing_fields(old, old) == []


def test_the_manifest_version_is_the_one_that_is_written(store: LocalStore) -> None:
    assert make(store).schema_version == artifacts.SCHEMA_VERSION
