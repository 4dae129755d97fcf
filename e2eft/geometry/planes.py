"""Planes through the pixels of an image of inverse depth, each fitted to its neighbourhood.

A plane is affine in inverse depth over the image: of ``n . X = c`` and ``X = w K^-1 p`` follows
``1/w = (K^-T n / c) . p``, where w is the depth z unless the lens is tilted. So a pixel's plane is
three numbers: its value at the pixel less the pixel's own, and its slopes to the right and down.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float32

_Image = Float32[np.ndarray, "h w"]
_Values = Float[np.ndarray, "h w"]
_Known = Bool[np.ndarray, "h w"]
_Planes = Float32[np.ndarray, "3 h w"]
_Window = tuple[slice, slice]
_Offsets = tuple[tuple[int, int], ...]


def _block(columns: range, rows: range) -> _Offsets:
    """(dx, dy) of its pixels, the nearest first."""
    pixels = [(dx, dy) for dy in rows for dx in columns]
    return tuple(sorted(pixels, key=lambda one: abs(one[0]) + abs(one[1])))


_RADIUS, _STRIP = 2, 48
_AROUND = tuple((dx, dy) for dy in range(-2, 3) for dx in range(-2, 3))
_BLOCKS = (
    _block(range(-1, 2), range(-1, 2)),
    _block(range(2), range(-1, 2)),
    _block(range(-1, 2), range(2)),
)
_SOFTNESS = (2.0, 1.0)
_ROUNDING = 0.25
_STEEPNESS = 2.0
_SUPPORT = 6.0
_NEIGHBOURS_SOFTNESS = (30.0, 5.0, 1.0)


def own_planes(inverse: _Image, known: _Known, noise: _Values) -> _Planes:
    """The plane that each pixel lies on itself.

    Among the blocks of 3 x 3, 2 x 3 and 3 x 2 pixels that hold the pixel, wherever in them, the
    flattest gives a first plane, which no edge crosses if one of the blocks is free of edges (after
    Nagao and Matsuyama 1979). It is fitted again to the 5 x 5 pixels around, twice, with the
    weights ``1 / (1 + (r/s)^2)^2`` of its residuals r (Geman and McClure), s being two and then one
    `noise`.

    Args:
        noise: how far a pixel may be off the plane that it lies on.

    Returns:
        NaN where the pixel is off its plane by more than the noise, and where the weights of the
        pixels that agree do not add up to six: a row or a column of five has no plane.
    """
    return _in_strips(_own_planes, inverse, known, noise)


def neighbours_planes(inverse: _Image, known: _Known, noise: _Values) -> _Planes:
    """The plane that most of the 5 x 5 pixels around each pixel lie on, whether or not it does.

    Fitted to all of them first and again with the weights of `own_planes`, s shrinking to `noise`.
    Within two pixels of an edge this is often the plane across it.
    """
    return _in_strips(_neighbours_planes, inverse, known, noise)


def _in_strips(
    planes_of: Callable[[_Image, _Known, _Image], _Planes],
    inverse: _Image,
    known: _Known,
    noise: _Values,
) -> _Planes:
    """`planes_of` of a few rows at a time, which fit into the processor's cache: a pixel's plane
    depends on the pixels within the radius alone."""
    planes = np.empty((3, *inverse.shape), np.float32)
    for top in range(0, len(inverse), _STRIP):
        above = min(_RADIUS, top)
        rows = slice(top - above, top + _STRIP + _RADIUS)
        strip = planes_of(inverse[rows], known[rows], noise[rows])
        planes[:, top : top + _STRIP] = strip[:, above : above + _STRIP]
    return planes


def _own_planes(inverse: _Image, known: _Known, noise: _Values) -> _Planes:
    planes = _flattest(inverse, known, noise)
    support = np.zeros_like(inverse)
    for softness in _SOFTNESS:
        planes, support = _fitted(inverse, known, planes, 1 / (np.float32(softness) * noise))
    lies_on_it = known & (np.abs(planes[0]) <= noise) & (support >= _SUPPORT)
    return np.where(lies_on_it, planes, np.float32(np.nan))


def _neighbours_planes(inverse: _Image, known: _Known, noise: _Values) -> _Planes:
    planes = np.zeros((3, *inverse.shape), np.float32)
    for softness in _NEIGHBOURS_SOFTNESS:
        planes, _ = _fitted(inverse, known, planes, 1 / (softness * noise))
    return planes


def _flattest(inverse: _Image, known: _Known, noise: _Values) -> _Planes:
    """The least-squares plane of the flattest block that holds each pixel; NaN if none has one."""
    least = np.full_like(inverse, np.inf)
    choice = np.zeros(inverse.shape, np.intp)
    offsets: list[tuple[int, int, int]] = []
    found: list[_Planes] = []
    for number, block in enumerate(_BLOCKS):
        planes, cost = _block_planes(inverse, known, noise, block)
        found.append(planes)
        costs = np.pad(cost, 1, constant_values=np.inf)
        for dx, dy in block:
            candidate = costs[_window(inverse.shape, 1, -dx, -dy)]
            better = candidate < least
            np.copyto(least, candidate, where=better)
            np.copyto(choice, len(offsets), where=better)
            offsets.append((number, dx, dy))
    number, dx, dy = np.moveaxis(np.array(offsets, np.intp)[choice], -1, 0)
    height, width = inverse.shape
    rows, columns = np.mgrid[:height, :width] - np.stack([dy, dx])
    planes = np.stack(found, axis=-1)[:, rows, columns, number]  # [3 h w]
    value = inverse[rows, columns] + planes[0] + dx * planes[1] + dy * planes[2]
    planes[0] = value - inverse
    return np.where(np.isfinite(least), planes, np.float32(np.nan))


def _block_planes(
    inverse: _Image, known: _Known, noise: _Values, block: _Offsets
) -> tuple[_Planes, _Values]:
    """The least-squares plane of the block at each pixel, and how bad it is: the worst residual, in
    units of the noise, by the number of pixels, since three lie on a plane however they lie. Below
    a quarter of the noise it is rounding that decides, and nothing is better.

    Two rows or columns are flat across an edge between them too, but steep: of such blocks the
    least inclined is the best.
    """
    flat = np.zeros((3, *inverse.shape), np.float32)
    planes, count = _fitted(inverse, known, flat, np.zeros_like(inverse), block)
    padded, there = np.pad(inverse, 1), np.pad(known, 1)
    worst = np.zeros_like(inverse)
    for dx, dy in block:
        window = _window(inverse.shape, 1, dx, dy)
        residual = np.abs(padded[window] - inverse - planes[0] - dx * planes[1] - dy * planes[2])
        np.maximum(worst, residual, out=worst, where=there[window])
    least = np.float32(_ROUNDING)
    if len(block) < len(_BLOCKS[0]):
        least = 1 + _STEEPNESS * (np.abs(planes[1]) + np.abs(planes[2])) / noise
    cost = np.maximum(worst / noise, least) / np.maximum(count, 1)
    return planes, np.where(known & np.isfinite(planes[0]), cost, np.float32(np.inf))


def _window(shape: tuple[int, ...], radius: int, dx: int, dy: int) -> _Window:
    """Where the neighbours at (dx, dy) are in an image that is padded by the radius."""
    height, width = shape
    return np.s_[radius + dy : radius + dy + height, radius + dx : radius + dx + width]


def _fitted(
    inverse: _Image,
    known: _Known,
    planes: _Planes,
    per_scale: _Values,
    offsets: _Offsets = _AROUND,
) -> tuple[_Planes, _Image]:
    """The weighted least-squares plane through each pixel's neighbours at these offsets, weighted
    by how far they are from the last one, NaN where they determine none; the sum of the weights.
    """
    height, width = inverse.shape
    padded, there = np.pad(inverse, _RADIUS), np.pad(known.astype(np.float32), _RADIUS)
    w, wx, wy, wxx, wxy, wyy, wv, wxv, wyv = np.zeros((9, height, width), np.float32)
    for dx, dy in offsets:
        window = _window(inverse.shape, _RADIUS, dx, dy)
        value = padded[window] - inverse
        residual = (value - planes[0] - dx * planes[1] - dy * planes[2]) * per_scale
        weight = there[window] / np.square(1 + np.square(residual))
        value *= weight
        w += weight
        wv += value
        for sums, share in ((wx, dx), (wy, dy), (wxx, dx * dx), (wxy, dx * dy), (wyy, dy * dy)):
            if share:
                sums += share * weight
        for sums, share in ((wxv, dx), (wyv, dy)):
            if share:
                sums += share * value
    return _solved(w, wx, wy, wxx, wxy, wyy, wv, wxv, wyv), w


def _solved(
    w: _Image,
    wx: _Image,
    wy: _Image,
    wxx: _Image,
    wxy: _Image,
    wyy: _Image,
    wv: _Image,
    wxv: _Image,
    wyv: _Image,
) -> _Planes:
    """Cramer's rule for the 3 x 3 normal equations of value = a + b dx + c dy at every pixel."""
    first = wxx * wyy - wxy * wxy
    second = wxy * wy - wx * wyy
    third = wx * wxy - wxx * wy
    determinant = w * first + wx * second + wy * third
    determinant = np.where(determinant > 0.5, determinant, np.nan)
    a = wv * first + wxv * second + wyv * third
    b = wv * second + wxv * (w * wyy - wy * wy) + wyv * (wx * wy - w * wxy)
    c = wv * third + wxv * (wx * wy - w * wxy) + wyv * (w * wxx - wx * wx)
    return np.stack([a, b, c]) / determinant
