"""Pixels of more than 8 bits a channel as 8 bits: scaled where they fill little of their range."""

from typing import Any, cast

import numpy as np
from PIL import Image

from e2eft.images.reasons import ImageError
from e2eft.images.tiff import is_separate, is_unsigned_32

MID_GREY = 127
STRIP_ROWS = 64
"""Of deep pixels that are in float64 at a time."""
DIM = 64
"""Of 255. Colour of 16 bits that is no brighter fills 14 bits of them or fewer, as a camera does.
Divided like others, 12 bits would come out at a sixteenth of their brightness."""
_PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 262, 0
_MAY_BE_DEEP = frozenset(("PNG", "TIFF", "PPM", "JPEG2000"))
_PNG_BITS_AT = 24
_APART = 2
"""Between two decoders' values of 8 bits, one of which may round and the other not."""


def spread_colour(image: Image.Image, content: bytes, degraded: set[str]) -> Image.Image:
    """A loaded image, of whose deep colour Pillow keeps the upper 8 bits: where these are dim, all
    of its bits, scaled as deep grey is, from their own range, one for all channels; and without the
    colour key that Pillow compares with what it has left of the pixels.

    Args:
        degraded: gets range_scaled where that applies.

    Raises:
        ImageError: decode_unsupported if the lower bits cannot be had.
    """
    if image.format not in _MAY_BE_DEEP or image.mode not in ("RGB", "RGBA"):
        return image
    key = image.info.get("transparency") if _is_deep_png(image, content) else None
    is_dim = max(high for _, high in cast(Any, image.getextrema())[:3]) <= DIM
    if not is_dim and key is None:
        return image
    deep = _all_bits(content)
    if deep is None or deep.dtype != np.uint16:
        return image
    _check_same(deep, image)
    colour, alpha = deep[..., :3], None
    if image.mode == "RGBA":
        # An alpha channel is of as many bits as its colours.
        top = 65535 if deep[..., 3].max() > DIM << 8 else max(1, int(deep[..., 3].max()))
        alpha = np.rint(deep[..., 3] * np.float32(255 / top)).astype(np.uint8)
    elif key is not None:
        alpha = np.where((colour == np.asarray(key, np.uint16)).all(-1), 0, 255).astype(np.uint8)
    if is_dim:
        degraded.add("range_scaled")
        visible = np.ones(colour.shape[:2], bool) if alpha is None else alpha > 0
        rgb = scaled(colour, np.broadcast_to(visible[..., None], colour.shape))
    else:
        rgb = np.asarray(image)
    spread = Image.fromarray(rgb if alpha is None else np.dstack([rgb, alpha]))
    spread.info = {name: told for name, told in image.info.items() if name != "transparency"}
    return spread


def _is_deep_png(image: Image.Image, content: bytes) -> bool:
    return image.format == "PNG" and content[_PNG_BITS_AT] == 16


def _all_bits(content: bytes) -> np.ndarray | None:
    """The pixels `[h w 3]` or `[h w 4]` as they are stored; None if they cannot be had."""
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    if stored is None or stored.ndim != 3 or stored.shape[2] not in (3, 4):
        return None
    return stored[..., [2, 1, 0, *range(3, stored.shape[2])]]


def _check_same(deep: np.ndarray, image: Image.Image) -> None:
    """Raises ImageError unless the two decoders mean the same picture."""
    eight = np.asarray(image)
    is_same = not is_separate(image)  # OpenCV shuffles separate planes.
    is_same = is_same and deep.shape[:2] == eight.shape[:2] and deep.shape[2] >= eight.shape[2]
    share = np.float32(eight[..., :3].max() / max(1, int(deep[..., :3].max())))
    for top in range(0, len(eight) if is_same else 0, STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        apart = deep[rows, :, :3] * share - eight[rows, :, :3]
        is_same = is_same and bool(np.abs(apart).max() < _APART)
    if not is_same:
        raise ImageError(
            "decode_unsupported",
            "colour of 16 bits that fills little of its range, in a layout of which only the upper "
            "8 are read; scale it and convert it to PNG first",
        )


def deep_grey(image: Image.Image, degraded: set[str]) -> Image.Image:
    """One channel of more than 8 bits, scaled from its own range; its colour key becomes grey."""
    degraded.add("range_scaled")
    values = np.asarray(image)
    if is_unsigned_32(image):
        values = values.view(np.uint32)
    hidden = np.zeros(values.shape, bool)
    if isinstance(key := image.info.get("transparency"), int):
        hidden = values == key
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:
        # Of 8 bits and fewer Pillow turns them itself.
        values = ~values if values.dtype.kind in "iu" else -values
    grey = scaled(values, ~hidden)
    if hidden.any():
        degraded.add("alpha_composited")
        grey[hidden] = MID_GREY
    return Image.fromarray(grey).convert("RGB")


def scaled(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Deep pixels `[h w]` or `[h w c]` as uint8: their 0.1 % and 99.9 % quantiles become 0 and 255.

    The quantiles, not the type's range: most 16-bit cameras deliver 10 to 14 bits.

    Args:
        counts: bool, of the same shape: the values whose range it is.
    """
    known = np.isfinite(values)
    if not known.any():
        raise ImageError("decode_corrupt", "no pixel is finite")
    low, high = _quantiles(values[known & counts])
    if not high > low:
        return np.full(values.shape, MID_GREY, np.uint8)
    if values.dtype == np.uint16:  # The same by a table of all codes, and faster.
        return _between(np.arange(65536), low, high)[values]
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        grey[rows] = _between(np.where(known[rows], values[rows], low), low, high)
    return grey


def _between(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _quantiles(counted: np.ndarray) -> tuple[float, float]:
    """The 0.1 % and 99.9 % quantiles: NumPy's, to the bit, without all values in float64."""
    if not counted.size:
        return 0.0, 0.0
    places = np.array([0.001, 0.999]) * (counted.size - 1)
    below = np.floor(places).astype(np.int64)
    above = np.minimum(below + 1, counted.size - 1)
    counted.partition(np.unique([*below, *above]))
    low, high = counted[below].astype(np.float64), counted[above].astype(np.float64)
    share = places - below
    step = high - low
    first, second = np.where(share < 0.5, low + step * share, high - step * (1 - share))
    return float(first), float(second)
