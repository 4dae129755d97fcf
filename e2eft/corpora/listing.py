"""A corpus of plain images: the listing of a folder, and the names of what is made of them."""

import hashlib
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from e2eft.errors import DamagedError, StorageError
from e2eft.storage import Store

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "gif", "bmp", "dib", "tif", "tiff"),
        *("webp", "avif", "heic", "heif", "jp2", "j2k", "jpx", "jpf", "pbm", "pgm", "ppm", "pnm"),
    )
)
"""Names that promise an image. What a file really is, its first bytes say."""
UNREAD: dict[str, str] = {
    **dict.fromkeys(
        (f".{name}" for name in (
            *("dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "orf", "raf", "rw2"),
            *("pef", "srw", "x3f", "3fr", "fff", "iiq", "kdc", "dcr", "mrw", "erf", "mef", "mos"),
        )),
        "a camera's raw file",
    ),
    ".jxl": "JPEG XL", ".psd": "Photoshop", ".psb": "Photoshop", ".tga": "TGA", ".exr": "OpenEXR",
    ".hdr": "Radiance HDR", ".dds": "DDS", ".pcx": "PCX", ".qoi": "QOI", ".pfm": "PFM",
    ".pam": "PAM", ".sgi": "SGI", ".heics": "HEIF",
    ".heifs": "HEIF", ".hif": "HEIF", ".avci": "HEIF", ".avcs": "HEIF", ".jxr": "JPEG XR",
    ".wdp": "JPEG XR", ".hdp": "JPEG XR", ".xcf": "GIMP", ".kra": "Krita", ".jls": "JPEG-LS",
    ".bpg": "BPG", ".flif": "FLIF",
}  # fmt: skip
"""Names of photographs in formats that are not read, and what to call these."""
LONGEST_NAME_BYTES = 200
"""Of a file's name; file systems allow 255, suffixes and temporary names need some."""
LONGEST_PATH_BYTES = 800
"""Of a path; S3 allows 1024."""
_OUTPUT_SUFFIXES = (".png", ".jpg", ".npy", ".normals.npy")


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
    zero-byte file named like an image is listed, with a reason: somebody meant it to be one; and
    so is one of `UNREAD`, unless it is the `companion` of an image beside it of the same name, as a
    camera's raw files are.
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
            unread = "decode_unsupported" if unread_format(key) else ""
            reason = "name_unsupported" if unsafe else unread if size else "empty_file"
            images.append(ListedImage(key, key, size, reason))
    for problem in problems:
        excluded["broken_link" if isinstance(problem, DamagedError) else "unreadable"] += 1
    read = {_without_suffix(image.key) for image in images if not unread_format(image.key)}
    alone = [i for i in images if not unread_format(i.key) or _without_suffix(i.key) not in read]
    excluded["companion"] += len(images) - len(alone)
    images = sorted(alone, key=lambda image: image.key)
    return Listing(with_output_names(images), dict(sorted((+excluded).items())))


def _exclusion(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path.endswith("/"):
        return "directory_marker"
    named = [part for part in parts if part not in (".", "..")]
    if any(part.startswith(".") or part == "__MACOSX" for part in named):
        return "hidden"
    suffix = PurePosixPath(path).suffix.lower()
    return "" if suffix in SUFFIXES or suffix in UNREAD else "not_an_image"


def _without_suffix(key: str) -> str:
    """The same of the files that a camera, or a person, makes of one photograph."""
    return str(PurePosixPath(key).with_suffix("")).lower()


def unread_format(key: str) -> str:
    """What to call a file of a format that is not read; "" if its name is no such file's."""
    return UNREAD.get(PurePosixPath(key).suffix.lower(), "")


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
