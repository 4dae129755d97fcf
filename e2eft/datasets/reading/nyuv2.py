"""NYU Depth v2 (Silberman et al., ECCV 2012), its 654 labelled test images.

Facts that this module relies on. The published `nyu_depth_v2_labeled.mat` is HDF5 with MATLAB's
axes, the last first: `images` `[n 3 w h]` uint8, `rawDepths` and `depths` (holes painted in)
`[n w h]` float32 metres, 0 where nothing was measured, `scenes` `[1 n]` references to names.
`splits.mat` has `testNdxs`, counted from 1. Marigold's evaluation files are PNGs of whole
millimetres, numbered as the images are there. Depth is in the colour camera's frame; that camera is
published in the dataset's toolbox, with pixel centres at whole numbers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import h5py
import numpy as np

from e2eft.data.sample import (
    RejectedFrame,
    Sample,
    SampleError,
    storable_depth,
    unknown_normals,
)
from e2eft.datasets.base import Dataset
from e2eft.datasets.listed import (
    FrameEntry,
    Layout,
    Listing,
    of_one_frame,
    read_listing,
)
from e2eft.datasets.nyuv2 import FRAME_SIZE, NYUV2, Nyuv2Source
from e2eft.datasets.reading.archives import digest_of_head, names_in
from e2eft.datasets.reading.decoding import decode_each
from e2eft.datasets.reading.pixels import measured_depth, read_codes, read_rgb
from e2eft.datasets.reading.roots import RootFiles
from e2eft.geometry.camera import Intrinsics, resize_intrinsics
from e2eft.storage import StorageError, open_store

METRES_PER_CODE = 0.001
CAMERA: Intrinsics = np.array(
    [
        [518.85790117450188, 0, 325.58244941119034 + 0.5],
        [0, 519.46961112127485, 253.73616633400465 + 0.5],
        [0, 0, 1],
    ]
)
"""`camera_params.m` of the toolbox, moved to pixel centres at half numbers."""
LABELED, SPLITS = "nyu_depth_v2_labeled.mat", "splits.mat"
_COLUMNS = [
    rf"(?P<folder>(?:.*/)?){kind}_(?P<number>\d+)\.\w+" for kind in ("rgb", "depth", "filled")
]
_DATASETS = {"raw": "rawDepths", "filled": "depths"}


class Nyuv2Layout(Layout[Nyuv2Source]):
    """Marigold's evaluation files, `test/SCENE/{rgb,depth,filled}_NNNN.png`, and their list."""

    def listing(self, files: RootFiles) -> Listing:
        column = 1 if self.config.depth == "raw" else 2
        assert self.config.frame_list is not None
        return read_listing(
            self.config.frame_list,
            lambda words: FrameEntry(words[0], (of_one_frame(words, *_COLUMNS)[column],)),
            "an image, its measured and its filled-in depth",
            "test/kitchen_0004/rgb_0001.png test/kitchen_0004/depth_0001.png "
            "test/kitchen_0004/filled_0001.png",
        )

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        rgb = read_rgb(files, entry.image)
        codes = read_codes(files, entry.truth[0], rgb.shape[:2])
        return _sample(entry.key, rgb, measured_depth(codes, METRES_PER_CODE))


@dataclass(frozen=True)
class MatlabFrame:
    """number: from 1, as `testNdxs` has it."""

    scene: str
    number: int

    @property
    def key(self) -> str:
        """As of Marigold's files, so that predictions are found for both."""
        return f"test/{self.scene}/rgb_{self.number:04d}"


class Nyuv2MatlabFrames:
    """The test images in the published .mat files, in the order of `testNdxs`."""

    def __init__(self, config: Nyuv2Source) -> None:
        self.config = config
        self._store = open_store(config.root)

    @property
    def dataset(self) -> Dataset:
        return self.config.described

    def __len__(self) -> int:
        return len(self.frames)

    def check_present(self, *, thorough: bool = False) -> None:
        here = names_in(self._store)
        if missing := [name for name in (LABELED, SPLITS) if name not in here]:
            found = ", ".join(here[:5]) or "nothing"
            raise ValueError(
                f"--root {self.config.root} has no {missing[0]}, which is read without --list; "
                f"found {found}; give --list if these are Marigold's evaluation files"
            )
        _ = self.frames

    def write_index(self) -> None:
        """HDF5 has its own."""

    def telling(self) -> list[str]:
        return [LABELED, SPLITS]

    def raw_digest(self, name: str) -> str:
        return digest_of_head(self._store, name)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Names the file, whatever is raised: that depends on where it is damaged."""
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            raise ValueError(f"{self.config.root}/{LABELED}: {error}; download it again") from error

    @cached_property
    def _file(self) -> h5py.File:
        with self._reading():
            return h5py.File(self._store.open(LABELED), "r")

    @cached_property
    def frames(self) -> list[MatlabFrame]:
        """The test images.

        Raises:
            ValueError: if the files do not hold what they should.
        """
        from scipy.io import loadmat

        file, expected = self._file, ("images", _DATASETS[self.config.depth], "scenes")
        with self._reading():
            absent, found = [name for name in expected if name not in file], ", ".join(file)
        if absent:
            raise ValueError(f"{self.config.root}/{LABELED} has no {absent[0]}; it has {found}")
        content = self._store.read(SPLITS)
        try:
            listed = loadmat(io.BytesIO(content))["testNdxs"].ravel()
            numbers = np.array([int(number) for number in listed])
        except Exception as error:
            raise ValueError(
                f"{self.config.root}/{SPLITS} has no testNdxs that can be read: {error}"
            ) from error
        with self._reading():
            images = len(self._dataset("images"))
        in_range = numbers.size and numbers.min() >= 1 and numbers.max() <= images
        if not in_range or (numbers != listed).any() or len(set(numbers)) < len(numbers):
            raise ValueError(
                f"{self.config.root}/{SPLITS}: testNdxs must be different numbers in 1 .. "
                f"{images}, the images of {LABELED}; download it again"
            )
        with self._reading():
            return [MatlabFrame(self._scene(number), int(number)) for number in numbers]

    def _dataset(self, name: str) -> Any:
        return self._file[name]

    def _scene(self, number: int) -> str:
        letters = self._file[self._dataset("scenes")[0, number - 1]]
        return "".join(map(chr, np.asarray(letters).ravel()))

    def decode(self, numbers: range) -> Iterator[Sample | RejectedFrame]:
        return decode_each([self.frames[number] for number in numbers], self._sample)

    def _sample(self, name: MatlabFrame) -> Sample:
        row = name.number - 1
        try:
            rgb = np.asarray(self._dataset("images")[row]).transpose(2, 1, 0)
            depth_m = np.asarray(self._dataset(_DATASETS[self.config.depth])[row]).T
        except StorageError:
            raise
        except Exception as error:
            raise SampleError("corrupt_file", f"{LABELED}, image {name.number}: {error}") from error
        depth_m = np.where(depth_m > 0, depth_m, np.nan)
        return _sample(name.key, np.ascontiguousarray(rgb), storable_depth(depth_m))

    def provenance(self) -> dict[str, Any]:
        return {"listed": len(self), "without_truth": 0}


def _sample(key: str, rgb: np.ndarray, depth_m: np.ndarray) -> Sample:
    height, width = rgb.shape[:2]
    return Sample(
        key=key,
        source=NYUV2.name,
        scene=key.split("/")[-2] if "/" in key else key,
        rgb=rgb,
        depth_m=depth_m,
        normals_cam=unknown_normals(height, width),
        intrinsics_px=resize_intrinsics(CAMERA, FRAME_SIZE, (height, width)),
    )
