"""Hypersim (Roberts et al., ICCV 2021, arXiv 2011.02523) as it is published: HDF5 files, raw.

Facts that this module relies on, from github.com/apple/ml-hypersim: `depth_meters` is the distance
to the camera's centre; `normal_cam` is in the axes right, up, towards the viewer, but may be zero,
not of unit length, or facing away, where artists left a surface inside out; pixels of
`render_entity_id` -1 show nothing; half floats throughout. The camera is not the same in all
scenes: `metadata_camera_parameters.csv` has for each the matrix from image coordinates (u, v) in
[-1, 1], u to the right and v up, to a ray in the camera's axes right, up, backward; where the lens
is tilted, the last row is not (0, 0, -1), and no focal length describes it.
"""

import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np

from e2eft.artifacts import sha256
from e2eft.data.sample import RejectedFrame, Sample, SampleError, storable_depth
from e2eft.data.transforms import resize_sample
from e2eft.datasets.base import Dataset
from e2eft.datasets.hypersim import HypersimSource
from e2eft.datasets.reading.archives import (
    CorruptArchiveError,
    Folder,
    RawFiles,
    ZipArchive,
    digest_of,
    names_in,
    read_uri,
    spread,
)
from e2eft.datasets.reading.decoding import decode_each
from e2eft.datasets.reading.tables import read_list, read_table
from e2eft.geometry.camera import Intrinsics, pixel_rays, planar_depth
from e2eft.geometry.normals import convert_axes
from e2eft.images.decoder import DATASET_PIXELS
from e2eft.storage import open_store

MARIGOLD_FOCAL_PX = 886.81
NO_ENTITY = -1
GAMMA, BRIGHTNESS_PERCENTILE, BRIGHTNESS_LEVEL = 2.2, 90, 0.8
BRIGHTNESS = np.array([0.3, 0.59, 0.11], np.float32)
"""CCIR 601."""
_SPLIT_COLUMNS = (
    "scene_name", "camera_name", "frame_id", "included_in_public_release", "split_partition_name",
)  # fmt: skip
_MATRIX_COLUMNS = [f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3)]
_KEPT = re.compile(r"(ai_\d{3}_\d{3})/\S*?(cam_\d{2})\D+(\d{4})(?!\d)")


@dataclass(frozen=True)
class FrameName:
    """scene `ai_VVV_NNN`, camera `cam_XX`, number within the camera's trajectory."""

    scene: str
    camera: str
    number: int

    @property
    def key(self) -> str:
        return f"hypersim/{self.scene}/{self.camera}/frame-{self.number:04d}"

    def path(self, kind: str, content: str) -> str:
        """Relative to the scene, e.g. for kind `geometry` and content `depth_meters`."""
        return f"images/scene_{self.camera}_{kind}_hdf5/frame.{self.number:04d}.{content}.hdf5"


