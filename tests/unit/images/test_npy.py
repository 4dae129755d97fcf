"""Arrays of .npy files: what is whole comes back, what is damaged raises one error and no other."""

import io
import random
from typing import Any

import numpy as np
import pytest

from e2eft.images.npy import NpyError, decode_npy, encode_npy

DEPTH = np.arange(12, dtype=np.float32).reshape(3, 4)
WHOLE = encode_npy(DEPTH)
DATA = WHOLE.index(b"\n") + 1


def zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, depth=DEPTH)
    return buffer.getvalue()


def header(old: str, new: str) -> bytes:
    """The whole file with another header of the same length."""
    text = WHOLE[:DATA].decode("latin1").replace(old, new).rstrip("\n").rstrip()
    return f"{text:<{DATA - 1}}\n".encode("latin1") + WHOLE[DATA:]


@pytest.mark.parametrize(
    "array",
    [
        DEPTH,
        np.asfortranarray(DEPTH),
        DEPTH.astype(">f4"),
        DEPTH.astype(np.float16),
        np.array(2.5),
        np.zeros((0, 4)),
        DEPTH > 3,
        np.arange(24, dtype=np.uint16).reshape(2, 3, 4),
    ],
)
def test_numbers_come_back_in_any_layout_and_can_be_written_to(array: np.ndarray) -> None:
    back = decode_npy(encode_npy(array))
    assert back.dtype == array.dtype and back.flags.writeable
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no .npy file"),
        (b"PK\x03\x04 and no more", "no .npy file"),
        (zipped(), "no .npy file"),
        (WHOLE[:20], "no .npy file"),
        (header("'descr'", "'''descr"), "no .npy file"),
        (header("'descr'", "(((((("), "no .npy file"),
        (header("(3, 4)", "(3.0, 4)"), "no .npy file"),
        (header("(3, 4)", "(300000000000, 4)"), r"takes 4800000000000 bytes, it has 48 of them"),
        (header("(3, 4)", "(-3, -4)"), "a damaged .npy file"),
        (header("<f4", "<f2"), "takes 24 bytes, it has 48 of them"),
        (WHOLE[:-1], "it has 47 of them"),
        (encode_npy(np.array(["a", "b"])), "expected real numbers"),
        (encode_npy(np.zeros(3, complex)), "expected real numbers"),
        (WHOLE[:6] + b"\x09" + WHOLE[7:], "no .npy file"),
    ],
)
def test_what_is_no_npy_file_or_a_damaged_one_is_named(content: bytes, said: str) -> None:
    with pytest.raises(NpyError, match=said):
        decode_npy(content)


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_whatever_is_damaged_in_a_header_raises_nothing_else() -> None:
    draws = random.Random(0)
    outcomes: dict[Any, int] = {}
    for _ in range(1000):
        content = bytearray(WHOLE)
        for _ in range(draws.choice([1, 2, 5])):
            content[draws.randrange(DATA)] = draws.randrange(256)
        try:
            decode_npy(bytes(content))
            outcome: Any = "read"
        except NpyError as error:
            outcome = type(error.__cause__).__name__
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert {"ValueError", "TokenError", "KeyError", "NoneType"} <= outcomes.keys()
