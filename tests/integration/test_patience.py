"""A store that goes away: what is waited for, how long, and what a person reads in the end."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import pytest

from e2eft.artifacts import MANIFEST
from e2eft.corpora.corpus import survey
from e2eft.datasets.nyuv2 import Nyuv2Source
from e2eft.datasets.reading.nyuv2 import Nyuv2MatlabFrames
from e2eft.errors import (
    ConflictError,
    DamagedError,
    DeniedError,
    MissingError,
    StorageError,
    UnreachableError,
)
from e2eft.storage import S3Store, base, open_store, patience, s3, s3_client
from tests.benchmark_files import measured_frame, nyuv2_matlab
from tests.fault_proxy import FaultProxy, State, cut, lost, refused, said, stalled
from tests.services import S3Server, free_ports

AWAY_S = 2.0
MIB = 1 << 20
PART = 5 * MIB
"""The smallest part that S3 takes."""


@pytest.fixture
def proxy(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy before the store, which this process's environment means now."""
    with FaultProxy(s3_env.endpoint) as started:
        monkeypatch.setenv("AWS_ENDPOINT_URL", started.endpoint)
        monkeypatch.setenv(patience.PATIENCE_VARIABLE, "30")
        yield started


@pytest.fixture
def store(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store behind the proxy that has answered, of small parts and short time-outs."""
    for kind in ("usual", "slow"):
        monkeypatch.setitem(s3_client.TIMEOUTS_S, kind, (1.0, 1.5))
    monkeypatch.setattr(s3, "CHUNK_BYTES", PART)
    opened = open_store(f"s3://e2eft/patience-{secrets.token_hex(4)}")
    assert isinstance(opened, S3Store)
    assert list(opened.list()) == []
    return opened


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.monotonic()
    return call(), time.monotonic() - started


def gives_up(call: Callable[[], Any], kind: type[StorageError] = UnreachableError) -> str:
    with pytest.raises(StorageError) as raised:
        call()
    assert type(raised.value) is kind and "\n" not in str(raised.value)
    return str(raised.value)


# -- A store that never answered


def black_hole() -> tuple[str, list[socket.socket]]:
    """An endpoint that takes no more connections and does not say so."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", free_ports(1)[0]))
    listener.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(listener.getsockname())
    return f"http://127.0.0.1:{listener.getsockname()[1]}", [listener, *waiting]


@pytest.mark.parametrize("state", ["refusing", "hanging"])
def test_a_store_that_never_answers_is_given_up_within_ten_seconds(
    proxy: FaultProxy, state: State
) -> None:
    proxy.be(state)
    message, took_s = timed(lambda: gives_up(lambda: open_store("s3://e2eft/x").read("y")))
    assert 4 < took_s < 10
    assert message.startswith(f"s3://e2eft/x/y: no answer from {proxy.endpoint};")
    assert "check AWS_ENDPOINT_URL and the network" in message


def test_every_way_not_to_answer_is_one_line(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "FIRST_ANSWER_S", 1.5)
    looked_up = socket.getaddrinfo

    def slow_names(host: Any, *arguments: Any, **named: Any) -> Any:
        if host == "slow.invalid":
            threading.Event().wait(30)
        return looked_up(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow_names)
    hole, held = black_hole()
    for endpoint in ("http://nowhere.invalid", "http://slow.invalid", hole):
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        message, took_s = timed(lambda: gives_up(lambda: open_store("s3://e2eft/x").exists("y")))
        assert f"no answer from {endpoint}" in message and took_s < 4
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    message = gives_up(lambda: open_store("s3://e2eft/x").exists("y"), StorageError)
    assert message.startswith("S3 settings cannot be used: Invalid endpoint: nonsense; check")
    for each in held:
        each.close()


