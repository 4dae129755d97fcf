"""The four stages as jobs on a cluster of three nodes, every artifact on S3, MLflow as a server."""

import io

import mlflow
import pandas as pd
import pytest
from PIL import Image

from e2eft.artifacts import load_artifact, verify
from e2eft.data.labels import open_labels
from e2eft.data.shards import open_shards
from e2eft.storage import open_store
from tests.frames import analytic_frame
from tests.ray_cluster import RayCluster
from tests.services import MlflowServer, S3Server

RENDER = "--num-scenes 4 --frames-per-scene 2 --height 64 --width 80 --samples-per-pixel 4"


def submit(cluster: RayCluster, command: str) -> str:
    """`ray job submit --working-dir . -- python pipelines/COMMAND`; returns the job's log."""
    stage, *arguments = command.split()
    result = cluster.submit_cli([f"pipelines/{stage}.py", *arguments], timeout_s=600)
    result.require_success()
    return result.logs


@pytest.mark.slow
def test_prepare_train_evaluate_label_on_s3(
    ray_cluster: RayCluster, s3_env: S3Server, mlflow_server: MlflowServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    shards, run = s3_env.uri("cluster", "shards"), s3_env.uri("cluster", "run")
    scores, labels = s3_env.uri("cluster", "scores"), s3_env.uri("cluster", "labels")
    images = open_store(s3_env.uri("cluster", "images"))
    for number in range(6):
        buffer = io.BytesIO()
        Image.fromarray(analytic_frame(number).rgb).save(buffer, "JPEG")
        images.write(f"folder {number % 2}/image-{number}.jpg", buffer.getvalue())
    images.write("folder 0/broken.jpg", b"\xff\xd8\xff not a picture")

    submit(
        ray_cluster,
        f"prepare synthetic-indoor --out {shards} {RENDER} --seed 5 --frames-per-part 4",
    )
    submit(
        ray_cluster,
        f"train tiny-depth --data {shards} --out {run} --max-steps 4 --num-workers 2 "
        "--checkpoint-every 2 --panel-every 2",
    )
    submit(
        ray_cluster,
        f"evaluate synthetic-depth --model {run} --data {shards} --out {scores} "
        "--register e2eft-cluster",
    )
    submit(
        ray_cluster,
        f"label depth --model models:/e2eft-cluster@champion --images {images.uri} --out {labels}",
    )

    assert len(open_shards(shards)) == 8
    for uri in (shards, run, scores, labels):
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
    picture = images.read("folder 1/image-1.jpg")
    answer = model.predict(pd.DataFrame({"image": [picture, b"junk"]}))
    assert answer["error_code"][0] == "" and answer["error_code"][1] != ""
    assert Image.open(io.BytesIO(answer["depth"][0])).size == (80, 64)
    runs = mlflow.search_runs(
        experiment_names=["e2eft"], filter_string="tags.`e2eft.stage` = 'train'"
    )
    assert len(runs) == 1 and runs["metrics.loss"].notna().all()
