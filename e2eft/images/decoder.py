"""The one strict decoder of plain images.

Everything that reads a user's image goes through `decode_image`, so that labels made in batch and
labels served one at a time see the same pixels, upright, in sRGB. What cannot be decoded completely
is refused with a reason from `REASONS`; nothing is ever labelled half.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from e2eft.images.colour import to_srgb
from e2eft.images.deep import spread_colour
from e2eft.images.intact import is_av1_doubtful, read_jpeg, read_png
from e2eft.images.passes import check_passes
from e2eft.images.projection import projection_of
from e2eft.images.reasons import ImageError
from e2eft.images.resize import fitted_size
from e2eft.images.spaces import is_other_than_srgb, jp2_profile
from e2eft.images.tiff import open_tiff, quiet_libtiff

DATASET_PIXELS = 100_000_000
"""Of a dataset's picture at most; a header that says more is damaged."""
MIN_SIDE_PX = 8
"""One latent of the VAE. Below it there is nothing to estimate."""

# Before PIL sees a file its format is known, so no other plug-in (PostScript, say) is ever tried.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (8, b"WEBP", "WEBP"),
    (0, b"\0\0\0\x0cjP  ", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    *((0, b"P%d" % digit, "PPM") for digit in range(1, 7)),
)
_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_UNREAD: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?R", "Radiance HDR"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"PF\n", "PFM"),
    (0, b"Pf\n", "PFM"),
    (0, b"P7\n", "PAM"),
    (0, b"\0\0\1\0", "an icon"),
    (4, b"ftypcrx ", "a camera's raw file"),
    (0, b"FUJIFILMCCD-RAW", "a camera's raw file"),
    (0, b"IIRO", "a camera's raw file"),
    (0, b"IIU\0", "a camera's raw file"),
)
"""What is said of a photograph that is not read."""
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = 5
"""From this orientation on rows are columns."""
_LIMIT_LOCK = threading.Lock()
quiet_libtiff()


@dataclass(frozen=True)
class DecodedImage:
    """An image as a person sees it.

    rgb: uint8 `[h w 3]`, sRGB, upright; of a JPEG perhaps at a smaller size than its own.
    size: (height, width) of its own, upright.
    mode: how it was stored, in Pillow's words (`RGB`, `CMYK`, `I;16`, ...).
    exif_orientation: 1 to 8, as the file says; `rgb` has been turned already.
    degraded: names of `DEGRADATIONS`, sorted.
    """

    rgb: np.ndarray
    size: tuple[int, int]
    mode: str
    exif_orientation: int
    degraded: tuple[str, ...] = ()


def decode_image(
    content: bytes, max_pixels: int, longest_px: int | None = None, *, as_before: bool = False
) -> DecodedImage:
    """The image in a file's content, decoded to its last byte.

    The format is told by the first bytes, never by a name; the size is checked before any pixel.

    Args:
        longest_px: at which it will be seen; a JPEG is decoded at no larger a scale than that needs
            (in eighths; the last row and column may stand for less than a whole pixel). None: all
            of its pixels.
        as_before: of colour of 16 bits the upper 8 count, however little of its range it fills, and
            a JPEG 2000 file's profile does not, as in a corpus that was begun so.

    Raises:
        ImageError: empty_file, decode_unsupported, decode_bomb, too_small, decode_truncated or
            decode_corrupt.
    """
    degraded: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image, content, image_format = _opened(content, max_pixels, MIN_SIDE_PX, degraded)
        mode = image.mode
        stated = _orientation(image, degraded)
        if image_format == "JPEG2000" and not as_before:
            image.info["icc_profile"] = jp2_profile(content)
        with _decoding(image_format):
            least = fitted_size(image.height, image.width, longest_px)
            loaded = _loaded(image, content, least)
            if not as_before:
                loaded = spread_colour(loaded, content, degraded)
            upright = _UPRIGHT.get(left := _orientation(image, degraded))
            rgb = to_srgb(loaded, degraded)
            degraded |= projection_of(image, rgb)
            if is_other_than_srgb(image, content):
                degraded.add("taken_as_srgb")
            if upright is not None:
                rgb = rgb.transpose(upright)
        if image_format == "AVIF" and is_av1_doubtful(content):
            degraded.add("av1_doubtful")
        if _has_more_frames(image):
            degraded.add("first_frame")
    size = (image.height, image.width) if left < _SIDEWAYS else (image.width, image.height)
    # Pillow turns TIFFs itself while loading and PNGs may say so behind the pixels.
    orientation = max(stated, left)
    return DecodedImage(np.asarray(rgb), size, mode, orientation, tuple(sorted(degraded)))


