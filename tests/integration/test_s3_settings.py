"""One S3: what boto3's own chain says holds for every kind of access, and for nothing else."""

import io
import logging
import os
import secrets
import ssl
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3.util.connection

from e2eft.artifacts import verify
from e2eft.data.shards import open_shards
from e2eft.datasets.nyuv2 import Nyuv2Source
from e2eft.datasets.reading.archives import ZipArchive
from e2eft.datasets.reading.nyuv2 import Nyuv2MatlabFrames
from e2eft.datasets.reading.roots import RootFiles
from e2eft.errors import StorageError
from e2eft.labels.trees import LabelTree
from e2eft.storage import open_store, s3_client
from tests.benchmark_files import measured_frame, npy, nyuv2_matlab
from tests.fault_proxy import FaultProxy
from tests.frames import analytic_frame, write_shards
from tests.services import S3Server


@pytest.fixture
def secure(s3_server: S3Server, certificate: Path) -> Iterator[FaultProxy]:
    """The store behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FaultProxy(s3_server.endpoint, tls=context) as proxy:
        yield proxy


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home folder without settings, and no others; returns the home."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return tmp_path


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Where connections have gone."""
    reached: set[int] = set()
    connect = urllib3.util.connection.create_connection

    def noted(address: tuple[str, int], *arguments: Any, **named: Any) -> Any:
        reached.add(address[1])
        return connect(address, *arguments, **named)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", noted)
    return reached


def profile(server: S3Server, endpoint: str, name: str, extra: str = "") -> tuple[str, str]:
    """The contents of ~/.aws/config and ~/.aws/credentials."""
    title = name if name == "default" else f"profile {name}"
    config = f"[{title}]\nregion = {server.region}\nendpoint_url = {endpoint}\n{extra}"
    key, secret = server.credentials
    return config, f"[{name}]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"


def use_everything(prefix: str, folder: Path) -> None:
    """Every way in which this project reads and writes files."""
    uri = f"s3://e2eft/{prefix}"
    store = open_store(f"{uri}/files")
    store.write("a/b", b"1")
    assert store.create("claim", b"1") and not store.create("claim", b"2")
    assert store.read("a/b") == store.open("a/b").read() == b"1"
    assert sorted(store.list()) == [("a/b", 1), ("claim", 1)] and set(store.names()) == {
        "a", "claim",
    }  # fmt: skip
    (folder / "large").write_bytes(os.urandom((16 << 20) + 1))
    assert store.upload(folder / "large", "large") == store.download("large", folder / "copy")

    frames = [analytic_frame(number) for number in range(3)]
    made = write_shards(f"{uri}/shards", frames, frames_per_part=2)
    shards = open_shards(f"{uri}/shards")
    assert verify(made) == [] and shards.read_group(1, 0)[0]["key"] == frames[2].key

    labels = open_store(f"{uri}/labels")
    depth = np.ones((4, 5), np.float32)
    labels.write("x/img.npy", npy(depth))
    tree = LabelTree(labels, "depth", "affine_depth")
    assert (tree.read(tree.label_rows(["x/img"])["x/img"]) == depth).all()

    archives, zipped, tarred = open_store(f"{uri}/archives"), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/a.txt", b"zip")
    archives.write("x.zip", zipped.getvalue())
    assert ZipArchive(archives, "x.zip", "in").read("a.txt") == b"zip"
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        member = tarfile.TarInfo("a.txt")
        member.size = 3
        archive.addfile(member, io.BytesIO(b"tar"))
    archives.write("x.tar", tarred.getvalue())
    assert RootFiles(f"{uri}/archives/x.tar", None).read("a.txt") == b"tar"

    matlab = nyuv2_matlab([measured_frame(number) for number in range(2)], ["kitchen"] * 2, [2])
    for name, content in matlab.files.items():
        open_store(f"{uri}/nyu").write(name, content)
    (sample,) = Nyuv2MatlabFrames(Nyuv2Source(root=f"{uri}/nyu")).decode(range(1))
    assert (sample.rgb == measured_frame(1).rgb).all()  # type: ignore[union-attr]


