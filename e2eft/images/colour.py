"""Any of Pillow's modes as RGB in sRGB, without transparency."""

import io
from typing import Any, cast

from PIL import Image, ImageCms

from e2eft.images.deep import MID_GREY, deep_grey

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def to_srgb(image: Image.Image, degraded: set[str]) -> Image.Image:
    """A loaded image as RGB.

    Args:
        degraded: gets the names of `DEGRADATIONS` that apply.

    Raises:
        ImageError: decode_corrupt if none of its values is a number.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return deep_grey(image, degraded)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        alpha = rgba.getchannel("A")
        colour = _through_profile(image, rgba.convert("RGB"), degraded)
        if alpha.getextrema()[0] == 255:
            return colour
        degraded.add("alpha_composited")
        grey = Image.new("RGB", image.size, (MID_GREY,) * 3)
        grey.paste(colour, mask=alpha)
        return grey
    if image.mode == "CMYK" and not image.info.get("icc_profile"):
        degraded.add("cmyk_without_profile")
    return _through_profile(image, image, degraded)


def _through_profile(source: Image.Image, image: Image.Image, degraded: set[str]) -> Image.Image:
    """`image` as RGB, by the colour profile that `source` carries if there is a usable one."""
    embedded = source.info.get("icc_profile")
    if not embedded:
        return image if image.mode == "RGB" else image.convert("RGB")
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        facts = cast(Any, profile.profile)
        space = facts.xcolor_space.strip()
        if space == "RGB" and "srgb" in (facts.profile_description or "").lower():
            return image.convert("RGB")
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[space]
        if mode == "CMYK" and image.mode != "CMYK":
            raise ImageCms.PyCMSError("a CMYK profile on an image that is not CMYK")
        converted = ImageCms.profileToProfile(image.convert(mode), profile, _SRGB, outputMode="RGB")
        assert converted is not None
        return converted
    except Exception:  # lcms raises many kinds, and a colour cast is better than no label.
        degraded.add("profile_ignored")
        return image.convert("RGB")
