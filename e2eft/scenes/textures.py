"""Procedural textures: sRGB uint8 [n n 3] that tile seamlessly where the pattern repeats.

Row 0 is the bottom of a surface (v = 0). Colours are drawn in sRGB, so "value" means what one sees.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import numpy as np

from e2eft.scenes.scene import FloatArray, Range, Texture

Rng = np.random.Generator
Painter = Callable[[Rng], Texture]


def colour(
    rng: Rng, saturation: Range = (0.0, 0.7), value: Range = (0.2, 0.9), hue: Range = (0.0, 1.0)
) -> FloatArray:
    """A random sRGB colour [3] in [0, 1] from ranges of hue, saturation (mostly low) and value."""
    h, v = rng.uniform(*hue) % 1, rng.uniform(*value)
    s = saturation[0] + (saturation[1] - saturation[0]) * rng.random() ** 1.8
    return np.array(colorsys.hsv_to_rgb(h, s, v))


def companion(rng: Rng, first: FloatArray) -> FloatArray:
    """A colour that goes with `first`: the same hue or a near or opposite one, another value."""
    h, s, v = colorsys.rgb_to_hsv(*first)
    turn = rng.normal() * 0.05 + (0.5 if rng.random() < 0.15 else 0.0)
    value = np.clip(v + rng.uniform(0.2, 0.5) * (-1 if v > 0.55 else 1), 0.08, 0.97)
    return np.array(colorsys.hsv_to_rgb((h + turn) % 1, min(s * rng.uniform(0.5, 1.5), 0.9), value))


def wood_colour(rng: Rng) -> FloatArray:
    return colour(rng, (0.25, 0.7), (0.3, 0.85), (0.05, 0.11))


def pale_colour(rng: Rng) -> FloatArray:
    return colour(rng, (0.0, 0.25), (0.7, 0.97))


def noise(
    rng: Rng, size: int = 128, octaves: int = 6, gain: float = 0.5, base: int = 4
) -> FloatArray:
    """Tileable value-noise fractal [n n], stretched to [0, 1]."""
    total, amplitude = np.zeros((size, size)), 1.0
    place = np.arange(size) / size
    for octave in range(octaves):
        cells = base * 2**octave
        if cells > size:
            break
        lattice = rng.random((cells, cells))
        low = np.floor(place * cells).astype(int)
        share = place * cells - low
        share = share * share * (3 - 2 * share)
        high = (low + 1) % cells
        rows = lattice[low] + (lattice[high] - lattice[low]) * share[:, None]
        total += amplitude * (rows[:, low] + (rows[:, high] - rows[:, low]) * share)
        amplitude *= gain
    total -= total.min()
    return total / (total.max() + 1e-9)


def grid(size: int) -> tuple[FloatArray, FloatArray]:
    """(v [n 1], u [1 n]) pixel centres in [0, 1]."""
    place = (np.arange(size) + 0.5) / size
    return place[:, None], place[None, :]


def blend(first: FloatArray, second: FloatArray, share: FloatArray) -> FloatArray:
    """Colours [3] mixed by `share` [n n]."""
    return first + (second - first) * share[..., None]


def to_texture(image: FloatArray) -> Texture:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _shaded(rng: Rng, image: FloatArray, strength: float = 0.15, octaves: int = 6) -> Texture:
    """Stains: `image` times 1 ± strength of noise."""
    stain = noise(rng, image.shape[0], octaves)
    return to_texture(image * (1 - strength + 2 * strength * stain)[..., None])


def plain(rng: Rng, tint: FloatArray | None = None, size: int = 64) -> Texture:
    tint = colour(rng) if tint is None else tint
    return _shaded(rng, np.broadcast_to(tint, (size, size, 3)), 0.04)


def plaster(rng: Rng, tint: FloatArray | None = None, size: int = 128) -> Texture:
    tint = pale_colour(rng) if tint is None else tint
    return _shaded(rng, np.broadcast_to(tint, (size, size, 3)), rng.uniform(0.02, 0.12))


def clouded(rng: Rng, size: int = 128) -> Texture:
    share = noise(rng, size, 6, rng.uniform(0.4, 0.7), int(rng.integers(2, 8)))
    return to_texture(blend(first := colour(rng), companion(rng, first), share))


def marble(rng: Rng, size: int = 128) -> Texture:
    v, u = grid(size)
    waves = rng.integers(1, 4, 2)
    turbulence = rng.uniform(4, 12) * noise(rng, size)
    vein = 0.5 + 0.5 * np.sin(2 * np.pi * (waves[0] * u + waves[1] * v) + turbulence)
    stone = colour(rng, (0, 0.3), (0.5, 0.95))
    return to_texture(blend(stone * rng.uniform(0.3, 0.7), stone, vein ** rng.uniform(0.3, 1.0)))


def wood(rng: Rng, size: int = 128, planks: int = 1, tint: FloatArray | None = None) -> Texture:
    """Grain along v; with planks > 1, staggered boards with dark joints."""
    v, u = grid(size)
    board = np.floor(u * planks).astype(int)
    offset = rng.random(planks)[board]
    across = u * planks - board
    warp = noise(rng, size, 5)
    ring = 2 * np.pi * (rng.uniform(2, 6) * (across - 0.5) ** 2 * 4 + offset * 7)
    grain = 0.5 + 0.5 * np.sin(ring + 5 * warp + 2 * np.sin(2 * np.pi * (v + offset)))
    fine = 0.6 * rng.random((1, size)) + 0.4 * warp
    light = wood_colour(rng) if tint is None else tint
    image = blend(light, light * rng.uniform(0.55, 0.85), 0.6 * grain + 0.4 * fine)
    if planks > 1:
        image = image * (0.8 + 0.4 * offset)[..., None]
        end = ((v + offset) % 1) < 1.5 / size
        image = np.where(((across < 1.5 * planks / size) | end)[..., None], image * 0.4, image)
    return to_texture(image)


def parquet(rng: Rng, size: int = 256) -> Texture:
    return wood(rng, size, int(rng.integers(5, 11)))


def checker(rng: Rng, size: int = 128) -> Texture:
    count = 2 * int(rng.integers(1, 5))
    v, u = grid(size)
    odd = (np.floor(u * count) + np.floor(v * count)) % 2
    return _shaded(rng, blend(first := colour(rng), companion(rng, first), odd), 0.1)


def stripes(rng: Rng, size: int = 128) -> Texture:
    _, u = grid(size)
    odd = np.floor(u * int(rng.integers(2, 12)) * 2) % 2
    image = blend(first := colour(rng), companion(rng, first), np.broadcast_to(odd, (size, size)))
    return to_texture(image if rng.random() < 0.5 else image.transpose(1, 0, 2))


def plaid(rng: Rng, size: int = 128) -> Texture:
    v, u = grid(size)
    counts = rng.integers(2, 7, 2)
    ground = colour(rng)
    first, second = companion(rng, ground), companion(rng, ground)
    image = blend(ground, first, 0.6 * ((u * counts[0]) % 1 < 0.35) + 0 * v)
    return _shaded(
        rng, image * 0.6 + 0.4 * blend(ground, second, 1.0 * ((v * counts[1]) % 1 < 0.3) + 0 * u)
    )


def dots(rng: Rng, size: int = 128) -> Texture:
    v, u = grid(size)
    count = int(rng.integers(3, 9))
    spot = np.hypot((u * count) % 1 - 0.5, (v * count) % 1 - 0.5) < rng.uniform(0.15, 0.4)
    return _shaded(rng, blend(first := pale_colour(rng), companion(rng, first), 1.0 * spot), 0.05)


def weave(rng: Rng, size: int = 64) -> Texture:
    """Coarse fabric."""
    v, u = grid(size)
    count = int(rng.integers(8, 17))
    thread = np.sin(np.pi * count * u) ** 2 * (np.floor(v * count) % 2 > 0.5)
    thread = thread + np.sin(np.pi * count * v) ** 2 * (np.floor(u * count) % 2 > 0.5)
    tint = colour(rng, (0.05, 0.65), (0.2, 0.9))
    return _shaded(rng, blend(tint * 0.75, tint, np.clip(thread, 0, 1)), 0.12)


def rug(rng: Rng, size: int = 128) -> Texture:
    """A symmetric pattern with a border."""
    half = noise(rng, size, 3, 0.6, 8)
    pattern = half + half[:, ::-1]
    pattern = pattern + pattern[::-1]
    v, u = grid(size)
    edge = np.minimum(np.minimum(u, 1 - u), np.minimum(v, 1 - v))
    ground = colour(rng, (0.2, 0.8), (0.2, 0.8))
    palette = np.array([ground, *(companion(rng, ground) for _ in range(3))])
    image = palette[np.floor(pattern * rng.uniform(2, 5)).astype(int) % 3]
    image[(edge < 0.08) & (edge > 0.03)] = palette[3]
    return _shaded(rng, image, 0.1)


def bricks(rng: Rng, size: int = 128, tint: FloatArray | None = None) -> Texture:
    rows, columns = 2 * int(rng.integers(3, 6)), int(rng.integers(2, 5))
    v, u = grid(size)
    row = np.floor(v * rows).astype(int)
    along = u * columns + 0.5 * (row % 2)
    column = np.floor(along).astype(int) % columns
    joint = (v * rows - row < 0.12) | (along - np.floor(along) < 0.06)
    brick = colour(rng, (0.2, 0.7), (0.35, 0.85), (0.0, 0.1)) if tint is None else tint
    image = brick * rng.uniform(0.75, 1.2, (rows, columns))[row, column][..., None]
    image = np.where(joint[..., None], rng.uniform(0.4, 0.8), image)
    return _shaded(rng, image, 0.12)


def tiles(rng: Rng, size: int = 128, tint: FloatArray | None = None) -> Texture:
    count = int(rng.integers(2, 7))
    v, u = grid(size)
    joint = ((v * count) % 1 < 0.05) | ((u * count) % 1 < 0.05)
    shade = rng.uniform(0.88, 1.06, (count, count))
    shade = shade[np.floor(v * count).astype(int), np.floor(u * count).astype(int)]
    base = colour(rng, (0, 0.4), (0.5, 0.97)) if tint is None else tint
    image = base * np.where(joint, rng.uniform(0.4, 0.8), shade)[..., None]
    return _shaded(rng, image, 0.06)


def speckled(
    rng: Rng, low: FloatArray, high: FloatArray, size: int = 128, grain: float = 0.3
) -> Texture:
    """Noise between two colours plus grain per pixel: asphalt, gravel, terrazzo, carpet."""
    share = (1 - grain) * noise(rng, size) + grain * rng.random((size, size))
    return to_texture(blend(low, high, share))


def asphalt(rng: Rng, size: int = 256) -> Texture:
    base = colour(rng, (0, 0.08), (0.25, 0.42))
    image = speckled(rng, base * 0.8, base * 1.25, size, 0.35)
    crack = np.abs(noise(rng, size, 5, 0.6, 2) - 0.5) < 0.006
    return np.where(crack[..., None], image // 2, image).astype(np.uint8)


def terrazzo(rng: Rng, size: int = 128) -> Texture:
    image = np.broadcast_to(pale_colour(rng), (size, size, 3)).copy()
    chips = noise(rng, size, 2, 0.5, 32)
    for _ in range(3):
        image[np.abs(chips - rng.uniform(0.2, 0.8)) < 0.04] = colour(rng)
    return to_texture(image)


def carpet(rng: Rng, size: int = 128) -> Texture:
    tint = colour(rng, (0, 0.5), (0.25, 0.7))
    return speckled(rng, tint * 0.75, tint * 1.15, size, 0.5)


def grass(rng: Rng, size: int = 256) -> Texture:
    dark, light = (
        colour(rng, (0.4, 0.6), (0.25, 0.4), (0.2, 0.3)),
        colour(rng, (0.3, 0.6), (0.45, 0.65), (0.16, 0.25)),
    )
    return speckled(rng, dark, light, size, 0.4)


def foliage(rng: Rng, size: int = 64) -> Texture:
    hue = (0.07, 0.15) if rng.random() < 0.15 else (0.19, 0.36)
    leaf = colour(rng, (0.35, 0.75), (0.35, 0.6), hue)
    return speckled(rng, leaf * 0.35, leaf * 1.1, size, 0.6)


def paving(rng: Rng, size: int = 128) -> Texture:
    stone = colour(rng, (0, 0.18), (0.4, 0.75))
    return tiles(rng, size, stone) if rng.random() < 0.6 else bricks(rng, size, stone)


def roof_tiles(rng: Rng, size: int = 64) -> Texture:
    v, u = grid(size)
    tint = (
        colour(rng, (0.2, 0.7), (0.3, 0.65), (0.0, 0.08))
        if rng.random() < 0.6
        else colour(rng, (0, 0.2), (0.2, 0.45))
    )
    shade = (0.6 + 0.4 * ((-v * 6) % 1)) * (0.85 + 0.15 * np.abs(np.sin(np.pi * 6 * u)))
    return _shaded(rng, tint * shade[..., None], 0.12)


def corrugated(rng: Rng, size: int = 64) -> Texture:
    _, u = grid(size)
    shade = 0.8 + 0.2 * np.sin(2 * np.pi * 8 * u) + np.zeros((size, 1))
    return _shaded(rng, colour(rng, (0, 0.6), (0.4, 0.85)) * shade[..., None], 0.12)


def painting(rng: Rng, size: int = 64) -> Texture:
    """An abstract: rectangles, discs and a horizon."""
    v, u = grid(size)
    image = blend(
        colour(rng, (0, 0.9), (0.1, 1)), colour(rng, (0, 0.9), (0.1, 1)), noise(rng, size, 3)
    )
    for _ in range(int(rng.integers(2, 9))):
        x, y, a, b = rng.random(4)
        inside = (
            np.hypot(u - x, v - y) < 0.4 * a
            if rng.random() < 0.5
            else (np.abs(u - x) < 0.4 * a) & (np.abs(v - y) < 0.4 * b)
        )
        image = np.where(inside[..., None], colour(rng, (0, 0.9), (0.1, 1)), image)
    return to_texture(image)


def page(rng: Rng, size: int = 64) -> Texture:
    """Lines of print on paper, or of light on a dark screen."""
    v, u = grid(size)
    paper, ink = (0.92, 0.15) if rng.random() < 0.7 else (0.12, 0.8)
    rows = int(rng.integers(8, 16))
    row = np.floor(v * rows).astype(int)
    lengths = rng.uniform(0.3, 0.9, rows)[row]
    letters = rng.random((rows, size))[row[:, 0]] < 0.75
    line = ((v * rows) % 1 > 0.45) & (u > 0.08) & (u < lengths) & letters
    tint = colour(rng, (0, 0.3), (1, 1))
    return to_texture(np.where(line[..., None], ink * np.ones(3), paper * tint))


def facade(rng: Rng, size: int = 128, wall: Texture | None = None) -> Texture:
    """One window bay with its wall, to be repeated along and up a building."""
    v, u = grid(size)
    if wall is None:
        wall = (
            bricks(rng, size)
            if rng.random() < 0.4
            else plaster(rng, colour(rng, (0, 0.4), (0.45, 0.9)), size)
        )
    image = wall / 255.0
    left, bottom, top = rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.35), rng.uniform(0.7, 0.92)
    rim = 0.04
    across = np.abs(u - 0.5)
    frame = (across < 0.5 - left + rim) & (v > bottom - rim) & (v < top + rim)
    window = (across < 0.5 - left) & (v > bottom) & (v < top)
    bars = (across < 0.015) | (
        np.abs(v - (bottom + (top - bottom) * rng.choice([0.5, 0.7]))) < 0.015
    )
    image = np.where(frame[..., None], colour(rng, (0, 0.2), (0.3, 0.95)), image)
    glass = colour(rng, (0.1, 0.4), (0.08, 0.35), (0.5, 0.65)) * (0.6 + 0.8 * v + 0 * u)[..., None]
    return to_texture(np.where((window & ~bars)[..., None], glass, image))


def bay_grid(rng: Rng, rows: int = 3, columns: int = 3, size: int = 64) -> Texture:
    """Window bays whose panes differ: curtains, darkness, reflections."""
    bay = facade(rng, size)
    out = np.tile(bay, (rows, columns, 1)).astype(float)
    for i in range(rows):
        for j in range(columns):
            cell = out[i * size : (i + 1) * size, j * size : (j + 1) * size]
            dark = cell.max(-1) < 115
            cell[dark] *= rng.uniform(0.5, 2.2)
    return np.clip(out, 0, 255).astype(np.uint8)


ANY: tuple[Painter, ...] = (
    plain,
    plaster,
    clouded,
    marble,
    wood,
    checker,
    stripes,
    plaid,
    dots,
    weave,
    bricks,
    tiles,
    terrazzo,
    carpet,
    painting,
)
FABRIC: tuple[Painter, ...] = (plain, weave, weave, plaid, stripes, dots, carpet, clouded)
STONE: tuple[Painter, ...] = (marble, terrazzo, tiles, clouded)


def pick(rng: Rng, painters: tuple[Painter, ...] = ANY) -> Texture:
    return painters[int(rng.integers(len(painters)))](rng)
