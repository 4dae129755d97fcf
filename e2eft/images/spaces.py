"""What a file says of its colours where no colour profile says it."""

from collections.abc import Sequence

from PIL import Image

from e2eft.images.boxes import box

_SRGB_GAMMA, _SRGB_POINTS = 1 / 2.2, (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""Of PNG's chunks: of the file's encoding; x and y of white, red, green and blue."""
_NEAR = 0.02
_PRIMARIES, _TRANSFERS = frozenset((1, 2, 5, 6)), frozenset((1, 2, 4, 6, 13, 14, 15))
"""Code points of ITU-T H.273 that are sRGB's, near to it, or unspecified."""
_EXIF, _COLOUR_SPACE, _ADOBE = 0x8769, 0xA001, 2
_INTEROPERABILITY, _INDEX, _ADOBE_INDEX = 0xA005, 1, "R03"
_TIFF_PRIMARIES = 319
_JP2_SPACES = frozenset((0, 12, 15, 16, 17, 18))
"""Of JPEG 2000: bilevel, CMYK, sRGB, grey by its curve, and sYCC."""
_JP2_PROFILES = frozenset((2, 3))
_BMP_PROFILE_AT, _BMP_PROFILES = 70, (b"DEBM", b"KNIL")
_HEAD_BYTES = 1 << 16


def jp2_profile(content: bytes) -> bytes | None:
    """The colour profile of a JPEG 2000 file, which Pillow passes over."""
    method, told = _jp2_colour(content)
    return told if method in _JP2_PROFILES else None


def is_other_than_srgb(image: Image.Image, content: bytes) -> bool:
    """Whether a file without a profile says that its colours are others than sRGB's."""
    if image.info.get("icc_profile"):
        return False
    if image.format == "PNG":
        return _png_differs(image, content)
    if image.format == "AVIF":
        at = content.find(b"colrnclx", 0, _HEAD_BYTES)
        codes = [int.from_bytes(content[at + place : at + place + 2]) for place in (8, 10)]
        return at >= 0 and _differ(codes)
    if image.format == "JPEG2000":
        method, told = _jp2_colour(content)
        return method != 0 and (method != 1 or int.from_bytes(told[:4]) not in _JP2_SPACES)
    if image.format == "BMP":
        return content[_BMP_PROFILE_AT : _BMP_PROFILE_AT + 4] in _BMP_PROFILES and content[14] > 40
    return _exif_differs(image) or _are_apart(
        getattr(image, "tag_v2", {}).get(_TIFF_PRIMARIES), _SRGB_POINTS[2:]
    )


def _png_differs(image: Image.Image, content: bytes) -> bool:
    """By the first of cICP, sRGB, and gAMA with cHRM, as the standard wants it."""
    at = content.find(b"\0\0\0\4cICP", 0, content.find(b"IDAT"))
    if at >= 0:
        primaries, transfer, _, is_full = content[at + 8 : at + 12]
        return _differ((primaries, transfer)) or not is_full
    if "srgb" in image.info:
        return False
    gamma = image.info.get("gamma") or _SRGB_GAMMA
    points = image.info.get("chromaticity")
    return abs(gamma - _SRGB_GAMMA) > _NEAR or _are_apart(points, _SRGB_POINTS)


def _exif_differs(image: Image.Image) -> bool:
    try:
        exif = image.getexif()
        index = str(exif.get_ifd(_INTEROPERABILITY).get(_INDEX, ""))
        return exif.get_ifd(_EXIF).get(_COLOUR_SPACE) == _ADOBE or index.startswith(_ADOBE_INDEX)
    except Exception:  # EXIF is written by everyone and may raise anything.
        return False


def _jp2_colour(content: bytes) -> tuple[int, bytes]:
    """By what method a JPEG 2000 file tells its colours, 0 if it does not, and what it tells."""
    said = box(content, b"jp2h", b"colr")
    return (said[0], said[3:]) if len(said) > 3 else (0, b"")


def _differ(codes: Sequence[int]) -> bool:
    return codes[0] not in _PRIMARIES or codes[1] not in _TRANSFERS


def _are_apart(points: Sequence[float] | None, expected: Sequence[float]) -> bool:
    if points is None or len(points) != len(expected):
        return False
    return any(abs(x - y) > _NEAR for x, y in zip(map(float, points), expected, strict=True))
