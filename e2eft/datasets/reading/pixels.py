"""Arrays out of the files of datasets; a file that is not what it should be rejects its frame."""

import io
from typing import Any

import numpy as np
from PIL import Image

from e2eft.data.sample import SampleError, storable_depth
from e2eft.datasets.reading.archives import RawFiles
from e2eft.images.decoder import DATASET_PIXELS, load_picture
from e2eft.images.npy import NpyError, decode_npy
from e2eft.images.reasons import ImageError


def read_picture(files: RawFiles, path: str) -> Image.Image:
    """An image, decoded completely.

    Raises:
        SampleError: `corrupt_file`.
    """
    content = files.read(path)
    try:
        return load_picture(content, DATASET_PIXELS)
    except ImageError as error:
        raise SampleError("corrupt_file", f"{path}: {error}") from error


def read_rgb(files: RawFiles, path: str) -> np.ndarray:
    """A colour image, or a grey one of 8 bits: uint8 `[h w 3]`.

    Raises:
        SampleError: `corrupt_file`; `wrong_shape` for one channel of more bits, such as depth has.
    """
    picture = read_picture(files, path)
    if picture.mode.startswith(("I", "F")):
        found = f"one channel of {np.asarray(picture).dtype}"
        raise SampleError("wrong_shape", f"{path} is {found}, expected a colour image")
    return np.asarray(picture.convert("RGB"))


def read_codes(files: RawFiles, path: str, size: tuple[int, int]) -> np.ndarray:
    """An image of one channel as it is stored, of 16 bits or fewer: integers `[h w]`."""
    codes = np.asarray(read_picture(files, path))
    require(codes.ndim == 2 and codes.dtype.kind in "uib", path, codes, "one channel of integers")
    require(codes.shape == size, path, codes, f"the image's {size}")
    return codes


def read_array(files: RawFiles, path: str) -> np.ndarray:
    """The array in an .npy file; one that would have to be unpickled is refused.

    Raises:
        SampleError: `corrupt_file`.
    """
    content = files.read(path)
    try:
        return decode_npy(content)
    except NpyError as error:
        raise SampleError("corrupt_file", f"{path}: {error}") from error


def read_exr(files: RawFiles, path: str) -> np.ndarray:
    """Channels R, G, B of an OpenEXR image: float32 `[h w 3]`."""
    import OpenEXR

    content = files.read(path)
    try:
        with OpenEXR.File(io.BytesIO(content), separate_channels=True, num_threads=0) as image:
            channels: dict[str, Any] = {
                name: np.array(channel.pixels) for name, channel in image.channels().items()
            }
    # What a damaged file raises depends on where it is damaged.
    except Exception as error:
        raise SampleError("corrupt_file", f"{path}: {error}") from error
    if not {"R", "G", "B"} <= channels.keys():
        raise SampleError("corrupt_file", f"{path} has channels {', '.join(channels)}, not R, G, B")
    colours = [channels[name].astype(np.float32) for name in "RGB"]
    if len({colour.shape for colour in colours}) > 1:
        raise SampleError("wrong_shape", f"{path} has R, G and B of different sizes")
    return np.stack(colours, axis=-1)


def measured_depth(codes: np.ndarray, metres_per_code: float) -> np.ndarray:
    """float32 `[h w]` metres of stored codes, in which 0 says that nothing was measured."""
    return storable_depth(np.where(codes == 0, np.nan, codes * metres_per_code))


def unit_normals(vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """float32 `[h w 3]` of length 1, in the axes they have; NaN outside `known` `[h w]` and where
    there is no direction."""
    vectors = vectors.astype(np.float32)
    length = np.sqrt(np.einsum("hwc,hwc->hw", vectors, vectors))
    usable = known & np.isfinite(length) & (length > 0)
    return vectors / np.where(usable, length, np.nan)[..., None].astype(np.float32)


def require(holds: bool, path: str, array: np.ndarray, expected: str) -> None:
    """Raises SampleError `wrong_shape`, which says what the file is, unless it `holds`."""
    if not holds:
        raise SampleError(
            "wrong_shape", f"{path} is {array.dtype} {array.shape}, expected {expected}"
        )
