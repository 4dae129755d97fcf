"""Contact sheets of frames, and panels that set a prediction beside the truth.

Every picture is its pixels times or over a whole number: small frames stay crisp, none is blurred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from e2eft.views.colour import (
    ERROR,
    SPECTRAL,
    Floats,
    Pixels,
    colour_bar,
    colour_depth,
    colour_error,
    colour_normals,
    depth_range,
)
from e2eft.views.text import fitted, font

_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
_FAINT = (120, 120, 120)
_AXES = (("right", (214, 72, 72)), ("up", (56, 150, 76)), ("viewer", (84, 100, 214)))
_GAP_PX = 6
_TEXT_PX = 12
_LINE_PX = 18


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One frame of a contact sheet.

    `rgb` uint8 `[h w 3]`; `depth_m` `[h w]` metres, NaN unknown, +inf sky; `normals_cam` `[h w 3]`
    unit, OpenCV camera, NaN unknown. `key` and `kind` (say, the source) are its caption.
    """

    key: str
    rgb: Pixels
    depth_m: Floats | None = None
    normals_cam: Floats | None = None
    kind: str = ""


@dataclass(frozen=True)
class _Cell:
    """A picture, its name above (or "") and one line below: a legend."""

    name: str
    picture: Image.Image
    legend: Image.Image


def contact_sheet(
    tiles: Sequence[Tile],
    *,
    columns: int = 1,
    side_px: int | None = None,
    depth_range_m: tuple[float, float] | None = None,
) -> Image.Image:
    """`tiles`, `columns` abreast, each as rgb | depth | normals under a line with key and kind.

    A picture that a tile lacks is left out. With `side_px`, longer sides are brought near it, never
    above: repeated or averaged in whole pixels. Each tile's depth has a range of its own, printed
    at its colour bar, unless all share `depth_range_m` (near, far). `ValueError` for no tiles,
    `columns` or `side_px` below 1, or a far end that isn't beyond the near one.
    """
    if not tiles:
        raise ValueError("a contact sheet needs at least one tile")
    if columns < 1:
        raise ValueError(f"columns = {columns} must be at least 1")
    if depth_range_m is not None and not depth_range_m[1] > depth_range_m[0]:
        raise ValueError(f"depth_range_m = {depth_range_m} must be (near, far) with far > near")
    blocks = [_tile_block(tile, side_px, depth_range_m) for tile in tiles]
    block_width = max(block.width for block in blocks)
    lines: list[Image.Image] = []
    for start in range(0, len(blocks), columns):
        abreast = blocks[start : start + columns]
        line = Image.new(
            "RGB", (block_width * min(columns, len(blocks)), max(b.height for b in abreast)), _PAPER
        )
        for i, block in enumerate(abreast):
            line.paste(block, (i * block_width, 0))
        lines.append(line)
    return stack_rows(lines)


def depth_panel(
    rgb: Pixels,
    truth_m: Floats,
    prediction_m: Floats,
    error: Floats,
    caption: str,
    *,
    error_max: float = 0.3,
    error_name: str = "relative error",
    error_unit: str = "",
    side_px: int | None = None,
) -> Image.Image:
    """Image | truth | prediction | error in one row, `caption` above.

    `truth_m` and `prediction_m` `[h w]`, metres (the prediction aligned already), have one range of
    colours: the truth's, if it has any. `error` `[h w]`, NaN where nothing was scored, is relative
    to the true depth unless `error_name` and `error_unit` say otherwise; from `error_max` on it has
    the last colour.
    """
    near_m, far_m = _shown_range(truth_m)
    if math.isnan(near_m):
        near_m, far_m = _shown_range(prediction_m)
    cells = [
        _image_cell("image", rgb, side_px),
        _depth_cell("truth", truth_m, near_m, far_m, side_px),
        _depth_cell("prediction", prediction_m, near_m, far_m, side_px),
        _error_cell(error_name, error, error_max, error_unit, side_px),
    ]
    return _block(cells, caption, "")


def normals_panel(
    rgb: Pixels,
    truth_cam: Floats,
    prediction_cam: Floats,
    error_deg: Floats,
    caption: str,
    *,
    error_max_deg: float = 45.0,
    side_px: int | None = None,
) -> Image.Image:
    """Image | truth | prediction | error in one row, `caption` above.

    `truth_cam` and `prediction_cam` `[h w 3]`: unit normals of the OpenCV camera. `error_deg`
    `[h w]` degrees, NaN where nothing was scored; from `error_max_deg` on it has the last colour.
    """
    cells = [
        _image_cell("image", rgb, side_px),
        _normals_cell("truth", truth_cam, side_px),
        _normals_cell("prediction", prediction_cam, side_px),
        _error_cell("angular error", error_deg, error_max_deg, "°", side_px),
    ]
    return _block(cells, caption, "")


