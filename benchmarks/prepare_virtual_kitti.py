"""Virtual KITTI 2 frames of full size to shards in one process: frames a second, where the time
goes, and how good the normals are.

    python benchmarks/prepare_virtual_kitti.py [--frames N]

Frames in the release's layout are made first, streets in closed form, so that the normals fitted to
the stored depth can be compared with the true ones, beside those of central differences.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from e2eft.data.sample import Sample, check_sample
from e2eft.data.shards import encode_depth, encode_normals, encode_part, encode_rgb, encode_row
from e2eft.datasets import open_source
from e2eft.datasets.virtual_kitti import VirtualKittiSource
from e2eft.geometry.normals import normals_from_depth, surface_normals
from tests.virtual_kitti_files import StreetTruth, VirtualKittiRelease, make_street

SCENE, VARIATION = "Scene06", "clone"
QUANTUM_M = 0.01


def write_release(root: Path, truths: list[StreetTruth]) -> VirtualKittiSource:
    release = VirtualKittiRelease()
    for number, truth in enumerate(truths):
        release.add(SCENE, VARIATION, number, truth)
    return VirtualKittiSource(
        root=str(release.write(root, "archives")),
        scenes=(SCENE,),
        variations=(VARIATION,),
        frames_per_sequence=len(truths),
        benchmark_crop=False,
    )


def angles_deg(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Of the pixels where both are known."""
    known = np.isfinite(found).all(-1) & np.isfinite(wanted).all(-1)
    cosine = (found[known].astype(np.float64) * wanted[known]).sum(-1)
    return np.degrees(np.arccos(cosine.clip(-1, 1)))


def spent_on(samples: list[Sample]) -> dict[str, float]:
    """Milliseconds of a frame in the parts that can be told apart."""
    work: dict[str, Callable[[Sample], object]] = {
        "surface normals": lambda s: surface_normals(s.depth_m, s.intrinsics_px, QUANTUM_M),
        "check": check_sample,
        "encode colour": lambda s: encode_rgb(s.rgb),
        "encode depth": lambda s: encode_depth(s.depth_m),
        "encode normals": lambda s: encode_normals(s.normals_cam),
    }
    spent: dict[str, float] = {}
    for name, function in work.items():
        started = time.perf_counter()
        for sample in samples:
            function(sample)
        spent[name] = 1000 * (time.perf_counter() - started) / len(samples)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=8)
    arguments = parser.parse_args()
    truths = [make_street(number) for number in range(arguments.frames)]
    with tempfile.TemporaryDirectory() as folder:
        source = open_source(write_release(Path(folder), truths))
        started = time.perf_counter()
        samples = [s for s in source.decode(range(len(source))) if isinstance(s, Sample)]
        content = encode_part([encode_row(check_sample(sample)) for sample in samples])
        seconds = time.perf_counter() - started
    print(f"{len(samples) / seconds:.2f} frames/s  {len(content) / len(samples) / 1e6:.2f} MB each")
    total = 1000 * seconds / len(samples)
    for name, milliseconds in spent_on(samples).items():
        print(f"  {name:16} {milliseconds:7.1f} ms  {milliseconds / total:.0%}")
    methods: dict[str, Callable[[Sample], np.ndarray]] = {
        "surface normals": lambda s: s.normals_cam,
        "central differences": lambda s: normals_from_depth(s.depth_m, s.intrinsics_px),
    }
    left = samples[: len(truths)]  # the second half is the other camera's
    for name, normals in methods.items():
        pairs = zip(left, truths, strict=True)
        error = np.concatenate([angles_deg(normals(s), t.normals_cam) for s, t in pairs])
        print(
            f"{name:20} mean {error.mean():.2f}°  median {np.median(error):.2f}°  "
            f"above 11.25° {(error > 11.25).mean():.1%}"
        )


if __name__ == "__main__":
    main()