class HypersimFrames:
    """The frames of one published split, scene by scene, as far as the configuration keeps them."""

    def __init__(self, config: HypersimSource) -> None:
        self.config = config
        self._store = open_store(config.root)
        self._scene, self._files = "", None

    @property
    def dataset(self) -> Dataset:
        return self.config.described

    def __len__(self) -> int:
        return len(self.frames)

    def provenance(self) -> dict[str, Any]:
        config = self.config
        tables = {"split": config.split_csv, "camera": config.camera_csv, "keep": config.keep_list}
        digests = {f"{name}_sha256": sha256(read_uri(uri)) for name, uri in tables.items() if uri}
        return {"split": config.split} | digests

    @cached_property
    def frames(self) -> list[FrameName]:
        """What the split's table lists as public, in its order."""
        config = self.config
        public = _public_frames(config.split_csv)
        found = [
            name
            for split, name in public
            if split == config.split and (not config.scenes or name.scene in config.scenes)
        ]
        splits = Counter(split for split, _ in public)
        if config.split not in splits:
            there = ", ".join(f"{name} ({count})" for name, count in splits.items()) or "none"
            raise ValueError(
                f"--split {config.split}: --split-csv {config.split_csv} has no public frame of "
                f"it; its splits are {there}"
            )
        if absent := sorted(set(config.scenes) - {name.scene for name in found}):
            raise ValueError(f"--scene {absent[0]} has no frame in the split {config.split!r}")
        if config.keep_list is not None:
            found = self._kept(found, config.keep_list)
        return found

    def _kept(self, frames: list[FrameName], uri: str) -> list[FrameName]:
        kept: set[FrameName] = set()
        for line in read_list("--keep-list", uri)[0]:
            found = [list(map(_kept_name, _KEPT.finditer(word))) for word in line.words]
            names = {name for word in found for name in word}
            if not all(found) or len(names) > 1:
                what = "more than one frame" if all(found) else "no frame"
                raise ValueError(
                    f"{line.where}: {line.text!r} names {what}; expected one, for example "
                    "ai_001_001/rgb_cam_00_fr0000.png"
                )
            kept |= names
        frames = [name for name in frames if name in kept]
        if not frames:
            raise ValueError(
                f"--keep-list {uri} has no frame of the split {self.config.split!r}; is it the "
                "list of another split?"
            )
        return frames

    def check_present(self, *, thorough: bool = False) -> None:
        _ = self._cameras  # the table of cameras is read too
        here = names_in(self._store)
        there = {name.removesuffix(".zip") for name in here}
        scenes = list(dict.fromkeys(name.scene for name in self.frames))
        missing = [scene for scene in scenes if scene not in there]
        if len(missing) == len(scenes):
            found = ", ".join(here[:5]) or "nothing"
            raise ValueError(
                f"--root {self.config.root} has none of the {len(scenes)} scenes: expected folders "
                f"or zip files such as {scenes[0]} and {scenes[0]}.zip, found {found}"
            )
        if missing:
            raise ValueError(
                f"--root {self.config.root} lacks {len(missing)} of {len(scenes)} scenes, the "
                f"first is {missing[0]}; download them, or name those that are there with --scene"
            )

    def write_index(self) -> None:
        """A zip file has its own."""

    def telling(self) -> list[str]:
        kinds = (("final", "color"), ("geometry", "depth_meters"))
        return [
            f"{name.scene}/{name.path(*kind)}" for name in spread(self.frames) for kind in kinds
        ]

    def raw_digest(self, name: str) -> str:
        scene, _, path = name.partition("/")
        try:
            return digest_of(self._scene_files(scene), path)
        except CorruptArchiveError:
            return ""

    @cached_property
    def _cameras(self) -> dict[str, Intrinsics]:
        """Pixels of an image of unit sides from camera points, by scene."""
        if self.config.intrinsics == "marigold":
            return {}
        uri = self.config.camera_csv
        if uri is None:
            raise ValueError(
                "--camera-csv is missing: metadata_camera_parameters.csv of the dataset's "
                "repository; or choose --intrinsics marigold, one focal length for all scenes"
            )
        cameras: dict[str, Intrinsics] = {}
        for row in read_table("--camera-csv", uri, ("scene_name", *_MATRIX_COLUMNS)):
            scene = row.text("scene_name")
            if scene in cameras:
                raise ValueError(f"{row.where}: scene {scene} was named before; leave one camera")
            matrix = np.array([row.number(column) for column in _MATRIX_COLUMNS]).reshape(3, 3)
            try:
                cameras[scene] = unit_intrinsics(matrix)
            except (ValueError, np.linalg.LinAlgError) as error:
                raise ValueError(f"{row.where}, scene {scene}: {error}") from None
        return cameras

    def intrinsics_px(self, scene: str, height: int, width: int) -> Intrinsics:
        """The scene's camera for images of this size."""
        if self.config.intrinsics == "marigold":
            focal_px = MARIGOLD_FOCAL_PX * width / 1024
            return np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
        if scene not in self._cameras:
            raise SampleError("unknown_camera", f"{self.config.camera_csv} has no scene {scene}")
        return np.diag([width, height, 1.0]) @ self._cameras[scene]

    def decode(self, numbers: range) -> Iterator[Sample | RejectedFrame]:
        return decode_each([self.frames[number] for number in numbers], self._sample)

    def _scene_files(self, scene: str) -> RawFiles:
        if self._files is None or scene != self._scene:
            zipped = self._store.exists(f"{scene}.zip")
            self._files = (
                ZipArchive(self._store, f"{scene}.zip", scene)
                if zipped
                else Folder(self._store, scene)
            )
            self._scene = scene
        return self._files

    def _sample(self, name: FrameName) -> Sample:
        files = self._scene_files(name.scene)
        radiance = _dataset(files, name.path("final", "color"), 3)
        size = radiance.shape[:2]
        distance_m = _dataset(files, name.path("geometry", "depth_meters"), None, size)
        normals = _dataset(files, name.path("geometry", "normal_cam"), 3, size)
        entity = _dataset(files, name.path("geometry", "render_entity_id"), None, size)
        known = entity != NO_ENTITY
        intrinsics_px = self.intrinsics_px(name.scene, *size)
        depth_m = planar_depth(distance_m.astype(np.float32), intrinsics_px)
        sample = Sample(
            key=name.key,
            source=self.dataset.name,
            scene=f"hypersim/{name.scene}",
            rgb=tone_map(radiance.astype(np.float32), known),
            depth_m=storable_depth(np.where(known, depth_m, np.nan)),
            normals_cam=facing_normals(
                np.where(known[..., None], normals, np.nan).astype(np.float32), intrinsics_px
            ),
            intrinsics_px=intrinsics_px,
        )
        return resize_sample(sample, self.config.size or size)


