"""DIODE's surface normals (Vasiljevic et al., arXiv 1908.00463), indoors and outdoors.

Facts that this module relies on: `X_normal.npy` is float32 `[h w 3]` beside the image, zero where
the normal is not known. DIODE does not document the axes; Marigold v1-1, whose list names these
files, compares them with its own normals as they are, so they are taken for its axes: right, up,
towards the viewer. The camera is known, so normals in other axes are found to face away from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from e2eft.config.base import PLACEMENT, RESULT, ByRecipe, flag
from e2eft.data.modalities import ANNOTATED_NORMALS
from e2eft.datasets.base import Dataset, FrameSource, NormalsRules, Source
from e2eft.datasets.diode import CAMERA, FRAME_SIZE, PLACES
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
    from e2eft.storage import Store

DIODE_NORMALS = Dataset(
    name="diode-normals",
    modalities=ANNOTATED_NORMALS,
    images=771,
    frame_size=FRAME_SIZE,
    rules={"per-image-mean": NormalsRules(processing_px=768)},
)
_COLUMNS = [rf"(?P<image>.+){ending}" for ending in (r"\.png", r"_normal\.npy")]


class DiodeNormalsSource(Source):
    """DIODE's validation images with normals, 325 indoors and 446 outdoors, from its own tree."""

    datasets = (DIODE_NORMALS,)
    places = ("root", "frame_list")

    kind: Annotated[ByRecipe[Literal["diode-normals"]], RESULT] = "diode-normals"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds indoors and outdoor (val, once unpacked), images and normals: a folder or an
    uncompressed .tar, which is read in place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str | None, RESULT, flag("list")] = None
    """Text file or its URI, a frame a line: image and normals, relative to --root, as in Marigold's
    data_split/diode_normals/diode_test.txt. Default: every image that is there."""

    def open(self, index: Store | None) -> FrameSource:
        return ListedFrames(DiodeNormalsLayout(self), self.root, index)


class DiodeNormalsLayout(Layout[DiodeNormalsSource]):
    """`{indoors,outdoor}/scene_N/scan_N/X{.png,_normal.npy}`."""

    def listing(self, files: RootFiles) -> Listing:
        if self.config.frame_list is None:
            found = [
                FrameEntry(path, (f"{path.removesuffix('.png')}_normal.npy",))
                for place in PLACES
                for path in files.paths(f"{place}/")
                if path.endswith(".png")
            ]
            return require_frames(found, files, "images such as indoors/scene_*/scan_*/*.png")
        return read_listing(
            self.config.frame_list,
            lambda words: FrameEntry(words[0], (of_one_frame(words, *_COLUMNS)[1],)),
            "an image and its normals",
            "indoors/scene_00019/scan_00183/00019_00183_indoors_000_010.png ..._normal.npy",
        )

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        import numpy as np

        from e2eft.data.sample import Sample, unknown_depth
        from e2eft.datasets.reading.normal_maps import read_normals
        from e2eft.datasets.reading.pixels import read_rgb
        from e2eft.geometry.camera import resize_intrinsics

        rgb = read_rgb(files, entry.image)
        size = rgb.shape[0], rgb.shape[1]
        return Sample(
            key=entry.key,
            source=self.dataset.name,
            scene="/".join(entry.image.split("/")[:2]),
            rgb=rgb,
            depth_m=unknown_depth(*size),
            normals_cam=read_normals(files, entry.truth[0], size),
            intrinsics_px=resize_intrinsics(np.array(CAMERA), FRAME_SIZE, size),
        )
