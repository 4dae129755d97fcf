import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2eft.geometry.direction import mean_angle_deg, median_direction


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def brute_force(vectors: np.ndarray, weights: np.ndarray) -> float:
    grid = unit(np.random.default_rng(0).normal(size=(5_000, 3)))
    return float(mean_angle_deg(grid, vectors, weights).min())


def test_the_angle_of_known_directions() -> None:
    vectors = np.array([[0.0, 0, -1], [0, -1, 0]])
    directions = np.array([[0.0, 0, -1], [0, -np.sqrt(0.5), -np.sqrt(0.5)], [1.0, 0, 0]])
    assert np.allclose(mean_angle_deg(directions, vectors, np.ones(2)), [45, 45, 90])
    assert np.allclose(mean_angle_deg(directions, vectors, np.array([3.0, 1])), [22.5, 45, 90])


def test_a_heavy_floor_wins_over_the_mean() -> None:
    """60 % of the pixels look up, 40 % at the camera: the mean is between, the median is not."""
    vectors = np.array([[0.0, -1, 0], [0, 0, -1]])
    weights = np.array([0.6, 0.4])
    assert np.allclose(median_direction(vectors, weights), [0, -1, 0])
    mean = unit(weights @ vectors)
    assert mean_angle_deg(mean[None], vectors, weights)[0] == pytest.approx(90 / 2, abs=6)
    assert mean_angle_deg(vectors[:1], vectors, weights)[0] == pytest.approx(36)


def test_the_middle_of_a_ring_is_its_axis() -> None:
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    axis = unit(np.array([0.3, -0.5, -0.8]))
    side = unit(np.cross(axis, [0, 0, 1.0]))
    ring = unit(
        axis + 0.5 * (np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * np.cross(axis, side))
    )
    assert np.allclose(median_direction(ring, np.ones(12)), axis, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_no_direction_of_a_fine_grid_is_better(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    vectors = unit(generator.normal((0, 0, -0.7), 1, (count, 3)))
    weights = generator.uniform(0.1, 1, count)
    found = median_direction(vectors, weights)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-12)
    best = mean_angle_deg(found[None], vectors, weights)[0]
    assert best <= brute_force(vectors, weights) + 0.02


def test_repeating_a_vector_is_weighing_it() -> None:
    generator = np.random.default_rng(3)
    vectors = unit(generator.normal(size=(7, 3)))
    counts = np.array([1, 2, 3, 1, 5, 1, 2])
    repeated = median_direction(np.repeat(vectors, counts, axis=0), np.ones(counts.sum()))
    assert np.allclose(repeated, median_direction(vectors, counts.astype(float)), atol=1e-6)


def test_nothing_has_no_median() -> None:
    with pytest.raises(ValueError, match="0 vectors"):
        median_direction(np.empty((0, 3)), np.empty(0))
