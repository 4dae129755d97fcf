"""The evaluation as a Ray Data job on a local cluster."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft import evaluate
from e2eft.evaluate import job
from e2eft.evaluate.chunks import Job
from e2eft.evaluate.scores import SUMMARY, TABLE
from tests.scored_frames import config_of, make_frame, write_labels, write_shards


@pytest.fixture
def local_ray() -> Iterator[None]:
    import ray

    yield
    ray.shutdown()


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_ray_gives_the_table_that_one_process_gives_byte_by_byte(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    base = str(tmp_path)
    if where == "s3":
        base = request.getfixturevalue("s3_env").uri("evaluate")
    frames = [make_frame(n, "plane") for n in range(40)] + [make_frame(n, "wall") for n in range(9)]
    shards = write_shards(f"{base}/shards", frames, [35, 14])
    predictions: dict[str, np.ndarray | str] = {
        frame.key: np.nan_to_num(frame.normals_cam, nan=0.6) for frame in frames[:-1]
    }
    labels = write_labels(f"{base}/labels", "normals", predictions, shards)
    by_ray = evaluate.run(config_of(f"{base}/by-ray", "normals", [shards]), [labels.uri])
    assert by_ray.counts == {"images": 49, "scored": 48, "missing": 1}

    def alone(function: Callable[..., Any], chunks: list[Any], task: Job) -> Any:
        return (row for chunk in chunks for row in function(chunk, task))

    monkeypatch.setattr(job, "_rows_as_they_come", alone)
    again = evaluate.run(config_of(f"{base}/alone", "normals", [shards]), [labels.uri])
    for path in (TABLE, SUMMARY):
        assert by_ray.store.read(path) == again.store.read(path)
