"""Whether an image is no pinhole's, as far as its header or its edges tell."""

import re

import numpy as np
from PIL import Image

_PROJECTION = re.compile(rb"ProjectionType[\"'>=\s]+([a-z]+)", re.IGNORECASE)
_FISHEYE = re.compile(r"fish-?\s?eye", re.IGNORECASE)
_EXIF_IFD, _LENS_MODEL = 0x8769, 0xA434
_SHARE = 1 / 5
"""Of an image's contrast: what a panorama has at most at its seam, and along its poles."""
_CONTRAST = 4.0
"""Of 255; below it nothing can be told."""


def projection_of(image: Image.Image, rgb: Image.Image) -> set[str]:
    """Names of `DEGRADATIONS`.

    Args:
        image: as opened, with its metadata.
        rgb: its pixels, not turned; perhaps at a smaller size.
    """
    xmp = image.info.get("xmp") or b""
    xmp = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    found = _PROJECTION.search(xmp)
    said = found[1].decode().lower() if found else ""
    is_around = image.width == 2 * image.height and _is_wrapped(rgb)
    if said in ("equirectangular", "cylindrical") or (not said and is_around):
        return {"panorama"}
    if said == "fisheye" or _FISHEYE.search(_lens(image)):
        return {"fisheye"}
    return set()


def _lens(image: Image.Image) -> str:
    try:
        return str(image.getexif().get_ifd(_EXIF_IFD).get(_LENS_MODEL, ""))
    except Exception:  # EXIF is written by everyone and may raise anything.
        return ""


def _is_wrapped(rgb: Image.Image) -> bool:
    """Whether an image goes on at its left where it ends at its right, and its first and last rows
    are one point each, the poles."""
    pixels = np.asarray(rgb).astype(np.int16)
    quarter = rgb.height // 4
    contrast = pixels[quarter:-quarter].std(axis=1).mean()
    seam = np.abs(pixels[:, 0] - pixels[:, -1]).mean()
    poles = pixels[[0, -1]].std(axis=1).mean()
    return bool(contrast > _CONTRAST and max(seam, poles) < _SHARE * contrast)
