"""DIODE (Vasiljevic et al., arXiv 1908.00463), indoors and outdoors, laser depth.

Facts that this module relies on, from the dataset's tools: `X_depth.npy` is float32 `[h w 1]` in
metres, `X_depth_mask.npy` `[h w]` is 1 where it counts; one camera for all images, its focal
lengths and principal point in `intrinsics.txt`, the latter in the middle of the image's edges.
Whether depth is planar is not documented there; it is taken for planar, as by the benchmarks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from e2eft.config.base import PLACEMENT, RESULT, ByRecipe, flag
from e2eft.datasets.base import Dataset, DepthRules, FrameSource, Source
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
    import numpy as np

    from e2eft.data.sample import Sample
    from e2eft.datasets.reading.roots import RootFiles
    from e2eft.storage import Store

FRAME_SIZE = (768, 1024)
DIODE = Dataset(
    name="diode",
    images=771,
    frame_size=FRAME_SIZE,
    rules={
        "least-squares-depth": DepthRules(
            min_depth_m=0.6, max_depth_m=350, range_masks=False, processing_px=640
        ),
        "ransac-log-depth": DepthRules(
            min_depth_m=0.6,
            max_depth_m=350,
            sobel_limit_m=0.3,
            remark="unknown depth counts as 0 in the filter that drops depth edges; the published "
            "code filters what DIODE's files hold under their masks, which shards do not keep",
        ),
    },
)
CAMERA = ((886.81, 0, 512.0), (0, 927.06, 384.0), (0, 0, 1))
PLACES = ("indoors", "outdoor")
_COLUMNS = [rf"(?P<image>.+){ending}" for ending in (r"\.png", r"_depth\.npy", r"_depth_mask\.npy")]


class DiodeSource(Source):
    """DIODE's validation images, 325 indoors and 446 outdoors, from the dataset's own tree."""

    datasets = (DIODE,)
    places = ("root", "frame_list")

    kind: Annotated[ByRecipe[Literal["diode"]], RESULT] = "diode"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds indoors and outdoor (val, once unpacked): a folder or an uncompressed .tar, which
    is read in place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str | None, RESULT, flag("list")] = None
    """Text file or its URI, a frame a line: image, depth and mask, relative to --root, as in
    Marigold's data_split/diode_depth/diode_val_all_filename_list.txt. Default: every image that is
    there."""

    def open(self, index: Store | None) -> FrameSource:
        return ListedFrames(DiodeLayout(self), self.root, index)


class DiodeLayout(Layout[DiodeSource]):
    """`{indoors,outdoor}/scene_N/scan_N/X{.png,_depth.npy,_depth_mask.npy}`."""

    def listing(self, files: RootFiles) -> Listing:
        if self.config.frame_list is None:
            found = [
                _entry(path)
                for place in PLACES
                for path in files.paths(f"{place}/")
                if path.endswith(".png")
            ]
            return require_frames(found, files, "images such as indoors/scene_*/scan_*/*.png")
        return read_listing(
            self.config.frame_list,
            _listed,
            "an image, its depth and its mask",
            "indoors/scene_00019/scan_00183/00019_00183_indoors_000_010.png "
            "..._depth.npy ..._depth_mask.npy",
        )

    def sample(self, entry: FrameEntry, files: RootFiles) -> Sample:
        import numpy as np

        from e2eft.data.sample import Sample, storable_depth, unknown_normals
        from e2eft.datasets.reading.pixels import read_rgb
        from e2eft.geometry.camera import resize_intrinsics

        rgb = read_rgb(files, entry.image)
        height, width = rgb.shape[:2]
        depth_m, mask = (_map(files, path, (height, width)) for path in entry.truth)
        known = (mask != 0) & (depth_m > 0)
        return Sample(
            key=entry.key,
            source=self.dataset.name,
            scene="/".join(entry.image.split("/")[:2]),
            rgb=rgb,
            depth_m=storable_depth(np.where(known, depth_m, np.float32(np.nan))),
            normals_cam=unknown_normals(height, width),
            intrinsics_px=resize_intrinsics(np.array(CAMERA), FRAME_SIZE, (height, width)),
        )


def _entry(path: str) -> FrameEntry:
    stem = path.removesuffix(".png")
    return FrameEntry(path, (f"{stem}_depth.npy", f"{stem}_depth_mask.npy"))


def _listed(words: list[str]) -> FrameEntry:
    image, depth, mask = (of_one_frame(words, *_COLUMNS)[column] for column in range(3))
    return FrameEntry(image, (depth, mask))


def _map(files: RootFiles, path: str, size: tuple[int, int]) -> np.ndarray:
    """`[h w]` of an array that may have a third axis of one."""
    from e2eft.datasets.reading.pixels import read_array, require

    array = read_array(files, path)
    squeezed = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    require(
        squeezed.shape == size, path, array, f"the image's {size}, with or without an axis of 1"
    )
    return squeezed