def test_what_is_no_s3_or_out_of_order_is_said(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "LAST_ANSWER_S", s3.FIRST_ANSWER_S)
    proxy.once("", said(b"<html>Welcome<br></html>", "text/html"), forwards=False, times=99)
    message = gives_up(lambda: open_store("s3://e2eft/x").read("y"))
    assert (
        f"the store at {proxy.endpoint} keeps answering 500; try again later, or check" in message
    )
    proxy._planned.clear()
    proxy.be("busy")
    message = gives_up(lambda: open_store("s3://e2eft/x").read("y"))
    assert (
        f"the store at {proxy.endpoint} keeps answering SlowDown; try again later, or check"
        in message
    )


def test_a_worker_is_patient_with_a_store_that_its_driver_has_heard(
    proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "FIRST_ANSWER_S", 0.2)
    monkeypatch.setattr(patience, "_of_a_job", False)
    proxy.be("refusing")
    gives_up(lambda: open_store("s3://e2eft/x").exists("y"))
    patience.be_patient()
    proxy.be("refusing", seconds=AWAY_S)
    there, took_s = timed(lambda: open_store("s3://e2eft/x").exists("y"))
    assert not there and took_s > AWAY_S - 0.5
    assert proxy.count("ListObjectsV2") == 0


# -- A store that has answered


def operations(store: S3Store, folder: Path) -> dict[str, Callable[[], object]]:
    """Every kind of access, and what it must come to."""
    content = os.urandom(2 * PART + 1000)
    (folder / "large").write_bytes(content)
    (folder / "small").write_bytes(content[:1000])
    store.upload(folder / "large", "there/large")
    for name in ("small", "gone", "gone-1", "gone-2"):
        store.write(f"there/{name}", content[:1000])
    opened = store.open("there/large", buffer_bytes=MIB)
    opened.read(10)
    listed = store.list("there/")
    assert next(listed)

    def rest_of_a_file() -> bool:
        opened.seek(PART)
        return opened.read() == content[PART:]

    def deleted() -> bool:
        store.delete("there/gone")
        store.delete_many(["there/gone-1", "there/gone-2"])
        return True

    def downloaded() -> bool:
        stored = store.download("there/large", folder / "copy")
        return stored.size == len(content) and (folder / "copy").read_bytes() == content

    return {
        "read": lambda: store.read("there/large") == content,
        "read_range": lambda: store.read_range("there/large", PART, 99) == content[PART:][:99],
        "open": lambda: store.open("there/small").read() == content[:1000],
        "rest of an open file": rest_of_a_file,
        "write": lambda: store.write("new/written", content) is None,
        "create": lambda: store.create("new/created", content) is True,
        "upload": lambda: store.upload(folder / "small", "new/small").size == 1000,
        "upload in parts": lambda: (
            store.upload(folder / "large", "new/large", exclusive=True) == store.digest("new/large")
        ),
        "download": downloaded,
        "digest": lambda: store.digest("there/large").size == len(content),
        "exists": lambda: store.exists("there/small"),
        "exists not": lambda: not store.exists("there/nothing"),
        "list": lambda: {"there/large", "there/small"} <= {path for path, _ in store.list()},
        "names": lambda: "there" in set(store.names()),
        "a list's next page": lambda: sum(1 for _ in listed) >= 1,
        "delete": deleted,
    }


@pytest.mark.parametrize("state", ["refusing", "hanging", "cutting", "busy"])
def test_a_store_may_be_away_for_a_while(
    store: S3Store,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: State,
) -> None:
    small_pages(monkeypatch)
    calls = operations(store, tmp_path)
    proxy.be(state, seconds=AWAY_S)
    with ThreadPoolExecutor(len(calls)) as pool:
        underway = {name: pool.submit(timed, call) for name, call in calls.items()}
    for name, call in underway.items():
        right, took_s = call.result()
        assert right, name
        # A time-out that was running and a pause may be left of it when the store is back.
        assert took_s < AWAY_S + 12, name
    waited = [took_s for _, took_s in (call.result() for call in underway.values())]
    assert max(waited) > AWAY_S - 0.5
    # An answer without a body cannot be cut, but none comes while nobody listens.
    assert state == "cutting" or min(waited) > AWAY_S - 0.5


