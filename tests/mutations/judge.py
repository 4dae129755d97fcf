"""What became of a file, and what a strict decoder, a checksum and another decoder say of it."""

import struct
import zlib
from dataclasses import dataclass

import numpy as np

from e2eft.images.decoder import decode_image
from e2eft.images.reasons import ImageError

MAX_PIXELS = 10_000_000
TOLERANCE: dict[str, float] = {
    "JPEG": 1.0,
    "PNG": 0.0,
    "GIF": 0.0,
    "BMP": 0.0,
    "TIFF": 0.0,
    "WEBP": 1.0,
    "AVIF": 2.0,
    "JPEG2000": 1.0,
    "PPM": 0.0,
}
"""Mean difference, of 255, up to which two decoders agree: colour conversion and upsampling are
theirs in lossy formats."""


@dataclass(frozen=True)
class Verdict:
    """outcome: `ok`, `degraded: ...` or the reason of a reject. objection: what a strict decoder or
    a checksum has against the file. apart: mean difference from another decoder's pixels; None
    where it reads nothing. changed: mean difference from the undamaged picture."""

    outcome: str
    objection: str = ""
    apart: float | None = None
    changed: float = 0.0


def judged(content: bytes, image_format: str, original: bytes | None = None) -> Verdict:
    """The verdict on one file; of a reject only its outcome."""
    try:
        image = decode_image(content, MAX_PIXELS)
    except ImageError as error:
        return Verdict(error.reason)
    outcome = "degraded: " + "+".join(image.degraded) if image.degraded else "ok"
    changed = 0.0
    if original is not None:
        changed = _difference(image.rgb, decode_image(original, MAX_PIXELS).rgb)
    objection = objection_to(content, image_format)
    return Verdict(outcome, objection, _apart(content, image.rgb), changed)


def objection_to(content: bytes, image_format: str) -> str:
    """What the strictest reader of a format says; "" if nothing."""
    if image_format == "JPEG":
        return _strict_jpeg(content)
    if image_format == "PNG":
        return _checked_png(content)
    if image_format == "AVIF" and _opencv(content) is None:
        return "aom"
    return ""


def _strict_jpeg(content: bytes) -> str:
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(content, "GRAY", strict=True)
    except ValueError as error:
        return str(error)
    return ""


def _checked_png(content: bytes) -> str:
    """Every checksum of a chunk that pixels depend on, and that of the compressed pixels."""
    at, packed = 8, b""
    while at + 12 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        body = content[at + 4 : at + 8 + size]
        if not kind[0] & 32 and zlib.crc32(body) != int.from_bytes(
            content[at + 8 + size : at + 12 + size]
        ):
            return f"checksum of {kind!r}"
        packed += body[4:] if kind == b"IDAT" else b""
        at += 12 + size
        if kind == b"IEND":
            break
    else:
        return "no end"
    reader = zlib.decompressobj()
    try:
        reader.decompress(packed)
    except zlib.error as error:
        return str(error)
    return "" if reader.eof else "compressed pixels end too soon"


def _opencv(content: bytes) -> np.ndarray | None:
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        flags = cv2.IMREAD_COLOR  # turned as its EXIF says, as ours is
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None


def _apart(content: bytes, rgb: np.ndarray) -> float | None:
    other = _opencv(content)
    return None if other is None else _difference(rgb, other[..., ::-1])


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean, of 255; 255 for pictures of two sizes."""
    if one.shape != other.shape:
        return 255.0
    return float(np.abs(one.astype(np.int16) - other).mean())
