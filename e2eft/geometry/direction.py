"""The direction nearest to many directions: the constant that any normals model must beat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

_CANDIDATES = 256
_REFINED = 6
_ITERATIONS = 60
_CHUNK = 32


def mean_angle_deg(
    directions: Float[np.ndarray, "c 3"],
    vectors: Float[np.ndarray, "n 3"],
    weights: Float[np.ndarray, " n"],
) -> Float64[np.ndarray, " c"]:
    """Weighted mean angle in degrees from each direction to the vectors; all of unit length."""
    shares = weights / weights.sum()
    angles: list[np.ndarray] = []
    for start in range(0, len(directions), _CHUNK):
        cosines = directions[start : start + _CHUNK] @ vectors.T  # [chunk n]
        angles.append(np.arccos(np.clip(cosines, -1, 1)) @ shares)
    return np.rad2deg(np.concatenate(angles))


def median_direction(
    vectors: Float[np.ndarray, "n 3"], weights: Float[np.ndarray, " n"]
) -> Float64[np.ndarray, " 3"]:
    """The unit vector with the smallest weighted mean angle to unit vectors: their geodesic median.

    The mean angle has many local minima on a sphere (one at every wall), so it is searched: an even
    grid of directions, the best of them refined by Weiszfeld's iteration in the tangent plane
    (Fletcher et al. 2009, "The geometric median on Riemannian manifolds"), and the vector next to
    each result, because a median often is one of the vectors. Deterministic.

    Raises:
        ValueError: if there are no vectors or no weight.
    """
    if not len(vectors) or not weights.sum() > 0:
        raise ValueError(f"{len(vectors)} vectors of total weight {weights.sum()}: nothing to fit")
    vectors, weights = vectors.astype(np.float64), weights.astype(np.float64)
    mean = weights @ vectors
    starts = np.concatenate([_even_directions(_CANDIDATES), [mean / max(_length(mean), 1e-12)]])
    order = np.argsort(mean_angle_deg(starts, vectors, weights), kind="stable")[:_REFINED]
    refined = np.stack([_descend(starts[number], vectors, weights) for number in order])
    nearest = vectors[np.argmax(refined @ vectors.T, axis=1)]
    finalists = np.concatenate([refined, nearest])
    best = finalists[np.argmin(mean_angle_deg(finalists, vectors, weights))]
    return best / _length(best)


def _length(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))


def _even_directions(count: int) -> Float64[np.ndarray, "n 3"]:
    """Points of a Fibonacci spiral over the sphere."""
    height = 1 - (2 * np.arange(count) + 1) / count
    turn = np.pi * (1 + np.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def _descend(direction: np.ndarray, vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    for _ in range(_ITERATIONS):
        cosine = np.clip(vectors @ direction, -1, 1)
        tangent = vectors - cosine[:, None] * direction  # length sin(angle), towards the vector
        sine = np.linalg.norm(tangent, axis=1)
        angle = np.arctan2(sine, cosine)
        usable = sine > 1e-9
        pull = np.where(usable, weights / np.where(usable, sine, 1), 0) @ tangent
        stiffness = np.where(usable, weights / np.where(usable, angle, 1), 0).sum()
        if stiffness <= 0:
            break
        step = pull / stiffness
        length = _length(step)
        if length < 1e-7:
            break
        direction = np.cos(length) * direction + np.sin(length) * step / length
        direction /= _length(direction)
    return direction
