"""Virtual KITTI 2 (Cabon et al. 2020, arXiv 2001.10773) as it is published: JPEG, 16-bit PNG, text.

Facts that this module relies on: depth is planar, in centimetres, 65535 for the sky; the camera's
parameters in `intrinsic.txt` count pixel centres at whole numbers; no normals are published, so
they are computed from depth (`e2eft.geometry.normals.surface_normals`). The archives hold
`SceneXX/VARIATION/frames/{rgb,depth}/Camera_{0,1}/…`; people unpack them side by side, each into a
folder named as the archive, or into `rgb`, `depth` and `textgt`. All of these are read, and the tar
files too, in place.
"""

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from e2eft.data.sample import RejectedFrame, Sample, SampleError, storable_depth
from e2eft.datasets.base import Dataset
from e2eft.datasets.kitti_eigen import BENCHMARK_SIZE, benchmark_corner
from e2eft.datasets.reading.archives import (
    CorruptArchiveError,
    Folder,
    RawFiles,
    TarArchive,
    digest_of,
    digest_of_head,
    index_tar,
    kept_tar_index,
    names_in,
    spread,
)
from e2eft.datasets.reading.decoding import decode_each
from e2eft.datasets.reading.numerals import pinhole_of, whole_of
from e2eft.datasets.reading.pixels import read_picture, read_rgb
from e2eft.datasets.reading.tables import lines_of
from e2eft.datasets.virtual_kitti import VirtualKittiSource, VirtualKittiVariation
from e2eft.geometry.camera import Intrinsics, crop_intrinsics
from e2eft.geometry.normals import surface_normals
from e2eft.storage import StorageError, Store, check_name, open_store

SEQUENCE_FRAMES = {"Scene01": 447, "Scene02": 233, "Scene06": 270, "Scene18": 339, "Scene20": 837}
MARIGOLD_VARIATIONS = ("clone", "morning", "overcast", "sunset", "15-deg-left", "15-deg-right")
SELECTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "all": (tuple(SEQUENCE_FRAMES), get_args(VirtualKittiVariation)),
    "paper": (tuple(SEQUENCE_FRAMES), ("morning", "fog", "rain", "sunset", "overcast")),
    "marigold": (("Scene02", "Scene06", "Scene18", "Scene20"), MARIGOLD_VARIATIONS),
    "marigold-val": (("Scene01",), MARIGOLD_VARIATIONS),
}
"""(scenes, variations): `paper` is arXiv 2409.11355's code, 21,260 frames (the text has about 20K
of four scenes, as Marigold's list); `marigold` and `marigold-val` are Marigold's lists."""
SKY, QUANTUM_M = 65535, 0.01
PLANES = {"own": ", of the plane that each lies on itself", "neighbours": ""}
"""How the shards' provenance calls each of `normal_planes`."""
CAMERAS = (0, 1)
ARCHIVES = {
    "rgb": "vkitti_2.0.3_rgb.tar",
    "depth": "vkitti_2.0.3_depth.tar",
    "textgt": "vkitti_2.0.3_textgt.tar.gz",
}
PICTURES = ("rgb", "depth")
TABLE = "intrinsic.txt"


@dataclass(frozen=True)
class FrameName:
    """scene `SceneXX`, a variation of it, a camera of the stereo pair, number in the sequence."""

    scene: str
    variation: str
    camera: int
    number: int

    @property
    def key(self) -> str:
        return (
            f"virtual-kitti-2/{self.scene}/{self.variation}/Camera_{self.camera}/"
            f"frame-{self.number:05d}"
        )

    def path(self, kind: str) -> str:
        """In the archive of this kind, `rgb` or `depth`."""
        ending = "jpg" if kind == "rgb" else "png"
        return (
            f"{self.scene}/{self.variation}/frames/{kind}/Camera_{self.camera}/"
            f"{kind}_{self.number:05d}.{ending}"
        )


