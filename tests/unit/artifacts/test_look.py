"""What is found at an --out, and that finding it changes nothing."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from e2eft.artifacts import CLAIM, MANIFEST, ArtifactError, Parent, Place, load_artifact, look
from e2eft.storage import DamagedError, LocalStore, S3Store, StorageError, open_store
from tests.artifacts import KIND, OWNED, begin, config_of, contents, work, work_in


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "out")


def found(store: LocalStore, seed: int = 0, *inputs: Parent, overwrite: bool = False) -> Place:
    return look(store, KIND, config_of(store, seed, overwrite=overwrite), inputs, OWNED)


def begun(store: LocalStore) -> None:
    with begin(store, KIND, config_of(store)) as claim:
        made = claim.put("data/part-0", b"work")
        record = json.dumps(vars(made)).encode()
        claim.writer.create(f"parts/{claim.record.id}/part-0.json", record)


def void(store: LocalStore) -> None:
    begin(store, KIND, config_of(store)).release("failed")


def finished(store: LocalStore) -> None:
    work(config_of(store))


def half_overwritten(store: LocalStore) -> None:
    """What version 1 left: the claim of the new configuration beside the old one's manifest."""
    finished(store)
    other = LocalStore(store.folder.with_name("other"))
    begun(other)
    claim = json.loads(other.read(CLAIM)) | {"config": config_of(store, seed=5).identity()}
    del claim["id"], claim["format_version"]
    store.write(CLAIM, json.dumps(claim).encode())


def foreign(store: LocalStore) -> None:
    store.write("holiday.jpg", b"mine")


def empty(store: LocalStore) -> None:
    store.folder.mkdir()


def nothing(store: LocalStore) -> None:
    pass


def damaged_claim(store: LocalStore) -> None:
    begun(store)
    store.write(CLAIM, b'{"kind"')


STATES = [
    nothing, empty, foreign, begun, void, finished, half_overwritten, damaged_claim
]  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("seed", [0, 7])
def test_looking_changes_nothing(
    state: Callable[[LocalStore], None], seed: int, overwrite: bool, store: LocalStore
) -> None:
    state(store)
    before = contents(store.folder.parent)
    try:
        found(store, seed, overwrite=overwrite)
    except (ArtifactError, StorageError) as error:
        assert "\n" not in str(error) and str(store.folder) in str(error)
    assert contents(store.folder.parent) == before


def test_a_manifest_of_another_configuration_is_not_this_ones(store: LocalStore) -> None:
    half_overwritten(store)
    with pytest.raises(ArtifactError, match="was made with another configuration"):
        found(store)
    assert found(store, seed=5).finished is None
    with pytest.raises(ArtifactError, match=r"of a job that was replaced.*run it again"):
        load_artifact(store.uri)
    artifact = work(config_of(store, seed=5))
    assert artifact.config["source"]["seed"] == 5 and load_artifact(store.uri) == artifact


def test_a_manifest_of_the_same_configuration_but_another_claim_is_not_this_ones(
    store: LocalStore,
) -> None:
    """Left by a job that was replaced since its inputs held something else."""
    finished(store)
    manifest = json.loads(store.read(MANIFEST))
    manifest["made"]["claim"] = "0123456789abcdef"
    store.write(MANIFEST, json.dumps(manifest).encode())
    assert found(store).finished is None
    with pytest.raises(ArtifactError, match="of a job that was replaced"):
        load_artifact(store.uri)


def test_an_artifact_that_was_copied_without_its_claim_is_one(store: LocalStore) -> None:
    finished(store)
    store.delete(CLAIM)
    assert load_artifact(store.uri).counts == {"frames": 3}
    with pytest.raises(ArtifactError, match=r"is not empty .* and no claim says whose it is"):
        found(store)


