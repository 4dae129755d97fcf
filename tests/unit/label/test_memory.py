"""How much memory a large image takes is what its task declares."""

import io
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2eft.artifacts import Writer
from e2eft.corpora.reading import largest_file
from e2eft.label.chunks import AHEAD_BYTES, BYTES_PER_PIXEL, HELD_BYTES, Work, peak_bytes

SIDE = 3000
MEASURED = """
import re, sys, tempfile
import numpy as np
from e2eft.artifacts import Writer
from e2eft.labels.index import blank_row
from e2eft.images.decoder import decode_image
from e2eft.label.chunks import Item, Work, write_chunk

def peak(name):
    with open("/proc/self/status") as status:
        return 1024 * int(re.search(name + r":\\s+(\\d+)", status.read())[1])

what, side = sys.argv[1], int(sys.argv[2])
if what in ("depth", "normals"):
    shape = (300, 300) if what == "depth" else (300, 300, 3)
    given = np.full(shape, 3**-0.5, np.float32)
    folder = tempfile.mkdtemp()
    work = Work(folder, Writer(folder, "claim", 1), what, "t", "m", 300, 10**9, 8, 0, True, True)
    row = blank_row({"index": 0, "part": 0, "key": "k", "uri": "u"})
    row |= {"width": side, "height": side, "status": "ok"}
    item = Item(row, "k", array=given)
    call = lambda: write_chunk([item], work)
else:
    content = open(what, "rb").read()
    call = lambda: decode_image(content, 10**9)
with open("/proc/self/clear_refs", "w") as refs:
    refs.write("5")  # the peak is what is held now
before = peak("VmRSS")
call()
print((peak("VmHWM") - before) / side**2)
"""


def picture(kind: str) -> bytes:
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE)) // 16
    rgb = np.stack([ramp % 256, ramp[::-1] % 256, ramp[:, ::-1] % 256], -1).astype(np.uint8)
    image, options = Image.fromarray(rgb), {}
    if kind == "alpha.png":
        image.putalpha(Image.fromarray((ramp % 256).astype(np.uint8)))
    if kind == "deep.png":
        image = Image.fromarray((ramp * 7).astype(np.uint16))
    if kind == "float.tif":
        image = Image.fromarray(ramp.astype(np.float32))
    if kind.endswith("png"):
        options = {"compress_level": 1}
    buffer = io.BytesIO()
    formats = {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "webp": "WEBP"}
    image.save(buffer, formats[kind.rpartition(".")[2]], **options)
    return buffer.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("what", ["deep.png", "rgb.webp", "normals"])
def test_no_image_takes_more_than_is_declared_for_its_pixels(what: str, tmp_path: Path) -> None:
    given = what
    if "." in what:
        (tmp_path / what).write_bytes(picture(what))
        given = str(tmp_path / what)
    measured = subprocess.run(
        [sys.executable, "-c", MEASURED, given, str(SIDE)], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    # What a process takes once (threads, buffers) is in HELD_BYTES.
    once = 32 * 2**20 / SIDE**2
    assert 8 < float(measured.stdout) < BYTES_PER_PIXEL + once


def test_the_default_limit_is_two_gigabytes() -> None:
    assert peak_bytes(64_000_000, 0) == HELD_BYTES + AHEAD_BYTES + 1_792_000_000


def test_a_task_declares_its_largest_file_twice_and_none_that_is_not_read(tmp_path: Path) -> None:
    most = largest_file(10**6)
    assert most == 8_000_000 + 64 * 2**20
    of = partial(Work, "i", Writer("o", "c", 1), "depth", "t", "m", 32, 10**6, 2, 0, False, False)
    for listed, read in ((5_000_000, 5_000_000), (10**12, most)):
        assert of(largest_bytes=listed).peak_bytes == peak_bytes(10**6, 0) + 2 * read
    assert of(as_it_is=True).peak_bytes == peak_bytes(10**6, 0) + 2 * most
