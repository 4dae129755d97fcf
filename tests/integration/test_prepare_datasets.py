"""Real datasets prepared on a Ray cluster: from folders, from archives, and from archives on S3 by
a driver that is killed half-way."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from e2eft import prepare
from e2eft.artifacts import Artifact, FileEntry, verify
from e2eft.config import TrackingConfig
from e2eft.data.sample import Sample
from e2eft.data.shards import decode_row, open_shards
from e2eft.datasets import SourceConfig
from e2eft.datasets.hypersim import HypersimSource
from e2eft.datasets.nyuv2 import Nyuv2Source
from e2eft.datasets.virtual_kitti import VirtualKittiSource
from e2eft.prepare import PrepareConfig
from e2eft.storage import open_store
from tests.benchmark_files import measured_frame, nyuv2
from tests.hypersim_files import STANDARD, TILTED, HypersimRelease, make_frame
from tests.local_ray import Access, joined, local_cluster
from tests.services import S3Server
from tests.virtual_kitti_files import VirtualKittiRelease, make_street

SCENES = {"ai_001_001": STANDARD, "ai_037_002": TILTED, "ai_041_003": STANDARD}
PER_SCENE = 8
LOST = "ai_037_002/images/scene_cam_00_geometry_hdf5/frame.0003.normal_cam.hdf5"


@pytest.fixture(scope="module")
def ray_access(s3_server: S3Server) -> Iterator[Access]:
    """A cluster in this process; the tasks of every driver that joins know the store."""
    with local_cluster(cpus=2, **s3_server.env()) as access:
        yield access


def config_of(out: str, source: SourceConfig) -> PrepareConfig:
    tracking = TrackingConfig(enabled=False)
    return PrepareConfig(out=out, source=source, frames_per_part=1, tracking=tracking)


def kill_half_way(config: PrepareConfig, access: Access, log: Path) -> None:
    script = (
        "import sys; from e2eft import prepare; from e2eft.prepare import PrepareConfig\n"
        "prepare.run(PrepareConfig.model_validate_json(sys.argv[1]))\n"
    )
    store = open_store(config.out)
    with subprocess.Popen(
        [sys.executable, "-c", script, config.model_dump_json()],
        env=joined(access),
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
    ) as process:
        deadline = time.monotonic() + 240
        while not list(store.list("parts/")):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    before: list[tuple[str, int]] = []
    while (now := list(store.list())) != before:  # the killed driver's tasks end a little later
        before = now
        time.sleep(2)


def shards_three_ways(
    sources: dict[str, SourceConfig], access: Access, bucket: str, folder: Path
) -> Artifact:
    """Prepares what is in folders, in archives, and, killed half-way, in archives on S3.

    Checks that the shards are the same; returns the last artifact.
    """
    first = prepare.run(config_of(str(folder / "folders"), sources["folders"]))
    second = prepare.run(config_of(str(folder / "archives"), sources["archives"]))
    config = config_of(f"s3://{bucket}/shards/{first.details['source']}", sources["s3"])
    kill_half_way(config, access, folder / "log")
    store = open_store(config.out)
    kept, planned = len(list(store.list("parts/"))), sum(first.counts.values())
    assert 0 < kept < planned, "the job was not half-way when it was killed"
    assert not store.exists("manifest.json")
    resumed = prepare.run(config)
    for artifact in (first, second, resumed):
        assert verify(artifact) == [] and artifact.counts == first.counts
        assert shards_of(artifact) == shards_of(first)
    return resumed


def shards_of(artifact: Artifact) -> list[FileEntry]:
    return [file for file in artifact.files if file.path.startswith("data/")]


def first_sample(artifact: Artifact) -> Sample:
    index = open_shards(artifact.uri)
    part, group, row = index.locate(0)
    return decode_row(index.read_group(part, group)[row])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.deep
@pytest.mark.slow
def test_hypersim_from_folders_zips_and_s3(
    ray_access: Access, s3_env: S3Server, tmp_path: Path
) -> None:
    release = HypersimRelease(cameras=SCENES)
    for scene, camera in SCENES.items():
        for number in range(PER_SCENE):
            release.add(scene, "cam_00", number, make_frame(number, camera))
    del release.files[LOST]
    split, cameras = map(str, release.write_tables(tmp_path))
    raw = open_store(f"s3://{s3_env.bucket}/hypersim")
    for name, content in release.zips().items():
        raw.write(name, content)
    roots = {
        "folders": str(release.write_folders(tmp_path / "f")),
        "archives": str(release.write_zips(tmp_path / "z")),
        "s3": raw.uri,
    }
    sources: dict[str, SourceConfig] = {
        place: HypersimSource(root=root, split_csv=split, camera_csv=cameras)
        for place, root in roots.items()
    }
    made = shards_three_ways(sources, ray_access, s3_env.bucket, tmp_path)
    assert made.counts == {"frames": len(SCENES) * PER_SCENE - 1, "rejected": 1}
    assert made.details["reject_reasons"] == {"missing_file": 1}
    truth = make_frame(0, STANDARD)
    np.testing.assert_allclose(first_sample(made).depth_m, truth.depth_m, rtol=6e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.slow
def test_virtual_kitti_from_folders_tars_and_s3(
    ray_access: Access, s3_env: S3Server, tmp_path: Path
) -> None:
    release, per_sequence = VirtualKittiRelease(), 8
    for number in range(per_sequence):
        release.add("Scene06", "rain", number, make_street(number, 96, 320))
    roots = {
        "folders": str(release.write(tmp_path / "f", "archives")),
        "archives": str(release.write(tmp_path / "t", "tars")),
        "s3": f"s3://{s3_env.bucket}/vkitti",
    }
    raw = open_store(roots["s3"])
    for path in (tmp_path / "t").iterdir():
        raw.write(path.name, path.read_bytes())
    sources: dict[str, SourceConfig] = {
        place: VirtualKittiSource(
            root=root,
            scenes=("Scene06",),
            variations=("rain",),
            frames_per_sequence=per_sequence,
            benchmark_crop=False,
        )
        for place, root in roots.items()
    }
    made = shards_three_ways(sources, ray_access, s3_env.bucket, tmp_path)
    assert made.counts == {"frames": 2 * per_sequence, "rejected": 0}
    truth, sample = make_street(0, 96, 320), first_sample(made)
    known = np.isfinite(truth.depth_m)
    np.testing.assert_allclose(sample.depth_m[known], truth.depth_m[known], atol=0.02)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.deep
@pytest.mark.slow
def test_an_evaluation_set_from_a_folder_a_tar_and_s3(
    ray_access: Access, s3_env: S3Server, tmp_path: Path
) -> None:
    frames = {f"test/kitchen_0004/rgb_{n:04d}": measured_frame(n, 240, 320) for n in range(32)}
    made = nyuv2(frames)
    del made.files[made.lines[7].split()[1]]
    raw = open_store(f"s3://{s3_env.bucket}/sets")
    raw.write("nyu.tar", made.tar())
    raw.write("list.txt", "\n".join(made.lines).encode())
    roots = {
        "folders": made.write_folder(tmp_path / "f"),
        "archives": made.write_tar(tmp_path / "nyu.tar"),
        "s3": f"{raw.uri}/nyu.tar",
    }
    sources: dict[str, SourceConfig] = {
        place: Nyuv2Source(root=root, frame_list=f"{raw.uri}/list.txt")
        for place, root in roots.items()
    }
    artifact = shards_three_ways(sources, ray_access, s3_env.bucket, tmp_path)
    assert artifact.counts == {"frames": 31, "rejected": 1}
    assert (artifact.details["planned"], artifact.details["truth"]) == (32, ["depth"])
    sample, truth = first_sample(artifact), measured_frame(0, 240, 320)
    assert sample.key == "test/kitchen_0004/rgb_0000"
    np.testing.assert_allclose(sample.depth_m, truth.depth_m, atol=0.001)
