"""Size and decoding time of the shard encodings beside what one would pick instead.

    python benchmarks/encodings.py [SHARDS_URI] [--frames N]

Without a URI it renders a few 640 x 480 frames first. Same frames, same run; ratios
are to our encoding of the same column.
"""

import argparse
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from e2eft.data import shards
from e2eft.data.batches import FrameReader
from e2eft.data.sample import Sample
from e2eft.datasets.reading.synthetic import SyntheticFrames
from e2eft.datasets.synthetic import SyntheticSource

REPEATS = 5
Codec = tuple[Callable[[Any], bytes], Callable[[bytes, tuple[int, int]], Any]]


def image_codec(kind: str, **options: Any) -> Codec:
    def encode(pixels: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind, **options)
        return buffer.getvalue()

    return encode, lambda content, size: np.asarray(Image.open(io.BytesIO(content)))


def raw_zstd(array: np.ndarray) -> bytes:
    return pa.Codec("zstd", 3).compress(array.tobytes(), asbytes=True)


def from_raw_zstd(channels: int) -> Callable[[bytes, tuple[int, int]], np.ndarray]:
    def decode(content: bytes, size: tuple[int, int]) -> np.ndarray:
        length = size[0] * size[1] * channels * 4
        raw = pa.Codec("zstd").decompress(content, decompressed_size=length, asbytes=True)
        return np.frombuffer(raw, np.float32)

    return decode


CODECS: dict[str, dict[str, Codec]] = {
    "rgb": {
        "WebP lossless (ours)": (
            shards.encode_rgb,
            lambda content, size: shards.decode_rgb(content),
        ),
        "PNG": image_codec("PNG"),
    },
    "depth_m": {
        "log code (ours)": (
            shards.encode_depth,
            lambda content, size: shards.decode_depth(content, *size),
        ),
        "float32 + zstd": (raw_zstd, from_raw_zstd(1)),
        "npy float32": (
            lambda array: array.tobytes(),
            lambda c, size: np.frombuffer(c, np.float32),
        ),
    },
    "normals_cam": {
        "octahedral (ours)": (
            shards.encode_normals,
            lambda content, size: shards.decode_normals(content, *size),
        ),
        "float32 + zstd": (raw_zstd, from_raw_zstd(3)),
    },
}


def frames(uri: str | None, count: int) -> Iterator[Sample]:
    if uri is not None:
        reader = FrameReader([shards.open_shards(uri)])
        yield from (reader.read(0, row) for row in range(count))
        return
    for family in ("indoor", "street"):
        source = SyntheticSource(family=family, num_scenes=-(-count // 2), frames_per_scene=1)
        yield from SyntheticFrames(source).decode(range(-(-count // 2)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("uri", nargs="?")
    parser.add_argument("--frames", type=int, default=4)
    arguments = parser.parse_args()
    samples = list(frames(arguments.uri, arguments.frames))
    height, width = samples[0].size
    print(f"{len(samples)} frames of {width} x {height}, best of {REPEATS}")
    for column, codecs in CODECS.items():
        ours: tuple[float, float] | None = None
        for name, (encode, decode) in codecs.items():
            contents = [encode(getattr(sample, column)) for sample in samples]
            size = float(np.mean([len(content) for content in contents]))
            seconds = min(time_decoding(decode, contents, samples) for _ in range(REPEATS))
            ours = ours or (size, seconds)
            print(
                f"{column:12} {name:22} {size / 1024:8.1f} KiB ({size / ours[0]:5.2f} x)  "
                f"decode {seconds * 1000:6.2f} ms ({seconds / ours[1]:5.2f} x)"
            )


def time_decoding(
    decode: Callable[..., Any], contents: list[bytes], samples: list[Sample]
) -> float:
    started = time.perf_counter()
    for content, sample in zip(contents, samples, strict=True):
        decode(content, sample.size)
    return (time.perf_counter() - started) / len(samples)


if __name__ == "__main__":
    main()
