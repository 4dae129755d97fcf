"""MPI Sintel (Butler et al., ECCV 2012), the training frames and their depth.

Facts that this module relies on, from the dataset's `sintel_io.py`: a .dpt file is the float32
202021.25, width and height as int32, then depth as float32, row by row, planar, in the film's
units; a .cam file the same number, then the 3 x 3 matrix and the 3 x 4 pose as float64. All
little-endian; pixel centres at whole numbers. What is beyond 655 units is stored as sky.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Annotated, Any, Literal

from e2eft.config.base import PLACEMENT, RESULT, ByRecipe, flag
from e2eft.datasets.base import Dataset, FrameSource, Source
from e2eft.datasets.listed import FrameEntry, Layout, ListedFrames, Listing, require_frames

if TYPE_CHECKING:
    import numpy as np

    from e2eft.data.sample import Sample
    from e2eft.datasets.reading.roots import RootFiles
    from e2eft.geometry.camera import Intrinsics
    from e2eft.storage import Store

SINTEL = Dataset(name="sintel", dense=True)
TAG = 202021.25
_FRAME = re.compile(r"[^/]+/([^/]+)/(frame_\d+)\.png")


class SintelSource(Source):
    """MPI Sintel's training frames with depth, 1,064, in the units of the film."""

    datasets = (SINTEL,)
    places = ("root",)

    kind: Annotated[ByRecipe[Literal["sintel"]], RESULT] = "sintel"
    root: Annotated[str, PLACEMENT, flag("root")]
    """training, which holds final or clean, depth and camdata_left: a folder or an uncompressed
    .tar, which is read in place; a path, file:// or s3:// URI."""
    render_pass: Annotated[Literal["final", "clean"], RESULT, flag("pass")] = "final"
    """Images with motion blur, defocus and mist, or without."""

    def open(self, index: Store | None) -> FrameSource:
        return ListedFrames(SintelLayout(self), self.root, index)


class SintelLayout(Layout[SintelSource]):
    """`{final,clean}/SCENE/frame_N.png`, `depth/SCENE/frame_N.dpt`,
    `camdata_left/SCENE/frame_N.cam`."""

    def listing(self, files: RootFiles) -> Listing:
        found = map(_entry, files.paths(f"{self.config.render_pass}/"))
        expected = f"images such as {self.config.render_pass}/alley_1/frame_0001.png"
        return require_frames([entry for entry in found if entry], files, expected)

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        from e2eft.data.sample import Sample, storable_depth, unknown_normals
        from e2eft.datasets.reading.pixels import read_rgb, require

        rgb = read_rgb(files, entry.image)
        height, width = rgb.shape[:2]
        depth = _depth(files, entry.truth[0])
        require(depth.shape == (height, width), entry.truth[0], depth, f"{(height, width)}")
        return Sample(
            key=entry.key,
            source=self.dataset.name,
            scene=entry.image.split("/")[1],
            rgb=rgb,
            depth_m=storable_depth(depth),
            normals_cam=unknown_normals(height, width),
            intrinsics_px=_camera(files, entry.notes[0]),
        )

    def provenance(self) -> dict[str, Any]:
        return {"units": "of the film, not metres"}


def _entry(path: str) -> FrameEntry | None:
    match = _FRAME.fullmatch(path)
    if not match:
        return None
    scene, frame = match[1], match[2]
    return FrameEntry(path, (f"depth/{scene}/{frame}.dpt",), (f"camdata_left/{scene}/{frame}.cam",))


def _tagged(files: RootFiles, path: str, least: int) -> bytes:
    """What follows the number at the start, `least` bytes or more."""
    from e2eft.data.sample import SampleError

    content = files.read(path)
    if len(content) < 4 + least or struct.unpack_from("<f", content)[0] != TAG:
        raise SampleError("corrupt_file", f"{path} does not begin with {TAG}, or ends too early")
    return content[4:]


def _depth(files: RootFiles, path: str) -> np.ndarray:
    import numpy as np

    from e2eft.data.sample import SampleError

    content = _tagged(files, path, 8)
    width, height = struct.unpack_from("<ii", content)
    if min(width, height) < 1 or len(content) != 8 + 4 * width * height:
        raise SampleError(
            "corrupt_file",
            f"{path} says {width} x {height} pixels and has {len(content) - 8} bytes of them",
        )
    return np.frombuffer(content, "<f4", offset=8).reshape(height, width).astype(np.float32)


def _camera(files: RootFiles, path: str) -> Intrinsics:
    import numpy as np

    from e2eft.datasets.reading.pixels import require

    matrix = np.frombuffer(_tagged(files, path, 9 * 8), "<f8", count=9).reshape(3, 3)
    require(bool(np.isfinite(matrix).all()), path, matrix, "finite numbers")
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    return half @ matrix
