"""A corpus of plain images: the listing of a folder, and the one strict decoder.

Everything that reads a user's image goes through `decode_image`, so that labels made in batch and
labels served one at a time see the same pixels, upright, in sRGB. What cannot be decoded completely
is refused with a reason from `REASONS`; nothing is ever labelled half.
"""

import hashlib
import io
import threading
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, cast

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from e2eft.errors import DamagedError, E2eftError, StorageError
from e2eft.storage import Store

REASONS: dict[str, str] = {
    "empty_file": "the file has no content",
    "name_unsupported": "the name is not UTF-8 or leaves its folder",
    "duplicate_key": "another image of the corpus has the same key",
    "read_missing": "the file was listed but is no longer there",
    "read_denied": "the file may not be read with these permissions",
    "read_failed": "the file could not be read",
    "source_changed": "the file's size is not the one that was listed",
    "decode_unsupported": "not an image, or of a format that is not supported",
    "decode_truncated": "the file ends before the image does",
    "decode_corrupt": "the content is damaged",
    "decode_bomb": "more pixels than --max-pixels",
    "too_small": "a side is shorter than 8 pixels",
    "aspect_extreme": "so narrow that its short side falls below 8 pixels at the processing size",
    "model_nan": "the model's output is not finite",
    "model_oom": "the image alone does not fit into the accelerator's memory",
}
"""Every reason for which an image gets no label, and what it says to a person."""

DEGRADATIONS: dict[str, str] = {
    "first_frame": "animated or of several pages: the first was labelled",
    "alpha_composited": "transparent pixels were laid over mid-grey",
    "cmyk_without_profile": "converted from CMYK without a colour profile",
    "profile_ignored": "its colour profile is unusable and was ignored",
    "range_scaled": "more than 8 bits a pixel: scaled from its own range",
    "exif_unreadable": "its EXIF is damaged, so its orientation is unknown",
}
"""What may be wrong with an image that is labelled all the same."""

MIN_SIDE_PX = 8
"""One latent of the VAE. Below it there is nothing to estimate."""
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "gif", "bmp", "dib", "tif", "tiff"),
        *("webp", "avif", "heic", "heif", "jp2", "j2k", "jpx", "jpf", "pbm", "pgm", "ppm", "pnm"),
    )
)
"""Names that promise an image. What a file really is, its first bytes say."""
MID_GREY = 127
LONGEST_NAME_BYTES = 200
"""Of a file's name; file systems allow 255, suffixes and temporary names need some."""
LONGEST_PATH_BYTES = 800
"""Of a path; S3 allows 1024."""
_OUTPUT_SUFFIXES = (".png", ".jpg", ".npy", ".normals.npy")

# Before PIL sees a file its format is known, so no other plug-in (PostScript, say) is ever tried.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (8, b"WEBP", "WEBP"),
    (4, b"ftypavi", "AVIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    *((0, b"P%d" % digit, "PPM") for digit in range(1, 7)),
)
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_LIMIT_LOCK = threading.Lock()


class ImageError(E2eftError):
    """An image that gets no label. `reason` is one of `REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        assert reason in REASONS, reason
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class DecodedImage:
    """An image as a person sees it.

    rgb: uint8 `[h w 3]`, sRGB, upright.
    mode: how it was stored, in Pillow's words (`RGB`, `CMYK`, `I;16`, ...).
    exif_orientation: 1 to 8, as the file says; `rgb` has been turned already.
    degraded: names of `DEGRADATIONS`, sorted.
    """

    rgb: np.ndarray
    mode: str
    exif_orientation: int
    degraded: tuple[str, ...] = ()


def decode_image(content: bytes, max_pixels: int) -> DecodedImage:
    """The image in a file's content, decoded to its last byte.

    The format is told by the first bytes, never by a name; the size is checked before any pixel.

    Raises:
        ImageError: empty_file, decode_unsupported, decode_bomb, too_small, decode_truncated or
            decode_corrupt.
    """
    image_format = _sniff(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _open(content, image_format)
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError("decode_bomb", f"{width} x {height} pixels, allowed {max_pixels}")
        if min(width, height) < MIN_SIDE_PX:
            raise ImageError("too_small", f"{width} x {height} pixels, need {MIN_SIDE_PX} a side")
        mode = image.mode
        degraded: set[str] = set()
        stated = _orientation(image, degraded)
        with _decoding(image_format):
            image.load()
            upright = _UPRIGHT.get(left := _orientation(image, degraded))
            rgb = _to_srgb(image, degraded)
            if upright is not None:
                rgb = rgb.transpose(upright)
        if _has_more_frames(image):
            degraded.add("first_frame")
        if image_format == "PNG":  # Pillow decodes pixels without comparing their checksums.
            with _decoding(image_format):
                _open(content, image_format).verify()
    # Pillow turns TIFFs itself while loading and PNGs may say so behind the pixels.
    return DecodedImage(np.asarray(rgb), mode, max(stated, left), tuple(sorted(degraded)))


def _sniff(content: bytes) -> str:
    if not content:
        raise ImageError("empty_file", "0 bytes")
    for offset, magic, image_format in _MAGIC:
        if content.startswith(magic, offset):
            return image_format
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        raise ImageError("decode_unsupported", "HEIC/HEIF; convert it to JPEG or PNG first")
    raise ImageError("decode_unsupported", f"no known image format; it starts with {content[:8]!r}")


@contextmanager
def _decoding(image_format: str) -> Iterator[None]:
    """Turns whatever Pillow raises on bad content into an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        # Pillow hides why; in a TIFF it is most often a pixel layout that it does not know.
        reason = "decode_unsupported" if image_format == "TIFF" else "decode_corrupt"
        raise ImageError(reason, f"{image_format}: its header cannot be read") from error
    except Exception as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        ends = isinstance(error, EOFError) or any(
            hint in text.lower() for hint in ("truncated", "not enough", "unexpected end")
        )
        reason = "decode_truncated" if ends else "decode_corrupt"
        if text.startswith(
            "conversion from"
        ):  # A colour space that Pillow reads but cannot convert.
            reason = "decode_unsupported"
        raise ImageError(reason, f"{image_format}: {text}") from error


