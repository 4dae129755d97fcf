"""What a store does with files and folders, on the disk."""

import errno
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2eft import storage, walk
from e2eft.errors import TooLargeError, as_json, from_json
from e2eft.storage import (
    ConflictError,
    DamagedError,
    LocalStore,
    MissingError,
    StorageError,
    base,
    download_folder,
    open_store,
    upload_folder,
)
from e2eft.train.checkpoints import upload

WRITERS = 8


BLOCK = 1 << 20


READS = 50


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_what_was_written_is_read_listed_and_deleted(store: LocalStore) -> None:
    for path in ("b/z.bin", "b.txt", "a/deep/er.bin"):
        store.write(path, path.encode())
    store.write("b.txt", b"again")
    assert sorted(store.list()) == [("a/deep/er.bin", 13), ("b.txt", 5), ("b/z.bin", 7)]
    assert list(store.list("b/")) == [("b/z.bin", 7)]
    assert store.read("b.txt") == b"again"
    assert store.exists("b.txt") and not store.exists("b") and not store.exists("c")
    store.delete("b.txt")
    store.delete("b.txt")
    assert not store.exists("b.txt")
    store.delete_many(path for path, _ in list(store.list()))
    assert list(store.list()) == [] and list(store.folder.iterdir()) == []


def test_a_reader_sees_the_old_content_or_the_new_never_a_part(store: LocalStore) -> None:
    store.write("file", b"a" * BLOCK)
    stop = threading.Event()

    def overwrite() -> int:
        writes = 0
        while not stop.is_set():
            store.write("file", (b"b", b"a")[writes % 2] * BLOCK)
            writes += 1
        return writes

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(overwrite)
        try:
            seen: set[bytes] = set()
            for _ in range(READS):
                content = store.read("file")
                assert content.count(content[:1]) == len(content) == BLOCK
                assert [path for path, _ in store.list()] == ["file"]
                seen.add(content[:1])
            while len(seen) < 2:
                seen.add(store.read("file")[:1])
        finally:
            stop.set()
        assert writer.result() > 0


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("file", b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"cannot write .*/file: No space left on device"):
        store.write("file", b"new")
    assert store.read("file") == b"old"
    assert os.listdir(store.folder) == ["file"]


def test_what_a_killed_writer_left_is_not_listed(store: LocalStore) -> None:
    store.write("kept", b"x")
    with store._staged("lost") as (staged, file):
        file.write(b"y")
        file.flush()
        left = staged.with_name(f"{staged.name[:-4]}2.tmp")
        left.write_bytes(b"y")
    assert left.is_file() and not staged.exists()
    assert [path for path, _ in store.list()] == ["kept"]
    assert not store.exists("lost")


def test_one_of_many_creators_wins(store: LocalStore) -> None:
    barrier = threading.Barrier(WRITERS)

    def create(number: int) -> bool:
        barrier.wait()
        return store.create("claim", str(number).encode())

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(create, range(WRITERS)))
    assert sum(won) == 1
    assert store.read("claim") == str(won.index(True)).encode()
    assert os.listdir(store.folder) == ["claim"]


def test_errors_of_the_disk_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    below_a_file = LocalStore(tmp_path / "file")
    for store in below_a_file, LocalStore(tmp_path / "file" / "x"):
        with pytest.raises(StorageError) as refused:
            store.create("_epochs/probe", b"")
        in_the_way = f"{tmp_path}/file is a file; choose another place"
        assert str(refused.value) == f"cannot write to {store.folder}: {in_the_way}"
    with pytest.raises(StorageError, match=r"^cannot write to /proc/o: No such file or directory;"):
        LocalStore(Path("/proc/o")).create("_epochs/probe", b"")
    with pytest.raises(StorageError, match="is not there"):
        below_a_file.read("x")
    with pytest.raises(StorageError, match=r"cannot read .*: Is a directory"):
        LocalStore(tmp_path.parent).read(tmp_path.name)


