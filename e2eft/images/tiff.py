"""TIFF where Pillow does not read it rightly: opened so that it does, or named and refused; and
libtiff's own words, kept quiet."""

import ctypes
import ctypes.util
import io
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import PIL
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from e2eft.images.reasons import ImageError

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _PLANAR, _FORMAT = 258, 259, 262, 277, 284, 339
_SUBFILE, _DNG_VERSION = 254, 50706
_PHOTOMETRICS = {0: "white is zero", 1: "black is zero", 2: "RGB", 3: "palette", 4: "mask",
                 5: "CMYK", 6: "YCbCr", 8: "Lab", 32803: "colour filter array",
                 34892: "linear raw"}  # fmt: skip
_FORMATS = {1: "unsigned", 2: "signed", 3: "floating point", 5: "complex", 6: "complex"}
_UNCOMPRESSED, _SEPARATE, _REDUCED, _UNSIGNED, _SIGNED = 1, 2, 1, 1, 2
_HEADER_BYTES, _BIG_HEADER_BYTES = 8, 16


def open_tiff(content: bytes) -> Image.Image:
    """A TIFF that is decoded rightly. Call it under a lock: it sets one of Pillow's globals.

    Raises:
        ImageError: decode_unsupported for a layout that Pillow reads wrongly, or not at all.
        UnidentifiedImageError: if not even its directory can be read.
    """
    if content.startswith(b"CR", 8):
        raise ImageError("decode_unsupported", "a camera's raw file (CR2); convert it to PNG first")
    try:
        image = Image.open(io.BytesIO(content), formats=["TIFF"])
        if _is_torn(image):
            image = _by_libtiff(content)
    except UnidentifiedImageError:
        if layout := tiff_layout(content):
            raise ImageError("decode_unsupported", f"TIFF of {layout}") from None
        raise
    tags = cast(Any, image).tag_v2
    if _DNG_VERSION in tags or tags.get(_SUBFILE, 0) & _REDUCED:
        raise ImageError(
            "decode_unsupported",
            "its first page is a preview (a camera's raw file?); convert it to PNG first",
        )
    if _is_misread(image, content):
        raise ImageError("decode_unsupported", f"TIFF of {tiff_layout(content)}")
    return image


def is_unsigned_32(image: Image.Image) -> bool:
    """Whether a loaded image's values, signed in Pillow's mode `I`, are of 32 bits without sign."""
    tags = getattr(image, "tag_v2", {})
    bits, kind = tags.get(_BITS, (1,))[0], tags.get(_FORMAT, (_UNSIGNED,))[0]
    return image.mode == "I" and (bits, kind) == (32, _UNSIGNED)


def is_separate(image: Image.Image) -> bool:
    """Whether each channel is a plane of its own."""
    return getattr(image, "tag_v2", {}).get(_PLANAR, 1) == _SEPARATE


def _is_torn(image: Image.Image) -> bool:
    """Pillow's own reader of uncompressed planes knows those of 8 plain bits only."""
    return is_separate(image) and cast(Any, image).tag_v2.get(_COMPRESSION, 1) == _UNCOMPRESSED


def _by_libtiff(content: bytes) -> Image.Image:
    before, TiffImagePlugin.READ_LIBTIFF = TiffImagePlugin.READ_LIBTIFF, True
    try:
        return Image.open(io.BytesIO(content), formats=["TIFF"])
    finally:
        TiffImagePlugin.READ_LIBTIFF = before


def _is_misread(image: Image.Image, content: bytes) -> bool:
    tags = cast(Any, image).tag_v2
    bits, kind = tags.get(_BITS, (1,))[0], tags.get(_FORMAT, (_UNSIGNED,))[0]
    if (bits, kind) == (8, _SIGNED):  # As if it were unsigned.
        return True
    if image.mode in ("LA", "La", "PA") and is_separate(image):
        return True
    # What libtiff has turned already is turned again.
    turned = content.startswith(b"MM") and cast(Any, image).tile[0].codec_name == "libtiff"
    return turned and image.mode in ("I", "F")


def tiff_layout(content: bytes) -> str:
    """Samples, photometric interpretation, compression and byte order of a file's first page; "" if
    its directory cannot be read."""
    big = content[2:3] == b"+" or content[3:4] == b"+"
    head = content[: _BIG_HEADER_BYTES if big else _HEADER_BYTES]
    try:
        directory: Any = ImageFileDirectory_v2(head)
        stream = io.BytesIO(content)
        stream.seek(directory.next)
        directory.load(stream)
        bits, kind = directory.get(_BITS, (1,))[0], directory.get(_FORMAT, (1,))[0]
        photometric = directory.get(_PHOTOMETRIC, -1)
    except Exception:  # A damaged directory may raise anything.
        return ""
    told = (
        f"{directory.get(_SAMPLES, 1)} x {bits} bits",
        _FORMATS.get(kind, f"format {kind}"),
        _PHOTOMETRICS.get(photometric, f"photometric {photometric}"),
        f"compression {directory.get(_COMPRESSION, 1)}",
        "separate planes" if directory.get(_PLANAR, 1) == _SEPARATE else "",
        "big-endian" if content.startswith(b"MM") else "little-endian",
    )
    return f"{', '.join(filter(None, told))}; convert it to PNG first"


def quiet_libtiff() -> None:
    """Has libtiff write nothing to standard error, where it tells of a damaged file what Pillow
    raises anyway (in Pillow's wheel, or the system's; elsewhere it goes on writing)."""
    beside = [str(path) for path in Path(PIL.__file__).parents[1].glob("pillow.libs/libtiff*")]
    for library in beside or filter(None, [ctypes.util.find_library("tiff")]):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(library).TIFFSetErrorHandler(None)
