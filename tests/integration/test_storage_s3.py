"""The storage contract on a real S3 server, and what a user reads when it cannot be kept."""

import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber

from e2eft.artifacts import ArtifactError, load_artifact, verify
from e2eft.corpora.listing import list_images
from e2eft.data.shards import KIND, open_shards
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.errors import TooLargeError
from e2eft.prepare import PrepareConfig
from e2eft.storage import (
    MissingError,
    S3Store,
    StorageError,
    download_folder,
    open_store,
    upload_folder,
)
from e2eft.storage.s3_client import client_for
from tests.artifacts import begin
from tests.frames import analytic_frame, write_shards
from tests.services import S3Server, free_ports

WRITERS = 8


@pytest.fixture
def store(s3_env: S3Server) -> S3Store:
    opened = open_store(s3_env.uri("storage", secrets.token_hex(4)))
    assert isinstance(opened, S3Store)
    return opened


def test_what_was_written_is_read_listed_and_deleted(store: S3Store) -> None:
    for path in ("b/z.bin", "b.txt", "a/deep/er.bin", "s/a-b", "s/a/c"):
        store.write(path, path.encode())
    store.write("b.txt", b"again")
    listed = [("a/deep/er.bin", 13), ("b.txt", 5), ("b/z.bin", 7), ("s/a-b", 5), ("s/a/c", 5)]
    assert sorted(store.list()) == sorted(listed)
    assert list(store.list("b/")) == [("b/z.bin", 7)]
    assert store.read("b.txt") == b"again"
    assert store.exists("b.txt") and not store.exists("b") and not store.exists("c")
    with pytest.raises(StorageError, match=r"/c is not there$"):
        store.read("c")
    assert store.read("b.txt", 5) == b"again"
    with pytest.raises(TooLargeError, match=r"/b.txt has 5 bytes; 4 are the most") as caught:
        store.read("b.txt", 4)
    assert caught.value.size == 5
    store.delete("b.txt")
    store.delete("b.txt")
    assert not store.exists("b.txt")
    store.delete_many(path for path, _ in list(store.list()))
    assert list(store.list()) == []


def test_odd_keys_are_kept_apart(s3_env: S3Server) -> None:
    prefix = f"odd-{secrets.token_hex(4)}"
    keys = ["#1 100%? ü.txt", "a+b", "a b", "%41"]
    store = open_store(s3_env.uri(prefix))
    for key in keys:
        store.write(key, key.encode())
        open_store(s3_env.uri(prefix, key)).write("inside", key.upper().encode())
    for key in keys:
        assert store.read(key) == key.encode()
        assert store.read(f"{key}/inside") == key.upper().encode()


def test_keys_that_are_no_names_are_listed_and_stay_outside(
    s3_env: S3Server, tmp_path: Path
) -> None:
    """As other programs make them: they are seen, and become no place on a disk."""
    prefix = f"foreign-{secrets.token_hex(4)}"
    store, client = open_store(s3_env.uri(prefix)), s3_env.client()
    for key in ("", "marker/", "plain/a.png"):
        client.put_object(Bucket=s3_env.bucket, Key=f"{prefix}/{key}", Body=b"x" * ("a" in key))
    client.delete_object(Bucket=s3_env.bucket, Key=f"{prefix}/marker/")
    client.put_object(Bucket=s3_env.bucket, Key=f"{prefix}/marker/", Body=b"")
    assert {path for path, _ in store.list()} <= {"marker/", "plain/a.png"}
    copy = download_folder(store, "", tmp_path / "copy")
    assert [p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()] == [
        "plain/a.png"
    ]
    page = {
        "IsTruncated": False,
        "Contents": [
            {"Key": f"{prefix}/{key}", "Size": 1, "LastModified": datetime.now(UTC)}
            for key in ("/etc/x.png", "a//b.png", "../c.png", "d/./e.png", "f.png")
        ],
    }
    # SeaweedFS tidies such keys; Amazon's store keeps them.
    for number, found in enumerate(page["Contents"][:4]):
        with Stubber(client_for("usual")) as stub:
            stub.add_response("list_objects_v2", page | {"Contents": [found]})
            with pytest.raises(StorageError, match=r"leaves its folder|cannot be a file's name"):
                download_folder(store, "", tmp_path / str(number))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]
    with Stubber(client_for("usual")) as stub:
        stub.add_response("list_objects_v2", page)
        listing = list_images(store)
    reasons = {image.key: image.reason for image in listing.images}
    assert reasons == {
        "/etc/x.png": "name_unsupported",
        "../c.png": "name_unsupported",
        "a//b.png": "",
        "d/./e.png": "",
        "f.png": "",
    }
    client.close()


def test_deleting_a_store_spares_its_neighbours(s3_env: S3Server) -> None:
    root = f"neighbours-{secrets.token_hex(4)}"
    for name in ("run", "run-2", "runs/x"):
        open_store(s3_env.uri(root, name)).write("file", b"")
    run = open_store(s3_env.uri(root, "run"))
    run.delete_many([path for path, _ in run.list()])
    assert sorted(path for path, _ in open_store(s3_env.uri(root)).list()) == [
        "run-2/file",
        "runs/x/file",
    ]


