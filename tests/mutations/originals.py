"""Undamaged picture files of every format and layout that is labelled `ok`, with texts in them."""

import io
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

COMMENT = "taken on a walk " * 20
XMP = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d>{COMMENT}</d></x:xmpmeta>'.encode()
Make = Callable[[Image.Image], bytes]


def picture(rng: random.Random) -> Image.Image:
    """A picture of 24 to 160 pixels a side, of gradients, edges and texture."""
    height, width = rng.randint(24, 160), rng.randint(24, 160)
    noise = np.random.default_rng(rng.getrandbits(32))
    y, x = np.mgrid[:height, :width] / 64.0
    waves = [np.sin(a * x + b * y + c) for a, b, c in noise.uniform(-4, 4, (3, 3))]
    pixels = 110 + 80 * np.stack(waves, -1) + noise.normal(0, 8, (height, width, 3))
    top, left = rng.randrange(height // 2), rng.randrange(width // 2)
    pixels[top : top + height // 3, left : left + width // 3] += 60
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E], exif[0x0110] = COMMENT, "a camera"
    return exif


def _jpeg(mode: str = "RGB", **options: Any) -> Make:
    extra = {"comment": COMMENT.encode(), "exif": _exif(), "xmp": XMP}
    return lambda image: _saved(image.convert(mode), "JPEG", quality=90, **extra, **options)


def _png(mode: str = "RGB", **options: Any) -> Make:
    def make(image: Image.Image) -> bytes:
        info = PngImagePlugin.PngInfo()
        info.add_text("Comment", COMMENT)
        info.add_text("Compressed", COMMENT, zip=True)
        info.add_itxt("Title", COMMENT)
        shown = image.quantize(64) if mode == "P" else image.convert(mode)
        return _saved(shown, "PNG", pnginfo=info, **options)

    return make


def _plain(kind: str, mode: str = "RGB", **options: Any) -> Make:
    def make(image: Image.Image) -> bytes:
        shown = image.quantize(64) if mode == "P" else image.convert(mode)
        return _saved(shown, kind, **options)

    return make


def _webp(**options: Any) -> Make:
    return _plain("WEBP", exif=_exif().tobytes(), xmp=XMP, **options)


LAYOUTS: dict[str, tuple[str, Make]] = {
    "JPEG baseline": ("JPEG", _jpeg()),
    "JPEG progressive": ("JPEG", _jpeg(progressive=True)),
    "JPEG 4:4:4": ("JPEG", _jpeg(subsampling=0)),
    "JPEG restarts": ("JPEG", _jpeg(restart_marker_rows=1)),
    "JPEG grey": ("JPEG", _jpeg("L")),
    "PNG": ("PNG", _png()),
    "PNG grey": ("PNG", _png("L")),
    "PNG palette": ("PNG", _png("P")),
    "PNG bilevel": ("PNG", _png("1")),
    "PNG opaque alpha": ("PNG", _png("RGBA")),
    "GIF": ("GIF", _plain("GIF", "P", comment=COMMENT.encode()[:255])),
    "BMP": ("BMP", _plain("BMP")),
    "BMP grey": ("BMP", _plain("BMP", "L")),
    "TIFF raw": ("TIFF", _plain("TIFF", description=COMMENT)),
    "TIFF LZW": ("TIFF", _plain("TIFF", compression="tiff_lzw", description=COMMENT)),
    "TIFF deflate": ("TIFF", _plain("TIFF", compression="tiff_adobe_deflate")),
    "TIFF packbits grey": ("TIFF", _plain("TIFF", "L", compression="packbits")),
    "WEBP lossy": ("WEBP", _webp(quality=90)),
    "WEBP lossless": ("WEBP", _webp(lossless=True)),
    "AVIF": ("AVIF", _plain("AVIF", quality=90)),
    "JPEG2000 reversible": ("JPEG2000", _plain("JPEG2000")),
    "JPEG2000 lossy": (
        "JPEG2000",
        _plain("JPEG2000", irreversible=True, quality_mode="dB", quality_layers=[45]),
    ),
    "PPM": ("PPM", _plain("PPM")),
    "PGM": ("PPM", _plain("PPM", "L")),
}
"""Format and maker, by name."""