class VirtualKittiFrames:
    """The frames of the chosen scenes and variations, sequence by sequence."""

    def __init__(self, config: VirtualKittiSource, index: Store | None) -> None:
        self.config, self.index = config, index
        self._store = open_store(config.root)
        self._files: dict[str, RawFiles] = {}
        self._tables: dict[tuple[str, str], dict[tuple[int, int], Intrinsics]] = {}

    @property
    def dataset(self) -> Dataset:
        return self.config.described

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def planes(self) -> Literal["own", "neighbours"]:
        return self.config.normal_planes or "own"

    def provenance(self) -> dict[str, Any]:
        method = f"surface_normals of depth, 5 x 5 pixels{PLANES[self.planes]}"
        return {"split": self.config.selection, "normals": method}

    @cached_property
    def frames(self) -> list[FrameName]:
        """Scene by scene, variation by variation, camera by camera."""
        config = self.config
        scenes, variations = SELECTIONS[config.selection]
        scenes = _narrowed("--scene", scenes, config.scenes, config.selection)
        variations = _narrowed("--variation", variations, config.variations, config.selection)
        return [
            FrameName(scene, variation, camera, number)
            for scene in scenes
            for variation in variations
            for camera in CAMERAS
            for number in range(_sequence_length(scene, config.frames_per_sequence))
        ]

    @cached_property
    def places(self) -> dict[str, str]:
        """Of each kind of file: the tar file, or the folder ("" for the root), that holds it.

        Raises:
            ValueError: if one of them is nowhere.
        """
        here = names_in(self._store)
        found: dict[str, str] = {}
        for kind, archive in ARCHIVES.items():
            folders = (archive.split(".tar")[0], kind)
            named = [name for name in (archive, *folders) if name in here]
            if named:
                found[kind] = named[0]
            elif any(scene in here for scene in SEQUENCE_FRAMES):
                found[kind] = ""
            else:
                raise ValueError(
                    f"--root {self.config.root} has no {kind} files: expected {archive}, a folder "
                    f"{folders[0]} or {kind}, or folders such as Scene01; "
                    f"found {', '.join(here[:5]) or 'nothing'}"
                )
        return found

    def check_present(self, *, thorough: bool = False) -> None:
        first = self.frames[0]
        for kind, place in self.places.items():
            if not (thorough and kind in PICTURES and place.endswith(".tar")):
                continue
            if first.path(kind) not in index_tar(self._store, place):
                raise ValueError(f"{self._store.uri}/{place} has no {first.path(kind)}")

    def write_index(self) -> None:
        """Where the members of the tar files are, which takes one reading of each to find out; and
        the small tables."""
        assert self.index is not None
        for place in self.places.values():
            if place == ARCHIVES["textgt"]:
                if not self.index.exists(f"{place}.done"):
                    self._unpack_tables(self.index, place)
            elif place.endswith(".tar"):
                kept_tar_index(self._store, place, self.index)

    def telling(self) -> list[str]:
        archives = [self.places[kind] for kind in PICTURES if self.places[kind].endswith(".tar")]
        kinds = [kind for kind in PICTURES if not self.places[kind].endswith(".tar")]
        return archives + [name.path(kind) for name in spread(self.frames) for kind in kinds]

    def raw_digest(self, name: str) -> str:
        if name.endswith(".tar"):
            return digest_of_head(self._store, name)
        loose = [kind for kind in PICTURES if not self.places[kind].endswith(".tar")]
        kinds = [kind for kind in loose if f"/{kind}/" in name]
        return digest_of(self._of(kinds[0]), name) if kinds else ""

    def _unpack_tables(self, index: Store, place: str) -> None:
        content = io.BytesIO(self._store.read(place))
        try:
            with tarfile.open(fileobj=content, mode="r:gz") as archive:
                for member in archive:
                    if not (member.isfile() and member.name.endswith(f"/{TABLE}")):
                        continue
                    name = _member_name(member.name.removeprefix("./"), place)
                    file = archive.extractfile(member)
                    assert file is not None
                    index.write(f"textgt/{name}", file.read())
        except (tarfile.TarError, EOFError, OSError) as error:
            raise CorruptArchiveError(f"{place}: {error}; download it again") from error
        index.write(f"{place}.done", b"")

    def _of(self, kind: str) -> RawFiles:
        if kind not in self._files:
            place = self.places[kind]
            if place == ARCHIVES["textgt"]:
                assert self.index is not None
                self._files[kind] = Folder(self.index, "textgt")
            elif place.endswith(".tar"):
                assert self.index is not None
                members = kept_tar_index(self._store, place, self.index)
                self._files[kind] = TarArchive(self._store, place, members)
            else:
                self._files[kind] = Folder(self._store, place)
        return self._files[kind]

    def decode(self, numbers: range) -> Iterator[Sample | RejectedFrame]:
        return decode_each([self.frames[number] for number in numbers], self._sample)

    def _sample(self, name: FrameName) -> Sample:
        rgb = read_rgb(self._of("rgb"), name.path("rgb"))
        depth = np.asarray(read_picture(self._of("depth"), name.path("depth")))
        if depth.dtype != np.uint16 or depth.shape != rgb.shape[:2]:
            raise SampleError(
                "wrong_shape",
                f"{name.path('depth')} is {depth.dtype} {depth.shape}, expected uint16 "
                f"{rgb.shape[:2]}",
            )
        depth_m = np.where(depth == SKY, np.inf, depth * QUANTUM_M)
        camera = self._intrinsics(name)
        # Before the crop, whose border would have fewer neighbours.
        normals = surface_normals(depth_m, camera, QUANTUM_M, self.planes)
        top = left = 0
        height, width = depth.shape
        if self.config.benchmark_crop:
            top, left = benchmark_corner(height, width)
            height, width = BENCHMARK_SIZE
        window = np.s_[top : top + height, left : left + width]
        return Sample(
            key=name.key,
            source=self.dataset.name,
            scene=f"virtual-kitti-2/{name.scene}",
            rgb=np.ascontiguousarray(rgb[window]),
            depth_m=storable_depth(depth_m[window]),
            normals_cam=np.ascontiguousarray(normals[window]),
            intrinsics_px=crop_intrinsics(camera, top, left),
        )

    def _intrinsics(self, name: FrameName) -> Intrinsics:
        sequence = (name.scene, name.variation)
        if sequence not in self._tables:
            path = f"{name.scene}/{name.variation}/{TABLE}"
            self._tables[sequence] = _cameras(self._of("textgt").read(path), path)
        found = self._tables[sequence].get((name.number, name.camera))
        if found is None:
            raise SampleError("unknown_camera", f"{'/'.join(sequence)}/{TABLE} has no such frame")
        return found


