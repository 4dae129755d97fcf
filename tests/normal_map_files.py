"""Writes images with normals as DSINE's and Marigold's evaluation folders have them."""

import pickle
import tempfile
from pathlib import Path

import numpy as np

from e2eft.data.sample import Sample
from tests.benchmark_files import BenchmarkFiles, encoded, npy
from tests.frames import analytic_frame

REGION = (6, 40, 3, 70)
"""min_y, max_y, min_x, max_x of OASIS's annotations; the last row and column belong to it."""


def known_frame(number: int, height: int = 60, width: int = 84) -> Sample:
    """An analytic frame whose normals have a hole."""
    frame = analytic_frame(number, height, width)
    frame.normals_cam[10:14, 20:30] = np.nan
    return frame


def left_up_viewer(normals_cam: np.ndarray) -> np.ndarray:
    """DSINE's axes: what faces the camera has z = 1, a floor y = 1, a wall to the right x = 1."""
    return -normals_cam


def right_up_viewer(normals_cam: np.ndarray) -> np.ndarray:
    """Marigold's: what faces the camera z = 1, a floor y = 1, a wall to the right x = -1."""
    return normals_cam * np.array([1, -1, -1], np.float32)


def right_down_viewer(normals_cam: np.ndarray) -> np.ndarray:
    """OASIS's: what faces the camera z = 1, a floor y = -1, a wall to the right x = -1."""
    return normals_cam * np.array([1, 1, -1], np.float32)


def png_normals(vectors: np.ndarray) -> bytes:
    """8 bits a channel, 0 unknown."""
    known = np.isfinite(vectors).all(-1, keepdims=True)
    code = np.rint((np.nan_to_num(vectors) + 1) / 2 * 255)
    return encoded(np.where(known, code, 0).astype(np.uint8))


def exr_normals(vectors: np.ndarray) -> bytes:
    """32-bit float, 0 unknown."""
    import OpenEXR

    pixels = np.ascontiguousarray(np.nan_to_num(vectors), np.float32)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.exr")
        OpenEXR.File(header, {"RGB": pixels}).write(str(path))
        return path.read_bytes()


def oasis_normals(vectors: np.ndarray, protocol: int = 2) -> bytes:
    """The annotation's dictionary, of what lies in REGION."""
    top, bottom, left, right = REGION
    region = np.nan_to_num(vectors[top : bottom + 1, left : right + 1]).astype(np.float64)
    annotation = dict(zip(("min_y", "max_y", "min_x", "max_x"), REGION, strict=True))
    return pickle.dumps(annotation | {"normal": region}, protocol=protocol)


def dsine(frames: dict[str, Sample], ending: str) -> BenchmarkFiles:
    """Keys such as `test/000000`, without `_img`; lists name the image only."""
    made = BenchmarkFiles()
    for stem, frame in frames.items():
        matrix = frame.intrinsics_px - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
        vectors = left_up_viewer(frame.normals_cam)
        if ending == ".pkl":
            content = oasis_normals(right_down_viewer(frame.normals_cam))
        else:
            content = png_normals(vectors) if ending == ".png" else exr_normals(vectors)
        made.files |= {
            f"{stem}_img.png": encoded(frame.rgb),
            f"{stem}_normal{ending}": content,
            f"{stem}_intrins.npy": npy(matrix.astype(np.float32)),
        }
        made.lines.append(f"{stem}_img.png")
    return made


def marigold(frames: dict[str, Sample]) -> BenchmarkFiles:
    """Keys such as `000000`; lists name the image and the normals."""
    made = BenchmarkFiles()
    for stem, frame in frames.items():
        vectors = np.nan_to_num(right_up_viewer(frame.normals_cam)).astype(np.float32)
        made.files |= {f"{stem}_img.png": encoded(frame.rgb), f"{stem}_normal.npy": npy(vectors)}
        made.lines.append(f"{stem}_img.png {stem}_normal.npy")
    return made
