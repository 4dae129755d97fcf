"""The evaluation as a Ray Data job on a local cluster."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft import evaluate
from e2eft.cli import execute
from e2eft.evaluate import job
from e2eft.evaluate.chunks import Job
from e2eft.evaluate.scores import SUMMARY, TABLE
from tests.scored_frames import config_of, make_frame, write_labels, write_shards
from tests.services import S3Server


@pytest.fixture
def local_ray() -> Iterator[None]:
    import ray

    yield
    ray.shutdown()


@pytest.mark.usefixtures("local_ray")
def test_ray_gives_the_table_that_one_process_gives_byte_by_byte(
    s3_env: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = s3_env.uri("evaluate")
    frames = [make_frame(n, "plane") for n in range(40)] + [make_frame(n, "wall") for n in range(9)]
    shards = write_shards(f"{base}/shards", frames, [35, 14])
    predictions: dict[str, np.ndarray | str] = {
        frame.key: np.nan_to_num(frame.normals_cam, nan=0.6) for frame in frames[:-1]
    }
    labels = write_labels(f"{base}/labels", "normals", predictions, shards)
    pooled = {"protocol": "pooled-pixels"}
    in_sevens = config_of(
        f"{base}/by-ray", "normals", [shards], frames_per_task=7, scoring_tasks=2, **pooled
    )
    by_ray = evaluate.run(in_sevens, [labels.uri])
    assert by_ray.counts == {"images": 49, "scored": 48, "missing": 1}

    def alone(function: Callable[..., Any], chunks: list[Any], task: Job, tasks: int | None) -> Any:
        return (row for chunk in chunks for row in function(chunk, task))

    monkeypatch.setattr(job, "_rows_as_they_come", alone)
    one_by_one = config_of(f"{base}/alone", "normals", [shards], frames_per_task=1, **pooled)
    again = evaluate.run(one_by_one, [labels.uri])
    for path in (TABLE, SUMMARY):
        assert by_ray.store.read(path) == again.store.read(path)


@pytest.mark.deep
@pytest.mark.usefixtures("local_ray")
def test_a_models_score_depends_on_neither_batches_nor_replicas(tmp_path: Path) -> None:
    """The scores are sums of the same numbers; the network rounds differently by batch."""
    shards = write_shards(tmp_path / "shards", [make_frame(n) for n in range(9)], [9])
    tables = []
    for name, batch, workers in (("alone", 1, 1), ("together", 7, 2)):
        config = config_of(
            tmp_path / name, "depth", [shards], model="tiny-marigold-depth", labels=(),
            batch_size=batch, actors=workers, frames_per_task=batch, scoring_tasks=workers,
        )  # fmt: skip
        scores = execute(config)
        assert scores.counts == {"images": 9, "scored": 9}
        tables.append(evaluate.read_table(scores)[1].to_pandas())
    for metric in ("abs_rel", "rmse", "silog", "delta1"):
        assert np.allclose(tables[0][metric], tables[1][metric], rtol=1e-4), metric
    assert tables[0]["abs_rel"].std() > 0