def _open(content: bytes, image_format: str) -> Image.Image:
    # Pillow's own limit is a global and would overrule a larger --max-pixels.
    with _LIMIT_LOCK, _decoding(image_format):
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(content), formats=[image_format])
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image, degraded: set[str]) -> int:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # EXIF is written by everyone and may raise anything.
        degraded.add("exif_unreadable")
        return 1
    return value if value in _UPRIGHT else 1


def _has_more_frames(image: Image.Image) -> bool:
    if image.format == "MPO":  # A phone's photograph: what follows is a preview or a gain map.
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # The first frame is whole, what follows is not.
        return True


def _to_srgb(image: Image.Image, degraded: set[str]) -> Image.Image:
    """Any mode of Pillow's as RGB in sRGB, without transparency."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        degraded.add("range_scaled")
        return Image.fromarray(_scaled(np.asarray(image))).convert("RGB")
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
        return image.convert("RGB")
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


def _scaled(values: np.ndarray) -> np.ndarray:
    """Deep grey `[h w]` as uint8: its 0.1 % and 99.9 % quantiles become 0 and 255.

    The quantiles, not the type's range: most 16-bit cameras deliver 10 to 14 bits.
    """
    known = np.isfinite(values)
    if not known.any():
        raise ImageError("decode_corrupt", "no pixel is finite")
    low, high = np.quantile(values[known].astype(np.float64), (0.001, 0.999))
    if not high > low:
        return np.full(values.shape, MID_GREY, np.uint8)
    position = (np.where(known, values, low) - low) / (high - low)
    return np.rint(np.clip(position, 0, 1) * 255).astype(np.uint8)


@dataclass(frozen=True)
class ListedImage:
    """One image of a folder.

    key: its path in the folder, unique; text only, what is not UTF-8 being escaped.
    name: `key` as the stem of output files, unique even where case and accents are not told apart.
    size_bytes: as listed.
    reason: why it will not be read, one of `REASONS`; "" if nothing speaks against it.
    """

    key: str
    name: str
    size_bytes: int
    reason: str = ""


@dataclass(frozen=True)
class Listing:
    """The images of a folder by key, and how many other files were passed over."""

    images: tuple[ListedImage, ...]
    excluded: dict[str, int]


def list_images(store: Store) -> Listing:
    """Every file below a folder that is named like an image.

    Passed over and counted: `hidden` files and folders (`.DS_Store`, `._x.jpg`, `__MACOSX`),
    `directory_marker`s of object stores, what is `not_an_image` by its suffix, a `broken_link`
    (one that leads nowhere or back to where it lies), and an `unreadable` file or folder. A
    zero-byte file named like an image is listed, with a reason: somebody meant it to be one.
    """
    excluded: Counter[str] = Counter()
    images: list[ListedImage] = []
    problems: list[StorageError] = []
    for found in store.scan(problems=problems):
        path, size = found.path, found.size
        if why := _exclusion(path):
            excluded[why] += 1
        else:
            key = path.encode("utf-8", "backslashreplace").decode()
            unsafe = key != path or ".." in path.split("/") or path.startswith("/")
            reason = "name_unsupported" if unsafe else "" if size else "empty_file"
            images.append(ListedImage(key, key, size, reason))
    for problem in problems:
        excluded["broken_link" if isinstance(problem, DamagedError) else "unreadable"] += 1
    images.sort(key=lambda image: image.key)
    return Listing(with_output_names(images), dict(sorted(excluded.items())))


def _exclusion(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path.endswith("/"):
        return "directory_marker"
    named = [part for part in parts if part not in (".", "..")]
    if any(part.startswith(".") or part == "__MACOSX" for part in named):
        return "hidden"
    return "" if PurePosixPath(path).suffix.lower() in SUFFIXES else "not_an_image"


def with_output_names(images: list[ListedImage]) -> tuple[ListedImage, ...]:
    """The images with names under which their labels never meet; keys that occur twice are refused.

    A name is the key itself, suffix included (`a.jpg`, `a.png`), unless that is too long or differs
    from an earlier one by case or accents only, or is a folder of another: then a digest is added.
    """
    parents = (parent for image in images for parent in PurePosixPath(image.name).parents)
    folders = {_folded(parent.as_posix()) for parent in parents}
    keys: set[str] = set()
    taken: set[str] = set()
    named: list[ListedImage] = []
    for image in images:
        if image.key in keys:
            named.append(replace(image, reason="duplicate_key"))
            continue
        keys.add(image.key)
        name = "/".join(part for part in image.key.split("/") if part not in ("", ".", ".."))
        last = name.rpartition("/")[2]
        clashes = any(_folded(name + suffix) in folders for suffix in _OUTPUT_SUFFIXES)
        long = len(last.encode()) > LONGEST_NAME_BYTES or len(name.encode()) > LONGEST_PATH_BYTES
        if long:
            name = last.encode()[-LONGEST_NAME_BYTES // 2 :].decode(errors="ignore")
        if long or clashes or _folded(name) in taken:
            name = f"{name}~{hashlib.sha256(image.key.encode()).hexdigest()[:16]}"
        taken.add(_folded(name))
        named.append(replace(image, name=name))
    return tuple(named)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
