"""Files of any size on S3 and on disk: in little memory, hashed on the way, whole or absent; and
stores in threads, forks and pickles."""

import hashlib
import json
import multiprocessing
import os
import pickle
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2eft.storage import DeniedError, LocalStore, S3Store, open_store, s3_client
from e2eft.storage.base import CHUNK_BYTES
from tests.fault_proxy import FaultProxy, stalled
from tests.services import S3Server

LARGE_BYTES = 320 << 20
LIMIT_BYTES = 200 << 20
"""Of growth: far below a whole file, above the parts that are under way."""
COPYING = """
import json, resource, sys
from pathlib import Path
from e2eft.storage import open_store
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
uri, folder = sys.argv[1], Path(sys.argv[2])
store = open_store(uri)
store.write("warm", bytes(1000)), store.read("warm"), store.digest("warm")
before = peak()
stored = [store.upload(folder / "large", "large", exclusive=True)]
stored += [store.download("large", folder / "copy"), store.digest("large")]
print(json.dumps([peak() - before, [[s.size, s.sha256] for s in stored]]))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with a file of LARGE_BYTES that is no two times the same, and its digest."""
    folder = tmp_path_factory.mktemp("large")
    sha256 = hashlib.sha256()
    with (folder / "large").open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            block = os.urandom(1 << 20)
            sha256.update(block)
            file.write(block)
    yield folder, sha256.hexdigest()
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize("where", ["disk", "s3"])
def test_large_files_are_copied_in_little_memory(
    s3_env: S3Server, large: tuple[Path, str], tmp_path: Path, where: str
) -> None:
    folder, sha256 = large
    uri = str(tmp_path) if where == "disk" else s3_env.uri("large", secrets.token_hex(4))
    done = subprocess.run(
        [sys.executable, "-c", COPYING, uri, str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    growth, stored = json.loads(done.stdout)
    assert stored == [[LARGE_BYTES, sha256]] * 3
    assert growth < LIMIT_BYTES
    assert LocalStore(folder).digest("copy").sha256 == sha256
    store = open_store(uri)
    if isinstance(store, S3Store):
        client = s3_env.client()
        head = client.head_object(Bucket=store.bucket, Key=f"{store.prefix}/large")
        client.close()
        assert head["ETag"].strip('"').endswith(f"-{LARGE_BYTES // CHUNK_BYTES}")
    store.delete_many(["warm", "large"])


def test_an_uploader_that_is_killed_leaves_no_file(
    s3_env: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when all parts are there and only the end is missing."""
    program = (
        "import sys; from pathlib import Path; from e2eft.storage import open_store\n"
        "open_store(sys.argv[1]).upload(Path(sys.argv[2]), 'file')"
    )
    (tmp_path / "file").write_bytes(os.urandom(CHUNK_BYTES + 1))
    uri = s3_env.uri("killed", secrets.token_hex(4))
    with FaultProxy(s3_env.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.once("CompleteMultipartUpload", stalled(0), forwards=False)
        uploader = subprocess.Popen([sys.executable, "-c", program, uri, str(tmp_path / "file")])
        wait_for(lambda: proxy.count("CompleteMultipartUpload") == 1, uploader)
        uploader.kill()
        assert uploader.wait() == -signal.SIGKILL
        assert proxy.count("UploadPart") == 2
        store = open_store(uri)
        assert not store.exists("file") and list(store.list()) == []

    os.truncate(tmp_path / "file", 1 << 34)  # takes seconds to copy, and no room before
    out = tmp_path / "out"
    uploader = subprocess.Popen([sys.executable, "-c", program, str(out), str(tmp_path / "file")])
    wait_for(lambda: out.is_dir() and any(out.iterdir()), uploader)
    uploader.kill()
    assert uploader.wait() == -signal.SIGKILL
    assert len(os.listdir(out)) == 1
    store = open_store(str(out))
    assert not store.exists("file") and list(store.list()) == list(store.names()) == []


def wait_for(is_so: object, process: "subprocess.Popen[bytes]", timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():  # type: ignore[operator]
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of clients that were made since."""
    kinds: list[str] = []
    original = s3_client._made

    def counted(session: object, kind: s3_client.Kind, **settings: str) -> object:
        kinds.append(kind if not settings else "")
        return original(session, kind, **settings)

    monkeypatch.setattr(s3_client, "_made", counted)
    s3_client._forget()
    return kinds


def test_threads_share_one_client(s3_env: S3Server, made: list[str]) -> None:
    store = open_store(s3_env.uri("threads", secrets.token_hex(4)))
    for number in range(10):
        store.write(str(number), str(number).encode())
    barrier = threading.Barrier(8)

    def read_all(_: int) -> list[bytes]:
        barrier.wait()
        mine = open_store(store.uri)
        return [mine.read(str(number % 10)) for number in range(100)]

    with ThreadPoolExecutor(8) as pool:
        for read in pool.map(read_all, range(8)):
            assert read == [str(number % 10).encode() for number in range(100)]
    assert sorted(filter(None, made)) in (["first", "usual"], ["usual"])


def test_clients_follow_the_environment(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch, made: list[str]
) -> None:
    store = open_store(s3_env.uri("environment", secrets.token_hex(4)))
    store.write("x", b"1")
    before = made.count("usual")
    for name, value in s3_env.env(s3_env.read_only_credentials).items():
        monkeypatch.setenv(name, value)
    assert store.read("x") == b"1"
    with pytest.raises(DeniedError, match="may not do this"):
        store.write("x", b"2")
    assert made.count("usual") == before + 1
    for name, value in s3_env.env().items():
        monkeypatch.setenv(name, value)
    store.write("x", b"2")
    assert made.count("usual") == before + 1


def test_a_store_may_be_pickled_and_forked(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(s3_env.uri("forks", secrets.token_hex(4)))
    for name in "01234":
        store.write(name, name.encode() * 100_000)
    again = pickle.loads(pickle.dumps(store))
    assert again.uri == store.uri and again.read("0") == store.read("0")
    # Over a connection of the parent's they would read each other's answers, or half of them.
    monkeypatch.setenv("E2EFT_STORE_PATIENCE_S", "0")
    assert _clients() > 0
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.apply(_clients) == 0
        reads = pool.starmap_async(_read_often, [(store, name) for name in "0123"], chunksize=1)
        assert _read_often(store, "4") == {b"4"}
        assert reads.get(60) == [{b"0"}, {b"1"}, {b"2"}, {b"3"}]


def _clients() -> int:
    return s3_client._client.cache_info().currsize


def _read_often(store: S3Store, name: str) -> set[bytes]:
    return {bytes(set(store.read(name))) for _ in range(30)}
