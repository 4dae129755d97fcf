"""Evaluation sets: where their raw files are, and which of their frames are wanted.

Where the files are is not part of a configuration's identity; which list names the frames is.
"""

from typing import Annotated, ClassVar, Literal

from e2eft.config.base import PLACEMENT, RESULT, ByRecipe, Config, flag

NormalMapSet = Literal["nyuv2", "scannet", "ibims-1", "sintel", "oasis"]


class _Listed(Config):
    """A root that may move, and a list that names frames in it."""

    places: ClassVar[tuple[str, ...]] = ("root", "frame_list")


class Nyuv2Source(_Listed):
    """NYUv2's labelled test images, 654: Marigold's evaluation files with their list, or the two
    published .mat files."""

    kind: Annotated[ByRecipe[Literal["nyuv2"]], RESULT] = "nyuv2"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds the files of --list: a folder or an uncompressed .tar, which is read in place; a
    path, file:// or s3:// URI. Without --list: what holds nyu_depth_v2_labeled.mat and
    splits.mat."""
    frame_list: Annotated[str | None, RESULT, flag("list")] = None
    """Text file or its URI, a frame a line: image, measured depth and filled-in depth, relative to
    --root, as in Marigold's data_split/nyu_depth/labeled/filename_list_test.txt."""
    depth: Annotated[Literal["raw", "filled"], RESULT, flag("depth")] = "raw"
    """raw: what was measured, with holes, on which Marigold and E2E-FT are scored. filled: the
    holes painted in."""


class KittiEigenSource(_Listed):
    """KITTI's images of the Eigen split that have improved ground truth, 652 of 697: the raw
    recordings and their annotated depth, as in Marigold's evaluation files."""

    kind: Annotated[ByRecipe[Literal["kitti-eigen"]], RESULT] = "kitti-eigen"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds 2011_09_26/2011_09_26_drive_0002_sync/image_02/... and
    2011_09_26_drive_0002_sync/proj_depth/...: a folder or an uncompressed .tar, which is read in
    place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str, RESULT, flag("list")]
    """Text file or its URI, a frame a line: image, depth (None where there is none: such a frame
    is left out) and focal length in pixels, relative to --root, as in Marigold's
    data_split/kitti_depth/eigen_test_files_with_gt.txt."""
    benchmark_crop: Annotated[bool, RESULT, flag("benchmark-crop")] = True
    """Crop to KITTI's 1216 x 352 pixels: the bottom rows, the middle columns. Published scores are
    of these; predictions must be of the same size."""


class Eth3dSource(_Listed):
    """ETH3D's high-resolution training images with laser depth, 454 of 6048 x 4032 pixels, as in
    Marigold's evaluation files."""

    kind: Annotated[ByRecipe[Literal["eth3d"]], RESULT] = "eth3d"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds rgb/office/images/... and depth/office_dslr_depth/...: a folder or an uncompressed
    .tar, which is read in place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str, RESULT, flag("list")]
    """Text file or its URI, a frame a line: image and depth, relative to --root, as in Marigold's
    data_split/eth3d_depth/eth3d_filename_list.txt."""


class ScanNetSource(_Listed):
    """Images sampled from ScanNet's validation scans, 800, as in Marigold's evaluation files."""

    kind: Annotated[ByRecipe[Literal["scannet"]], RESULT] = "scannet"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds scene0406_02/color/... and scene0406_02/depth/...: a folder or an uncompressed
    .tar, which is read in place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str, RESULT, flag("list")]
    """Text file or its URI, a frame a line: image and depth, relative to --root, as in Marigold's
    data_split/scannet_depth/scannet_val_sampled_list_800_1.txt."""


class DiodeSource(_Listed):
    """DIODE's validation images, 325 indoors and 446 outdoors, from the dataset's own tree."""

    kind: Annotated[ByRecipe[Literal["diode"]], RESULT] = "diode"
    root: Annotated[str, PLACEMENT, flag("root")]
    """What holds indoors and outdoor (val, once unpacked): a folder or an uncompressed .tar, which
    is read in place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str | None, RESULT, flag("list")] = None
    """Text file or its URI, a frame a line: image, depth and mask, relative to --root, as in
    Marigold's data_split/diode_depth/diode_val_all_filename_list.txt. Default: every image that is
    there."""


class Ibims1Source(_Listed):
    """iBims-1's 100 images with laser depth, from ibims1_core_raw."""

    kind: Annotated[ByRecipe[Literal["ibims-1"]], RESULT] = "ibims-1"
    root: Annotated[str, PLACEMENT, flag("root")]
    """ibims1_core_raw, which holds rgb, depth, mask_invalid, mask_transp and calib: a folder or an
    uncompressed .tar, which is read in place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str | None, RESULT, flag("list")] = None
    """The dataset's imagelist.txt or its URI, a name such as corridor_01 a line. Default: every
    image that is there."""


class SintelSource(Config):
    """MPI Sintel's training frames with depth, 1,064, in the units of the film."""

    places: ClassVar[tuple[str, ...]] = ("root",)

    kind: Annotated[ByRecipe[Literal["sintel"]], RESULT] = "sintel"
    root: Annotated[str, PLACEMENT, flag("root")]
    """training, which holds final or clean, depth and camdata_left: a folder or an uncompressed
    .tar, which is read in place; a path, file:// or s3:// URI."""
    render_pass: Annotated[Literal["final", "clean"], RESULT, flag("pass")] = "final"
    """Images with motion blur, defocus and mist, or without."""


class NormalMapSource(_Listed):
    """Images with surface normals, from DSINE's evaluation folders (*_img.png beside *_normal.png,
    .exr or .pkl) or Marigold's (*_img.png beside *_normal.npy)."""

    kind: Annotated[ByRecipe[Literal["normal-maps"]], RESULT] = "normal-maps"
    dataset: Annotated[ByRecipe[NormalMapSet], RESULT]
    root: Annotated[str, PLACEMENT, flag("root")]
    """The dataset's folder, e.g. dsine_eval/nyuv2 or Marigold's nyuv2/test: a folder or an
    uncompressed .tar, which is read in place; a path, file:// or s3:// URI."""
    frame_list: Annotated[str | None, RESULT, flag("list")] = None
    """Text file or its URI, a frame a line, relative to --root: an image, as in DSINE's lists
    (data/datasets/*/split), or an image and its normals, as in Marigold's
    (data_split/*_normals). Default: every image that is there."""


BenchmarkSource = (
    Nyuv2Source
    | KittiEigenSource
    | Eth3dSource
    | ScanNetSource
    | DiodeSource
    | Ibims1Source
    | SintelSource
    | NormalMapSource
)
