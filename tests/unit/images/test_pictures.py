"""Pictures as they are handed in: half ones, slow ones, and what is no pinhole's image."""

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from e2eft.images.decoder import decode_image
from e2eft.images.passes import MOST_PASSES
from e2eft.images.reasons import ImageError
from e2eft.images.resize import fitted_size, resize_rgb

MAX_PIXELS = 1_000_000
HEIGHT, WIDTH = 96, 128


def scene() -> np.ndarray:
    """uint8 `[96 128 3]`, of gradients and texture."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH))
    return np.stack([x + noise, 2 * y + noise, (x * y // 60 + noise) % 215], -1).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def outcome(content: bytes) -> str:
    """ok, degraded: names, or the reason of a reject."""
    try:
        return "+".join(decode_image(content, MAX_PIXELS).degraded) or "ok"
    except ImageError as error:
        return error.reason


# -- Half pictures

JPEGS = {
    "baseline": {"quality": 90},
    "progressive": {"quality": 90, "progressive": True},
    "full colour": {"quality": 95, "subsampling": 0},
    "restarts": {"quality": 90, "restart_marker_rows": 1},
}
HALVES: dict[str, Callable[[bytes, int], bytes]] = {
    "closed by an end marker": lambda whole, at: whole[:at] + b"\xff\xd9",
    "with a hole": lambda whole, at: whole[:at] + whole[at + len(whole) // 4 :],
    "of zeros from there": lambda whole, at: whole[:at] + bytes(len(whole) - at - 2) + b"\xff\xd9",
    "of zeros to the last byte": lambda whole, at: whole[:at] + bytes(len(whole) - at),
    "cut": lambda whole, at: whole[:at],
}


@pytest.mark.parametrize("damage", HALVES)
@pytest.mark.parametrize("kind", JPEGS)
def test_half_a_jpeg_is_never_ok(kind: str, damage: str) -> None:
    for image in (Image.fromarray(scene()), Image.fromarray(scene()).convert("L"),
                  Image.fromarray(scene()).convert("CMYK")):  # fmt: skip
        whole = encoded(image, "JPEG", **JPEGS[kind])
        expected = "cmyk_without_profile" if image.mode == "CMYK" else "ok"
        assert outcome(whole) == expected
        for share in (0.4, 0.6, 0.8, 0.95):
            half = HALVES[damage](whole, int(len(whole) * share))
            assert outcome(half) in ("decode_truncated", "decode_corrupt"), (image.mode, share)


@pytest.mark.parametrize("kind", JPEGS)
def test_what_lies_behind_a_jpeg_is_no_damage(kind: str) -> None:
    whole = encoded(scene(), "JPEG", **JPEGS[kind])
    assert outcome(whole + bytes(100)) == outcome(whole + whole) == "ok"


def test_jpeg_pixels_are_those_of_pillow() -> None:
    for options, mode in itertools.product(JPEGS.values(), ("RGB", "L")):
        content = encoded(Image.fromarray(scene()).convert(mode), "JPEG", **options)
        expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(decode_image(content, MAX_PIXELS).rgb, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_decoded_at_the_scale_at_which_it_is_seen(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = Image.fromarray(scene()).resize((512, 384), Image.Resampling.BICUBIC)
    content = encoded(large, "JPEG", exif=exif)
    full = decode_image(content, MAX_PIXELS)
    assert full.size == full.rgb.shape[:2] == ((384, 512) if orientation < 5 else (512, 384))
    for longest_px, eighths in ((512, 8), (300, 5), (256, 4), (128, 2), (64, 1), (32, 1)):
        seen = decode_image(content, MAX_PIXELS, longest_px)
        assert seen.size == full.size and seen.degraded == full.degraded
        assert max(seen.rgb.shape) == 512 * eighths / 8
        size = fitted_size(*full.size, longest_px)
        apart = resize_rgb(seen.rgb, size).astype(float) - resize_rgb(full.rgb, size)
        # By another filter, and nothing is turned or moved.
        assert np.abs(apart).mean() < 3
    assert decode_image(content, MAX_PIXELS, 1000).rgb.shape == full.rgb.shape


def test_half_a_jpeg_is_not_ok_at_a_small_scale_either() -> None:
    whole = encoded(scene(), "JPEG", quality=90)
    for half in (whole[: len(whole) // 2] + b"\xff\xd9", whole[: len(whole) // 2]):
        with pytest.raises(ImageError):
            decode_image(half, MAX_PIXELS, 16)


# -- PNG, chunk by chunk


def chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        yield kind, content[at + 8 : at + 8 + length]
        at += 12 + length


def png_of(parts: list[tuple[bytes, bytes]]) -> bytes:
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in parts:
        out += (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )
    return out


def png_with(kind: bytes, data: bytes, at: int = 1) -> bytes:
    parts = list(chunks(encoded(scene())))
    return png_of([*parts[:at], (kind, data), *parts[at:]])


TEXTS = {
    "tEXt": (b"tEXt", b"Comment\0" + b"x" * 3_000_000),
    "zTXt": (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000))),
    "iTXt": (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"\0" * 70_000_000)),
    "no text": (b"zTXt", b"Comment\0\0garbage"),
    "unknown": (b"prVt", b"\xff" * 1000),
    "an impossible time": (b"tIME", b"\xff" * 7),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("at", [1, -1])
def test_metadata_are_no_pixels(name: str, at: int) -> None:
    image = decode_image(png_with(*TEXTS[name], at), MAX_PIXELS)
    np.testing.assert_array_equal(image.rgb, scene())
    assert image.degraded == ()


def test_every_checksum_of_a_png_on_which_pixels_depend_is_compared() -> None:
    content = png_with(b"tEXt", b"Comment\0hello")
    at, found = 8, {}
    for kind, data in chunks(content):
        broken = bytearray(content)
        broken[at + 8 + len(data)] ^= 1
        found[kind] = outcome(bytes(broken))
        at += 12 + len(data)
    assert found == {b"IHDR": "decode_corrupt", b"tEXt": "ok",
                     b"IDAT": "decode_corrupt", b"IEND": "decode_corrupt"}  # fmt: skip


def test_a_png_says_in_its_texts_how_it_lies() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    profile = f"\nexif\n{len(raw):8}\n{raw.hex()}\n".encode()
    content = png_with(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))
    assert decode_image(content, MAX_PIXELS).exif_orientation == 6
    damaged = bytearray(content)
    damaged[content.index(b"Raw profile") + 40] ^= 1
    assert outcome(bytes(damaged)) == "exif_unreadable"
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="8"/>')
    assert decode_image(encoded(scene(), pnginfo=info), MAX_PIXELS).exif_orientation == 8


# -- Passes over the whole picture


def segment(marker: int, data: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg_of_scans(scans: int, behind: bytes = b"") -> bytes:
    """A progressive JPEG of 64 x 64 grey pixels, all but one of its scans without a coefficient."""
    codes = bytes([1]) + bytes(15)  # One code, 0, for each table.
    empty = segment(0xDA, b"\1\1\0\1\x3f\0") + bytes([0b00000011])  # A run of 2**6 blocks.
    return b"".join((
        b"\xff\xd8", segment(0xE1, b"\xff\xda" * 300),  # In a text they are no scans.
        segment(0xDB, b"\0" + b"\x10" * 64),
        segment(0xC2, struct.pack(">BHHB", 8, 64, 64, 1) + b"\1\x11\0"),
        segment(0xC4, b"\0" + codes + b"\0"), segment(0xC4, b"\x10" + codes + b"\x60"),
        segment(0xDA, b"\1\1\0\0\0\0"), bytes(8), empty * (scans - 1), b"\xff\xd9", behind,
    ))  # fmt: skip


def test_a_jpeg_of_more_scans_than_any_encoder_makes_is_refused() -> None:
    # What lies behind the picture, here another one, is not scanned.
    few = decode_image(jpeg_of_scans(MOST_PASSES, jpeg_of_scans(300)), MAX_PIXELS)
    assert (few.rgb == 128).all() and few.degraded == ()
    with pytest.raises(ImageError, match="decode_bomb: JPEG: 201 scans, allowed 200"):
        decode_image(jpeg_of_scans(MOST_PASSES + 1), MAX_PIXELS)


@pytest.mark.parametrize("options", [{"no_jp2": True}, {}])
def test_a_jpeg_2000_of_more_layers_than_any_encoder_makes_is_refused(
    options: dict[str, Any],
) -> None:
    whole = encoded(scene(), "JPEG2000", tile_size=(64, 64), **options)
    at = whole.index(b"\xff\x52") + 6
    content = whole[:at] + struct.pack(">H", 65535) + whole[at + 2 :]
    with pytest.raises(ImageError, match="decode_bomb: JPEG2000: 65535 quality layers, allowed"):
        decode_image(content, MAX_PIXELS)
    # A tile may say so too.
    style = struct.pack(">2sHBBHB", b"\xff\x52", 12, 0, 0, 201, 0) + whole[at + 3 : at + 8]
    tile = whole.index(b"\xff\x90", whole.index(b"\xff\x90") + 1)
    length = int.from_bytes(whole[tile + 6 : tile + 10]) + len(style)
    later = whole[: tile + 6] + struct.pack(">I", length) + whole[tile + 10 : tile + 12]
    with pytest.raises(ImageError, match="decode_bomb: JPEG2000: 201 quality layers, allowed 200"):
        decode_image(later + style + whole[tile + 12 :], MAX_PIXELS)


# -- Brands


@pytest.mark.parametrize("brand", [b"mif1", b"avif"])
def test_avif_by_any_of_its_brands(brand: bytes) -> None:
    content = bytearray(encoded(scene(), "AVIF"))
    content[8:12] = brand
    assert outcome(bytes(content)) == "ok"


def test_heif_is_refused_by_any_of_its_brands() -> None:
    for content in (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", b"\0\0\0\x14ftypheix\0\0\0\0heix"):
        with pytest.raises(ImageError, match="HEIC/HEIF; convert it"):
            decode_image(content + bytes(60), MAX_PIXELS)


# -- What is no pinhole's image

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="r"><rdf:Description '
    'xmlns:GPano="http://ns.google.com/photos/1.0/panorama/" {}/></rdf:RDF></x:xmpmeta>'
)
SAID = XMP.format('GPano:ProjectionType="equirectangular"').encode()
ELEMENT = b"<x:xmpmeta><GPano:ProjectionType>equirectangular</GPano:ProjectionType></x:xmpmeta>"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF"])
def test_a_panorama_says_so(kind: str) -> None:
    for xmp in (SAID, ELEMENT):
        options: dict[str, Any] = {"tiffinfo": {700: xmp}} if kind == "TIFF" else {"xmp": xmp}
        assert outcome(encoded(scene(), kind, **options)) == "panorama"
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", SAID.decode())
    assert outcome(encoded(scene(), pnginfo=info)) == "panorama"
    plain = XMP.format('GPano:ProjectionType="rectilinear"').encode()
    assert outcome(encoded(scene(), "JPEG", xmp=plain)) == "ok"


def around(height: int) -> np.ndarray:
    """A panorama: what a direction shows, smooth on the sphere."""
    latitude = np.linspace(np.pi / 2, -np.pi / 2, height)[:, None]
    longitude = np.linspace(-np.pi, np.pi, 2 * height, endpoint=False)[None]
    x, y = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude)
    z = np.sin(latitude) + 0 * longitude
    waves = [np.sin(5 * x + 2 * y), np.cos(4 * y - 3 * z), np.sin(6 * z + x)]
    return np.stack([120 + 100 * wave for wave in waves], -1).astype(np.uint8)


def test_an_unsaid_panorama_is_told_by_its_seam() -> None:
    assert outcome(encoded(around(256))) == "panorama"
    assert outcome(encoded(around(256), "JPEG", quality=85)) == "panorama"
    # Of 2:1 and no panorama: a pinhole's image, a blank one, a part of a panorama.
    assert outcome(encoded(np.asarray(Image.fromarray(scene()).resize((256, 128))))) == "ok"
    assert outcome(encoded(np.full((64, 128, 3), 200, np.uint8))) == "ok"
    assert outcome(encoded(around(256)[64:192, 100:356])) == "ok"


def test_a_fisheye_is_told_by_its_lens() -> None:
    for lens, expected in {
        "EF8-15mm f/4L FISHEYE USM": "fisheye", "Fish-Eye 10.5mm": "fisheye", "EF50mm": "ok",
    }.items():  # fmt: skip
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA434] = lens
        assert outcome(encoded(scene(), "JPEG", exif=exif)) == expected