def stack_rows(rows: Sequence[Image.Image]) -> Image.Image:
    """`rows` below one another, left-aligned on white. `ValueError` if there are none."""
    if not rows:
        raise ValueError("there are no rows to stack")
    size = (max(row.width for row in rows), sum(row.height for row in rows))
    sheet = Image.new("RGB", size, _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _tile_block(
    tile: Tile, side_px: int | None, depth_range_m: tuple[float, float] | None
) -> Image.Image:
    cells = [_image_cell("", tile.rgb, side_px)]
    if tile.depth_m is not None:
        near_m, far_m = depth_range_m or _shown_range(tile.depth_m)
        cells.append(_depth_cell("", tile.depth_m, near_m, far_m, side_px))
    if tile.normals_cam is not None:
        cells.append(_normals_cell("", tile.normals_cam, side_px))
    return _block(cells, tile.key, tile.kind)


def _image_cell(name: str, rgb: Pixels, side_px: int | None) -> _Cell:
    picture = _sized(rgb, side_px)
    legend = Image.new("RGB", (picture.width, _LINE_PX), _PAPER)
    _write(legend, (0, _LINE_PX // 2), f"{rgb.shape[1]} x {rgb.shape[0]}", _FAINT, "lm")
    return _Cell(name, picture, legend)


def _depth_cell(
    name: str, depth_m: Floats, near_m: float, far_m: float, side_px: int | None
) -> _Cell:
    unknown = math.isnan(near_m)
    colours = colour_depth(depth_m) if unknown else colour_depth(depth_m, near=near_m, far=far_m)
    picture = _sized(colours, side_px)
    bar = colour_bar(SPECTRAL, near_m, far_m, "m", width_px=picture.width, height_px=_LINE_PX)
    return _Cell(name, picture, bar)


def _shown_range(depth_m: Floats) -> tuple[float, float]:
    """`depth_range`, but a wall of one single depth gets a tenth before and behind it."""
    near_m, far_m = depth_range(depth_m)
    margin_m = max(0.1 * abs(near_m), 1e-3) if near_m == far_m else 0.0
    return near_m - margin_m, far_m + margin_m


def _normals_cell(name: str, normals_cam: Floats, side_px: int | None) -> _Cell:
    picture = _sized(colour_normals(normals_cam), side_px)
    legend = Image.new("RGB", (picture.width, _LINE_PX), _PAPER)
    left = 0
    for word, colour in _AXES:
        _write(legend, (left, _LINE_PX // 2), word, colour, "lm")
        left += int(font(_TEXT_PX).getlength(word)) + _GAP_PX
    return _Cell(name, picture, legend)


def _error_cell(
    name: str, error: Floats, error_max: float, unit: str, side_px: int | None
) -> _Cell:
    picture = _sized(colour_error(error, error_max), side_px)
    bar = colour_bar(ERROR, 0.0, error_max, unit, width_px=picture.width, height_px=_LINE_PX)
    return _Cell(name, picture, bar)


def _sized(pixels: Pixels, side_px: int | None) -> Image.Image:
    picture = Image.fromarray(pixels)
    if side_px is None:
        return picture
    if side_px < 1:
        raise ValueError(f"side_px = {side_px} must be at least 1")
    side = max(picture.size)
    if side > side_px:
        return picture.reduce(-(-side // side_px))
    times = side_px // side
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def _block(cells: Sequence[_Cell], caption: str, aside: str) -> Image.Image:
    """The cells side by side: a line with caption (left) and aside (right), names, pictures."""
    names_px = _LINE_PX if any(cell.name for cell in cells) else 0
    picture_px = max(cell.picture.height for cell in cells)
    width = sum(cell.picture.width + _GAP_PX for cell in cells) + _GAP_PX
    height = _LINE_PX + names_px + picture_px + _LINE_PX + 2 * _GAP_PX
    block = Image.new("RGB", (width, height), _PAPER)
    aside = fitted(aside, width // 2, _TEXT_PX)
    room = width - 3 * _GAP_PX - int(font(_TEXT_PX).getlength(aside))
    line = _GAP_PX + _LINE_PX // 2 - 1
    _write(block, (_GAP_PX, line), fitted(caption, room, _TEXT_PX), _INK, "lm")
    _write(block, (width - _GAP_PX, line), aside, _FAINT, "rm")
    left, top = _GAP_PX, _GAP_PX + _LINE_PX + names_px
    for cell in cells:
        _write(block, (left, top - names_px // 2 - 1), cell.name, _FAINT, "lm")
        block.paste(cell.picture, (left, top))
        block.paste(cell.legend, (left, top + cell.picture.height))
        left += cell.picture.width + _GAP_PX
    return block


def _write(
    picture: Image.Image, at: tuple[int, int], text: str, ink: tuple[int, int, int], anchor: str
) -> None:
    ImageDraw.Draw(picture).text(at, text, ink, font(_TEXT_PX), anchor=anchor)
