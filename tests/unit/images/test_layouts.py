"""Layouts of pixels: bits, planes, byte orders, and what a file says of its colours."""

import io
import itertools
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from e2eft.images.colour import MID_GREY
from e2eft.images.decoder import decode_image
from e2eft.images.reasons import ImageError
from tests.tiffs import DEFLATE, SEPARATE, tiff

MAX_PIXELS = 1_000_000
HEIGHT, WIDTH = 32, 128


def scene() -> np.ndarray:
    """uint8 `[32 128 3]`, of gradients and texture, over the whole range."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH))
    return np.stack([2 * x, 6 * y + noise, (x * y // 16 + noise) % 256], -1).astype(np.uint8)


def outcome(content: bytes) -> str:
    """ok, degraded: names, or the reason of a reject."""
    try:
        return "+".join(decode_image(content, MAX_PIXELS).degraded) or "ok"
    except ImageError as error:
        return error.reason


WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK = 0, 1, 2, 5
RAMP = np.tile(np.arange(WIDTH), (HEIGHT, 1))
"""0 to 127, growing to the right."""


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("dtype", "bits", "sample_format"),
    [(np.uint8, 1, 1), (np.uint8, 2, 1), (np.uint8, 4, 1), (np.uint8, 8, 1), (np.uint16, 16, 1),
     (np.int16, 16, 2), (np.uint32, 32, 1), (np.int32, 32, 2), (np.float32, 32, 3)],
)  # fmt: skip
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
def test_grey_tiffs_are_bright_where_they_say(
    photometric: int, dtype: type, bits: int, sample_format: int, big: bool
) -> None:
    top = min(2**bits - 1, 4095)
    values = (RAMP * top / 127).astype(dtype)[..., None]
    content = tiff(values, photometric, bits, sample_format=sample_format, big=big)
    if outcome(content) == "decode_unsupported":  # Of what Pillow does not know some are left.
        assert bits > 8 and (big or photometric == WHITE_IS_ZERO)
        kind = ("", "unsigned", "signed", "floating point")[sample_format]
        interpreted = ("white is zero", "black is zero")[photometric]
        order = "big-endian" if big else "little-endian"
        told = rf"TIFF of 1 x {bits} bits, {kind}, {interpreted}, compression 1, {order}; convert"
        with pytest.raises(ImageError, match=told):
            decode_image(content, MAX_PIXELS)
        return
    image = decode_image(content, MAX_PIXELS)
    expected = values[..., 0].astype(np.float64) * 255 / top
    if photometric == WHITE_IS_ZERO:
        expected = 255 - expected
    assert np.abs(image.rgb - expected[..., None]).max() <= 3
    assert image.degraded == (("range_scaled",) if bits > 8 else ())


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colour_tiffs(dtype: type, big: bool) -> None:
    deep = scene().astype(dtype) * (257 if dtype == np.uint16 else 1)
    content = tiff(deep, RGB, 8 * deep.itemsize, big=big)
    np.testing.assert_array_equal(decode_image(content, MAX_PIXELS).rgb, scene())


def test_what_hides_pixels_hides_them_in_deep_grey_too() -> None:
    values = (RAMP * 30).astype(np.uint16)
    values[:, :8] = 65535
    image = decode_image(png(values[..., None], (b"tRNS", b"\xff\xff")), MAX_PIXELS)
    assert (image.rgb[:, :8] == MID_GREY).all()
    # And its colour key is none of the values that others are scaled by.
    np.testing.assert_allclose(image.rgb[0, 8:, 0], np.linspace(0, 255, 120), atol=2)
    assert image.degraded == ("alpha_composited", "range_scaled")


# -- TIFF, as a table

KINDS: dict[str, tuple[int, tuple[int, ...], str]] = {
    "white is zero": (WHITE_IS_ZERO, (), "w"), "grey": (BLACK_IS_ZERO, (), "v"),
    "grey with alpha": (BLACK_IS_ZERO, (2,), "vo"), "grey with more": (BLACK_IS_ZERO, (0,), "vk"),
    "RGB": (RGB, (), "rgb"), "RGB with alpha": (RGB, (2,), "rgbo"),
    "RGB with its alpha": (RGB, (1,), "rgbo"), "RGB with more": (RGB, (0,), "rgbv"),
    "CMYK": (CMYK, (), "cmyk"),
}  # fmt: skip
"""Photometric interpretation, extra samples, and which channels are stored."""
DEPTHS = [(1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (16, 1), (16, 2), (32, 1), (32, 2), (32, 3)]
"""(bits, sample format)"""
READ_OF_ALL = {
    "white is zero": {(1, 1): 8, (2, 1): 8, (4, 1): 8, (8, 1): 8, (16, 1): 4, (32, 3): 5},
    "grey": {(1, 1): 8, (2, 1): 8, (4, 1): 8, (8, 1): 8, (16, 1): 8, (16, 2): 5, (32, 1): 4,
             (32, 2): 5, (32, 3): 5},
    "grey with alpha": {(8, 1): 4},
    "grey with more": {(1, 1): 2, (2, 1): 4, (4, 1): 4, (8, 1): 6, (16, 1): 4, (16, 2): 2,
                       (32, 1): 2, (32, 2): 2, (32, 3): 2},
    "RGB": {(8, 1): 8, (16, 1): 8},
    "RGB with alpha": {(8, 1): 8, (16, 1): 8},
    "RGB with its alpha": {(8, 1): 8, (16, 1): 8},
    "RGB with more": {(8, 1): 6, (16, 1): 8},
    "CMYK": {(8, 1): 8, (16, 1): 8},
}  # fmt: skip
"""How many of byte orders x planes x compressions are read; none of what is not named."""


def stored(channels: str, bits: int, sample_format: int) -> np.ndarray:
    """`[32 128 c]`: a scene's red, green and blue, their complements, a ramp of grey or its
    complement, o for opaque and k for no black, over the whole range of so many bits."""
    rgb = scene() / 255.0
    grey = np.tile(np.arange(WIDTH) / (WIDTH - 1), (HEIGHT, 1))
    of = dict(zip("rgbcmyvwok", [*rgb.transpose(2, 0, 1), *(1 - rgb).transpose(2, 0, 1), grey,
                                 1 - grey, np.ones_like(grey), 0 * grey], strict=True))  # fmt: skip
    share = np.stack([of[channel] for channel in channels], -1)
    if sample_format == 3:
        return share.astype(np.float32)
    codes = np.rint(share * (2**bits - 1)).astype(np.int64)
    if sample_format == 2:
        codes -= 2 ** (bits - 1)
    return codes.astype(f"{'ui'[sample_format - 1]}{max(8, bits) // 8}")


@pytest.mark.parametrize("kind", KINDS)
def test_a_tiff_of_any_layout_is_right_or_refused(kind: str) -> None:
    photometric, extra, channels = KINDS[kind]
    for bits, sample_format in DEPTHS:
        samples = stored(channels, bits, sample_format)
        shown = samples[..., :3] if "rgb" in channels else stored("rgb", 8, 1)
        expected = shown / 257 if samples.dtype == np.uint16 and "rgb" in channels else shown
        if channels[0] in "vw":
            codes = stored("v", min(bits, 16), 1)
            expected = codes * (255 / codes.max())
        read = 0
        for big, planar, compression in itertools.product((False, True), (1, 2), (1, DEFLATE)):
            content = tiff(samples, photometric, bits, sample_format=sample_format, big=big,
                           planar=planar, compression=compression, extra=extra)  # fmt: skip
            try:
                image = decode_image(content, MAX_PIXELS)
            except ImageError as error:
                assert error.reason == "decode_unsupported" and "convert it" in error.detail
                continue
            at = (bits, sample_format, big, planar, compression)
            assert np.abs(image.rgb - expected).max() <= 3, at
            is_scaled = bits > 8 and channels[0] in "vw"
            assert ("range_scaled" in image.degraded) == is_scaled, at
            read += 1
        assert read == READ_OF_ALL[kind].get((bits, sample_format), 0), (bits, sample_format)


def test_half_of_separate_planes_is_never_ok() -> None:
    for bits in (8, 16):
        content = bytearray(tiff(stored("rgb", bits, 1), RGB, bits, planar=SEPARATE))
        places = struct.unpack_from(
            "<I", content, content.index(struct.pack("<HHI", 273, 4, 3)) + 8
        )
        struct.pack_into("<I", content, places[0] + 8, len(content) - 100)  # of the third plane
        assert outcome(bytes(content)) in ("decode_truncated", "decode_corrupt"), bits


@pytest.mark.parametrize(
    ("tag", "kind", "values"), [(254, 4, (1,)), (50706, 1, (1, 4, 0, 0))], ids=["reduced", "DNG"]
)
def test_the_preview_in_a_cameras_raw_file_is_not_its_picture(
    tag: int, kind: int, values: tuple[int, ...]
) -> None:
    content = tiff(scene(), RGB, 8, more=((tag, kind, values),))
    with pytest.raises(ImageError, match=r"decode_unsupported: .* preview .*; convert it"):
        decode_image(content, MAX_PIXELS)


# -- Colour of 16 bits


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: np.ndarray, *said: tuple[bytes, bytes]) -> bytes:
    """A PNG of samples `[h w c]`, uint8 or uint16, with chunks before its pixels."""
    bits, colour = 8 * samples.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[samples.shape[2]]
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour, 0, 0, 0)
    rows = samples.astype(samples.dtype.newbyteorder(">")).reshape(len(samples), -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", head), *said, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(itertools.starmap(chunk, chunks))


def ppm(samples: np.ndarray) -> bytes:
    head = f"P6 {samples.shape[1]} {samples.shape[0]} 65535\n".encode()
    return head + samples.astype(">u2").tobytes()


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_colour_of_a_cameras_own_codes_is_scaled_and_said_to_be(bits: int) -> None:
    codes = np.rint(scene() * ((2**bits - 1) / 255)).astype(np.uint16)
    opaque = np.dstack([codes, np.full((HEIGHT, WIDTH), 2**bits - 1, np.uint16)])
    for content in (png(codes), png(opaque), ppm(codes), tiff(codes, RGB, 16),
                    tiff(codes, RGB, 16, big=True, compression=DEFLATE),
                    tiff(opaque, RGB, 16, extra=(2,))):  # fmt: skip
        image = decode_image(content, MAX_PIXELS)
        assert image.degraded == ("range_scaled",), content[:60]
        assert np.abs(image.rgb.astype(int) - scene()).max() <= 3
    # A corpus that was begun otherwise goes on so.
    before = decode_image(png(codes), MAX_PIXELS, as_before=True)
    assert before.degraded == () and before.rgb.max() < 2 ** (bits - 8)
    with pytest.raises(ImageError, match=r"decode_unsupported: colour of 16 bits .*; scale it"):
        decode_image(tiff(codes, RGB, 16, planar=SEPARATE), MAX_PIXELS)


def test_colour_that_fills_its_16_bits_is_divided() -> None:
    half = (scene().astype(np.uint16) * 257) // 2
    for content in (png(half), ppm(half), tiff(half, RGB, 16)):
        image = decode_image(content, MAX_PIXELS)
        assert image.degraded == ()
        assert np.abs(image.rgb - scene() / 2).max() <= 1
    dark = (scene() // 8).astype(np.uint8)  # Of 8 bits it is a dark picture.
    np.testing.assert_array_equal(decode_image(png(dark), MAX_PIXELS).rgb, dark)
    assert outcome(png(dark)) == "ok"


@pytest.mark.parametrize("share", [1, 16])
def test_a_colour_key_of_16_bits_hides_its_pixels_and_no_others(share: int) -> None:
    codes = (scene().astype(np.uint16) * 257) // share
    codes[:8] = key = np.array([60001, 3000, 9]) // share
    codes[8, 0] = key + np.array([1, 0, 0])
    content = png(codes, (b"tRNS", struct.pack(">HHH", *key)))
    image = decode_image(content, MAX_PIXELS)
    assert (image.rgb[:8] == MID_GREY).all() and (image.rgb[8, 0] != MID_GREY).all()
    assert np.abs(image.rgb[9:].astype(int) - scene()[9:]).max() <= 3
    assert image.degraded == (
        ("alpha_composited",) if share == 1 else ("alpha_composited", "range_scaled")
    )


# -- What a file says of its colours

P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
SRGB = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
SAID: dict[str, tuple[str, list[tuple[bytes, bytes]]]] = {
    "PQ": ("taken_as_srgb", [(b"cICP", bytes([9, 16, 0, 1]))]),
    "P3 by its code": ("taken_as_srgb", [(b"cICP", bytes([12, 13, 0, 1])), (b"sRGB", b"\0")]),
    "a narrow range": ("taken_as_srgb", [(b"cICP", bytes([1, 13, 0, 0]))]),
    "sRGB by its code": ("ok", [(b"cICP", bytes([1, 13, 0, 1])), (b"cHRM", P3)]),
    "linear": ("taken_as_srgb", [(b"gAMA", struct.pack(">I", 100000))]),
    "P3": ("taken_as_srgb", [(b"cHRM", P3), (b"gAMA", struct.pack(">I", 45455))]),
    "sRGB's numbers": ("ok", [(b"cHRM", SRGB), (b"gAMA", struct.pack(">I", 45455))]),
    "sRGB all the same": ("ok", [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100000))]),
}


@pytest.mark.parametrize("what", SAID)
def test_colours_that_are_said_to_be_others_are_remarked_on(what: str) -> None:
    expected, said = SAID[what]
    assert outcome(png(scene(), *said)) == expected


def saved(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(scene()).save(buffer, kind, **options)
    return buffer.getvalue()


def test_colours_of_other_formats_that_are_said_to_be_others() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2  # Adobe RGB, as cameras say it
    assert outcome(saved("JPEG", exif=exif)) == "taken_as_srgb"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert outcome(saved("JPEG", exif=exif, icc_profile=profile)) == "ok"
    avif = saved("AVIF")
    at = avif.index(b"colrnclx") + 8
    assert outcome(avif) == "ok"
    assert outcome(avif[:at] + bytes([0, 9, 0, 16]) + avif[at + 4 :]) == "taken_as_srgb"
    jp2 = saved("JPEG2000")
    at = jp2.index(b"colr")
    assert outcome(jp2) == "ok"
    assert outcome(jp2[: at + 7] + struct.pack(">I", 21) + jp2[at + 11 :]) == "taken_as_srgb"