def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files a page of every listing."""
    made = s3_client._made

    def with_pages(*arguments: Any, **named: Any) -> Any:
        client = made(*arguments, **named)
        client.meta.events.register(
            "before-parameter-build.s3.ListObjectsV2",
            lambda params, **_: params.setdefault("MaxKeys", 2),
        )
        return client

    monkeypatch.setattr(s3_client, "_made", with_pages)
    s3_client._client.cache_clear()


def test_a_body_that_stops_is_noticed_and_fetched_again(store: S3Store, proxy: FaultProxy) -> None:
    """Nothing is closed: only a time-out tells."""
    store.write("file", os.urandom(4 * MIB))
    content = store.read("file")
    for size in (0, MIB):
        proxy.once("GetObject", stalled(size))
        again, took_s = timed(lambda: store.read("file"))
        assert again == content and 1 < took_s < 8


def test_half_a_listing_is_no_listing(store: S3Store, proxy: FaultProxy) -> None:
    store.write("a", b"x")
    for size in (0, 60, 200):
        proxy.once("ListObjectsV2", cut(size))
        assert list(store.list()) == [("a", 1)]
        proxy.once("DeleteObjects", cut(size))
        store.write("b", b"x")
        store.delete_many(["b"])
        assert not store.exists("b")


def test_patience_ends(store: S3Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(patience.PATIENCE_VARIABLE, "2")
    for state, message in {
        "refusing": f"no answer from {proxy.endpoint}; check AWS_ENDPOINT_URL and the network",
        "hanging": f"no answer from {proxy.endpoint}; check AWS_ENDPOINT_URL and the network",
        "busy": f"the store at {proxy.endpoint} keeps answering SlowDown; try again later,",
    }.items():
        proxy.be(state)  # type: ignore[arg-type]
        told, took_s = timed(lambda: gives_up(lambda: store.write("x", b"")))
        assert told.startswith(f"{store.uri}/x: {message}")
        assert 1.9 < took_s < 7, state
        proxy.be("up")
        assert not store.exists("y")


def test_patience_may_be_none_and_must_be_a_number(
    store: S3Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(patience.PATIENCE_VARIABLE, "0")
    proxy.be("busy")
    before = proxy.count()
    gives_up(lambda: store.read("x"))
    assert proxy.count() == before + 1
    proxy.be("up")
    for nonsense in ("-1", "soon", "nan", "inf", "5 min"):
        monkeypatch.setenv(patience.PATIENCE_VARIABLE, nonsense)
        # Said before anything fails, not in the middle of a job.
        message = gives_up(lambda: store.exists("x"), StorageError)
        assert message.startswith(f"E2EFT_STORE_PATIENCE_S={nonsense!r} is no number of seconds")


@pytest.mark.parametrize(
    ("status", "code", "kind", "message"),
    [
        (403, "AccessDenied", DeniedError, "these credentials may not do this"),
        (403, "SignatureDoesNotMatch", DeniedError, "the secret is wrong"),
        (404, "NoSuchKey", MissingError, "is not there"),
        (404, "NoSuchBucket", StorageError, "bucket 'e2eft' does not exist; create it first"),
        (501, "NotImplemented", StorageError, "this store cannot do that"),
        (400, "InvalidArgument", StorageError, "refuses with InvalidArgument: InvalidArgument, it"),
    ],
)
def test_a_refusal_is_not_repeated(
    store: S3Store,
    proxy: FaultProxy,
    status: int,
    code: str,
    kind: type[StorageError],
    message: str,
) -> None:
    proxy.once("", refused(status, code), times=9)
    before = proxy.count()
    assert message in gives_up(lambda: store.read("x"), kind)
    assert proxy.count() == before + 1


@pytest.mark.parametrize(
    ("status", "code"),
    [(409, "ConditionalRequestConflict"), (409, "OperationAborted"), (500, "InternalError"),
     (503, "SlowDown"), (503, "ServiceUnavailable"), (429, "TooManyRequests"), (502, ""),
     (400, "RequestTimeout"), (400, "IncompleteBody")],
)  # fmt: skip
def test_a_refusal_that_passes_is_repeated(
    store: S3Store, proxy: FaultProxy, status: int, code: str
) -> None:
    proxy.once("PutObject", refused(status, code), forwards=False)
    assert store.create("claim", b"mine")
    assert store.read("claim") == b"mine"


def test_a_deletion_that_fails_for_some_is_repeated_or_told(
    store: S3Store, proxy: FaultProxy
) -> None:
    store.write("a", b"x")

    def failure(code: str) -> bytes:
        return (
            f"<DeleteResult><Error><Key>p/a</Key><Code>{code}</Code><Message>no</Message></Error>"
            "</DeleteResult>"
        ).encode()

    proxy.once("DeleteObjects", said(failure("InternalError")), forwards=False)
    store.delete_many(["a"])
    assert proxy.count("DeleteObjects") == 2 and not store.exists("a")
    proxy.once("DeleteObjects", said(failure("AccessDenied")), forwards=False)
    message = gives_up(lambda: store.delete_many(["a"]), DeniedError)
    assert "1 objects were not deleted, e.g. s3://e2eft/p/a: these credentials may not" in message


def test_a_refusal_is_not_taken_for_content(store: S3Store, proxy: FaultProxy) -> None:
    """What reads and parses in one step must not take one error for the other."""
    store.write(MANIFEST, b'{"format": "e2eft-artifact"}')
    proxy.once("GetObject", refused(403, "AccessDenied"))
    assert "check the key's policy" in gives_up(lambda: survey(store.uri, 10), DeniedError)

    matlab = nyuv2_matlab([measured_frame(0)], ["kitchen"], [1])
    for name, content in matlab.files.items():
        store.write(f"nyu/{name}", content)
    frames = Nyuv2MatlabFrames(Nyuv2Source(root=f"{store.uri}/nyu"))
    assert frames._file
    proxy.once("GetObject", refused(403, "AccessDenied"))
    assert "check the key's policy" in gives_up(lambda: frames.frames, DeniedError)
    assert len(frames) == 1
    opened = h5py.File(store.open("nyu/nyu_depth_v2_labeled.mat", buffer_bytes=1024), "r")
    proxy.once("GetObject", refused(403, "AccessDenied"))
    assert "check the key's policy" in gives_up(lambda: opened["images"][0], DeniedError)
    opened.close()


# -- Answers that are lost


def test_what_was_created_though_its_answer_was_lost_is_ours(
    store: S3Store, proxy: FaultProxy
) -> None:
    proxy.once("PutObject", lost)
    assert store.create("claim", b"mine")
    proxy.once("PutObject", lost)
    assert not store.create("claim", b"other")
    proxy.once("PutObject", refused(500, "InternalError"))
    assert store.create("claim-2", b"mine")
    proxy.once("PutObject", lost, forwards=False)
    assert store.create("claim-3", b"mine")
    # The same content is another's too, if no answer of ours was lost.
    assert not store.create("claim", b"mine")
    assert store.read("claim") == store.read("claim-2") == store.read("claim-3") == b"mine"


@pytest.mark.parametrize("size", [1000, PART + 1000])
@pytest.mark.parametrize("exclusive", [True, False])
def test_what_was_uploaded_though_its_answer_was_lost_is_ours(
    store: S3Store, proxy: FaultProxy, tmp_path: Path, size: int, exclusive: bool
) -> None:
    (tmp_path / "mine").write_bytes(os.urandom(size))
    (tmp_path / "other").write_bytes(os.urandom(size))
    last = "PutObject" if size <= PART else "CompleteMultipartUpload"
    proxy.once(last, lost)
    stored = store.upload(tmp_path / "mine", "file", exclusive=exclusive)
    assert store.digest("file") == stored
    if not exclusive:
        return
    for fault in (lost, refused(503, "SlowDown")):
        proxy.once(last, fault)
        with pytest.raises(ConflictError, match=r"file is there already$"):
            store.upload(tmp_path / "other", "file", exclusive=True)
        assert store.digest("file") == stored


# -- Uploads that are broken off


def unfinished(server: S3Server, store: S3Store) -> list[Any]:
    client = server.client()
    try:
        found = client.list_multipart_uploads(Bucket=store.bucket, Prefix=store.prefix)
        return found.get("Uploads", [])
    finally:
        client.close()


def test_an_upload_that_is_broken_off_leaves_nothing(
    store: S3Store, proxy: FaultProxy, tmp_path: Path, s3_env: S3Server
) -> None:
    (tmp_path / "file").write_bytes(os.urandom(3 * PART + 1))
    proxy.once("UploadPart", refused(403, "AccessDenied"))
    with pytest.raises(DeniedError):
        store.upload(tmp_path / "file", "file")
    assert proxy.count("AbortMultipartUpload") == 1
    assert not store.exists("file") and unfinished(s3_env, store) == []


def test_a_part_goes_on_where_it_was(
    store: S3Store, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of many parts over a bad line: each part that fails is one request more."""
    (tmp_path / "file").write_bytes(os.urandom(4 * PART))
    proxy.once("UploadPart", lost, times=3)
    stored = store.upload(tmp_path / "file", "file")
    assert proxy.count("UploadPart") == 4 + 3
    proxy.once("GetObject", cut(1000), times=3)
    before = proxy.count("GetObject")
    assert store.download("file", tmp_path / "copy") == stored
    assert proxy.count("GetObject") - before == 4 + 3