@pytest.mark.parametrize("name", ["holiday.jpg", "data/part-0", "a/b/photo.jpg"])
def test_files_that_no_claim_covers_are_refused_and_stay(name: str, store: LocalStore) -> None:
    store.write(name, b"mine")
    for overwrite in (False, True):
        with pytest.raises(ArtifactError, match=f"is not empty \\({name}\\).*empty --out"):
            found(store, overwrite=overwrite)
    assert store.read(name) == b"mine"


def test_an_empty_folder_is_as_good_as_none(store: LocalStore) -> None:
    (store.folder / "empty/too").mkdir(parents=True)
    assert work(config_of(store)).counts == {"frames": 3}


def test_what_a_killed_newcomer_leaves_does_not_fill_a_folder(store: LocalStore) -> None:
    """The probe of the store, epochs of a claim that was deleted, half-written files."""
    store.write("_epochs/probe-12", b"1")
    store.write("_epochs/12ab/000001.beat", b"{}")
    (store.folder / "._claim.json.12.tmp").write_bytes(b"{")
    assert work(config_of(store)).counts == {"frames": 3}


def test_places_that_hold_more_than_an_artifact_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "file").write_bytes(b"mine")
    monkeypatch.setenv("HOME", str(home))
    for uri, what in (
        ("/", "a whole disk"),
        ("file:///", "a whole disk"),
        (str(tmp_path / "a/../../../../../../../../.."), "a whole disk"),
        ("~", "a home folder"),
        (str(home), "a home folder"),
        (str(tmp_path / "link"), "a home folder"),
        (f"file://{home}/", "a home folder"),
        ("s3://bucket", "a whole bucket"),
        ("s3://bucket//", "a whole bucket"),
        (str(tmp_path / "file"), "is a file; give a folder"),
    ):
        store = open_store(uri)
        config = config_of(store, overwrite=True)
        with pytest.raises(ArtifactError, match=what):
            look(store, KIND, config, (), OWNED)
    assert isinstance(open_store("s3://bucket//"), S3Store) and not list(home.iterdir())


def test_a_claim_of_a_newer_program_is_refused(store: LocalStore) -> None:
    begun(store)
    claim = json.loads(store.read(CLAIM))
    store.write(CLAIM, json.dumps(claim | {"format_version": 3}).encode())
    with pytest.raises(ArtifactError, match="has version 3; upgrade e2eft"):
        found(store)


@pytest.mark.parametrize(
    "changes",
    [{"id": "../../x"}, {"id": "/etc"}, {"kind": None, "config": None}, {"format_version": []},
     {"inputs": [{"role": "data"}]}, {"id": 7}],
)  # fmt: skip
def test_a_claim_that_is_none_is_named_and_stays(
    changes: dict[str, object], store: LocalStore
) -> None:
    begun(store)
    store.write(CLAIM, json.dumps(json.loads(store.read(CLAIM)) | changes).encode())
    before = contents(store.folder)
    with pytest.raises(DamagedError, match=r"_claim\.json .*put back what was there"):
        found(store, overwrite=True)
    assert contents(store.folder) == before


def test_inputs_that_hold_something_else_are_refused(store: LocalStore) -> None:
    then, now = Parent("data", "s3://b/x", "1" * 64), Parent("data", "s3://b/x", "2" * 64)
    with look(store, KIND, config_of(store), (then,), OWNED).take() as claim:
        work_in(claim)
    elsewhere = Parent("data", "s3://elsewhere/x", "1" * 64)
    assert found(store, 0, elsewhere).record == claim.record
    with pytest.raises(ArtifactError, match=r"digest 1{12} -> 2{12}.*--overwrite"):
        found(store, 0, now)


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(store: LocalStore) -> None:
    store.folder.mkdir()
    (store.folder / "dangling").symlink_to("nowhere")
    with pytest.raises(StorageError, match="dangling is a link to nowhere"):
        found(store)
    (store.folder / "dangling").unlink()
    shutil.rmtree(store.folder)
    store.folder.symlink_to(store.folder.name)
    with pytest.raises(StorageError, match="Too many levels of symbolic links"):
        found(store)
