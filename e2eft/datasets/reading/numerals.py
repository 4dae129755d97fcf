"""Numbers written in text: digits that every reader takes for the same number, or none."""

import math
import re
from collections.abc import Sequence

import numpy as np

from e2eft.geometry.camera import Intrinsics

_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def whole_of(text: str) -> int:
    """A count or a frame's number; raises ValueError for `1.0`, `1E+00`, `0_5` and the like."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is no whole number such as 17")
    return int(text)


def number_of(text: str) -> float:
    """A finite number; raises ValueError for any other, such as `nan`, `1e400`, `0,5` or `0_5`."""
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is no number such as 0.577")
    return number


def pinhole_of(words: Sequence[str]) -> Intrinsics:
    """The camera of focal lengths and principal point (fx, fy, cx, cy), in a dataset that has pixel
    centres at whole numbers, moved to half numbers.

    Raises:
        ValueError: unless these are four numbers, and the first two more than 0.
    """
    fx, fy, cx, cy = map(number_of, words)
    if min(fx, fy) <= 0:
        raise ValueError(f"focal lengths {fx:g} and {fy:g}")
    return np.array([[fx, 0, cx + 0.5], [0, fy, cy + 0.5], [0, 0, 1]], np.float64)
