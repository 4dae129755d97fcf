"""Depth, normals and errors as colours.

Two maps, each a short table of colours with straight lines between them:

- `SPECTRAL`: the eleven published colours of ColorBrewer's diverging scheme "Spectral" (Cynthia
  Brewer, colorbrewer2.org), the community's habit for depth: near is warm, far is blue.
- `ERROR`: dark violet to pale yellow. Its lightness (CIE L*) rises in even steps from 24 to 96, so
  equal differences of error look equally far apart, in grey too, and its darkest colour is well
  above the black that means "no value".
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from e2eft.views.text import drawable, font, quantity

Floats: TypeAlias = npt.NDArray[np.floating]
Mask: TypeAlias = npt.NDArray[np.bool_]
Pixels: TypeAlias = npt.NDArray[np.uint8]

SPECTRAL: tuple[tuple[int, int, int], ...] = (
    (158, 1, 66),
    (213, 62, 79),
    (244, 109, 67),
    (253, 174, 97),
    (254, 224, 139),
    (255, 255, 191),
    (230, 245, 152),
    (171, 221, 164),
    (102, 194, 165),
    (50, 136, 189),
    (94, 79, 162),
)
ERROR: tuple[tuple[int, int, int], ...] = (
    (60, 40, 131),
    (129, 32, 137),
    (172, 48, 133),
    (210, 71, 115),
    (237, 102, 93),
    (249, 139, 76),
    (246, 181, 67),
    (249, 216, 97),
    (250, 247, 173),
)
INVALID = (0, 0, 0)
SKY = (224, 224, 224)

# So many steps from anchor to anchor: every anchor is an entry, and neighbours differ by one grey
# level at most.
_STEPS = 100


def ramp(anchors: tuple[tuple[int, int, int], ...], position: Floats) -> Pixels:
    """Colours `[... 3]` at `position` (0 to 1, clipped, no NaN) along `anchors`."""
    table = np.asarray(anchors, np.float64)
    entries = (len(table) - 1) * _STEPS
    at = np.arange(entries + 1) / _STEPS
    columns = [np.interp(at, np.arange(len(table)), table[:, c]) for c in range(3)]
    colours = np.rint(np.stack(columns, axis=-1)).astype(np.uint8)
    assert not np.isnan(position).any()
    return colours[np.rint(np.clip(position, 0, 1) * entries).astype(np.intp)]


def depth_range(depth: Floats, valid: Mask | None = None) -> tuple[float, float]:
    """The 2nd and 98th percentile of the finite depths `[h w]` (those in `valid`), in their unit.

    What lies beyond is clipped to the ends of the colour map, so one far pixel can't flatten the
    rest. (nan, nan) where there is nothing to measure.
    """
    known = np.isfinite(depth) if valid is None else np.isfinite(depth) & valid
    if not known.any():
        return float("nan"), float("nan")
    near, far = np.percentile(depth[known].astype(np.float64), (2, 98))
    return float(near), float(far)


def colour_depth(
    depth: Floats,
    valid: Mask | None = None,
    near: float | None = None,
    far: float | None = None,
) -> Pixels:
    """Depth `[h w]` as `SPECTRAL` colours uint8 `[h w 3]`: `near` dark red, `far` blue, linear.

    NaN, -inf and what `valid` `[h w]` leaves out are black (`INVALID`); +inf is sky, light grey
    (`SKY`). An end that isn't given comes from `depth_range`; a scene of one single depth is drawn
    in the middle colour. `ValueError` if the shapes differ or `far` isn't above `near`.
    """
    _require_map("depth", depth)
    if valid is not None and valid.shape != depth.shape:
        raise ValueError(f"valid has shape {valid.shape}, depth {depth.shape}: they must be equal")
    if near is not None and far is not None and not far > near:
        raise ValueError(f"far = {far} must be greater than near = {near}")
    kept = np.ones(depth.shape, bool) if valid is None else valid
    if near is None or far is None:
        measured_near, measured_far = depth_range(depth, kept)
        near = measured_near if near is None else near
        far = measured_far if far is None else far
    known = np.isfinite(depth) & kept
    position = np.full(depth.shape, 0.5)
    if far > near:
        position[known] = (depth[known].astype(np.float64) - near) / (far - near)
    picture = ramp(SPECTRAL, position)
    picture[~known] = INVALID
    picture[kept & np.isposinf(depth)] = SKY
    return picture


def colour_normals(normals_cam: Floats) -> Pixels:
    """Unit normals `[h w 3]` of the OpenCV camera as uint8 `[h w 3]`, black where any part is NaN.

    Red, green, blue are (x, -y, -z): right, up, towards the viewer, each (n + 1) * 127.5 rounded,
    so a wall that faces the camera is (128, 128, 255). This is the encoding that most published
    normal maps share; rounding instead of truncating halves its angular error.
    """
    if normals_cam.ndim != 3 or normals_cam.shape[2] != 3:
        raise ValueError(f"normals_cam has shape {normals_cam.shape}, expected [h w 3]")
    known = np.isfinite(normals_cam).all(axis=2, keepdims=True)
    right_up_viewer = np.where(known, normals_cam, 0.0) * (1.0, -1.0, -1.0)
    code = np.rint((np.clip(right_up_viewer, -1, 1) + 1) * 127.5)
    return np.where(known, code, 0).astype(np.uint8)


def colour_error(error: Floats, max: float) -> Pixels:
    """Errors `[h w]`, none negative, as `ERROR` colours uint8 `[h w 3]`: 0 dark, `max` and above
    pale yellow, NaN and infinities black. `ValueError` unless `max` is positive and finite."""
    _require_map("error", error)
    if not (np.isfinite(max) and max > 0):
        raise ValueError(f"max = {max} must be a positive number: the error of the last colour")
    known = np.isfinite(error)
    picture = ramp(ERROR, np.where(known, error, 0.0) / max)
    picture[~known] = INVALID
    return picture


def normals_ball(side_px: int) -> Pixels:
    """A legend for `colour_normals`: a sphere seen from the front, uint8 `[side side 4]` RGBA.

    Transparent outside its disc, with a rim smoothed over one pixel.
    """
    centre = (np.arange(side_px) + 0.5) / side_px * 2 - 1
    x, y = np.meshgrid(centre, centre)
    radius = np.hypot(x, y)
    inside = np.minimum(1.0, 1 / np.maximum(radius, 1e-12))
    x, y = x * inside, y * inside
    normals_cam = np.stack([x, y, -np.sqrt(np.clip(1 - x * x - y * y, 0, 1))], axis=-1)
    alpha = np.clip((1 - radius) * side_px / 2 + 0.5, 0, 1)
    return np.dstack([colour_normals(normals_cam), np.rint(alpha * 255).astype(np.uint8)])


def colour_bar(
    anchors: tuple[tuple[int, int, int], ...],
    low: float,
    high: float,
    unit: str,
    *,
    width_px: int,
    height_px: int = 18,
    ink: tuple[int, int, int] = (40, 40, 40),
    paper: tuple[int, int, int] = (255, 255, 255),
) -> Image.Image:
    """A strip `width_px` by `height_px`: `low`, the colours between, `high` and the unit.

    The text is the first to go when it doesn't fit: a strip without room for both is colours only.
    An end that isn't finite says "no values" instead.
    """
    strip = Image.new("RGB", (width_px, height_px), paper)
    draw = ImageDraw.Draw(strip)
    face = font(max(height_px * 2 // 3, 6))
    middle = height_px / 2
    if not (np.isfinite(low) and np.isfinite(high)):
        draw.text((0, middle), "no values", ink, face, anchor="lm")
        return strip
    left, right = quantity(low), drawable(quantity(high, unit))
    gap = height_px // 3
    start, end = int(face.getlength(left)) + gap, width_px - int(face.getlength(right)) - gap - 1
    if end - start < 3 * height_px:
        left, right, start, end = "", "", 0, width_px
    draw.text((0, middle), left, ink, face, anchor="lm")
    draw.text((width_px - 1, middle), right, ink, face, anchor="rm")
    colours = ramp(anchors, np.linspace(0, 1, end - start))
    inset = height_px // 6
    band = np.broadcast_to(colours, (height_px - 2 * inset, *colours.shape))
    strip.paste(Image.fromarray(np.ascontiguousarray(band)), (start, inset))
    return strip


def _require_map(name: str, values: Floats) -> None:
    if values.ndim != 2:
        raise ValueError(f"{name} has shape {values.shape}, expected [h w]")
