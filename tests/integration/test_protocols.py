"""Every protocol from one command, on benchmarks in their published layouts, local Ray."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from e2eft import cli
from e2eft.artifacts import load_artifact
from e2eft.data.sample import Sample
from e2eft.data.shards import KIND, open_shards
from tests import benchmark_files, normal_map_files
from tests.benchmark_files import measured_frame
from tests.normal_map_files import known_frame, right_up_viewer


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    import ray

    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> dict[str, str]:
    """Shards of a few frames of four benchmarks, by name; the frames are those of `frames_of`."""
    base = tmp_path_factory.mktemp("benchmarks")
    written = {
        "nyuv2": benchmark_files.nyuv2(frames_of("nyuv2")),
        "kitti-eigen": benchmark_files.kitti(
            {(key.split("/")[0], int(key.split("/")[1])): frame
             for key, frame in frames_of("kitti-eigen").items()}
        ),
        "diode": benchmark_files.diode(frames_of("diode")),
        "scannet-normals": normal_map_files.marigold(frames_of("scannet-normals")),
    }  # fmt: skip
    shards: dict[str, str] = {}
    for name, files in written.items():
        root = files.write_tar(base / f"{name}.tar")
        flags = ["--root", root, "--list", files.write_list(base / f"{name}.txt"), "--no-tracking"]
        shards[name] = str(base / "shards" / name)
        assert cli.run_stage("prepare", [name, "--out", shards[name], *flags]) == 0
    return shards


def frames_of(name: str) -> dict[str, Sample]:
    """The frames as they are written, by the key of the file."""
    match name:
        case "nyuv2":
            keys, size = ["test/office_0001/rgb_0010", "test/study_0002/rgb_0021"], (480, 640)
        case "kitti-eigen":
            keys, size = ["2011_09_26_drive_0002/69", "2011_09_26_drive_0009/7"], (375, 1242)
        case "diode":
            at = "outdoor/scene_00022/scan_00193/00022_00193_outdoor_0"
            keys, size = [f"{at}00_010", f"{at}10_020"], (768, 1024)
        case _:
            keys, size = ["scene0001/000020", "scene0002/000040"], (480, 640)
    make = known_frame if name.endswith("-normals") else measured_frame
    return {key: make(number, *size) for number, key in enumerate(keys)}


def write_tree(folder: Path, shards: str, prediction_of: Callable[[Sample], np.ndarray]) -> str:
    """Predictions named as the prepared images are, made from the truth that was prepared."""
    from e2eft.data.batches import FrameReader

    index = open_shards(shards)
    for row in range(len(index)):
        sample = FrameReader([index]).read(0, row)
        path = folder / f"{sample.key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, prediction_of(sample).astype(np.float32))
    return str(folder)


def noisy_depth(sample: Sample) -> np.ndarray:
    """Affine in depth, with holes filled and a known disturbance: +-5 % in columns."""
    depth = np.where(np.isfinite(sample.depth_m), sample.depth_m, 3.0)
    return 0.02 * depth * np.where(np.arange(depth.shape[1]) % 2, 1.05, 0.95) + 0.1


def noisy_normals(sample: Sample) -> np.ndarray:
    """Turned by 8 degrees around the view axis."""
    x, y, z = np.moveaxis(np.nan_to_num(sample.normals_cam, nan=0.57735), -1, 0)
    angle = np.deg2rad(8)
    turned = [np.cos(angle) * x - np.sin(angle) * y, np.sin(angle) * x + np.cos(angle) * y, z]
    return right_up_viewer(np.stack(turned, axis=-1))


RUNS: dict[str, tuple[tuple[str, ...], Callable[[Sample], np.ndarray], list[str]]] = {
    "least-squares-depth": (("nyuv2", "kitti-eigen", "diode"), noisy_depth, []),
    "least-squares-disparity": (
        ("nyuv2", "diode"),
        lambda sample: 1 / noisy_depth(sample),
        ["--labels-kind", "disparity"],
    ),
    "ransac-log-depth": (("nyuv2", "kitti-eigen"), noisy_depth, []),
    "pooled-pixels": (("scannet-normals",), noisy_normals, []),
    "per-image-mean": (("scannet-normals",), noisy_normals, []),
}


@pytest.mark.parametrize("protocol", RUNS)
def test_a_protocol_is_one_command_from_predictions_to_report(
    protocol: str, benchmarks: dict[str, str], tmp_path: Path
) -> None:
    names, prediction_of, flags = RUNS[protocol]
    argv = [protocol, "--out", str(tmp_path / "scores"), "--no-tracking", "--panels", "1", *flags]
    for name in names:
        tree = write_tree(tmp_path / name, benchmarks[name], prediction_of)
        argv += ["--data", benchmarks[name], "--labels", tree]
    assert cli.run_stage("evaluate", argv) == 0
    scores = load_artifact(str(tmp_path / "scores"), "scores")
    summary: dict[str, Any] = json.loads(scores.store.read("scores.json"))
    assert summary["protocol"] == protocol and summary["complete"] is False
    assert scores.counts == {"images": 2 * len(names), "scored": 2 * len(names)}
    for group in summary["domains"].values():
        if scores.details["task"] == "depth":
            assert 0.005 < group["metrics"]["abs_rel"]["mean"] < 0.2
        else:
            assert 1 < group["metrics"]["mean_deg"]["mean"] <= 8.1
    report = scores.store.read("report.md").decode()
    assert report.startswith(f"# Scores: {scores.details['task']}, {protocol}\n")
    assert all(f"{name} (2 of {summary['domains'][name]['expected']}, incompl" in report
               for name in names)  # fmt: skip
    assert "published: arXiv" in report
    for panel in ("worst-1", "median-1"):
        assert Image.open(tmp_path / "scores" / "panels" / f"{panel}.png").width > 600


def test_the_prepared_benchmark_is_the_published_one(benchmarks: dict[str, str]) -> None:
    kitti = open_shards(benchmarks["kitti-eigen"])
    assert load_artifact(kitti.artifact.uri, KIND).details["source"] == "kitti-eigen"
    assert kitti.artifact.counts["frames"] == 2
