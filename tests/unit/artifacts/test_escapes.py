"""Names from outside that would lead out of the artifact's folder."""

import json
from pathlib import Path

import pytest

from e2eft.artifacts import MANIFEST, Writer, load_artifact
from e2eft.data.labels import read_label
from e2eft.storage import LocalStore, StorageError
from tests.artifacts import config_of, contents, work

OUTSIDE = ["../stolen", "/tmp/stolen", "data/../../stolen", "data/\0stolen", "//tmp/stolen"]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    store = LocalStore(tmp_path / "out")
    work(config_of(store))
    (tmp_path / "stolen").write_bytes(b"another's")
    return store


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("field", ["path", "name"])
def test_a_manifest_that_lists_what_lies_outside_is_refused(
    field: str, path: str, store: LocalStore
) -> None:
    manifest = json.loads(store.read(MANIFEST))
    manifest["files"][0][field] = path
    store.write(MANIFEST, json.dumps(manifest).encode())
    with pytest.raises(StorageError, match="leaves its folder"):
        load_artifact(store.uri)


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_is_written_or_read_outside(path: str, store: LocalStore, tmp_path: Path) -> None:
    before = contents(tmp_path)
    writer = Writer(store.uri, "12ab", 1)
    (tmp_path / "mine").write_bytes(b"mine")
    for write in (
        lambda: writer.put(path, b"mine"),
        lambda: writer.create(path, b"mine"),
        lambda: writer.put_file(path, tmp_path / "mine"),
    ):
        with pytest.raises(StorageError, match="leaves its folder"):
            write()
    for column in ("npy_path", "depth_path", "normals_path"):
        row = dict.fromkeys(("npy_path", "depth_path", "normals_path"), "") | {column: path}
        with pytest.raises(StorageError, match="leaves its folder"):
            read_label(store, row)
    (tmp_path / "mine").unlink()
    assert contents(tmp_path) == before