def load_picture(content: bytes, max_pixels: int) -> Image.Image:
    """The image in a file's content as it is stored, decoded to its last byte: in its own mode,
    and not turned.

    Raises:
        ImageError: as `decode_image`, but for too_small.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image, content, image_format = _opened(content, max_pixels, 1, set())
        with _decoding(image_format):
            return _loaded(image, content)


def _opened(
    content: bytes, max_pixels: int, min_side: int, degraded: set[str]
) -> tuple[Image.Image, bytes, str]:
    """The image, not decoded yet, what of the content is to be decoded, and its format."""
    image_format = sniff(content)
    problem: ImageError | None = None
    if image_format == "PNG":
        png = read_png(content)
        content, problem = png.content, png.problem
        if png.is_orientation_unknown:
            degraded.add("exif_unreadable")
    image = _open(content, image_format)
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError("decode_bomb", f"{width} x {height} pixels, allowed {max_pixels}")
    if min(width, height) < min_side:
        raise ImageError("too_small", f"{width} x {height} pixels, need {min_side} a side")
    if problem:
        raise problem
    check_passes(content, image_format)
    return image, content, image_format


def sniff(content: bytes) -> str:
    """Pillow's name of the format.

    Raises:
        ImageError: empty_file or decode_unsupported.
    """
    if not content:
        raise ImageError("empty_file", "0 bytes")
    for offset, magic, image_format in _MAGIC:
        if content.startswith(magic, offset):
            return image_format
    brands = _brands(content)
    if brands & _AVIF_BRANDS:
        return "AVIF"
    if brands & _HEIF_BRANDS:
        raise ImageError("decode_unsupported", "HEIC/HEIF; convert it to JPEG or PNG first")
    for offset, magic, name in _UNREAD:
        if content.startswith(magic, offset):
            raise ImageError("decode_unsupported", f"{name}; convert it to JPEG or PNG first")
    raise ImageError("decode_unsupported", f"no known image format; it starts with {content[:8]!r}")


def _brands(content: bytes) -> set[bytes]:
    """Those of an ISO base media file: its own, and those that it is compatible with."""
    if content[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(content[:4]), len(content))
    return {content[8:12], *(content[at : at + 4] for at in range(16, end, 4))}


def _loaded(image: Image.Image, content: bytes, least: tuple[int, int] = (0, 0)) -> Image.Image:
    """The same image with its pixels; of a JPEG at least so many rows and columns."""
    if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
        if least[0] >= image.height or least[1] >= image.width:
            least = (0, 0)
        decoded = read_jpeg(content, image.mode, least)
        pixels = Image.fromarray(decoded[..., 0] if image.mode == "L" else decoded)
        pixels.info = image.info
        return pixels
    image.load()
    if image.format in ("JPEG", "MPO"):
        read_jpeg(content, image.mode)
    return image


@contextmanager
def _decoding(image_format: str) -> Iterator[None]:
    """Turns whatever Pillow raises on bad content into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError("decode_corrupt", f"{image_format}: its header cannot be read") from error
    except Exception as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        ends = isinstance(error, EOFError) or any(
            hint in text.lower() for hint in ("truncated", "not enough", "unexpected end")
        )
        reason = "decode_truncated" if ends else "decode_corrupt"
        if text.startswith(
            "conversion from"
        ):  # A colour space that Pillow reads but cannot convert.
            reason = "decode_unsupported"
        raise ImageError(reason, f"{image_format}: {text}") from error


def _open(content: bytes, image_format: str) -> Image.Image:
    # Pillow's own limit is a global and would overrule a larger --max-pixels.
    with _LIMIT_LOCK, _decoding(image_format):
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            if image_format == "TIFF":
                return open_tiff(content)
            return Image.open(io.BytesIO(content), formats=[image_format])
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image, degraded: set[str]) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # EXIF is written by everyone and may raise anything.
        degraded.add("exif_unreadable")
        return 1
    return value if value in _UPRIGHT else 1


def _has_more_frames(image: Image.Image) -> bool:
    if image.format == "MPO":  # A phone's photograph: what follows is a preview or a gain map.
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # The first frame is whole, what follows is not.
        return True