def test_listings_go_on_past_one_page(store: S3Store) -> None:
    pages: list[int] = []

    def short(params: dict[str, Any], **_: Any) -> None:
        params["MaxKeys"] = 3
        pages.append(1)

    client = client_for("usual")
    client.meta.events.register("before-parameter-build.s3.ListObjectsV2", short)
    paths = [f"{number:05d}" for number in range(10)]
    for path in paths:
        store.write(path, b"")
    assert sorted(path for path, _ in store.list()) == paths
    assert len(pages) == 4
    client.meta.events.unregister("before-parameter-build.s3.ListObjectsV2", short)


def test_one_of_many_creators_wins(store: S3Store) -> None:
    barrier = threading.Barrier(WRITERS)

    def create(number: int) -> bool:
        mine = open_store(store.uri)
        barrier.wait()
        return mine.create("claim", str(number).encode())

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(create, range(WRITERS)))
    assert sum(won) == 1
    assert store.read("claim") == str(won.index(True)).encode()


def test_a_reader_sees_the_old_content_or_the_new_never_a_part(store: S3Store) -> None:
    size = 4 << 20
    store.write("file", b"a" * size)
    reader = open_store(store.uri)
    with ThreadPoolExecutor(1) as pool:
        writes = pool.submit(lambda: [store.write("file", c * size) for c in (b"b", b"c", b"d")])
        seen: set[bytes] = set()
        while not writes.done():
            content = reader.read("file")
            assert content.count(content[:1]) == len(content) == size
            seen.add(content[:1])
        writes.result()
    assert seen and reader.read("file") == b"d" * size


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/x"])
def test_paths_out_of_the_store_are_refused(store: S3Store, path: str) -> None:
    for call in (store.read, store.exists, store.delete, lambda p: store.write(p, b"")):
        with pytest.raises(StorageError, match="leaves its folder"):
            call(path)


def test_a_file_is_read_in_ranges(store: S3Store) -> None:
    store.write("data/x.bin", b"12345")
    assert store.read_range("data/x.bin", 3, 9) == b"45" == store.read_range("data/x.bin", 3, 2)
    assert store.read_range("data/x.bin", 5, 3) == b"" == store.read_range("data/x.bin", 1, 0)
    with store.open("data/x.bin", buffer_bytes=2) as file:
        assert file.seek(-2, os.SEEK_END) == 3 and file.read() == b"45" and file.read() == b""
        assert file.seek(1) == 1 and file.read(1) == b"2" and file.tell() == 2
    with pytest.raises(MissingError):
        store.open("data/y.bin")


def test_folders_are_copied_up_and_down(store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c.bin").write_bytes(os.urandom(9_000_000))
    assert upload_folder(tmp_path / "a", store, "model") == ["model/b/c.bin"]
    copy = download_folder(store, "model", tmp_path / "copy")
    assert (copy / "b/c.bin").read_bytes() == (tmp_path / "a/b/c.bin").read_bytes()


def test_an_artifact_lives_on_s3(store: S3Store) -> None:
    frames = [analytic_frame(number) for number in range(10)]
    made = write_shards(store.uri, frames, frames_per_part=4)
    shards = open_shards(store.uri)
    assert len(shards) == 10 and verify(made) == []
    part, group, row = shards.locate(9)
    assert shards.read_group(part, group)[row]["key"] == frames[9].key
    store.write("data/part-000001.parquet", b"damaged")
    assert verify(made) == ["data/part-000001.parquet"]

    config = PrepareConfig(out=store.uri, source=SyntheticSource(family="indoor", seed=9))
    with pytest.raises(ArtifactError, match="--seed 0 -> 9"):
        begin(store, KIND, config)
    with (
        begin(store, KIND, config.model_copy(update={"overwrite": True})),
        pytest.raises(ArtifactError, match="was started but has not finished"),
    ):
        load_artifact(store.uri)


def refusal(uri: str, within_s: float = 10.0) -> str:
    """What a user reads who claims a folder that cannot be had; one line, soon."""
    config = PrepareConfig(out=uri, source=SyntheticSource(family="indoor"))
    started = time.monotonic()
    with pytest.raises(StorageError) as claimed:
        begin(open_store(uri), KIND, config)
    with pytest.raises(StorageError) as loaded:
        load_artifact(uri)
    assert time.monotonic() - started < within_s
    for error in (claimed, loaded):
        assert "\n" not in str(error.value) and uri in str(error.value)
    assert str(claimed.value).split(": ")[1:] == str(loaded.value).split(": ")[1:]
    return str(claimed.value)


def test_a_wrong_secret_is_named(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert "the secret is wrong; check AWS_SECRET_ACCESS_KEY" in refusal(s3_env.uri("x"))


def test_an_unknown_key_is_named(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    assert "the access key is unknown; check AWS_ACCESS_KEY_ID" in refusal(s3_env.uri("x"))


def test_a_reader_may_not_write(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in s3_env.env(s3_env.read_only_credentials).items():
        monkeypatch.setenv(name, value)
    store = open_store(s3_env.uri("x"))
    with pytest.raises(StorageError, match="these credentials may not do this"):
        store.create("y", b"")
    assert list(open_store(s3_env.uri("nothing")).list()) == []


def test_a_missing_bucket_is_named(s3_env: S3Server) -> None:
    assert "bucket 'absent' does not exist; create it first" in refusal("s3://absent/x")


def test_a_dead_endpoint_is_named(s3_env: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    message = refusal(s3_env.uri("x"), within_s=20.0)
    assert f"no answer from {endpoint}; check AWS_ENDPOINT_URL and the network" in message
