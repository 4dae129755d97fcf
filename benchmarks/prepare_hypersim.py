"""Hypersim frames of full size to shards, beside a straightforward script; both in one process.

    python benchmarks/prepare_hypersim.py [--frames N] [--rounds N]

Frames in the release's layout are made first: depth of rooms, textured colour, half floats, HDF5
with gzip 9. The other script does what is customary: h5py, the same arithmetic in plain numpy,
PNG by Pillow for colour, depth (uint16, mm) and normals (8 bits). It keeps less of depth and
normals than the shards do. Both read from and write to a local disk; the frames a second are of
one core. Best of some rounds, in turns. Below it: where our time goes.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from e2eft.data.sample import Sample, check_sample
from e2eft.data.shards import encode_depth, encode_normals, encode_part, encode_rgb, encode_row
from e2eft.datasets import open_source
from e2eft.datasets.hypersim import HypersimSource
from e2eft.datasets.reading.hypersim import HypersimFrames, facing_normals, tone_map
from e2eft.geometry.camera import planar_depth

HEIGHT, WIDTH = 768, 1024
SCENE, CAMERA = "ai_001_001", "cam_00"
CONTENTS = ("color", "depth_meters", "normal_cam", "render_entity_id")


def make_frame(seed: int) -> dict[str, np.ndarray]:
    """A room of planes with boxes in it: arrays as the release has them."""
    rng = np.random.default_rng(seed)
    x = (np.arange(WIDTH) + 0.5 - WIDTH / 2) / 886.81
    y = (np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / 886.81
    rays = np.stack([*np.broadcast_arrays(x[None], y[:, None]), np.ones((HEIGHT, WIDTH))], -1)
    planes = [([0, -1, 0], -1.4), ([0, 1, 0], -1.3), ([1, 0, 0], -2.5), ([-1, 0, 0], -2.2)]
    planes.append(([0.1, 0, -1], -6.0))
    depth, normals = np.full((HEIGHT, WIDTH), np.inf), np.zeros((HEIGHT, WIDTH, 3))
    entity = np.full((HEIGHT, WIDTH), -1, np.int16)
    for number, (normal, distance) in enumerate(planes):
        facing = rays @ np.array(normal, float)
        hit = np.where(facing < -1e-3, distance / np.minimum(facing, -1e-3), np.inf)
        nearer = hit < depth
        depth, entity = np.where(nearer, hit, depth), np.where(nearer, number + 1, entity)
        normals[nearer] = np.array(normal) / np.linalg.norm(normal)
    for number in range(8):
        top, left = rng.integers(0, HEIGHT - 200), rng.integers(0, WIDTH - 200)
        box = np.s_[top : top + rng.integers(60, 200), left : left + rng.integers(60, 200)]
        near = rng.uniform(1.0, 4.0)
        closer = near < depth[box]
        depth[box] = np.where(closer, near, depth[box])
        normals[box] = np.where(closer[..., None], [0, 0, -1], normals[box])
        entity[box] = np.where(closer, 10 + number, entity[box])
    waves = np.sin(depth[..., None] * rng.uniform(4, 30, 3) + x[None, :, None] * 40)
    light = 1 + 0.3 * waves + rng.normal(0, 0.08, (HEIGHT, WIDTH, 3))
    radiance = np.clip(light * np.abs(normals[..., 2:] * 0.6 - 0.4), 0.01, None)
    distance = depth * np.linalg.norm(rays, axis=-1)
    return {
        "color": radiance.astype(np.float16),
        "depth_meters": distance.astype(np.float16),
        "normal_cam": (normals * [1, -1, -1]).astype(np.float16),
        "render_entity_id": entity.astype(np.int16),
    }


def path_of(number: int, content: str) -> str:
    kind = "final" if content == "color" else "geometry"
    return f"{SCENE}/images/scene_{CAMERA}_{kind}_hdf5/frame.{number:04d}.{content}.hdf5"


def write_release(root: Path, frames: int) -> HypersimFrames:
    rows = ["scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,"
            "split_partition_name"]  # fmt: skip
    for number in range(frames):
        rows.append(f"{SCENE},{CAMERA},{number},True,,train")
        for content, array in make_frame(number).items():
            path = root / path_of(number, content)
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w") as file:
                chunks = (96, 128, *array.shape[2:])
                file.create_dataset(
                    "dataset", data=array, chunks=chunks, compression="gzip", compression_opts=9
                )
    (root / "split.csv").write_text("\n".join(rows) + "\n")
    config = HypersimSource(
        root=str(root), split_csv=str(root / "split.csv"), intrinsics="marigold"
    )
    source = open_source(config)
    assert isinstance(source, HypersimFrames)
    return source


def ours(source: HypersimFrames, out: Path) -> None:
    rows = []
    for sample in source.decode(range(len(source))):
        assert isinstance(sample, Sample), sample
        rows.append(encode_row(check_sample(sample)))
    (out / "part.parquet").write_bytes(encode_part(rows))


def straightforward(source: HypersimFrames, out: Path) -> None:
    """What a user would write: one frame after the other, a PNG for everything."""
    root = Path(source.config.root)
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5 - WIDTH / 2, np.arange(HEIGHT) + 0.5 - HEIGHT / 2)
    length = np.sqrt(x**2 + y**2 + 886.81**2)
    for number in range(len(source)):
        arrays = {}
        for content in CONTENTS:
            with h5py.File(root / path_of(number, content)) as file:
                arrays[content] = file["dataset"][:]
        colour = arrays["color"].astype(np.float32)
        valid = arrays["render_entity_id"] != -1
        brightness = 0.3 * colour[..., 0] + 0.59 * colour[..., 1] + 0.11 * colour[..., 2]
        scale = 0.8**2.2 / np.percentile(brightness[valid], 90)
        rgb = np.clip(np.power(np.maximum(scale * colour, 0), 1 / 2.2), 0, 1)
        depth = arrays["depth_meters"].astype(np.float32) * 886.81 / length
        depth[~valid] = 0
        normals = arrays["normal_cam"].astype(np.float32)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
        pictures = {
            "rgb": (rgb * 255).astype(np.uint8),
            "depth": (depth * 1000).astype(np.uint16),
            "normals": ((normals + 1) * 127.5).astype(np.uint8),
        }
        for name, picture in pictures.items():
            Image.fromarray(picture).save(out / f"{name}-{number:04d}.png")


def stages(source: HypersimFrames) -> dict[str, float]:
    """Milliseconds of a frame in each part of our work."""
    root, seconds = Path(source.config.root), dict[str, float]()

    def timed(name: str, function: Callable[[], object]) -> object:
        started = time.perf_counter()
        result = function()
        seconds[name] = seconds.get(name, 0) + time.perf_counter() - started
        return result

    def read(number: int) -> dict[str, np.ndarray]:
        arrays = {}
        for content in CONTENTS:
            with h5py.File(io.BytesIO((root / path_of(number, content)).read_bytes())) as file:
                arrays[content] = np.asarray(file["dataset"])
        return arrays

    for number, sample in enumerate(source.decode(range(len(source)))):
        assert isinstance(sample, Sample)
        raw = timed("read HDF5", lambda n=number: read(n))
        assert isinstance(raw, dict)
        known = raw["render_entity_id"] != -1
        camera = sample.intrinsics_px
        colour, normals = (raw[name].astype(np.float32) for name in ("color", "normal_cam"))
        distance = raw["depth_meters"].astype(np.float32)
        timed("tone mapping", lambda a=colour, k=known: tone_map(a, k))
        timed("planar depth", lambda d=distance, c=camera: planar_depth(d, c))
        timed("normals", lambda n=normals, c=camera: facing_normals(n, c))
        timed("check", lambda s=sample: check_sample(s))
        timed("encode colour", lambda s=sample: encode_rgb(s.rgb))
        timed("encode depth", lambda s=sample: encode_depth(s.depth_m))
        timed("encode normals", lambda s=sample: encode_normals(s.normals_cam))
    return {name: 1000 * spent / len(source) for name, spent in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    best = {"shards": float("inf"), "straightforward": float("inf")}
    with tempfile.TemporaryDirectory() as folder:
        source = write_release(Path(folder) / "raw", arguments.frames)
        out = Path(folder) / "out"
        out.mkdir()
        for _ in range(arguments.rounds):
            for name, work in (("shards", ours), ("straightforward", straightforward)):
                started = time.perf_counter()
                work(source, out)
                best[name] = min(best[name], time.perf_counter() - started)
        sizes = {
            "shards": (out / "part.parquet").stat().st_size,
            "straightforward": sum(path.stat().st_size for path in out.glob("*.png")),
        }
        spent = stages(source)
    for name, seconds in best.items():
        rate = arguments.frames / seconds
        print(f"{name:16} {rate:6.2f} frames/s  {sizes[name] / arguments.frames / 1e6:.2f} MB each")
    print(f"ratio            {best['straightforward'] / best['shards']:6.2f}")
    total = sum(spent.values())
    for name, milliseconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {name:16} {milliseconds:7.1f} ms  {milliseconds / total:.0%}")


if __name__ == "__main__":
    main()
