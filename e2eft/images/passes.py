"""How often a file has its decoder go over the whole picture.

Progressive JPEG and JPEG 2000 build a picture up pass by pass, and an empty pass takes a few bytes
of the file and the time of all pixels: a few hundred kilobytes may take minutes.
"""

import re

from e2eft.images.boxes import box
from e2eft.images.reasons import ImageError

MOST_PASSES = 200
"""An encoder makes about 10; one for each of the 64 coefficients of three colours were 192. libtiff
stops at 100 scans, libjpeg-turbo's fuzzers at 500."""
_CODED, _START_OF_SCAN, _END = re.compile(rb"\xff+[^\x00\xff]"), 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))
_CODESTREAM, _CODING_STYLE = b"\xff\x4f\xff\x51", b"\xff\x52"
_TILE_PART, _TILE_DATA = b"\xff\x90", b"\xff\x93"


def check_passes(content: bytes, image_format: str) -> None:
    """Raises ImageError, decode_bomb, for a JPEG or JPEG 2000 file of more than MOST_PASSES."""
    if image_format == "JPEG" and content.count(b"\xff\xda") > MOST_PASSES:
        # Previews and what lies behind the picture hold the same bytes.
        passes, what = _scans(content), "scans"
    elif image_format == "JPEG2000":
        passes, what = _layers(content), "quality layers"
    else:
        return
    if passes > MOST_PASSES:
        raise ImageError("decode_bomb", f"{image_format}: {passes} {what}, allowed {MOST_PASSES}")


def _scans(content: bytes) -> int:
    """Of the first picture, whose segments are walked as libjpeg does: to its end marker."""
    at, scans = 2, 0
    while marker := _CODED.search(content, at):
        at, kind = marker.end(), content[marker.end() - 1]
        if kind == _END:
            break
        if kind in _WITHOUT_LENGTH:
            continue
        scans += kind == _START_OF_SCAN
        at += int.from_bytes(content[at : at + 2])
    return scans


def _layers(content: bytes) -> int:
    """The most that a coding style, of the picture or of a tile, says."""
    stream = content if content.startswith(_CODESTREAM) else box(content, b"jp2c")
    most, at, part_end = 0, 2, 0
    while at + 10 <= len(stream):
        kind, length = stream[at : at + 2], int.from_bytes(stream[at + 2 : at + 4])
        if kind == _CODING_STYLE:
            most = max(most, int.from_bytes(stream[at + 6 : at + 8]))
        elif kind == _TILE_PART:
            part_end = at + (int.from_bytes(stream[at + 6 : at + 10]) or len(stream))
        if kind == _TILE_DATA and part_end <= at:
            break
        at = part_end if kind == _TILE_DATA else at + 2 + length
    return most
