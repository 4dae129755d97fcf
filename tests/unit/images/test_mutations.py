"""A few hundred damaged files; `python -m tests.mutations` tries ten thousand."""

import os
import signal
import time

import pytest

from tests.mutations.__main__ import table
from tests.mutations.cases import Case, case, fault
from tests.mutations.damage import metadata_ranges
from tests.mutations.judge import Verdict, objection_to
from tests.mutations.originals import COMMENT, LAYOUTS
from tests.mutations.pool import Result, result_of, results

SEEDS = {"damaged": 220, "undamaged": 60, "metadata": 40}


@pytest.mark.parametrize("kind", SEEDS)
def test_no_file_is_silently_something_else(kind: str) -> None:
    found = [result_of(kind, seed) for seed in range(SEEDS[kind])]
    assert [result for result in found if result.fault] == []
    assert len({result.layout for result in found}) > len(LAYOUTS) / 3
    outcomes = {result.outcome for result in found}
    if kind == "damaged":
        assert {"ok", "decode_truncated", "decode_corrupt"} <= outcomes
        assert "**0 faults**" in table(found) and "| PNG |" in table(found)
    else:
        assert outcomes == {"ok"}


def whole(layout: str) -> Case:
    """The first undamaged file of a layout."""
    return next(one for seed in range(1000) if (one := case("undamaged", seed)).layout == layout)


@pytest.mark.parametrize("layout", ["PNG", "JPEG baseline", "WEBP lossy"])
def test_texts_are_where_they_are_said_to_be(layout: str) -> None:
    one = whole(layout)
    ranges = metadata_ranges(one.content, one.image_format)
    assert COMMENT[:40].encode() in b"".join(one.content[start:end] for start, end in ranges)
    blank = bytearray(one.content)
    for start, end in ranges:
        blank[start:end] = b"\1" * (end - start)
    assert COMMENT.encode() not in blank or layout != "PNG"  # EXIF is left alone


def test_judges_object_to_what_is_damaged() -> None:
    png, jpeg = whole("PNG").content, whole("JPEG baseline").content
    broken = bytearray(png)
    broken[png.index(b"IDAT") + 20] ^= 1
    assert objection_to(bytes(broken), "PNG") == "checksum of b'IDAT'"
    assert "premature end" in objection_to(jpeg[:-200] + b"\xff\xd9", "JPEG").lower()
    assert objection_to(png, "PNG") == objection_to(jpeg, "JPEG") == ""


def test_what_is_a_fault() -> None:
    one = whole("PNG")
    damaged = Case(one.layout, "cut", one.content[:-9], one.content)
    assert fault("damaged", damaged, Verdict("decode_truncated")) == ""
    assert fault("damaged", damaged, Verdict("ok")) == ""
    assert "but: checksum" in fault("damaged", damaged, Verdict("ok", "checksum of b'IDAT'"))
    assert "another decoder" in fault("damaged", damaged, Verdict("ok", apart=0.5))
    for kind in ("undamaged", "metadata", "damaged"):
        assert "a whole picture" in fault(kind, one, Verdict("decode_corrupt"))
    assert "pixels are 3.00 off" in fault("metadata", one, Verdict("ok", changed=3.0))


def troublesome(kind: str, seed: int) -> Result:
    """Dies of one seed and hangs of another."""
    if seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 2:
        time.sleep(60)
    return Result(kind, seed, "PNG", "cut", "ok", "")


def test_a_file_that_kills_its_judge_or_hangs_is_a_fault_and_the_others_go_on() -> None:
    wanted = [("damaged", seed) for seed in range(4)]
    found = {one.seed: one.fault for one in results(wanted, 1, troublesome, hangs_s=5)}
    assert found == {0: "", 1: "its process ended with -9", 2: "hangs for 5 s", 3: ""}