def test_the_rest_of_an_open_file_is_few_requests(store: S3Store, proxy: FaultProxy) -> None:
    content = os.urandom(3 * MIB)
    store.write("file", content)
    before = proxy.count("GetObject")
    with store.open("file", buffer_bytes=MIB) as file:
        assert file.read() == content
        file.seek(MIB)
        assert file.read(10) + file.read() == content[MIB:]
        assert file.read() == b"" and file.tell() == len(content)
    assert proxy.count("GetObject") - before <= 3


def test_a_file_that_changes_while_it_is_read_is_said(
    store: S3Store, proxy: FaultProxy, tmp_path: Path
) -> None:
    store.write("file", b"a" * 3 * MIB)
    opened = store.open("file", buffer_bytes=MIB)
    assert opened.read(10) == b"a" * 10
    store.write("file", b"b" * 3 * MIB)
    with pytest.raises(DamagedError, match=r"file was changed while it was read; read it again"):
        opened.read()


def test_listings_are_fetched_as_they_are_consumed(
    store: S3Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_pages(monkeypatch)
    for number in range(5):
        store.write(str(number), b"")
    before = proxy.count("ListObjectsV2")
    listing = store.list()
    assert proxy.count("ListObjectsV2") == before
    assert next(listing) and next(listing)
    assert proxy.count("ListObjectsV2") == before + 1
    assert len(list(listing)) == 3
    assert proxy.count("ListObjectsV2") == before + 3


def test_a_listing_without_an_end_is_said(store: S3Store, proxy: FaultProxy) -> None:
    endless = b"<ListBucketResult><IsTruncated>true</IsTruncated>%s</ListBucketResult>"
    token = b"<NextContinuationToken>again</NextContinuationToken>"
    for body in (endless % b"", endless % token):
        proxy.once("ListObjectsV2", said(body), forwards=False, times=3)
        message = gives_up(lambda: list(store.list()), StorageError)
        assert "the store does not say how its listing goes on" in message
        proxy._planned.clear()


def test_a_folder_named_twice_is_one_name(store: S3Store, proxy: FaultProxy) -> None:
    page = (
        f"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>{store.prefix}/</Key>"
        f"</Contents><Contents><Key>{store.prefix}/a</Key></Contents>"
        f"<CommonPrefixes><Prefix>{store.prefix}/a/</Prefix></CommonPrefixes>"
        f"<CommonPrefixes><Prefix>{store.prefix}/b/</Prefix></CommonPrefixes></ListBucketResult>"
    )
    proxy.once("ListObjectsV2", said(page.encode()), forwards=False)
    assert sorted(store.names()) == ["a", "b"]


def test_parts_of_this_program_are_those_that_s3_takes() -> None:
    assert base.CHUNK_BYTES >= PART
