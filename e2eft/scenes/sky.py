"""Outdoor light: skies painted on an equirectangular map, and the sun."""

from __future__ import annotations

import numpy as np

from e2eft.scenes.scene import FloatArray, Lighting
from e2eft.scenes.textures import Rng, noise

_HEIGHT = 128


def _directions(height: int) -> FloatArray:
    """Unit vectors [h 2h 3] of the map's pixels: column u looks along (sin 2πu, cos 2πu)."""
    polar = np.pi * (np.arange(height)[:, None] + 0.5) / height
    turn = 2 * np.pi * (np.arange(2 * height)[None] + 0.5) / (2 * height)
    level = np.sin(polar)
    return np.stack([level * np.sin(turn), level * np.cos(turn), np.cos(polar) + 0 * turn], -1)


def _clouds(rng: Rng, directions: FloatArray, cover: float) -> FloatArray:
    """Opacity [h w] of a cloud layer seen from below; `cover` in [0, 1]."""
    pattern = noise(rng, 256, 7, 0.55, 3)
    up = np.maximum(directions[..., 2], 0.02)
    x, y = (directions[..., :2] / (up + 0.12)[..., None] * 40).astype(int).transpose(2, 0, 1)
    opacity = np.clip((pattern[y % 256, x % 256] - (1 - cover)) * 4, 0, 1)
    return opacity * np.clip(directions[..., 2] * 6, 0, 1)


def _weather(rng: Rng) -> tuple[FloatArray, FloatArray, float, float]:
    """Zenith colour, horizon colour, cloud cover, sun strength.

    Of a clear, a cloudy, or a dull sky, or of one with a low sun.
    """
    kind = rng.random()
    blue = np.array([0.25, 0.45, 0.95]) * rng.uniform(0.7, 1.2)
    haze = np.array([0.75, 0.85, 1.0]) * rng.uniform(0.8, 1.1)
    if kind < 0.35:
        return blue, haze, rng.uniform(0.0, 0.25), rng.uniform(7, 14)
    if kind < 0.65:
        return blue, haze, rng.uniform(0.4, 0.6), rng.uniform(4, 11)
    if kind < 0.85:
        grey = np.array([0.8, 0.85, 0.9]) * rng.uniform(0.7, 1.0)
        return grey, grey * rng.uniform(0.9, 1.2), rng.uniform(0.3, 0.7), rng.uniform(0.0, 0.8)
    return (
        blue * 0.7,
        np.array([1.3, 0.75, 0.42]) * rng.uniform(0.7, 1.1),
        rng.uniform(0.2, 0.6),
        rng.uniform(3, 7),
    )


def outdoor_lighting(rng: Rng, weight: float = 1.0) -> Lighting:
    """A sky with clouds and, unless it is dull, a sun that casts shadows."""
    zenith, horizon, cover, strength = _weather(rng)
    low_sun = horizon[0] > horizon[2] * 1.2
    azimuth = rng.uniform(0, 2 * np.pi)
    elevation = np.radians(rng.uniform(8, 22) if low_sun else rng.uniform(22, 70))
    level = np.cos(elevation)
    sun = np.array([level * np.sin(azimuth), level * np.cos(azimuth), np.sin(elevation)])
    directions = _directions(_HEIGHT)
    up = np.clip(directions[..., 2], 0, 1)[..., None]
    radiance = horizon + (zenith - horizon) * up**0.5
    towards = np.clip(directions @ sun, 0, 1)[..., None]
    glow = np.array([1.0, 0.85, 0.6]) * (0.5 * towards**16 + 1.5 * towards**200)
    radiance = radiance + glow * min(strength / 8, 1)
    cloud = _clouds(rng, directions, cover)[..., None]
    white = horizon.mean() * np.array([1.05, 1.05, 1.1]) * rng.uniform(0.8, 1.3)
    radiance = radiance * (1 - cloud) + white * cloud * (0.8 + 0.5 * towards**4)
    below = directions[..., 2] < 0
    radiance[below] = horizon * 0.35
    if strength >= 1:
        tint = np.array([1.0, 0.7, 0.42]) if low_sun else np.array([1.0, 0.93, 0.82])
        _paint_sun(radiance, directions, sun, strength * tint)
    return Lighting(radiance.astype(np.float32), weight)


def _paint_sun(
    radiance: FloatArray, directions: FloatArray, sun: FloatArray, irradiance: FloatArray
) -> None:
    """A disc of 1.5 degrees radius that gives `irradiance` [3] on a surface facing it."""
    disc = directions @ sun > np.cos(np.radians(1.5))
    pixel = np.sqrt(1 - directions[..., 2] ** 2) * (np.pi / radiance.shape[0]) ** 2  # solid angles
    radiance[disc] += irradiance / pixel[disc].sum()


def even_lighting(level: float = 0.02, weight: float = 0.0) -> Lighting:
    """The same faint glow from everywhere, where lamps do the lighting."""
    return Lighting(np.full((8, 16, 3), level, np.float32), weight)
