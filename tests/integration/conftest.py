"""Fixtures that start real servers once a session and end them with it."""

import datetime
import ipaddress
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.planted import ClusterRun, DemoRun, planted_demo, run_stages
from tests.ray_cluster import RayCluster
from tests.services import MlflowServer, PostgresServer, S3Server


@pytest.fixture(scope="session")
def services_folder() -> Iterator[Path]:
    """A folder with a short path, for Unix sockets, that every account may enter."""
    folder = Path(tempfile.mkdtemp(prefix="e2eft-", dir="/tmp"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def s3_server(services_folder: Path) -> Iterator[S3Server]:
    """An S3 store with the buckets `s3_server.bucket` and `s3_server.mlflow_bucket`."""
    server = S3Server(services_folder / "s3")
    try:
        yield server.wait_ready()
    finally:
        server.stop()


@pytest.fixture
def s3_env(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The store, with this process's environment set so that plain `s3://` URIs mean it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.env().items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(scope="session")
def mlflow_server(services_folder: Path, s3_server: S3Server) -> Iterator[MlflowServer]:
    """A tracking server and registry over SQLite and the S3 store."""
    server = MlflowServer(services_folder / "mlflow", store_uri=None, s3=s3_server, prefix="sqlite")
    try:
        yield server.wait_ready()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def postgres_server(services_folder: Path) -> Iterator[PostgresServer]:
    """An empty PostgreSQL database at `postgres_server.uri`."""
    server = PostgresServer(services_folder / "postgres")
    try:
        yield server.wait_ready()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def mlflow_server_on_postgres(
    services_folder: Path, s3_server: S3Server, postgres_server: PostgresServer
) -> Iterator[MlflowServer]:
    """The same over PostgreSQL, as `infra/compose.yaml` runs it."""
    server = MlflowServer(
        services_folder / "mlflow-postgres",
        store_uri=postgres_server.uri,
        s3=s3_server,
        prefix="postgres",
    )
    try:
        yield server.wait_ready()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def ray_cluster(
    services_folder: Path, s3_server: S3Server, mlflow_server: MlflowServer
) -> Iterator[RayCluster]:
    """Three nodes (2, 3 and 3 logical CPUs) whose processes know the store and the tracker."""
    cluster = RayCluster(services_folder / "ray", env=s3_server.env() | mlflow_server.env())
    try:
        yield cluster.wait_ready()
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def cluster_run(
    ray_cluster: RayCluster, s3_server: S3Server, mlflow_server: MlflowServer
) -> ClusterRun:
    """The four stages as jobs on the cluster, every artifact on S3."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.env().items():
            patch.setenv(name, value)
        return run_stages(ray_cluster, s3_server, mlflow_server)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRun]:
    """The demo at a small size, run once."""
    with planted_demo(tmp_path_factory.mktemp("demo")) as run:
        yield run


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-made certificate of localhost and its key, in one file that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "e2eft test")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path
