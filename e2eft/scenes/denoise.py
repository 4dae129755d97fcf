"""A filter for Monte Carlo noise that needs no learned weights and is bit-reproducible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e2eft.scenes.scene import FloatArray

_KERNEL = np.array([1, 4, 6, 4, 1], np.float32) / 16
_PASSES = 4
_NORMAL_SIGMA, _DEPTH_SIGMA, _LIGHT_SIGMA = 0.25, 0.02, 3.0
_ALBEDO_FLOOR = 0.03
_EDGE_STEP, _EDGE_COSINE, _EDGE_TRUST = 0.08, 0.9, 0.1
_SKY_LOG_DEPTH = 10.0


@dataclass(frozen=True, eq=False)
class Guides:
    """What is seen, without noise: `albedo` [h w 3], `normals` unit [h w 3] in any one frame,
    `depth_m` planar [h w]; on sky albedo 1, normals 0, depth +inf.
    """

    albedo: FloatArray
    normals: FloatArray
    depth_m: FloatArray

    def log_depth(self) -> NDArray[np.float32]:
        """[h w], with a large constant on sky."""
        sky = np.isinf(self.depth_m)
        return np.where(sky, _SKY_LOG_DEPTH, np.log(np.maximum(self.depth_m, 1e-3))).astype(
            np.float32
        )


def denoise(radiance: FloatArray, coarse: Guides, fine: Guides) -> NDArray[np.float32]:
    """Clean linear RGB [h w 3] from noisy `radiance` [h w 3].

    Edge-avoiding à-trous wavelets (Dammertz et al. 2010) on irradiance, that is, radiance over
    albedo, so texture stays sharp. `coarse` has the pixels' centres (its albedo the mean over the
    pixel), `fine` four samples per pixel, [2h 2w ...]. A pixel on an edge mixes surfaces, which no
    division undoes: it is put together from its four samples, each lit as its surface is nearby.
    """
    sky = np.isinf(coarse.depth_m)
    albedo = np.where(sky[..., None], 1.0, np.maximum(coarse.albedo, _ALBEDO_FLOOR)).astype(
        np.float32
    )
    noisy = _without_fireflies(np.maximum(radiance, 0).astype(np.float32) / albedo, ~sky)
    normals = np.ascontiguousarray(coarse.normals.transpose(2, 0, 1), np.float32)
    log_depth = coarse.log_depth()
    edges = _edges(normals, log_depth)
    light = np.ascontiguousarray(noisy.transpose(2, 0, 1))
    trust = np.where(edges, np.float32(_EDGE_TRUST), np.float32(1))
    slope = np.minimum(np.abs(np.gradient(log_depth)).sum(0), 0.2)
    for level in range(_PASSES):
        light = _smooth(light, normals, log_depth, trust, slope, level)
    # The sky is seen directly, without noise: smoothing would only smear its clouds.
    light = np.where(sky[..., None], noisy, light.transpose(1, 2, 0))
    clean = light * albedo
    clean[edges] = _assemble(np.argwhere(edges), edges, light, coarse, fine)
    return clean


def _without_fireflies(light: FloatArray, inside: FloatArray) -> FloatArray:
    """Clamp stray bright pixels; leave what is far brighter (a lamp seen directly) alone."""
    if not inside.any():
        return light
    brightness = light.mean(-1)
    cap = np.percentile(brightness[inside], 99.5)
    stray = inside & (brightness > cap) & (brightness <= 4 * cap)
    return light * np.where(stray, cap / np.maximum(brightness, 1e-9), 1)[..., None].astype(
        np.float32
    )


def _edges(normals: FloatArray, log_depth: FloatArray) -> NDArray[np.bool_]:
    """Where a neighbour above, below or beside shows another surface, [h w]; `normals` [3 h w]."""
    edges = np.zeros(log_depth.shape, bool)
    for first, second in ((np.s_[:-1, :], np.s_[1:, :]), (np.s_[:, :-1], np.s_[:, 1:])):
        step = np.abs(log_depth[first] - log_depth[second]) > _EDGE_STEP
        turn = (normals[:, *first] * normals[:, *second]).sum(0) < _EDGE_COSINE
        both_sky = (log_depth[first] == _SKY_LOG_DEPTH) & (log_depth[second] == _SKY_LOG_DEPTH)
        edges[first] |= (step | turn) & ~both_sky
        edges[second] |= (step | turn) & ~both_sky
    return edges


def _smooth(
    light: FloatArray,
    normals: FloatArray,
    log_depth: FloatArray,
    trust: FloatArray,
    slope: FloatArray,
    level: int,
) -> FloatArray:
    """One pass with taps 2**level apart; arrays are [c h w] and [h w]."""
    step = 2**level
    height, width = log_depth.shape
    brightness = np.log1p(light.mean(0))
    # All guides in one array, so that each tap costs one pass over it.
    guides = np.concatenate([normals, log_depth[None], brightness[None], trust[None], light])
    pad = 2 * step
    padded = np.pad(guides, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    light_scale = np.float32(2**level / _LIGHT_SIGMA)
    total, weights = np.zeros_like(light), np.zeros_like(log_depth)
    for dy in range(5):
        for dx in range(5):
            tap = padded[:, dy * step : dy * step + height, dx * step : dx * step + width]
            reach = np.float32(step * max(abs(dy - 2), abs(dx - 2)))
            distance = np.square(tap[:3] - normals).sum(0) * np.float32(_NORMAL_SIGMA**-2)
            distance += np.abs(tap[3] - log_depth) / (_DEPTH_SIGMA + slope * reach)
            distance += np.abs(tap[4] - brightness) * light_scale
            weight = np.exp(-distance) * (_KERNEL[dy] * _KERNEL[dx]) * tap[5]
            total += weight * tap[6:]
            weights += weight
    return total / weights


def _assemble(
    pixels: NDArray[np.integer],
    edges: NDArray[np.bool_],
    light: FloatArray,
    coarse: Guides,
    fine: Guides,
) -> FloatArray:
    """Colours [n 3] of `pixels` [n 2] (row, column): the mean of their four samples.

    Each sample takes its own albedo, and the light of that pixel among the 3 x 3 around which looks
    most like the same surface.
    """
    height, width = edges.shape
    quarter = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    rows, columns = (2 * pixels[:, None] + quarter).transpose(2, 0, 1)  # [n 4]
    log_depth, fine_depth = coarse.log_depth(), fine.log_depth()[rows, columns]
    fine_normals = fine.normals[rows, columns]
    best = np.full(rows.shape, np.inf, np.float32)
    found = np.zeros((*rows.shape, 3), np.float32)
    for dy in (0, -1, 1):
        for dx in (0, -1, 1):
            y = np.clip(pixels[:, 0] + dy, 0, height - 1)
            x = np.clip(pixels[:, 1] + dx, 0, width - 1)
            cosine = (fine_normals * coarse.normals[y, x][:, None]).sum(-1)
            unlike = np.abs(fine_depth - log_depth[y, x][:, None]) / _DEPTH_SIGMA + 8 * (
                1 - np.abs(cosine)
            )
            unlike += 0.5 * edges[y, x][:, None]
            better = unlike < best
            best = np.where(better, unlike, best)
            found = np.where(better[..., None], light[y, x][:, None], found)
    albedo = fine.albedo[rows, columns]
    return (found * np.maximum(albedo, _ALBEDO_FLOOR)).mean(1)
