"""Pure Sample -> Sample: another size, and the mirror image. Intrinsics move along exactly."""

from dataclasses import replace

import numpy as np

from e2eft.data.sample import Sample, is_constant
from e2eft.geometry.camera import hflip_intrinsics, pixel_rays, resize_intrinsics
from e2eft.images.resize import resize_normals, resize_rgb


def resize_sample(sample: Sample, size: tuple[int, int]) -> Sample:
    """The frame at (height, width), edge to edge; another aspect ratio stretches all of it.

    Colour is bilinear with antialiasing. Depth is picked by `nearest_pixels`, so no value is there
    that was not in the source, NaN and +inf included; on a smooth surface it is the depth of up to
    half a source pixel aside, to the left as often as to the right. Normals are averaged like
    colour and made unit again, NaN counting for nothing; where the mean of an edge's two sides
    faces away from the camera, the normal is unknown.
    """
    if sample.size == size:
        return sample
    rows, columns = (nearest_pixels(*sides) for sides in zip(sample.size, size, strict=True))
    intrinsics_px = resize_intrinsics(sample.intrinsics_px, sample.size, size)
    normals_cam = resize_normals(sample.normals_cam, size)
    towards = np.einsum("hwc,hwc->hw", normals_cam, pixel_rays(intrinsics_px, *size))
    normals_cam[towards > 0] = np.nan
    return replace(
        sample,
        rgb=resize_rgb(sample.rgb, size),
        depth_m=sample.depth_m[np.ix_(rows, columns)],
        normals_cam=normals_cam,
        intrinsics_px=intrinsics_px,
    )


def nearest_pixels(old: int, new: int) -> np.ndarray:
    """int64 `[new]`: the source pixel in which each new pixel's centre lies, (i + 0.5) old / new.

    A centre on the border of two pixels takes the one towards the middle of the image (on the
    middle itself, the right one). So resizing commutes with the mirror, but for the middle pixel
    from an even to an odd number; and the distances from the new centres to the picked ones, at
    most half a source pixel, cancel over the image (but for that pixel's half): `floor(i old /
    new)`, which `nearest` means in PyTorch and, up to rounding, in OpenCV, is 0.7 source pixels to
    the left on average from 1024 to 640.
    """
    # Twice the centre, times new: whole numbers, in which a border is recognized exactly.
    centres = (2 * np.arange(new) + 1) * old
    pixels, rest = np.divmod(centres, 2 * new)
    return pixels - ((rest == 0) & (centres > old * new))


def flip_sample(sample: Sample) -> Sample:
    """The frame as a mirror shows it: x of normals and of the principal point change sign with
    it."""
    return replace(
        sample,
        rgb=sample.rgb[:, ::-1],
        depth_m=sample.depth_m[:, ::-1],
        normals_cam=sample.normals_cam
        if is_constant(sample.normals_cam)
        else sample.normals_cam[:, ::-1] * np.array([-1, 1, 1], np.float32),
        intrinsics_px=hflip_intrinsics(sample.intrinsics_px, sample.size[1]),
    )
