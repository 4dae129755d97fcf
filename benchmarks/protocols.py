"""What scoring an image costs under each protocol, on one core, beside a plain numpy script.

    python benchmarks/protocols.py [--images 8] [--height 480] [--width 640]

Frames are noise on a ramp, a tenth of it without truth. The plain script is what a user would write
for `least-squares-depth`: `np.linalg.lstsq` and ten metrics in float32. Everything is timed in
turns in the same run; a ratio above 1 is slower than the plain script.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from e2eft.data.sample import Sample
from e2eft.evaluate.protocols import (
    LeastSquaresDepth,
    LeastSquaresDisparity,
    PerImageMean,
    PooledPixels,
    RansacLogDepth,
    ScoringProtocol,
)


def frame(seed: int, height: int, width: int) -> Sample:
    rng = np.random.default_rng(seed)
    depth_m = np.linspace(1, 9, width, dtype=np.float32) + rng.random((height, width), np.float32)
    depth_m[:, width // 3 :] += 2
    depth_m[rng.random(depth_m.shape) < 0.1] = np.nan
    normals = rng.normal(0, 1, (height, width, 3))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    rgb = np.zeros((height, width, 3), np.uint8)
    normals_cam = normals.astype(np.float32)
    return Sample("k", "synthetic-indoor", "s", rgb, depth_m, normals_cam, np.eye(3))


def plain_script(prediction: np.ndarray, truth: np.ndarray) -> list[float]:
    """Scale and shift by lstsq, then ten metrics."""
    valid = np.isfinite(truth) & (truth > 1e-5) & (truth < 80)
    p, t = prediction[valid], truth[valid]
    design = np.stack([p, np.ones_like(p)], axis=1)
    scale, shift = np.linalg.lstsq(design, t, rcond=None)[0]
    a = np.clip(scale * p + shift, 1e-5, 80)
    log = np.log(a) - np.log(t)
    ratio = np.maximum(a / t, t / a)
    numbers = [
        np.mean(np.abs(a - t) / t), np.mean((a - t) ** 2 / t), np.sqrt(np.mean((a - t) ** 2)),
        np.sqrt(np.mean(log**2)), np.mean(np.abs(np.log10(a) - np.log10(t))),
        np.sqrt(np.mean((1 / a - 1 / t) ** 2)), 100 * np.sqrt(np.mean(log**2) - np.mean(log) ** 2),
        *(np.mean(ratio < 1.25**k) for k in (1, 2, 3)),
    ]  # fmt: skip
    return [float(number) for number in numbers]


def scored(protocol: ScoringProtocol, predict: Callable[[Sample], np.ndarray]) -> Callable:
    def run(sample: Sample) -> object:
        return protocol.errors(predict(sample), protocol.view(sample))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--width", type=int, default=640)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    size = arguments.height, arguments.width
    noise = rng.normal(1, 0.05, size).astype(np.float32)

    def depth(sample: Sample) -> np.ndarray:
        return np.nan_to_num(sample.depth_m, nan=3.0) * noise

    ways: dict[str, Callable[[Sample], object]] = {
        "plain numpy script": lambda sample: plain_script(depth(sample), sample.depth_m),
        "least-squares-depth": scored(LeastSquaresDepth(80), depth),
        "least-squares-disparity": scored(LeastSquaresDisparity(80), lambda s: 1 / depth(s)),
        "ransac-log-depth": scored(RansacLogDepth(80), depth),
        "per-image-mean": scored(PerImageMean(), lambda sample: sample.normals_cam),
        "pooled-pixels": scored(PooledPixels(), lambda sample: sample.normals_cam),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.images + 1):
        sample = frame(number, *size)
        for name, way in ways.items():
            started = time.process_time()
            way(sample)
            if number:  # the first is to warm up
                seconds[name].append(time.process_time() - started)
    base = statistics.median(seconds["plain numpy script"])
    print(f"{arguments.width} x {arguments.height}, {arguments.images} images, one thread")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"{name:26} {1e3 * middle:8.1f} CPU-ms an image  {middle / base:6.2f} x")


if __name__ == "__main__":
    main()