def test_a_listing_that_takes_long_says_how_far_it_is(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for path in ("a/1", "a/2"):
        store.write(path, b"")
    caplog.set_level("INFO", "e2eft")
    assert len(list(store.list())) == 2 and not caplog.messages
    monkeypatch.setattr(base, "TELL_EVERY_S", 0.0)
    found = [path for path, _ in store.list()]
    told = [f"{store.uri}: {n} files so far, at {path}" for n, path in enumerate(found, 1)]
    assert caplog.messages == told


def test_what_is_no_file_is_not_waited_for(store: LocalStore) -> None:
    store.write("file", b"0123456789")
    os.mkfifo(store.folder / "pipe")
    (store.folder / "device").symlink_to("/dev/zero")
    for path in ("pipe", "device"):
        for read in (store.read, store.open, store.digest, lambda p: store.read_range(p, 0, 5)):
            with pytest.raises(DamagedError, match=f"{path} is a pipe, a socket or a device"):
                read(path)
    assert store.read("file", 10) == b"0123456789"
    with pytest.raises(TooLargeError, match="file has 10 bytes; 9 are the most") as caught:
        store.read("file", 9)
    again = from_json(as_json(caught.value))
    assert isinstance(again, TooLargeError) and again.size == caught.value.size == 10


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.EPERM, "must allow hard links"),
        (errno.ENOSPC, r"^cannot write .*/x: No space left .*; make room and"),
    ],
)
def test_what_a_disk_says_at_the_last_step_is_explained(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, code: int, said: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageError, match=said):
        store.create("x", b"")
    assert list(store.folder.iterdir()) == []


def test_folders_are_copied_up_and_down(store: LocalStore, tmp_path: Path) -> None:
    original = tmp_path / "original"
    for name in ("a.txt", "b/c.txt"):
        (original / name).parent.mkdir(parents=True, exist_ok=True)
        (original / name).write_text(name)
    assert upload_folder(original, store, "model") == ["model/a.txt", "model/b/c.txt"]
    store.write("model-2/other.txt", b"")
    copy = download_folder(store, "model", tmp_path / "copy")
    assert sorted(p.relative_to(copy).as_posix() for p in copy.rglob("*.txt")) == [
        "a.txt",
        "b/c.txt",
    ]
    assert (copy / "b/c.txt").read_text() == "b/c.txt"
    with pytest.raises(StorageError, match=r"nothing is empty or not there"):
        download_folder(store, "nothing", tmp_path / "none")


def test_missing_s3_credentials_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(StorageError, match="no S3 credentials; set AWS_ACCESS_KEY_ID"):
        storage.open_store("s3://bucket/x").read("y")


def test_names_may_be_as_long_as_the_disk_allows(store: LocalStore, tmp_path: Path) -> None:
    name = "n" * 255
    store.write(name, b"1")
    assert store.create(f"a/{name}", b"2") and not store.create(f"a/{name}", b"3")
    stored = store.upload(store.folder / name, f"b/{name}")
    assert store.download(f"b/{name}", tmp_path / name) == stored
    assert sorted(store.list()) == [(f"a/{name}", 1), (f"b/{name}", 1), (name, 1)]


def test_a_copy_that_fails_says_which_side_it_was(store: LocalStore, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"nothing is not there$"):
        store.upload(tmp_path / "nothing", "x")
    with pytest.raises(MissingError, match=r"store/x is not there$"):
        store.download("x", tmp_path / "copy")
    with pytest.raises(StorageError, match=r"cannot read .*: Is a directory"):
        store.upload(tmp_path, "x")
    store.write("x", b"x")
    (tmp_path / "copy").mkdir()
    with pytest.raises(StorageError, match=r"cannot write .*/copy: Is a directory"):
        store.download("x", tmp_path / "copy")
    assert sorted(os.listdir(tmp_path)) == ["copy", "store"]

    # Opens, and cannot be read.
    with pytest.raises(StorageError, match=r"cannot read /proc/self/mem: Input/output error"):
        store.upload(Path("/proc/self/mem"), "y")
    assert not store.exists("y") and os.listdir(store.folder) == ["x"]


