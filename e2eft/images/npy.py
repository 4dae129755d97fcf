"""Arrays as .npy files; those of unknown origin are believed no further than they are long."""

import io
import math
from typing import Any

import numpy as np
from numpy.lib import format as npy

from e2eft.errors import E2eftError

_HEADERS: dict[Any, Any] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
"""By version. The third is for names of fields that are not Latin, which numbers have not."""


class NpyError(E2eftError):
    """A file that is no .npy file, or a damaged one, or not of real numbers."""


def encode_npy(array: np.ndarray) -> bytes:
    """An array as an .npy file, for `decode_npy`."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def decode_npy(content: bytes) -> np.ndarray:
    """The array of real numbers in an .npy file.

    Raises:
        NpyError: for anything else.
    """
    stream = io.BytesIO(content)
    try:
        shape, is_fortran, dtype = _HEADERS[npy.read_magic(stream)](stream)
    # What a damaged header raises depends on where it is damaged.
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise NpyError(f"no .npy file: {type(error).__name__}: {why}") from error
    if dtype.kind not in "biuf":
        raise NpyError(f"an .npy file of {dtype}, expected real numbers")
    shape, start = tuple(map(int, shape)), stream.tell()
    expected, left = math.prod(shape) * dtype.itemsize, len(content) - start
    if min(shape, default=0) < 0 or expected != left:
        raise NpyError(
            f"a damaged .npy file: {dtype} {shape} takes {expected} bytes, it has {left} of them"
        )
    order = "F" if is_fortran else "C"
    return np.ndarray(shape, dtype, content, start, order=order).copy(order="K")
