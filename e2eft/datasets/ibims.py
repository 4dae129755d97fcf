"""iBims-1 (Koch et al., ECCV Workshops 2018), indoor images with laser depth, `ibims1_core_raw`.

Facts that this module relies on: depth is planar, 16-bit PNG in 50/65535 m, 0 where nothing was
measured; `mask_invalid` and `mask_transp` are not 0 where a pixel may be used (not invalid, not
transparent), and both must agree; `calib` has the focal lengths and the principal point, separated
by commas. Where its pixel centres lie is not documented; whole numbers are assumed.
"""

from __future__ import annotations

import numpy as np

from e2eft.config import Ibims1Source
from e2eft.data.sample import DEPTH, Sample, SampleError, unknown_normals
from e2eft.datasets.listed import (
    ConfiguredLayout,
    FrameEntry,
    Listing,
    of_one_frame,
    read_listing,
    require_frames,
)
from e2eft.datasets.numerals import pinhole_of
from e2eft.datasets.pixels import measured_depth, read_codes, read_rgb
from e2eft.datasets.roots import RootFiles
from e2eft.datasets.tables import lines_of
from e2eft.geometry.camera import Intrinsics

METRES_PER_CODE = 50 / 65535
_NAME = r"[a-z]+_\d+(?:\.png)?"


class Ibims1Layout(ConfiguredLayout[Ibims1Source]):
    """`{rgb,depth,mask_invalid,mask_transp}/NAME.png` and `calib/NAME.txt`."""

    name, promise = "ibims-1", DEPTH

    @property
    def from_files(self) -> bool:
        return self.config.frame_list is None

    def listing(self, files: RootFiles) -> Listing:
        if self.config.frame_list is None:
            found = [
                _entry(path.removeprefix("rgb/").removesuffix(".png"))
                for path in files.paths("rgb/")
                if path.endswith(".png")
            ]
            return require_frames(found, files, "images rgb/*.png")
        return read_listing(
            self.config.frame_list,
            lambda words: _entry(of_one_frame(words, _NAME)[0].removesuffix(".png")),
            "the name of an image",
            "corridor_01",
        )

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        rgb = read_rgb(files, entry.image)
        height, width = rgb.shape[:2]
        depth, *masks = (read_codes(files, path, (height, width)) for path in entry.truth)
        usable = np.logical_and.reduce([mask != 0 for mask in masks])
        return Sample(
            key=entry.key,
            source=self.name,
            scene=scene_of(entry.key),
            rgb=rgb,
            depth_m=measured_depth(np.where(usable, depth, 0), METRES_PER_CODE),
            normals_cam=unknown_normals(height, width),
            intrinsics_px=_camera(files, entry.notes[0]),
        )


def scene_of(key: str) -> str:
    """The kind of room of `.../corridor_01` or `.../corridor_01_img`: that is all that is known."""
    return key.rpartition("/")[2].removesuffix("_img").rpartition("_")[0]


def _entry(name: str) -> FrameEntry:
    kinds = ("depth", "mask_invalid", "mask_transp")
    truth = tuple(f"{kind}/{name}.png" for kind in kinds)
    return FrameEntry(f"rgb/{name}.png", truth, (f"calib/{name}.txt",))


def _camera(files: RootFiles, path: str) -> Intrinsics:
    content = files.read(path)
    try:
        return pinhole_of(" ".join(lines_of(content)).replace(",", " ").split())
    except ValueError as error:
        raise SampleError(
            "corrupt_file", f"{path} is not fx,fy,cx,cy: {content[:60]!r} ({error})"
        ) from None
