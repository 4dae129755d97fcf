"""Whether a picture is whole, where its format or its decoder can tell.

JPEG has no checksum, but its decoder warns where the coded data end too soon, or go on behind the
picture; the decoder that everybody uses goes on and leaves the rest grey. PNG has a checksum a
chunk, which most readers do not compare. AV1 has none: dav1d, Pillow's decoder, reads almost
anything, while aom, OpenCV's, wants a tile's coded data to end where it does.
"""

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from e2eft.images.reasons import ImageError

PNG_START = b"\x89PNG\r\n\x1a\n"
_PIXELS = frozenset(
    (*(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"gAMA", b"cHRM", b"sRGB", b"iCCP"),
     *(b"sBIT", b"cICP", b"eXIf", b"acTL", b"fcTL", b"fdAT"))
)  # fmt: skip
"""Chunks on which it depends what is seen, or how."""
_TELLING = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")
"""Texts that may say how a picture is to be turned."""
LONGEST_TEXT_BYTES = 1 << 19


@dataclass(frozen=True)
class Png:
    """content: the file without metadata that no pixel depends on. problem: what is wrong with it.
    is_orientation_unknown: a text that may say how it is to be turned is damaged."""

    content: bytes
    problem: ImageError | None
    is_orientation_unknown: bool


def read_png(content: bytes) -> Png:
    """A PNG file, chunk by chunk."""
    kept, at, is_unknown = [PNG_START], len(PNG_START), False
    problem: ImageError | None = None
    while True:
        if at + 12 > len(content):
            problem = problem or ImageError("decode_truncated", "PNG: its last chunk is missing")
            kept.append(content[at:])
            break
        length, kind = struct.unpack_from(">I4s", content, at)
        end = at + 12 + length
        if end > len(content):
            problem = problem or ImageError("decode_truncated", f"PNG: {_name(kind)} is cut short")
            kept.append(content[at:])
            break
        holds = zlib.crc32(memoryview(content)[at + 4 : end - 4]) == int.from_bytes(
            content[end - 4 : end]
        )
        if kind in _PIXELS or not kind[0] & 0x20:  # What is unknown and critical is Pillow's to say
            kept.append(content[at:end])
            if not holds and problem is None:
                problem = ImageError(
                    "decode_corrupt", f"PNG: the checksum of {_name(kind)} does not hold"
                )
        elif content.startswith(_TELLING, at + 8):
            if not holds:
                is_unknown = True
            elif length < LONGEST_TEXT_BYTES:
                kept.append(content[at:end])
        at = end
        if kind == b"IEND":
            break
    return Png(b"".join(kept), problem, is_unknown)


def _name(kind: bytes) -> str:
    return repr(kind)[2:-1]


def read_jpeg(content: bytes, mode: str, least: tuple[int, int] = (0, 0)) -> np.ndarray:
    """The pixels of a JPEG file, to its last one: uint8 `[h w c]`.

    Args:
        mode: as Pillow says: L, RGB or CMYK.
        least: (height, width); at the smallest scale of the decoder, in eighths, that has as many
            pixels, which takes less time. (0, 0): all of them.

    Raises:
        ImageError: decode_truncated, decode_corrupt or decode_unsupported for whatever libjpeg
            would only warn of.
    """
    import simplejpeg

    colourspace = {"L": "GRAY"}.get(mode, mode)
    try:
        # As Pillow decodes, to the bit.
        return simplejpeg.decode_jpeg(
            content,
            colourspace,
            fastdct=False,
            fastupsample=False,
            min_height=least[0],
            min_width=least[1],
            strict=True,
        )
    except ValueError as error:
        text = " ".join(str(error).split())
        reason = "decode_corrupt"
        if "premature end" in text.lower():
            reason = "decode_truncated"
        elif "unsupported" in text.lower():
            reason = "decode_unsupported"
        raise ImageError(reason, f"JPEG: {text}") from error


def is_av1_doubtful(content: bytes) -> bool:
    """Whether the decoder of AV1 that Pillow does not have refuses an AVIF file."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE) is None
    except cv2.error:
        return True
