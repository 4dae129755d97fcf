"""Jobs on a cluster of three nodes: the four stages, every artifact on S3, MLflow as a server.

All that shares the cluster is in this file, since a file's tests are run by one process.
"""

import io
import json
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from PIL import Image

from e2eft import cli
from e2eft.artifacts import load_artifact, verify
from e2eft.data.shards import open_shards
from e2eft.labels.index import open_labels
from e2eft.storage import open_store
from tests.frames import write_analytic_shards
from tests.planted import ClusterRun, library_lines
from tests.ray_cluster import RayCluster
from tests.services import MlflowServer, S3Server, ServiceError, isolated_env

REPOSITORY = Path(__file__).resolve().parents[2]
ASK = """
import sys
from e2eft.head import require_head
for address in sys.argv[1:]:
    try:
        require_head(address)
        print("answers")
    except ValueError as error:
        print(error)
"""


@pytest.mark.slow
def test_prepare_train_evaluate_label_on_s3(
    cluster_run: ClusterRun, s3_env: S3Server, mlflow_server: MlflowServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shards, run, labels = cluster_run.shards, cluster_run.run, cluster_run.labels
    assert len(open_shards(shards)) == 8
    for uri in (shards, run, cluster_run.scores, labels):
        assert verify(load_artifact(uri)) == []
    index = open_labels(labels)
    statuses = {row["key"]: row["status"] for row in index.rows()}
    assert len(statuses) == 7
    assert statuses["folder 0/broken.jpg"] == "rejected"
    assert sum(status == "ok" for status in statuses.values()) == 6
    parents = {parent.role: parent for parent in load_artifact(run).parents}
    assert parents["data"].digest == open_shards(shards).artifact.digest

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.uri)
    model = mlflow.pyfunc.load_model("models:/e2eft-cluster@champion")
    picture = open_store(cluster_run.images).read("folder 1/image-1.jpg")
    answer = model.predict(pd.DataFrame({"image": [picture, b"junk"]}))
    assert answer["error_code"][0] == "" and answer["error_code"][1] != ""
    assert Image.open(io.BytesIO(answer["depth"][0])).size == (80, 64)
    runs = mlflow.search_runs(
        experiment_names=["e2eft"], filter_string="tags.`e2eft.stage` = 'train'"
    )
    assert len(runs) == 1 and runs["metrics.loss"].notna().all()
    # Nor is Ray heard beside the stages' own lines.
    assert "step      1  loss" in cluster_run.logs
    heard = [line for line in library_lines(cluster_run.logs) if "job_manager.py" not in line]
    assert heard == []


@pytest.mark.slow
def test_jobs_leave_no_secret(
    cluster_run: ClusterRun, ray_cluster: RayCluster, s3_server: S3Server, services_folder: Path
) -> None:
    search = cluster_run.search.text("what the jobs printed", cluster_run.logs)
    for kind, told in ray_cluster.told().items():
        assert told
        search.text(kind, told)
    client = s3_server.client()
    for bucket in (s3_server.bucket, s3_server.mlflow_bucket):
        search.bucket(client, bucket)
    client.close()
    # The store and the token's file are where these secrets belong.
    assert (services_folder / "s3" / "s3.json").is_file()
    for folder in services_folder.iterdir():
        if folder.name != "s3":
            search.folder(folder, leave_out=[ray_cluster.token_path])
    assert list(ray_cluster.folder.glob("n0/session_*/logs/job-driver-*.log"))
    assert search.looked_at > 500
    assert not search.finds


def test_what_cannot_be_placed_is_refused_and_leaves_the_folder_free(
    ray_cluster: RayCluster, s3_env: S3Server
) -> None:
    data, out = s3_env.uri("training", "shards"), s3_env.uri("training", "run")
    write_analytic_shards(data, 4, height=32, width=40)
    argv = ["tiny-depth", "--base", "blank", "--data", data, "--out", out]
    argv += ["--num-workers", "64", "--batch", "128", "--micro-batch", "2"]
    result = ray_cluster.submit(["pipelines/train.py", *argv])
    assert (result.status, result.driver_exit_code) == ("FAILED", cli.STAGE_ERROR)
    assert (
        "train: --num-workers 64 needs 1 CPU each, but the cluster's 3 node(s) can" in result.logs
    )
    assert "use --num-workers 8 or a larger cluster" in result.logs
    assert "Traceback" not in result.logs
    assert list(open_store(out).list()) == []


def test_ray_job_gets_the_repository_without_its_heavy_folders(ray_cluster: RayCluster) -> None:
    listing = "import json, os; print(json.dumps(sorted(os.listdir())))"
    job = ray_cluster.submit(["-c", listing]).require_success()
    shipped = set(json.loads(job.logs.splitlines()[-1]))
    assert {"e2eft", "pipelines", "tests"} <= shipped
    assert not {".git", ".venv", "docs", "benchmarks"} & shipped


def test_ray_reports_the_failure_of_a_job(ray_cluster: RayCluster) -> None:
    job = ray_cluster.submit(["-c", "import sys; print('giving up'); sys.exit(3)"])
    assert (job.status, job.driver_exit_code) == ("FAILED", 3)
    with pytest.raises(ServiceError, match="giving up"):
        job.require_success()


def test_ray_wants_the_token(ray_cluster: RayCluster) -> None:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    with pytest.raises(HTTPError) as error:
        urlopen(f"{ray_cluster.address}/api/jobs/", timeout=10)
    assert error.value.code == 401
    error.value.close()


def test_a_cluster_says_who_may_join_it_and_where(ray_cluster: RayCluster) -> None:
    def ask(env: dict[str, str], *addresses: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", ASK, *addresses],
            env=isolated_env(env) | {"PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    head = ray_cluster.gcs_address
    answers = ask(ray_cluster.client_env(), head, f"ray://{head}")
    assert answers[0] == "answers" and len(answers) == 2
    assert answers[1].startswith(f"RAY_ADDRESS ray://{head}: another part of Ray listens there")
    (refused,) = ask({}, head)
    assert refused.startswith(f"RAY_ADDRESS {head}: it asks for a token: RAY_AUTH_MODE=token")
