"""The labelling stage with a small random model: on a Ray cluster, with real S3 and MLflow."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from e2eft import label
from e2eft.artifacts import ArtifactError, Writer, verify
from e2eft.carried import TASK, carried, raise_carried
from e2eft.config import LabelConfig, SamplingConfig, TrackingConfig
from e2eft.corpora.corpus import PLAN, encode_plan, survey
from e2eft.errors import ConflictError, StorageError
from e2eft.head import ClusterError
from e2eft.label.chunks import Work
from e2eft.label.graph import Portion, run_graph
from e2eft.labels.index import committed_parts, open_labels, part_path, verify_labels
from e2eft.model.hub import ModelError
from e2eft.model.source import find_model
from e2eft.storage import LocalStore, open_store
from tests.corpora import nasty_images, write_nasty_corpus, write_plain_corpus
from tests.labelling import label_config, without_cluster, write_model
from tests.local_ray import Access, joined, local_cluster
from tests.services import S3Server

__all__ = ["without_cluster"]


@pytest.fixture(scope="module")
def ray_access() -> Iterator[Access]:
    """A cluster in this process, with room for one actor beside the CPU tasks; a process of it that
    opens a file of the name poison.png dies."""
    hook = Path(__file__).parent.parent / "poison"
    with local_cluster(PYTHONPATH=os.pathsep.join([str(hook), *sys.path])) as access:
        yield access


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("depth"), "depth")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_nasty_image_is_labelled_right_or_rejected_with_a_reason(
    ray_access: Access,
    depth_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    expected = write_nasty_corpus(tmp_path / "images")
    config = label_config(tmp_path / "images", tmp_path / "out", depth_model, save_npy=True)
    artifact = label.run(config)
    index = open_labels(str(tmp_path / "out"))
    rows = {row["key"]: row for row in index.rows()}
    assert {key: (row["status"], row["reason"]) for key, row in rows.items()} == {
        key: (outcome.status, outcome.reason) for key, outcome in expected.items()
    }
    for key, outcome in expected.items():
        row = rows[key]
        if outcome.status == "rejected":
            assert row["detail"]
            with pytest.raises(ArtifactError, match=outcome.reason):
                index.read(row)
            continue
        depth = index.read(row)
        assert depth.shape == outcome.size == (row["height"], row["width"])
        assert outcome.size == (row["label_height"], row["label_width"])
        assert depth.dtype == np.float32 and 0 <= depth.min() < depth.max() <= 1
        assert (tmp_path / "out" / row["preview_path"]).is_file()
        png = index.read(row | {"npy_path": ""})
        np.testing.assert_allclose(png, depth, atol=0.51 / 65535)
    assert artifact.counts == {"planned": 26, "ok": 12, "ok_degraded": 5, "rejected": 9}
    assert artifact.details["excluded"] == {"hidden": 2, "not_an_image": 1}
    assert not verify(artifact) and not verify_labels(index)
    page = (tmp_path / "out" / "gallery.html").read_text()
    assert "decode_truncated" in page and "deep/er/#1 100%? ü.webp" in page
    printed = capsys.readouterr().out
    assert "26/26 images" in printed and "decode_bomb: more pixels than --max-pixels" in printed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.deep
def test_an_image_that_kills_its_process_is_rejected(
    ray_access: Access, depth_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = write_plain_corpus(tmp_path / "images", 6)
    (images / "005.png").rename(images / "poison.png")
    artifact = label.run(label_config(images, tmp_path / "out", depth_model))
    assert artifact.counts == {"planned": 6, "ok": 5, "ok_degraded": 0, "rejected": 1}
    assert artifact.details["reject_reasons"] == {"process_died": 1}
    assert "2 images are left of parts during which a process died 3 times" in caplog.text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_stops_a_worker_is_said_in_one_line(
    ray_access: Access, depth_model: Path, tmp_path: Path
) -> None:
    images = write_plain_corpus(tmp_path / "images", 2)
    (tmp_path / "out/depth/000.png.png").mkdir(parents=True)  # a folder where a file must be
    with pytest.raises(StorageError, match=r"^cannot read .*/out/depth/000.png.png: .*$"):
        label.run(label_config(images, tmp_path / "out", depth_model))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.deep
def test_an_actor_that_cannot_load_its_model_says_so_in_one_line(
    ray_access: Access, depth_model: Path, tmp_path: Path
) -> None:
    images = write_plain_corpus(tmp_path / "images", 2)
    config = label_config(images, tmp_path / "out", depth_model)
    pinned = SimpleNamespace(source=find_model(str(depth_model), tmp_path), digest="another's")
    writer = Writer(str(tmp_path / "out"), "claim", 1)
    writer.create(PLAN, encode_plan(survey(str(images), 2)))
    work = Work(str(images), writer, "depth", "depth", "model", 64, 10**6, 2, 0, False, False)
    with pytest.raises(ModelError, match=r"^model .* is missing or changed on the machine"):
        list(run_graph(config, [Portion(0, 0, 2)], pinned, (work,)))


def refuse_the_second(table: pa.Table) -> Iterator[pa.Table]:
    for number in table["item"].to_pylist():
        yield pa.table({"number": [number, 10 * number]})
        if number == 2:
            raise ConflictError("the second is somebody else's")


class Forwarder:
    def __call__(self, table: pa.Table) -> pa.Table:
        return pa.table({"number": table["number"].to_pylist()})


def broken(table: pa.Table) -> pa.Table:
    raise ValueError("a fault of the program")


def dies(row: dict[str, Any]) -> list[dict[str, Any]]:
    os._exit(70)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.deep
def test_work_that_its_process_does_not_survive_is_not_tried_for_ever(ray_access: Access) -> None:
    import ray.data

    numbers: Any = ray.data.from_items([1])
    with pytest.raises(ClusterError, match=r"^a process was killed or crashed at 3 tries"):
        list(raise_carried(numbers.flat_map(carried(dies), **TASK).iter_rows()))


class DiesAtItsStart:
    def __init__(self) -> None:
        os._exit(70)

    def __call__(self, table: pa.Table) -> pa.Table:
        return table


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.deep
def test_an_actor_that_does_not_survive_its_start_is_not_started_for_ever(
    ray_access: Access,
) -> None:
    import ray.data

    numbers: Any = ray.data.from_items([1, 2])
    pool = ray.data.ActorPoolStrategy(size=1)
    made = numbers.map_batches(carried(DiesAtItsStart), compute=pool, batch_format="pyarrow")
    with pytest.raises(ClusterError, match=r"^DiesAtItsStart: 3 processes were killed or crashed"):
        list(raise_carried(made.iter_rows()))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.deep
def test_errors_of_workers_keep_their_types_through_actors_and_blocks(
    ray_access: Access,
) -> None:
    import ray.data
    from ray.exceptions import RayError

    as_tables: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    numbers: Any = ray.data.from_items([1, 2, 3], override_num_blocks=1)
    pool = ray.data.ActorPoolStrategy(size=1)
    made = numbers.map_batches(carried(refuse_the_second), **as_tables).map_batches(
        carried(Forwarder), compute=pool, **as_tables
    )
    with pytest.raises(ConflictError, match=r"^the second is somebody else's$"):
        list(raise_carried(made.iter_rows()))
    with pytest.raises(RayError, match="a fault of the program"):
        list(raise_carried(numbers.map_batches(carried(broken), **as_tables).iter_rows()))


def start_labelling(config: LabelConfig, access: Access, log: Path) -> "subprocess.Popen[bytes]":
    script = (
        "import sys; from e2eft import label; from e2eft.config import LabelConfig\n"
        "label.run(LabelConfig.model_validate_json(sys.argv[1]))\n"
    )
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-c", script, config.model_dump_json()],
            env=joined(access),
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder: when it was written, and what is in it."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.deep
@pytest.mark.slow
def test_a_killed_job_run_again_finishes_the_rest(
    ray_access: Access,
    depth_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    images, out, parts = write_plain_corpus(tmp_path / "images", 12), tmp_path / "out", 6
    slow = {"sampling": SamplingConfig(steps=6), "images_per_part": 2, "batch_size": 2}
    config = label_config(images, out, depth_model, save_npy=True, **slow)
    store = LocalStore(out)
    with start_labelling(config, ray_access, tmp_path / "log") as process:
        deadline = time.monotonic() + 480
        while not committed_parts(store):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    done = committed_parts(store)
    assert 0 < len(done) < parts, "the job was not half-way when it was killed"
    assert not store.exists("manifest.json")
    kept = contents(out / "index")
    rows = open_rows(store, done)
    kept |= {str(out / path): contents(out)[str(out / path)] for path in label_paths(rows)}

    artifact = label.run(config)

    assert artifact.counts == {"planned": 12, "ok": 12, "ok_degraded": 0, "rejected": 0}
    after = contents(out)
    assert {path: after[path] for path in kept} == kept
    index = open_labels(str(out))
    assert [row["index"] for row in index.rows()] == list(range(12))
    assert not verify(artifact) and not verify_labels(index)

    # An undisturbed job, with other batches, makes the same labels.
    request.getfixturevalue("without_cluster")
    other = config.model_copy(update={"out": str(tmp_path / "other"), "batch_size": 5})
    label.run(other)
    again = open_labels(str(tmp_path / "other")).by_key()
    for key, row in index.by_key().items():
        np.testing.assert_allclose(
            index.read(row), open_labels(str(tmp_path / "other")).read(again[key]), atol=1e-4
        )


def open_rows(store: LocalStore, parts: set[int]) -> list[dict[str, Any]]:
    import io

    import pyarrow.parquet as pq

    tables = [pq.read_table(io.BytesIO(store.read(part_path(part)))) for part in parts]
    return [row for table in tables for row in table.to_pylist()]


def label_paths(rows: list[dict[str, Any]]) -> list[str]:
    return [row[name] for row in rows for name in ("depth_path", "npy_path", "preview_path")]


def test_from_s3_to_s3(s3_env: S3Server, depth_model: Path, without_cluster: None) -> None:
    images, out = s3_env.uri("label", "corpus"), s3_env.uri("label", "labels")
    store = open_store(images)
    wanted = ["plain.jpg", "PLAIN.JPG", "deep/er/#1 100%? ü.webp", "truncated.jpg", "empty.jpg"]
    for key in wanted:
        store.write(key, nasty_images()[key][0])
    store.write("folder/", b"")
    artifact = label.run(label_config(images, out, depth_model))
    assert artifact.counts == {"planned": 5, "ok": 3, "ok_degraded": 0, "rejected": 2}
    index = open_labels(out)
    assert {row["key"]: row["reason"] for row in index.rows()} == {
        key: nasty_images()[key][1].reason for key in wanted
    }
    assert not verify_labels(index)
    assert index.by_key()["PLAIN.JPG"]["uri"] == f"{images}/PLAIN.JPG"


@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_one_mlflow_run_holds_counts_and_gallery(
    depth_model: Path, tmp_path: Path, without_cluster: None
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    write_nasty_corpus(tmp_path / "images")
    config = label_config(
        tmp_path / "images", tmp_path / "out", depth_model,
        tracking=TrackingConfig(tracking_uri=uri, experiment="labels"),
    )  # fmt: skip
    client = MlflowClient(tracking_uri=uri)
    artifact = label.run(config)
    experiment = client.get_experiment_by_name("labels").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert (run.data.metrics["ok"], run.data.metrics["rejected"]) == (12, 9)
    assert run.data.metrics["images_per_s"] > 0
    assert run.data.tags["e2eft.labels.digest"] == artifact.digest
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["gallery.html"]
