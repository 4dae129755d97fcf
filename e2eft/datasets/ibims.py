"""iBims-1 (Koch et al., ECCV Workshops 2018), indoor images with laser depth, `ibims1_core_raw`.

Facts that this module relies on: depth is planar, 16-bit PNG in 50/65535 m, 0 where nothing was
measured; `mask_invalid` and `mask_transp` are not 0 where a pixel may be used (not invalid, not
transparent), and both must agree; `calib` has the focal lengths and the principal point, separated
by commas. Where its pixel centres lie is not documented; whole numbers are assumed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from e2eft.config.base import PLACEMENT, RESULT, ByRecipe, flag
from e2eft.datasets.base import Dataset, FrameSource, Source
from e2eft.datasets.listed import (
    FrameEntry,
    Layout,
    ListedFrames,
    Listing,
    of_one_frame,
    read_listing,
    require_frames,
)

if TYPE_CHECKING:
    from e2eft.data.sample import Sample
    from e2eft.datasets.reading.roots import RootFiles
    from e2eft.geometry.camera import Intrinsics
    from e2eft.storage import Store

IBIMS_1 = Dataset(name="ibims-1", dense=True)
METRES_PER_CODE = 50 / 65535
_NAME = r"[a-z]+_\d+(?:\.png)?"


class Ibims1Source(Source):
    """iBims-1's 100 images with laser depth, from ibims1_core_raw."""

    datasets = (IBIMS_1,)
    places = ("root", "frame_list")

    kind: Annotated[ByRecipe[Literal["ibims-1"]], RESULT] = "ibims-1"
    root: Annotated[str, PLACEMENT, flag("root")]
    """ibims1_core_raw, which holds rgb, depth, mask_invalid, mask_transp and calib: a folder or an
    uncompressed .tar, which is read in place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str | None, RESULT, flag("list")] = None
    """The dataset's imagelist.txt or its URI, a name such as corridor_01 a line. Default: every
    image that is there."""

    def open(self, index: Store | None) -> FrameSource:
        return ListedFrames(Ibims1Layout(self), self.root, index)


class Ibims1Layout(Layout[Ibims1Source]):
    """`{rgb,depth,mask_invalid,mask_transp}/NAME.png` and `calib/NAME.txt`."""

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
        import numpy as np

        from e2eft.data.sample import Sample, unknown_normals
        from e2eft.datasets.reading.pixels import measured_depth, read_codes, read_rgb

        rgb = read_rgb(files, entry.image)
        height, width = rgb.shape[:2]
        depth, *masks = (read_codes(files, path, (height, width)) for path in entry.truth)
        usable = np.logical_and.reduce([mask != 0 for mask in masks])
        return Sample(
            key=entry.key,
            source=self.dataset.name,
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
    from e2eft.data.sample import SampleError
    from e2eft.datasets.reading.numerals import pinhole_of
    from e2eft.datasets.reading.tables import lines_of

    content = files.read(path)
    try:
        return pinhole_of(" ".join(lines_of(content)).replace(",", " ").split())
    except ValueError as error:
        raise SampleError(
            "corrupt_file", f"{path} is not fx,fy,cx,cy: {content[:60]!r} ({error})"
        ) from None
