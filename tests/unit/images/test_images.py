"""The decoder against every kind of image that corpora contain."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from e2eft.corpora.listing import ListedImage, list_images, with_output_names
from e2eft.images.colour import MID_GREY
from e2eft.images.decoder import decode_image
from e2eft.images.reasons import REASONS, ImageError
from e2eft.storage import LocalStore

MAX_PIXELS = 1_000_000
HEIGHT, WIDTH = 24, 40


def picture() -> np.ndarray:
    """uint8 `[24 40 3]` whose red grows to the right and whose green grows downwards."""
    red = np.tile(np.linspace(0, 255, WIDTH), (HEIGHT, 1))
    green = np.tile(np.linspace(0, 255, HEIGHT)[:, None], (1, WIDTH))
    return np.stack([red, green, np.full_like(red, 90)], axis=-1).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: Any) -> Any:
    return decode_image(encoded(image, kind, **options), MAX_PIXELS)


def refusal(content: bytes, max_pixels: int = MAX_PIXELS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode_image(content, max_pixels)
    return caught.value


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_are_exact(kind: str) -> None:
    image = decoded(picture(), kind)
    np.testing.assert_array_equal(image.rgb, picture())
    assert (image.mode, image.exif_orientation, image.degraded) == ("RGB", 1, ())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "JPEG2000", "GIF"])
def test_other_formats_are_close(kind: str) -> None:
    image = decoded(picture(), kind)
    assert image.rgb.shape == picture().shape
    assert np.abs(image.rgb.astype(int) - picture()).mean() < 12
    assert image.degraded == ()


@pytest.mark.parametrize(("kind", "options"), [
    ("JPEG", {"quality": 95, "subsampling": 0}),
    ("PNG", {}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("WEBP", {"lossless": True}),
])  # fmt: skip
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_honoured(kind: str, options: dict[str, Any], orientation: int) -> None:
    turns: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: a.transpose(1, 0, 2)[::-1],
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decoded(picture(), kind, exif=exif, **options)
    expected = turns[orientation](picture())
    assert image.rgb.shape == expected.shape
    assert np.abs(image.rgb.astype(int) - expected).mean() < 3
    assert image.exif_orientation == orientation
    assert image.degraded == ()


def test_corrupt_exif_does_not_fail() -> None:
    for exif in (
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0garbage",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    ):
        image = decoded(picture(), "JPEG", exif=exif)
        assert image.rgb.shape == (HEIGHT, WIDTH, 3)
        assert image.exif_orientation == 1
    exif_of_nine = Image.Exif()
    exif_of_nine[0x0112] = 9
    assert decoded(picture(), "JPEG", exif=exif_of_nine).exif_orientation == 1


def test_an_xmp_orientation_counts() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    assert decoded(picture(), "JPEG", xmp=xmp).rgb.shape == (WIDTH, HEIGHT, 3)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_grey_is_scaled_by_its_own_range(dtype: type) -> None:
    ramp = np.tile(np.linspace(100, 4000, 256), (64, 1))
    kind = "PNG" if dtype == np.uint16 else "TIFF"
    image = decoded(ramp.astype(dtype), kind)
    assert image.degraded == ("range_scaled",)
    np.testing.assert_allclose(image.rgb[0, :, 0], np.arange(256), atol=1)
    assert (image.rgb[..., 0] == image.rgb[..., 2]).all()


def test_one_hot_pixel_does_not_darken_deep_grey() -> None:
    ramp = np.tile(np.linspace(0, 1000, 256), (64, 1)).astype(np.uint16)
    ramp[3, 3] = 65535
    assert decoded(ramp).rgb[0, 128, 0] == pytest.approx(128, abs=2)


def test_flat_and_unknown_deep_grey() -> None:
    assert (decoded(np.full((16, 16), 5000, np.uint16)).rgb == MID_GREY).all()
    ramp = np.tile(np.linspace(0, 1, 64), (64, 1)).astype(np.float32)
    ramp[0, :8] = np.nan
    assert decoded(ramp, "TIFF").rgb[0, 0, 0] == 0
    assert (
        refusal(encoded(np.full((16, 16), np.nan, np.float32), "TIFF")).reason == "decode_corrupt"
    )


def test_alpha_is_laid_over_grey() -> None:
    rgba = np.dstack([picture(), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    opaque = decoded(rgba)
    np.testing.assert_array_equal(opaque.rgb, picture())
    assert opaque.degraded == ()
    rgba[:10, :, :3], rgba[:10, :, 3] = 255, 0
    hidden = decoded(rgba)
    assert (hidden.rgb[:10] == MID_GREY).all()
    np.testing.assert_array_equal(hidden.rgb[10:], picture()[10:])
    assert (hidden.mode, hidden.degraded) == ("RGBA", ("alpha_composited",))


def test_grey_palette_and_bilevel() -> None:
    grey = Image.fromarray(picture()).convert("L")
    expected = np.repeat(np.asarray(grey)[..., None], 3, axis=-1)
    np.testing.assert_array_equal(decoded(grey).rgb, expected)
    np.testing.assert_array_equal(decoded(grey.convert("LA")).rgb, expected)
    palette = Image.fromarray(picture()).quantize(32)
    np.testing.assert_array_equal(decoded(palette).rgb, np.asarray(palette.convert("RGB")))
    bilevel = decoded(grey.convert("1"))
    assert bilevel.mode == "1" and set(np.unique(bilevel.rgb)) == {0, 255}


def test_a_transparent_palette_entry_and_colour_key() -> None:
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.paste(1, (0, 0, 16, 8))
    image = decoded(palette, transparency=0)
    assert (image.rgb[:8] == (0, 255, 0)).all() and (image.rgb[8:] == MID_GREY).all()
    keyed = decoded(Image.new("RGB", (16, 16), (9, 9, 9)), transparency=(9, 9, 9))
    assert (keyed.rgb == MID_GREY).all() and keyed.degraded == ("alpha_composited",)


def test_cmyk_and_ycbcr() -> None:
    cmyk = decoded(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95)
    assert (cmyk.mode, cmyk.degraded) == ("CMYK", ("cmyk_without_profile",))
    assert np.abs(cmyk.rgb.astype(int) - picture()).mean() < 6
    assert decoded(Image.fromarray(picture()).convert("YCbCr"), "TIFF").degraded == ()


def test_a_colour_profile_is_applied() -> None:
    # XYZ as a stand-in for a wide gamut: what matters is that the numbers change as lcms says.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert decoded(picture(), icc_profile=srgb).degraded == ()
    np.testing.assert_array_equal(decoded(picture(), icc_profile=srgb).rgb, picture())
    broken = decoded(picture(), icc_profile=b"not a profile" * 20)
    assert broken.degraded == ("profile_ignored",)
    np.testing.assert_array_equal(broken.rgb, picture())
    other = decoded(picture(), icc_profile=profile)
    assert other.degraded == ("profile_ignored",)  # The space XYZ is none an image is stored in.


def wide_gamut_profile() -> bytes:
    """A minimal matrix profile with red and green exchanged and a linear curve, built by hand."""

    def s15(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(s15, values))

    red, green, blue = (0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7139)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"swap\0" + b"\0" * 78
    tags = {b"desc": text, b"rXYZ": xyz(*green), b"gXYZ": xyz(*red), b"bXYZ": xyz(*blue)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve) | {b"wtpt": xyz(0.9642, 1, 0.8249)}
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ "
    )
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + s15(0.9642) + s15(1) + s15(0.8249)
    return head.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_profile_decides_what_red_is(mode: str) -> None:
    red = Image.new(mode, (16, 16), (255, 0, 0))
    image = decoded(red, icc_profile=wide_gamut_profile())
    assert image.degraded == ()
    assert np.abs(image.rgb[0, 0].astype(int) - (0, 255, 0)).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    image = decode_image(content, MAX_PIXELS)
    assert image.degraded == ("first_frame",)
    assert np.abs(image.rgb[8, 8].astype(int) - (255, 0, 0)).max() < 20


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "JPEG2000"])
def test_no_format_is_accepted_without_its_end(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = encoded(noise, kind)
    for share in (0.3, 0.6, 0.95):
        reason = refusal(content[: int(len(content) * share)]).reason
        assert reason in {"decode_truncated", "decode_corrupt", "decode_unsupported"}
    if kind in {"JPEG", "PNG", "TIFF", "GIF", "BMP"}:
        assert refusal(content[: len(content) * 6 // 10]).reason == "decode_truncated"


def test_damage_in_the_middle_is_noticed() -> None:
    content = bytearray(encoded(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)))
    content[len(content) // 2] ^= 0xFF
    assert refusal(bytes(content)).reason == "decode_corrupt"


def test_libtiff_says_nothing_of_what_is_rejected_beside(
    capfd: pytest.CaptureFixture[str],
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = bytearray(encoded(noise, "TIFF", compression="tiff_lzw"))
    content[2000:4000:7] = bytes(len(range(2000, 4000, 7)))
    assert refusal(bytes(content)).reason == "decode_corrupt"
    assert capfd.readouterr().err == ""


def test_damage_that_one_decoder_of_av1_reads_is_no_ok() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = bytearray(encoded(noise, "AVIF"))
    assert decode_image(bytes(content), MAX_PIXELS).degraded == ()
    content[len(content) // 2] ^= 0xFF
    assert decode_image(bytes(content), MAX_PIXELS).degraded == ("av1_doubtful",)


@pytest.mark.parametrize("subsampling", ["4:0:0", "4:2:0", "4:2:2", "4:4:4"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_whole_avif_is_not_doubted(mode: str, subsampling: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    content = encoded(image, "AVIF", subsampling=subsampling)
    assert "av1_doubtful" not in decode_image(content, MAX_PIXELS).degraded


@pytest.mark.parametrize("content", [b"<html>404</html>", b"%!PS-Adobe-3.0 EPSF", b"\0" * 100])
def test_what_is_no_image_is_unsupported(content: bytes) -> None:
    assert refusal(content).reason == "decode_unsupported"
    assert refusal(b"").reason == "empty_file"


def test_heic_gets_a_hint() -> None:
    error = refusal(b"\0\0\0\x18ftypheic" + b"\0" * 50)
    assert error.reason == "decode_unsupported" and "convert" in error.detail


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"


@pytest.mark.parametrize("size", [(1001, 1000), (50_000, 50_000), (2**31 - 1, 1000)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    error = refusal(png_header(*size))
    assert error.reason == "decode_bomb" and str(size[0]) in error.detail


def test_the_limit_is_ours_and_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode_image(encoded(picture()), WIDTH * HEIGHT).rgb.shape == (HEIGHT, WIDTH, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    assert refusal(encoded(picture()), WIDTH * HEIGHT - 1).reason == "decode_bomb"


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_tiny_images_are_refused(size: tuple[int, int]) -> None:
    assert refusal(encoded(Image.new("RGB", size))).reason == "too_small"
    assert decoded(Image.new("RGB", (8, 8))).rgb.shape == (8, 8, 3)


MAGICS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"P6 ",
          b"RIFF\0\0\0\0WEBP"]  # fmt: skip


@given(st.binary(max_size=300), st.sampled_from(MAGICS))
def test_garbage_is_always_refused_with_a_reason(content: bytes, magic: bytes) -> None:
    try:
        decode_image(magic + content, 10_000)
    except ImageError as error:
        assert error.reason in REASONS and error.detail


def listing_of(folder: Path, *names: str) -> Any:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if "empty" in name else b"x")
    return list_images(LocalStore(folder))


def test_listing_passes_over_and_counts(tmp_path: Path) -> None:
    names = ["b.jpg", "a/c.PNG", "._b.jpg", ".git/x.png", "__MACOSX/b.jpg", "notes.txt", "README"]
    listing = listing_of(tmp_path, *names, "empty.jpg", "what #?% this.webp", "x.heic")
    assert [(image.key, image.reason) for image in listing.images] == [
        ("a/c.PNG", ""), ("b.jpg", ""), ("empty.jpg", "empty_file"),
        ("what #?% this.webp", ""), ("x.heic", ""),
    ]  # fmt: skip
    assert listing.excluded == {"hidden": 3, "not_an_image": 2}


UNREAD_MAGICS = {
    b"\xff\x0a": "JPEG XL", b"8BPS\0\1": "Photoshop", b"v/1\x01\2\0\0\0": "OpenEXR",
    b"#?RADIANCE\n": "Radiance HDR", b"DDS |": "DDS", b"qoif": "QOI", b"Pf\n": "PFM",
    b"P7\nWIDTH 4": "PAM", b"\0\0\1\0\1": "an icon", b"II*\0\x10\0\0\0CR\2": "a camera's raw file",
    b"\0\0\0\x18ftypcrx ": "a camera's raw file",
}  # fmt: skip


def test_a_photograph_of_a_format_that_is_not_read_is_called_by_its_name() -> None:
    for magic, name in UNREAD_MAGICS.items():
        error = refusal(magic + bytes(100))
        assert error.reason == "decode_unsupported"
        assert error.detail.startswith(name) and "convert it to" in error.detail


def test_photographs_of_formats_that_are_not_read_are_listed_with_a_reason(tmp_path: Path) -> None:
    names = ["a.NEF", "b.jxl", "c.psd", "d.exr", "e.tga", "empty.cr2", "f.txt", "g.jpg"]
    listing = listing_of(tmp_path, *names)
    assert [(image.key, image.reason) for image in listing.images] == [
        *((name, "decode_unsupported") for name in names[:5]), ("empty.cr2", "empty_file"),
        ("g.jpg", ""),
    ]  # fmt: skip
    assert listing.excluded == {"not_an_image": 1}


def test_a_raw_file_beside_its_photograph_is_its_companion(tmp_path: Path) -> None:
    names = ["a.NEF", "A.jpg", "b.nef", "sub/b.jpg", "c.jpg", "c.jpg.cr2"]
    listing = listing_of(tmp_path, *names)
    assert [image.key for image in listing.images if image.reason] == ["b.nef", "c.jpg.cr2"]
    assert listing.excluded == {"companion": 1}


def test_links_are_followed_and_what_leads_nowhere_is_counted(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.png").write_bytes(b"x")
    folder = tmp_path / "photos"
    folder.mkdir()
    for link, target in {
        "linked": "../elsewhere", "b.png": "linked/a.png", "gone.png": "nowhere", "up": "..",
    }.items():  # fmt: skip
        (folder / link).symlink_to(target)
    os.mkfifo(folder / "pipe.png")
    listing = list_images(LocalStore(folder))
    # `up` leads out of the folder, where `photos` is one that it lies in.
    keys = ["b.png", "linked/a.png", "up/elsewhere/a.png"]
    assert [image.key for image in listing.images] == keys
    assert listing.excluded == {"broken_link": 3}


def test_a_name_that_is_not_utf8_is_listed_and_refused(tmp_path: Path) -> None:
    (tmp_path / b"caf\xe9.jpg".decode(errors="surrogateescape")).write_bytes(b"x")
    (image,) = list_images(LocalStore(tmp_path)).images
    assert image.reason == "name_unsupported"
    assert image.key.encode() == rb"caf\udce9.jpg"


KEYS = st.text(st.sampled_from("aAéé/.~pngj"), min_size=1, max_size=12)


@given(st.lists(KEYS, max_size=12))
def test_output_files_never_meet(keys: list[str]) -> None:
    named = with_output_names([ListedImage(key, key, 1) for key in keys])
    assert [image.key for image in named] == keys
    kept = [image for image in named if not image.reason]
    assert len(kept) == len(set(keys))
    names = [image.name.casefold() for image in kept]
    assert len(set(names)) == len(names)
    files = {name + ".png" for name in names}
    assert not any(file.startswith(f"{other}/") for file in files for other in files)


def test_stems_cases_and_long_names_keep_apart(tmp_path: Path) -> None:
    long = "x" * 250 + ".jpg"
    keys = ["a.jpg", "a.png", "A.JPG", long, "d/a.jpg.png/b.jpg", "d/a.jpg"]
    named = {image.key: image.name for image in with_output_names(
        [ListedImage(key, key, 1) for key in keys])}  # fmt: skip
    assert named["a.jpg"] == "a.jpg" and named["a.png"] == "a.png"
    assert named["A.JPG"].startswith("A.JPG~")
    assert named["d/a.jpg"].startswith("d/a.jpg~")
    for name in named.values():
        (tmp_path / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
        LocalStore(tmp_path).write(f"{name}.normals.npy", b"x")
        LocalStore(tmp_path).write(f"{name}.png", b"x")