def test_an_exclusive_upload_spares_what_is_there(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    store.write("file", b"theirs")
    with pytest.raises(ConflictError, match=r"file is there already$"):
        store.upload(tmp_path / "mine", "file", exclusive=True)
    assert store.read("file") == b"theirs" and os.listdir(store.folder) == ["file"]
    assert store.upload(tmp_path / "mine", "file") == store.digest("file")
    assert store.read("file") == b"mine"


def test_a_folder_that_may_not_be_entered_is_denied_and_not_empty(tmp_path: Path) -> None:
    """In a process of another user where this one is root, who may read everything."""
    program = (
        "import os, sys; from pathlib import Path; from e2eft.storage import LocalStore\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "store = LocalStore(Path(sys.argv[1]))\n"
        "calls = [store.exists, store.read, store.digest, lambda path: list(store.list(path))]\n"
        "calls += [lambda path: list(store.names(path)), lambda path: store.write(path, b'')]\n"
        "for call in calls:\n"
        "    try: print('nothing', call('closed/inner/x'))\n"
        "    except ValueError as error: print(type(error).__name__, error)\n"
    )
    (tmp_path / "closed/inner").mkdir(parents=True)
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    (tmp_path / "closed").chmod(0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        (tmp_path / "closed").chmod(0o755)
    said = done.stdout.splitlines()
    assert len(said) == 6
    assert all(line.startswith("DeniedError") and str(tmp_path) in line for line in said), said


def test_a_listing_begins_before_the_walk_ends_and_enters_what_it_must(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        store.write(f"big/{number:02d}/x", b"")
    for name in ("small/a", "small/deep/b", "smaller/c"):
        store.write(name, b"")
    entered: list[str] = []
    scandir = os.scandir

    def noted(folder: Path) -> object:
        entered.append(Path(folder).relative_to(store.folder).as_posix())
        return scandir(folder)

    monkeypatch.setattr(walk.os, "scandir", noted)
    assert sorted(path for path, _ in store.list("small/")) == ["small/a", "small/deep/b"]
    assert sorted(entered) == ["small", "small/deep"]
    entered.clear()
    assert len(list(store.list("small"))) == 3
    assert sorted(entered) == [".", "small", "small/deep", "smaller"]
    entered.clear()
    listing = store.list()
    assert entered == [] and next(listing)
    assert len(entered) <= 3


def test_a_link_that_leads_nowhere_is_not_left_out(store: LocalStore) -> None:
    store.write("unet/x", b"")
    (store.folder / "vae").symlink_to("nowhere")
    (store.folder / "again").symlink_to("unet")
    for prefix in ("", "vae", "vae/", "vae/x/"):
        with pytest.raises(DamagedError, match="vae is a link to nowhere, which is not there"):
            list(store.list(prefix))
        problems: list[StorageError] = []
        found = [found.path for found in store.scan(prefix, problems)]
        assert len(problems) == 1 and sorted(found) == ([] if prefix else ["again/x", "unet/x"])
    assert [path for path, _ in store.list("again/")] == ["again/x"]


def test_bad_patience_is_named_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("E2EFT_STORE_PATIENCE_S", "a while")
    with pytest.raises(StorageError, match=r"E2EFT_STORE_PATIENCE_S='a while' is no number"):
        open_store("s3://bucket/x").read("y")


def test_a_folder_is_copied_with_what_its_links_lead_to_or_not_at_all(
    store: LocalStore, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/x").write_bytes(b"x")
    folder.mkdir()
    (folder / "inner").symlink_to(tmp_path / "elsewhere")
    assert upload_folder(folder, store, "") == ["inner/x"] and store.read("inner/x") == b"x"
    (folder / "gone").symlink_to(tmp_path / "nothing")
    for copy in (
        lambda: upload_folder(folder, store, "model"),
        lambda: upload(store, folder, "model"),
    ):
        with pytest.raises(DamagedError, match=r"folder/gone is a link to .*nothing, which is not"):
            copy()
    assert list(store.list("model")) == []
    with pytest.raises(MissingError, match="nothing is not there, or no folder"):
        upload_folder(tmp_path / "nothing", store, "model")