def test_a_home_folder_with_a_default_profile_is_all_it_takes(
    s3_server: S3Server,
    no_settings: Path,
    ports: set[int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)  # as in a worker of Ray Train
    with FaultProxy(s3_server.endpoint) as proxy:
        (no_settings / ".aws").mkdir()
        contents = profile(s3_server, proxy.endpoint, "default")
        for name, content in zip(("config", "credentials"), contents, strict=True):
            (no_settings / ".aws" / name).write_text(content)
        use_everything(f"home-{secrets.token_hex(4)}", tmp_path)
        assert ports == {proxy.port} and proxy.count() > 50
        assert {request.target.split("/")[1][:5] for request in proxy.requests} == {"e2eft"}
    assert not [record for record in caplog.records if record.name.startswith("boto")]


def test_a_named_profile_with_services_over_tls_is_all_it_takes(
    s3_server: S3Server,
    secure: FaultProxy,
    certificate: Path,
    no_settings: Path,
    ports: set[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extra = f"services = mine\nca_bundle = {certificate}\n"
    config, credentials = profile(s3_server, "http://127.0.0.1:9", "lab", extra)
    config += f"[services mine]\ns3 =\n  endpoint_url = {secure.endpoint}\n"
    for name, content in {"config": config, "shared_credentials": credentials}.items():
        (no_settings / name).write_text(content)
        monkeypatch.setenv(f"AWS_{name.upper()}_FILE", str(no_settings / name))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    use_everything(f"lab-{secrets.token_hex(4)}", tmp_path)
    assert ports == {secure.port} and secure.count() > 50


def test_a_certificate_that_nobody_trusts_is_one_line(
    s3_server: S3Server,
    secure: FaultProxy,
    certificate: Path,
    no_settings: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3_server.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", secure.endpoint)
    store = open_store(f"s3://e2eft/tls-{secrets.token_hex(4)}")
    with pytest.raises(StorageError) as refused:
        store.write("x", b"")
    message = str(refused.value)
    assert "\n" not in message and message.startswith(f"{store.uri}/x: the certificate of")
    assert f"{secure.endpoint} is not trusted (self-signed certificate)" in message
    assert "AWS_CA_BUNDLE" in message and secure.count() == 0
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    with pytest.raises(StorageError, match=r"no encrypted connection to .*check AWS_ENDPOINT_URL"):
        store.write("x", b"")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    store.write("x", b"1")
    assert store.read("x") == b"1"


@pytest.mark.parametrize(
    ("settings", "virtual"),
    [("", False), ("s3 =\n  addressing_style = virtual\n", True),
     ("s3 =\n  addressing_style = path\n", False)],
)  # fmt: skip
def test_the_addressing_style_is_the_profiles(
    s3_server: S3Server, no_settings: Path, settings: str, virtual: bool
) -> None:
    (no_settings / ".aws").mkdir()
    contents = profile(s3_server, "http://s3.example.org", "default", settings)
    for name, content in zip(("config", "credentials"), contents, strict=True):
        (no_settings / ".aws" / name).write_text(content)
    client = s3_client.client_for("usual")
    url = client.generate_presigned_url("get_object", Params={"Bucket": "e2eft", "Key": "x"})
    assert url.startswith("http://e2eft.s3.example.org/x" if virtual else "http://s3.example.org/e")


def test_what_is_wrong_with_the_settings_is_one_line(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(
        StorageError, match=r"S3 settings cannot be used: .*\(absent\).*AWS_PROFILE"
    ):
        open_store("s3://e2eft/x").read("y")
    monkeypatch.delenv("AWS_PROFILE")
    (no_settings / ".aws").mkdir()
    (no_settings / ".aws" / "config").write_text("nonsense\n")
    with pytest.raises(StorageError, match=r"S3 settings cannot be used: Unable to parse config"):
        open_store("s3://e2eft/x").read("y")
    (no_settings / ".aws" / "config").write_text("[default]\nregion = us-east-1\n")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match="no S3 credentials; set AWS_ACCESS_KEY_ID and"):
        open_store("s3://e2eft/x").read("y")


def test_nothing_else_in_the_project_reaches_s3() -> None:
    root = Path(__file__).parents[2] / "e2eft"
    others = ("pyarrow.fs", "fsspec", "s3fs", "boto3", "botocore", "S3FileSystem")
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if path.parent.name != "storage" and any(word in path.read_text() for word in others)
    }
    # MLflow's own client of S3: its patience, and what it raises.
    assert found == {"tracking/artifacts.py", "tracking/refusals.py"}
