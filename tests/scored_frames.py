"""Frames, and labels of them made without a model, whose scores are known in closed form."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from e2eft.artifacts import Artifact, Parent
from e2eft.config import EvaluateConfig, LabelConfig, SamplingConfig, TrackingConfig
from e2eft.data.sample import Sample
from e2eft.data.shards import KIND as SHARDS
from e2eft.data.shards import encode_part, encode_row, part_path
from e2eft.datasets import SourceConfig
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.geometry.normals import normals_from_depth
from e2eft.images.npy import encode_npy
from e2eft.labels import index as label_files
from e2eft.prepare import PrepareConfig
from e2eft.storage import open_store
from e2eft.tasks import label_codec
from tests.artifacts import write_artifact

HEIGHT, WIDTH = 24, 32
UNTRACKED = TrackingConfig(enabled=False)
SYNTHETIC = SyntheticSource(family="indoor")


def make_frame(number: int, domain: str = "plane") -> Sample:
    """A tilted plane, sky above it, an unknown patch, and something beyond 80 m."""
    generator = np.random.default_rng([number, len(domain)])
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    near_m, slope = generator.uniform(2, 6), generator.uniform(-0.05, 0.05)
    depth_m = (near_m + slope * columns + generator.uniform(0.05, 0.2) * rows).astype(np.float32)
    intrinsics_px = np.array([[30.0, 0, WIDTH / 2], [0, 30, HEIGHT / 2], [0, 0, 1]])
    normals_cam = normals_from_depth(depth_m, intrinsics_px)
    depth_m[:4], normals_cam[:4] = np.inf, np.nan
    depth_m[10:12, 5:9] = np.nan
    normals_cam[10:12, 5:9] = np.nan
    depth_m[4, :6] = 200.0
    rgb = generator.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    key = f"{domain}/{number:04d}"
    return Sample(key, domain, f"scene-{number // 3}", rgb, depth_m, normals_cam, intrinsics_px)


def at_size(frame: Sample, height: int, width: int) -> Sample:
    """The same picture of other size, by nearest pixels."""
    rows = np.arange(height) * frame.size[0] // height
    columns = np.arange(width) * frame.size[1] // width
    names = ("rgb", "depth_m", "normals_cam")
    return replace(frame, **{name: getattr(frame, name)[rows][:, columns] for name in names})


def write_shards(
    folder: Path | str,
    frames: list[Sample],
    rows_of_part: list[int],
    source: str = "",
    made_with: SourceConfig = SYNTHETIC,
) -> Artifact:
    """As `prepare` would leave them, of a dataset if it is named."""
    if source:
        frames = [replace(frame, source=source) for frame in frames]
    files: dict[str, bytes] = {}
    for part, count in enumerate(rows_of_part):
        first = sum(rows_of_part[:part])
        rows = [encode_row(frame) for frame in frames[first : first + count]]
        files[part_path(part)] = encode_part(rows)
    config = PrepareConfig(out=str(folder), source=made_with)
    details: dict[str, Any] = {"shard_schema_version": 1, "rows_of_part": rows_of_part}
    details |= {"source": source} if source else {}
    counts = {"frames": len(frames)}
    store = open_store(str(folder))
    return write_artifact(store, SHARDS, config, files=files, counts=counts, details=details)


def write_labels(
    folder: Path | str,
    task: str,
    predictions: dict[str, np.ndarray | str],
    images: Artifact | None = None,
    *,
    npy: bool = True,
    model: Parent | None = None,
    sampling: SamplingConfig | None = None,
    made: dict[str, Any] | None = None,
) -> Artifact:
    """Labels by key; a text in place of an array is the reason why that image was rejected.

    Args:
        made: further details, of how a model made them.
    """
    rows: list[dict[str, Any]] = []
    written: dict[str, bytes] = {}
    for index, (key, prediction) in enumerate(predictions.items()):
        row = label_files.blank_row({"index": index, "part": 0, "key": key, "uri": key})
        if isinstance(prediction, str):
            row |= {"status": label_files.REJECTED, "reason": prediction, "detail": "as told"}
        else:
            row |= {"status": label_files.OK, f"{task}_path": f"{task}/{index}.png"}
            if np.isfinite(prediction).all():
                written[row[f"{task}_path"]] = label_codec(task).encode(prediction, {})
            if npy:
                row["npy_path"] = f"npy/{index}.npy"
                written[row["npy_path"]] = encode_npy(prediction)
        rows.append(row)
    parents = [*([images.as_parent("images")] if images else []), *([model] if model else [])]
    return write_artifact(
        open_store(str(folder)),
        label_files.KIND,
        LabelConfig(
            model="m",
            images="i",
            out=str(folder),
            task=task,
            sampling=sampling or SamplingConfig(),
        ),
        files={label_files.part_path(0): label_files.encode_index(pa.Table.from_pylist(rows))},
        unlisted=written,
        counts={"ok": len(rows)},
        parents=tuple(parents),
        details={
            "task": task,
            "label_schema_version": 1,
            "model": {"uri": model.uri, "digest": model.digest} if model else {"digest": "m"},
            **(made or {}),
        },
    )


def affine(frame: Sample) -> np.ndarray:
    """A perfect prediction: depth in unknown scale and shift, in [0, 1]."""
    return np.where(np.isfinite(frame.depth_m), frame.depth_m / 250, 1).astype(np.float32)


def config_of(out: Path | str, task: str, data: list[Artifact], **fields: Any) -> EvaluateConfig:
    fields = {"labels": ("unused",) * len(data), "tracking": UNTRACKED, "bootstrap": 200} | fields
    return EvaluateConfig(
        out=str(out), task=task, data=tuple(shards.uri for shards in data), **fields
    )


def write_array(path: Path, array: np.ndarray) -> None:
    """As another program leaves a label: .npy, or what Pillow makes of the ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    else:
        Image.fromarray(array).save(path)
