"""Lettering for the pictures: one font that is always there, and strings that it can draw."""

from __future__ import annotations

import unicodedata
from typing import cast

from PIL import ImageFont

# Pillow's font is a subset of Aileron: these are all it has of the signs that captions want.
_DRAWABLE_BEYOND_ASCII = frozenset("·°±…")


def font(size_px: int) -> ImageFont.FreeTypeFont:
    """The font that ships inside Pillow at `size_px` pixels: the same letters on every machine."""
    return cast(ImageFont.FreeTypeFont, ImageFont.load_default(size_px))


def drawable(text: str) -> str:
    """`text` in one line of characters that the font has: no accents, a "?" for other strangers."""
    # Not NFKD: that takes "…" apart as well.
    plain = (c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return "".join(
        c if c in _DRAWABLE_BEYOND_ASCII or (c.isascii() and c.isprintable()) else "?"
        for c in plain
    )


def fitted(text: str, width_px: int, size_px: int) -> str:
    """`text`, drawable, and cut in its middle by an ellipsis where it is wider than `width_px`.

    The middle goes first because the ends of a key tell frames apart: the dataset in front, the
    number of the frame behind.
    """
    face = font(size_px)
    text = drawable(text)
    if face.getlength(text) <= width_px:
        return text
    for kept in range(len(text) - 1, 0, -1):
        front = (kept + 1) // 2
        cut = text[:front] + "…" + text[len(text) - (kept - front) :]
        if face.getlength(cut) <= width_px:
            return cut
    return ""


def quantity(value: float, unit: str = "") -> str:
    """A number for a caption, about three significant digits, with its unit: "2.84 m", "45.0°"."""
    size = abs(value)
    if size >= 99.95 or size == 0:
        number = f"{value:.0f}"
    elif size >= 9.995:
        number = f"{value:.1f}"
    else:
        number = f"{value:.2f}" if size >= 0.0995 else f"{value:.2g}"
    return f"{number}{unit}" if unit in ("", "°", "%") else f"{number} {unit}"
