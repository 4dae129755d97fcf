"""Damage to a file's bytes, as disks, networks, scripts and fuzzers do it."""

import random
import struct
from collections.abc import Callable


def _place(content: bytes, rng: random.Random) -> int:
    """Anywhere, every other time in the first tenth, where the headers are."""
    limit = len(content) if rng.random() < 0.5 else max(16, len(content) // 10)
    return rng.randrange(min(limit, len(content)))


def _flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        changed[_place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwritten(content: bytes, rng: random.Random) -> bytes:
    at, size = _place(content, rng), rng.choice((1, 4, 64, 512))
    return content[:at] + rng.randbytes(min(size, len(content) - at)) + content[at + size :]


def _zeroed(content: bytes, rng: random.Random) -> bytes:
    at, size = _place(content, rng), rng.choice((16, 256, 4096))
    return content[:at] + bytes(min(size, len(content) - at)) + content[at + size :]


def _zeroed_tail(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(16, len(content))
    return content[:at] + bytes(len(content) - at)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(1, len(content))]


def _closed(content: bytes, rng: random.Random) -> bytes:
    """Cut, with the last bytes of the whole: an end marker, a trailer, a last chunk."""
    return content[: rng.randrange(1, len(content))] + content[-rng.choice((2, 12, 16)) :]


def _holed(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + rng.choice((1, 7, 128, 2048)) :]


def _stuffed(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + rng.randbytes(rng.choice((1, 7, 128))) + content[at:]


def _doubled(content: bytes, rng: random.Random) -> bytes:
    at, size = _place(content, rng), rng.choice((64, 1024))
    return content[: at + size] + content[at:]


def _as_text(content: bytes, _: random.Random) -> bytes:
    """As a transfer in text mode leaves it."""
    return content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "bits flipped": _flipped,
    "overwritten": _overwritten,
    "zeros": _zeroed,
    "zeroed tail": _zeroed_tail,
    "cut": _cut,
    "cut and closed": _closed,
    "a hole": _holed,
    "bytes inserted": _stuffed,
    "bytes doubled": _doubled,
    "line ends": _as_text,
}


def metadata_ranges(content: bytes, image_format: str) -> list[tuple[int, int]]:
    """Where a whole file holds texts on which no pixel depends."""
    if image_format == "PNG":
        return _png_texts(content)
    if image_format == "JPEG":
        return _jpeg_texts(content)
    if image_format == "WEBP":
        return _webp_texts(content)
    return []


def _png_texts(content: bytes) -> list[tuple[int, int]]:
    ranges, at = [], 8
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            ranges.append((at + 8, at + 12 + size))  # its checksum too
        at += 12 + size
    return ranges


def _jpeg_texts(content: bytes) -> list[tuple[int, int]]:
    """Comments and XMP; EXIF may turn the picture."""
    ranges, at = [], 2
    while content[at] == 0xFF and content[at + 1] != 0xDA:
        size = int.from_bytes(content[at + 2 : at + 4])
        start, end = at + 4, at + 2 + size
        name = b"http://ns.adobe.com/xap/1.0/\0"
        if content[at + 1] == 0xFE:
            ranges.append((start, end))
        elif content[at + 1] == 0xE1 and content.startswith(name, start):
            ranges.append((start + len(name), end))
        at = end
    return ranges


def _webp_texts(content: bytes) -> list[tuple[int, int]]:
    ranges, at = [], 12
    while at + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, at)
        if kind == b"XMP ":
            ranges.append((at + 8, at + 8 + size))
        at += 8 + size + size % 2
    return ranges


def damaged_metadata(content: bytes, ranges: list[tuple[int, int]], rng: random.Random) -> bytes:
    """Some bytes of the texts are others; nothing else is."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 4, 32))):
        at = rng.randrange(*rng.choice(ranges))
        changed[at] ^= rng.randrange(1, 256)
    return bytes(changed)
