"""Which URIs and names become a place, and which are refused: out of a store, nowhere, denied."""

import errno
import os
from pathlib import Path

import pytest

from e2eft.artifacts import ArtifactError
from e2eft.artifacts.deletion import require_deletable
from e2eft.config import TrackingConfig
from e2eft.model.source import find_model
from e2eft.storage import (
    DeniedError,
    LocalStore,
    S3Store,
    StorageError,
    absolute,
    download_folder,
    inside,
    join,
    on_this_disk,
    open_store,
)
from e2eft.tracking import resolve_uri


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.mark.parametrize("path", ["../x", "a/../../x", "..", "/etc/passwd"])
def test_paths_out_of_the_store_are_refused(store: LocalStore, path: str) -> None:
    (store.folder.parent / "x").write_bytes(b"theirs")
    for call in (store.read, store.exists, store.delete, lambda p: store.write(p, b"")):
        with pytest.raises(StorageError, match="leaves its folder"):
            call(path)
    assert (store.folder.parent / "x").read_bytes() == b"theirs"


def test_names_with_two_dots_in_them_are_ordinary(store: LocalStore) -> None:
    store.write("a..b/c...d", b"x")
    assert store.read("a..b/c...d") == b"x"


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix"),
    [
        ("s3://bucket/a/b", "bucket", "a/b"),
        ("s3://bucket", "bucket", ""),
        ("s3://bucket/a/", "bucket", "a"),
        # Cut off at '#' or '?', an --overwrite would empty the folder above.
        ("s3://bucket/runs/a#1", "bucket", "runs/a#1"),
        ("s3://bucket/runs/a?b", "bucket", "runs/a?b"),
        ("s3://bucket/100%25 of", "bucket", "100%25 of"),
    ],
)
def test_s3_uris(uri: str, bucket: str, prefix: str) -> None:
    opened = open_store(uri)
    assert isinstance(opened, S3Store)
    assert (opened.bucket, opened.prefix, opened.uri) == (bucket, prefix, uri.rstrip("/"))


def test_local_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    folders = {
        "x/#1": tmp_path / "x/#1",
        "file:///data/a%20b/#1": Path("/data/a b/#1"),
        "file:/data": Path("/data"),
        "/data/../runs": Path("/runs"),
        "~/runs": Path("/home/somebody/runs"),
    }
    for uri, folder in folders.items():
        opened = open_store(uri)
        assert isinstance(opened, LocalStore) and opened.folder == folder
    assert absolute("x") == str(tmp_path / "x")
    assert absolute("s3://bucket/x") == "s3://bucket/x"
    for same in ("s3://bucket/x/", "s3://bucket//x", "s3://bucket/x//"):
        assert absolute(same) == "s3://bucket/x"
    for same in (f"file://{tmp_path}/x", f"file:{tmp_path}/x/", "./y/../x/"):
        assert absolute(same) == str(tmp_path / "x")
    assert join("s3://bucket/x/", "/a/", "b") == "s3://bucket/x/a/b"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "the URI is empty"),
        ("s3://", "names no bucket; write s3://bucket/prefix"),
        ("s3:///prefix", "names no bucket"),
        ("s3://bucket/../other", "leaves its folder"),
        ("gs://bucket/x", "unknown scheme; use a folder, file:// or s3://"),
        ("s3:/bucket/x", "is no URI; write s3://bucket/x, or ./s3:/bucket/x for a folder"),
        ("file://data/x", "names a host; write file:///data/x"),
    ],
)
def test_bad_uris_are_refused_with_what_would_do(uri: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        open_store(uri)


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "../x/", "/abs"])
def test_names_that_no_disk_has_are_one_line(store: LocalStore, path: str) -> None:
    for call in (
        store.read, store.exists, store.delete, store.open, store.digest,
        lambda p: store.write(p, b""),
    ):  # fmt: skip
        with pytest.raises(StorageError, match=r"leaves its folder|cannot be a name"):
            call(path)
    assert not store.folder.exists()


@pytest.mark.parametrize("prefix", ["../", "..", "a/../../", "/", "/etc/"])
def test_a_listing_stays_in_its_store(store: LocalStore, prefix: str) -> None:
    store.write("a/x", b"")
    with pytest.raises(StorageError, match="leaves its folder"):
        next(store.list(prefix))


@pytest.mark.parametrize("name", ["/abs", "a//b", "a/./b", "./a", "", "a/", "../a", "a/../b"])
def test_foreign_names_do_not_become_other_places(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError):
        inside(tmp_path, name)
    assert inside(tmp_path, "a..b/c") == tmp_path / "a..b/c"


def test_links_out_of_a_folder_are_no_places_in_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "out")
    with pytest.raises(StorageError, match=r"leaves .*in by a link"):
        inside(tmp_path / "in", "link/x")


NO_PLACES = {
    "loop": r".*/loop leads to a link that leads back to itself",
    "loop/x": r".*/loop/x leads to a link that leads back to itself",
    "~nobody_here/x": r"~nobody_here/x: there is no such home; give the whole path",
    "a\0b": r"'a\\x00b' cannot be a path",
    "\ud800": r"'\\ud800' cannot be a path",
}


@pytest.mark.parametrize("name", NO_PLACES)
def test_what_leads_nowhere_is_one_line_that_names_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("pool")
    (tmp_path / "pool").symlink_to("loop")
    uri = str(tmp_path / name) if name.startswith("loop") else name
    config = TrackingConfig(tracking_uri=f"sqlite:///{uri}")
    for call in (open_store, absolute, on_this_disk, find_model, lambda _: resolve_uri(config)):
        with pytest.raises(StorageError, match=NO_PLACES[name]) as raised:
            call(uri)
        assert "\n" not in str(raised.value)
    assert on_this_disk("nothing") is None and on_this_disk("s3://bucket") is None


def test_a_copy_into_a_loop_is_refused(store: LocalStore, tmp_path: Path) -> None:
    store.write("model/loop/x", b"")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/loop").symlink_to("loop")
    with pytest.raises(StorageError, match=r"copy/loop/x leads to a link that leads back"):
        download_folder(store, "model", tmp_path / "copy")


def test_a_name_longer_than_a_disk_allows_is_looked_for_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot look at .*x: File name too long"):
        on_this_disk(str(tmp_path / ("x" * 300)))


def test_what_may_not_be_looked_at_is_denied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", denied)  # A superuser may look at everything.
    with pytest.raises(DeniedError, match=r"cannot look at .*x: .*check the path and its perm"):
        on_this_disk(str(tmp_path / "x"))


def test_a_user_without_a_home_may_have_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # As for an unknown user id.
    require_deletable(LocalStore(tmp_path))
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ArtifactError, match="is a home folder"):
        require_deletable(LocalStore(tmp_path))