def _member_name(name: str, archive: str) -> str:
    """Raises CorruptArchiveError for a name that leaves the folder it is unpacked into."""
    try:
        return check_name(name)
    except StorageError as error:
        raise CorruptArchiveError(f"{archive}: {error}") from None


def _narrowed(
    name: str, whole: tuple[str, ...], wanted: tuple[str, ...], selection: str
) -> list[str]:
    if outside := [value for value in wanted if value not in whole]:
        raise ValueError(
            f"{name} {outside[0]} is not in the selection {selection!r}: {', '.join(whole)}"
        )
    return [value for value in whole if not wanted or value in wanted]


def _sequence_length(scene: str, limit: int | None) -> int:
    whole = SEQUENCE_FRAMES[scene]
    return whole if limit is None else min(limit, whole)


def _cameras(table: bytes, path: str) -> dict[tuple[int, int], Intrinsics]:
    """By (frame, camera)."""
    try:
        head, *lines = filter(str.strip, lines_of(table))
    except ValueError as error:
        raise SampleError("corrupt_file", f"{path}: {error}") from None
    columns = head.split()
    if columns != ["frame", "cameraID", "K[0,0]", "K[1,1]", "K[0,2]", "K[1,2]"]:
        raise SampleError("corrupt_file", f"{path} begins with {head!r}")
    cameras: dict[tuple[int, int], Intrinsics] = {}
    for line in lines:
        try:
            frame, camera, *numbers = line.split()
            key = whole_of(frame), whole_of(camera)
            intrinsics = pinhole_of(numbers)
        except ValueError:
            raise SampleError("corrupt_file", f"{path} has the line {line!r}") from None
        if cameras.setdefault(key, intrinsics) is not intrinsics:
            raise SampleError("corrupt_file", f"{path} has frame {frame} of camera {camera} twice")
    return cameras
