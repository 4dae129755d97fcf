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
from tests.planted import ClusterRun
from tests.services import MlflowServer, S3Server


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
    assert "Reporting training result" not in cluster_run.logs
