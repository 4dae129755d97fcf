"""Images with surface normals that DSINE (Bae and Davison, CVPR 2024) and Marigold evaluate on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from e2eft.config.base import PLACEMENT, RESULT, ByRecipe, flag
from e2eft.data.modalities import ANNOTATED_NORMALS, DRAWN_NORMALS
from e2eft.datasets.base import NATIVE, Dataset, FrameSource, NormalsRules, Source
from e2eft.datasets.listed import ListedFrames

if TYPE_CHECKING:
    from e2eft.storage import Store

NormalMapSet = Literal["nyuv2", "scannet", "ibims-1", "sintel", "oasis"]
POOLED = NormalsRules(processing_px=NATIVE)
PER_IMAGE = NormalsRules(processing_px=640)
NORMAL_MAPS: dict[NormalMapSet, Dataset] = {
    "nyuv2": Dataset(
        name="nyuv2-normals",
        modalities=ANNOTATED_NORMALS,
        images=654,
        frame_size=(480, 640),
        rules={"pooled-pixels": POOLED, "per-image-mean": PER_IMAGE},
    ),
    "scannet": Dataset(
        name="scannet-normals",
        modalities=ANNOTATED_NORMALS,
        images=300,
        frame_size=(480, 640),
        rules={"pooled-pixels": POOLED, "per-image-mean": PER_IMAGE},
    ),
    "ibims-1": Dataset(
        name="ibims-1-normals",
        modalities=ANNOTATED_NORMALS,
        images=100,
        frame_size=(480, 640),
        rules={"pooled-pixels": POOLED, "per-image-mean": PER_IMAGE},
    ),
    "sintel": Dataset(
        name="sintel-normals",
        modalities=ANNOTATED_NORMALS,
        images=1064,
        frame_size=(436, 1024),
        rules={"pooled-pixels": POOLED},
    ),
    "oasis": Dataset(
        name="oasis-normals",
        modalities=DRAWN_NORMALS,
        images=10_000,  # Photographs of many sizes.
        rules={
            "pooled-pixels": POOLED,
            "per-image-mean": NormalsRules(images=9_999, processing_px=768),
        },
    ),
}


class NormalMapSource(Source):
    """Images with surface normals, from DSINE's evaluation folders (*_img.png beside *_normal.png,
    .exr or .pkl) or Marigold's (*_img.png beside *_normal.npy)."""

    datasets = tuple(NORMAL_MAPS.values())
    places = ("root", "frame_list")

    kind: Annotated[ByRecipe[Literal["normal-maps"]], RESULT] = "normal-maps"
    dataset: Annotated[ByRecipe[NormalMapSet], RESULT]
    root: Annotated[str, PLACEMENT, flag("root")]
    """The dataset's folder, e.g. dsine_eval/nyuv2 or Marigold's nyuv2/test: a folder or an
    uncompressed .tar, which is read in place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str | None, RESULT, flag("list")] = None
    """Text file or its URI, a frame a line, relative to --root: an image, as in DSINE's lists
    (data/datasets/*/split), or an image and its normals, as in Marigold's
    (data_split/*_normals). Default: every image that is there."""

    @property
    def described(self) -> Dataset:
        return NORMAL_MAPS[self.dataset]

    def open(self, index: Store | None) -> FrameSource:
        from e2eft.datasets.reading.normal_maps import NormalMapLayout

        return ListedFrames(NormalMapLayout(self), self.root, index)
