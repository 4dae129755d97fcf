"""Planted secrets, searched in everything that a demo and the jobs of a cluster leave."""

import shutil
from pathlib import Path

import pytest

from tests.planted import ClusterRun, DemoRun
from tests.ray_cluster import RayCluster
from tests.secret_search import Search
from tests.services import S3Server


@pytest.mark.deep
@pytest.mark.slow
def test_a_demo_leaves_no_secret(demo: DemoRun, tmp_path: Path) -> None:
    search = demo.search.text("what it printed", demo.output)
    search.folder(demo.folder).folder(demo.temporary)
    assert list(demo.temporary.glob("e2eft-*/ray/session_*/logs/raylet.out"))
    assert {"mlflow.db", "shards", "runs"} <= {path.name for path in demo.folder.iterdir()}
    assert search.looked_at > 1000
    assert not search.finds
    # Where it is planted in what was searched, it is found.
    leaked = shutil.copy(demo.folder / "mlflow.db", tmp_path)
    with Path(leaked).open("ab") as file:
        file.write(search.secrets["AWS_SESSION_TOKEN"].encode())
    assert Search(search.secrets).folder(tmp_path).finds


@pytest.mark.slow
def test_jobs_on_a_cluster_leave_no_secret(
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
