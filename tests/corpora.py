"""Image corpora written with Pillow: a plain one, and one with everything that goes wrong."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def coloured(number: int, height: int = 48, width: int = 64) -> Image.Image:
    """A smooth picture that follows from `number`."""
    rng = np.random.default_rng(number)
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [np.sin(6 * (a * x + b * y + c)) for a, b, c in rng.uniform(-1, 1, (3, 3))]
    return Image.fromarray((127.5 * (np.stack(waves, axis=-1) + 1)).astype(np.uint8))


def write_plain_corpus(folder: Path, count: int, height: int = 48, width: int = 64) -> Path:
    """`count` PNGs of one size."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        coloured(number, height, width).save(folder / f"{number:03d}.png")
    return folder


@dataclass(frozen=True)
class Expected:
    """What must become of an image; size: (height, width) if it is labelled."""

    status: str
    reason: str = ""
    size: tuple[int, int] = (0, 0)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image file's content."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """The first bytes of a PNG that claims this size, and little more."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"


def _orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def nasty_images() -> dict[str, tuple[bytes, Expected]]:
    """Content and expected outcome by key: what real corpora contain."""
    size = 48, 64
    image = coloured(0, *size)
    jpeg, rgba = encoded(image, "JPEG"), image.convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(image.size))
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 16)
    ok, degraded, rejected = "ok", "ok_degraded", "rejected"
    return {
        "plain.jpg": (jpeg, Expected(ok, size=size)),
        "PLAIN.JPG": (jpeg, Expected(ok, size=size)),
        "plain.png": (encoded(image, "PNG"), Expected(ok, size=size)),
        "misnamed.jpg": (encoded(image, "PNG"), Expected(ok, size=size)),
        "deep/er/#1 100%? ü.webp": (encoded(image, "WEBP"), Expected(ok, size=size)),
        "wide.bmp": (encoded(coloured(1, 16, 120), "BMP"), Expected(ok, size=(16, 120))),
        "odd.tif": (encoded(coloured(2, 37, 53), "TIFF"), Expected(ok, size=(37, 53))),
        "rotated.jpg": (
            encoded(image, "JPEG", exif=_orientation(6)),
            Expected(ok, size=(64, 48)),
        ),
        "grey.png": (encoded(image.convert("L"), "PNG"), Expected(ok, size=size)),
        "palette.gif": (encoded(image.quantize(64), "GIF"), Expected(ok, size=size)),
        "bilevel.png": (encoded(image.convert("1"), "PNG"), Expected(ok, size=size)),
        "smallest.png": (encoded(coloured(3, 8, 8), "PNG"), Expected(ok, size=(8, 8))),
        "alpha.png": (encoded(rgba, "PNG"), Expected(degraded, "alpha_composited", size)),
        "sixteen.png": (encoded(deep, "PNG"), Expected(degraded, "range_scaled", size)),
        "cmyk.jpg": (
            encoded(image.convert("CMYK"), "JPEG"),
            Expected(degraded, "cmyk_without_profile", size),
        ),
        "animated.gif": (
            encoded(image, "GIF", save_all=True, append_images=[coloured(4)]),
            Expected(degraded, "first_frame", size),
        ),
        "profile.png": (
            encoded(image, "PNG", icc_profile=b"broken" * 50),
            Expected(degraded, "profile_ignored", size),
        ),
        "empty.jpg": (b"", Expected(rejected, "empty_file")),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], Expected(rejected, "decode_truncated")),
        "text.png": (b"this is no image", Expected(rejected, "decode_unsupported")),
        "damaged.jpg": (b"\xff\xd8\xff" + b"\x12" * 200, Expected(rejected, "decode_corrupt")),
        "bomb.png": (png_header(60_000, 60_000), Expected(rejected, "decode_bomb")),
        "dot.png": (encoded(coloured(5, 1, 1), "PNG"), Expected(rejected, "too_small")),
        "thread.png": (encoded(coloured(6, 8, 800), "PNG"), Expected(rejected, "aspect_extreme")),
        "camera.nef": (b"MM\0*" + b"\0" * 40, Expected(rejected, "decode_unsupported")),
        "phone.heic": (
            b"\0\0\0\x18ftypheic" + b"\0" * 40,
            Expected(rejected, "decode_unsupported"),
        ),
    }


def write_nasty_corpus(folder: Path) -> dict[str, Expected]:
    """Writes `nasty_images` and three files to be passed over; the expected outcomes by key."""
    images = nasty_images()
    for key, (content, _) in images.items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(content)
    for name in (".DS_Store", "._plain.jpg", "notes.txt"):
        (folder / name).write_bytes(b"x")
    return {key: expected for key, (_, expected) in images.items()}
