"""Runs whose environment has planted secrets: the demo, and the four stages on a cluster."""

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from e2eft.storage import open_store
from tests.frames import analytic_frame
from tests.ray_cluster import REPOSITORY, RayCluster
from tests.secret_search import Search
from tests.services import MlflowServer, S3Server

TRACKING_PASSWORD = "tracking/wJalrXUtnFEMI+planted=pass"
"""Has characters that a URL escapes."""
IN_THE_DEMO = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED2EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "demo/wJalrXUtnFEMI+K7MDENG=bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "demo/FwoGZXIvYXdzEJr//////////wEaDK+planted==",
    "MLFLOW_TRACKING_URI": f"http://tracker:{quote(TRACKING_PASSWORD, safe='')}@127.0.0.1:9",
    "MLFLOW_TRACKING_PASSWORD": "demo/tracking+password=planted",
    "MLFLOW_TRACKING_TOKEN": "demo/tracking+token=planted",
    "HF_TOKEN": "hf_demo/planted+token",
    "RAY_AUTH_TOKEN": "c0ffee11" * 8,
}
RENDER = "--num-scenes 4 --frames-per-scene 2 --height 64 --width 80 --samples-per-pixel 4"


CHATTER = re.compile(
    r"\.(cc|cpp|c|py):\d+|Traceback|\b(DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL)\b|Warning:|deprecat"
)
"""What libraries write and stages do not: a place in code, a level, a warning."""


def library_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if CHATTER.search(line)]


@dataclass(frozen=True)
class DemoRun:
    """A finished demo: its folder, what it printed, what is left of its temporary files, and what
    the command lines of its processes gave away."""

    folder: Path
    output: str
    temporary: Path
    search: Search


def run_demo(folder: Path, temporary: Path) -> str:
    """`pipelines/demo.py --quick`; returns what it printed."""
    outside = ("RAY_ADDRESS", "RAY_AUTH_MODE")
    environment = {k: v for k, v in os.environ.items() if k not in outside}
    command = [sys.executable, str(REPOSITORY / "pipelines" / "demo.py"), "--quick", "--out"]
    done = subprocess.run(
        [*command, str(folder)],
        env=environment | IN_THE_DEMO | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout


@contextmanager
def planted_demo(folder: Path) -> Iterator[DemoRun]:
    """The demo, run once."""
    # Ray puts Unix sockets (107 characters at most) below it.
    temporary = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    search = Search(IN_THE_DEMO | {"the password in a URI": TRACKING_PASSWORD})
    try:
        with search.processes():
            output = run_demo(folder, temporary)
        yield DemoRun(folder, output, temporary, search)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class ClusterRun:
    """The four stages on a cluster: where their artifacts are, what their jobs printed, and what
    command lines gave away meanwhile."""

    shards: str
    run: str
    scores: str
    labels: str
    images: str
    logs: str
    search: Search


def run_stages(cluster: RayCluster, s3: S3Server, mlflow: MlflowServer) -> ClusterRun:
    """Every stage as `ray job submit --working-dir . -- python pipelines/STAGE.py ...`.

    To be called with the store's settings in this process's environment.
    """
    shards, run, scores, labels, images = (
        s3.uri("cluster", name) for name in ("shards", "run", "scores", "labels", "images")
    )
    store = open_store(images)
    for number in range(6):
        buffer = io.BytesIO()
        Image.fromarray(analytic_frame(number).rgb).save(buffer, "JPEG")
        store.write(f"folder {number % 2}/image-{number}.jpg", buffer.getvalue())
    store.write("folder 0/broken.jpg", b"\xff\xd8\xff not a picture")
    commands = [
        f"prepare synthetic-indoor --out {shards} {RENDER} --seed 5 --frames-per-part 4",
        f"train tiny-depth --data {shards} --out {run} --max-steps 4 --num-workers 2 "
        "--checkpoint-every 2 --panel-every 2",
        f"evaluate synthetic-depth --model {run} --data {shards} --out {scores} "
        "--register e2eft-cluster",
        f"label depth --model models:/e2eft-cluster@champion --images {images} --out {labels} "
        "--max-reject-fraction 0.2",
    ]
    search = Search(
        {
            "AWS_SECRET_ACCESS_KEY": s3.credentials[1],
            "Ray's token": cluster.token,
            "the tracker's password": mlflow.password,
        }
    )
    logs = ""
    with search.processes():
        for command in commands:
            stage, *arguments = command.split()
            result = cluster.submit_cli([f"pipelines/{stage}.py", *arguments], timeout_s=600)
            logs += result.require_success().logs
    return ClusterRun(shards, run, scores, labels, images, logs, search)