def unit_intrinsics(cam_from_uv: np.ndarray) -> Intrinsics:
    """Camera points (OpenCV axes) to an image of width and height 1, from `M_cam_from_uv`.

    Raises:
        ValueError, LinAlgError: if it is no camera's.
    """
    uv_from_unit = np.array([[2, 0, -1], [0, -2, 1], [0, 0, 1]], np.float64)
    ray_from_unit = np.diag([1.0, -1.0, -1.0]) @ cam_from_uv @ uv_from_unit
    with np.errstate(all="ignore"):
        unit_from_ray = np.linalg.inv(ray_from_unit)
        intrinsics = unit_from_ray / unit_from_ray[2, 2]
    if not np.isfinite(intrinsics).all():
        raise ValueError("M_cam_from_uv is no camera's matrix")
    return intrinsics


def tone_map(radiance: np.ndarray, known: np.ndarray) -> np.ndarray:
    """uint8 `[h w 3]` from linear colour, as the dataset's `scene_generate_images_tonemap.py`.

    Scaled so that the 90th percentile of brightness becomes 0.8 after the gamma curve.

    Args:
        radiance: float32 `[h w 3]`.
        known: bool `[h w]`, the pixels that show something.
    """
    brightness = (radiance @ BRIGHTNESS)[known]
    brightness = brightness[np.isfinite(brightness)]
    scale = 1.0
    if brightness.size:
        level = float(np.percentile(brightness, BRIGHTNESS_PERCENTILE))
        scale = BRIGHTNESS_LEVEL**GAMMA / level if level >= 1e-4 else 0.0
    linear = np.clip(np.nan_to_num(radiance * np.float32(scale), posinf=1.0), 0, 1)
    return (linear ** np.float32(1 / GAMMA) * 255).astype(np.uint8)


def facing_normals(normals: np.ndarray, intrinsics_px: Intrinsics) -> np.ndarray:
    """`normal_cam` as a `Sample` wants it: unit, OpenCV axes, towards the camera, NaN unknown."""
    length = np.sqrt(np.einsum("hwc,hwc->hw", normals, normals))
    unit = normals / np.where(length > 1e-3, length, np.nan)[..., None]
    unit = convert_axes(unit, "right-up-viewer", "opencv")
    away = np.einsum("hwc,hwc->hw", unit, pixel_rays(intrinsics_px, *length.shape)) > 0
    unit[away] *= -1
    return unit


def _public_frames(uri: str) -> list[tuple[str, FrameName]]:
    """What the table of splits lists as public, each with the split's name."""
    found: list[tuple[str, FrameName]] = []
    named: set[FrameName] = set()
    for row in read_table("--split-csv", uri, _SPLIT_COLUMNS):
        name = FrameName(row.text("scene_name"), row.text("camera_name"), row.whole("frame_id"))
        if name in named:
            raise ValueError(f"{row.where}: {name.key} was named before; leave one row of it")
        named.add(name)
        if row.truth("included_in_public_release"):
            found.append((row.text("split_partition_name"), name))
    return found


def _kept_name(match: re.Match[str]) -> FrameName:
    return FrameName(match[1], match[2], int(match[3]))


def _dataset(
    files: RawFiles, path: str, channels: int | None, size: tuple[int, ...] | None = None
) -> np.ndarray:
    """The array in a Hypersim file: `[h w]` or `[h w channels]`."""
    content = files.read(path)
    tail = () if channels is None else (channels,)
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            stored: Any = file["dataset"]
            shape, kind = stored.shape, stored.dtype.kind
            expected = (*(size or shape[:2]), *tail)
            # Not read before: a damaged file may say any size.
            if shape == expected and kind in "fiu" and math.prod(expected[:2]) <= DATASET_PIXELS:
                return np.asarray(stored)
    # What a damaged file raises depends on where it is damaged.
    except Exception as error:
        raise SampleError("corrupt_file", f"{path}: {error}") from error
    raise SampleError("wrong_shape", f"{path} is {shape} of {kind!r}, expected numbers {expected}")
