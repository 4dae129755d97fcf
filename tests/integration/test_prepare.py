"""The preparation stage with the real renderer on a Ray cluster: killed, and run again."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2eft import prepare
from e2eft.artifacts import ArtifactError, verify
from e2eft.config import TrackingConfig
from e2eft.data.sample import check_sample
from e2eft.data.shards import decode_row, open_shards
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.prepare import PrepareConfig
from e2eft.storage import LocalStore
from tests.frames import write_analytic_shards
from tests.local_ray import Access, joined, local_cluster

PARTS = 8
SOURCE = SyntheticSource(
    family="indoor", num_scenes=PARTS, frames_per_scene=1, height=64, width=64, samples_per_pixel=4
)


@pytest.fixture(scope="module")
def ray_access() -> Iterator[Access]:
    """A cluster in this process, that a driver in another process can join."""
    with local_cluster() as access:
        yield access


def config_of(out: Path, **fields: Any) -> PrepareConfig:
    known: dict[str, Any] = {
        "source": SOURCE, "frames_per_part": 1, "tracking": TrackingConfig(enabled=False),
        "cpus_per_task": 2.0,
    }  # fmt: skip
    return PrepareConfig(out=str(out), **known | fields)


def start(config: PrepareConfig, access: Access, log: Path) -> "subprocess.Popen[bytes]":
    script = (
        "import sys; from e2eft import prepare; from e2eft.prepare import PrepareConfig\n"
        "prepare.run(PrepareConfig.model_validate_json(sys.argv[1]))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, config.model_dump_json()],
        env=joined(access),
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    )


def written(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every committed part and its record: when it was written, and what is in it."""
    records = sorted(folder.glob("parts/*/*.json"))
    parts = [folder / "data" / f"{record.name.split('.')[0]}.parquet" for record in records]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in records + parts}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.slow
def test_a_killed_job_run_again_equals_an_undisturbed_one(
    ray_access: Access, tmp_path: Path
) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    with start(config_of(out), ray_access, log) as process:
        deadline = time.monotonic() + 240
        while not list(out.glob("parts/*/*.json")):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    wait_for_quiet(out)
    kept = written(out)
    assert 0 < len(kept) < 2 * PARTS, "the job was not half-way when it was killed"
    assert not LocalStore(out).exists("manifest.json")
    with pytest.raises(ArtifactError, match="run it again"):
        open_shards(str(out))
    with pytest.raises(ArtifactError, match="--seed 0 -> 3"):
        prepare.run(config_of(out, source=SOURCE.model_copy(update={"seed": 3})))

    artifact = prepare.run(config_of(out))
    after = written(out)
    assert {name: after[name] for name in kept} == kept, "a committed part was made again"
    assert len(after) == 2 * PARTS and verify(artifact) == []

    # Undisturbed, with as many tasks at once as the machine has cores instead of one.
    undisturbed = prepare.run(config_of(tmp_path / "undisturbed", cpus_per_task=0.5))
    assert undisturbed.files == artifact.files
    assert undisturbed.digest == artifact.digest
    assert artifact.counts == {"frames": PARTS, "rejected": 0}

    shards = open_shards(str(out))
    for number in range(PARTS):
        part, group, row = shards.locate(number)
        sample = check_sample(decode_row(shards.read_group(part, group)[row]))
        assert sample.key == f"synthetic-indoor/seed-0000/scene-{number:05d}/frame-000"
        assert sample.size == (64, 64)


def wait_for_quiet(folder: Path, seconds: float = 3.0) -> None:
    """Returns when the tasks of the killed driver have ended too."""
    before: set[str] = set()
    while (now := {str(path) for path in folder.rglob("*")}) != before:
        before = now
        time.sleep(seconds)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
def test_what_no_node_can_hold_is_refused_before_anything_is_deleted(
    ray_access: Access, tmp_path: Path
) -> None:
    out = LocalStore(tmp_path / "out")
    write_analytic_shards(out.uri, 2, height=16, width=24)
    before = {path: out.read(path) for path, _ in out.list()}
    with pytest.raises(ValueError, match=r"^--cpus-per-task 64: the cluster's largest node has"):
        prepare.run(config_of(tmp_path / "out", cpus_per_task=64.0, overwrite=True))
    assert {path: out.read(path) for path, _ in out.list()} == before
    with pytest.raises(ValueError, match=r"^--cpus-per-task 64"):
        prepare.run(config_of(tmp_path / "fresh", cpus_per_task=64.0))
    assert not (tmp_path / "fresh").exists()
