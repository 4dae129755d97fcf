"""Edge measures against brute force, and on edges whose score is known."""

import numpy as np
import pytest

from e2eft.metrics.boundaries import (
    THRESHOLDS,
    boundary_f1,
    log_fitted_soft_edge_error,
    soft_edge_error,
)

DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))


def step(at: int, near: float = 2.0, far: float = 5.0) -> np.ndarray:
    depth = np.full((12, 16), far)
    depth[:, :at] = near
    return depth


def everywhere(depth: np.ndarray) -> np.ndarray:
    return np.ones(depth.shape, bool)


def brute_force_f1(prediction: np.ndarray, target: np.ndarray, valid: np.ndarray) -> float:
    height, width = target.shape
    total = 0.0
    for threshold in THRESHOLDS:
        precisions, recalls = [], []
        for down, right in DIRECTIONS:
            hits = found = there = 0
            for row in range(height):
                for column in range(width):
                    other = row + down, column + right
                    if not (0 <= other[0] < height and 0 <= other[1] < width):
                        continue
                    if not (valid[row, column] and valid[other]):
                        continue
                    predicted = prediction[other] / prediction[row, column] > threshold
                    true = target[other] / target[row, column] > threshold
                    hits, found, there = (
                        hits + (predicted and true),
                        found + predicted,
                        there + true,
                    )
            precisions.append(hits / max(found, 1))
            recalls.append(hits / max(there, 1))
        p, r = np.mean(precisions), np.mean(recalls)
        total += threshold * (2 * p * r / (p + r) if p + r else 0)
    return total / THRESHOLDS.sum()


def inner(target: np.ndarray, valid: np.ndarray) -> np.ndarray:
    low, high = np.quantile(target[valid], [0.02, 0.98])
    return valid & (target >= low) & (target <= high)


def brute_force_see(
    prediction: np.ndarray, target: np.ndarray, valid: np.ndarray, window: int
) -> float:
    height, width = target.shape
    valid = inner(target, valid)
    errors = []
    for row in range(height):
        for column in range(width):
            near = [
                (row + down, column + right)
                for down, right in DIRECTIONS
                if 0 <= row + down < height and 0 <= column + right < width
            ]
            if not valid[row, column] or not any(
                valid[at] and abs(1 / target[row, column] - 1 / target[at]) > 0.05 for at in near
            ):
                continue
            reach = window // 2
            around = [
                abs(prediction[row, column] - target[r, c])
                for r in range(max(0, row - reach), min(height, row + reach + 1))
                for c in range(max(0, column - reach), min(width, column + reach + 1))
                if valid[r, c]
            ]
            errors.append(min(around))
    return float(np.mean(errors))


@pytest.mark.parametrize("seed", range(3))
def test_both_equal_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    target = generator.choice([1.0, 1.5, 1.7, 4.0], (9, 11)) * generator.uniform(1, 1.1, (9, 11))
    prediction = target * generator.uniform(0.85, 1.2, target.shape)
    valid = generator.random(target.shape) < 0.9
    holed = np.where(valid, target, np.nan)
    found = boundary_f1(prediction, holed, valid)
    assert found == pytest.approx(brute_force_f1(prediction, target, valid), abs=1e-9)
    for window in (1, 3, 5):
        expected = brute_force_see(prediction, target, valid, window)
        assert soft_edge_error(prediction, holed, valid, window) == pytest.approx(
            expected, abs=1e-9
        )


@pytest.mark.parametrize("seed", range(3))
def test_marigold_v2s_edges_are_fitted_to_log_depth_without_the_outermost_depths(seed: int) -> None:
    """Its evaluation, step by step: mask, least squares of ln(depth + 1e-6), clip, SEE."""
    generator = np.random.default_rng(seed)
    target = generator.choice([1.0, 1.5, 4.0, 9.0], (20, 30)) * generator.uniform(1, 1.1, (20, 30))
    target[0, :4] = 64.0  # beyond 98 %, where it would pull the fit
    valid = generator.random(target.shape) < 0.9
    prediction = 0.3 * np.log(target) - 0.2 + generator.normal(0, 0.05, target.shape)
    prediction[0, :4] = -3.0
    mask = inner(target, valid)
    assert not mask[0, :4].any() and valid[0, :4].any()
    design = np.stack([prediction[mask], np.ones(mask.sum())], axis=1)
    scale, shift = np.linalg.lstsq(design, np.log(target[mask] + 1e-6), rcond=None)[0]
    aligned = np.clip(np.exp(scale * prediction + shift) - 1e-6, 1e-5, 8.0)
    holed = np.where(valid, target, np.nan)
    for window in (1, 3, 5):
        found = log_fitted_soft_edge_error(prediction, holed, valid, window, (1e-5, 8.0))
        expected = brute_force_see(aligned, target, valid, window)
        assert found == pytest.approx(expected, rel=1e-9)
        other = log_fitted_soft_edge_error(7 * prediction - 3, holed, valid, window, (1e-5, 8.0))
        assert other == pytest.approx(expected, rel=1e-9)


def test_soft_edge_errors_in_log_depth_and_in_depth_are_two_numbers() -> None:
    target = step(7, near=1.0, far=9.0)
    target[4:, 3:5] = 3.0
    prediction = np.log(target)
    assert log_fitted_soft_edge_error(
        prediction, target, everywhere(target), 3, (1e-5, 80)
    ) == pytest.approx(0, abs=1e-5)
    scale, shift = np.polyfit(prediction.ravel(), target.ravel(), 1)
    assert soft_edge_error(scale * prediction + shift, target, everywhere(target), 3) > 0.3


def test_a_perfect_edge_scores_perfectly_whatever_the_scale() -> None:
    target = step(7)
    target[3:8, 9:13] = 2.5
    assert boundary_f1(3 * target, target, everywhere(target)) == pytest.approx(1)
    assert soft_edge_error(target, target, everywhere(target), 3) == 0


def test_a_direction_without_edges_counts_as_missed_as_in_the_paper_s_definition() -> None:
    target = step(7)
    assert boundary_f1(target, target, everywhere(target)) == pytest.approx(1 / 4)


def test_an_edge_a_pixel_off_fails_the_f1_but_costs_the_soft_error_nothing() -> None:
    target, moved = step(7), step(8)
    assert boundary_f1(moved, target, everywhere(target)) == 0
    assert soft_edge_error(moved, target, everywhere(target), 3) == 0
    assert soft_edge_error(moved, target, everywhere(target), 1) == pytest.approx(3 / 2)


def test_a_blurred_edge_costs_the_soft_error() -> None:
    target, blurred = step(7), step(7)
    blurred[:, 6:8] = 3.5
    assert soft_edge_error(blurred, target, everywhere(target), 3) == pytest.approx(1.5)


def test_without_edges_there_is_nothing_to_measure() -> None:
    """Where Depth Pro's code says 0, of the truth itself too."""
    flat = np.full((5, 6), 3.0)
    assert np.isnan(boundary_f1(step(3)[:5, :6], flat, everywhere(flat)))
    assert np.isnan(soft_edge_error(flat, flat, everywhere(flat), 3))
    assert np.isnan(soft_edge_error(flat, flat, np.zeros(flat.shape, bool), 3))
    assert brute_force_f1(flat, flat, everywhere(flat)) == 0
    assert np.isnan(boundary_f1(flat, flat, everywhere(flat)))
    nowhere = np.zeros(flat.shape, bool)
    assert np.isnan(log_fitted_soft_edge_error(flat, flat, everywhere(flat), 3, (1e-5, 80)))
    assert np.isnan(log_fitted_soft_edge_error(flat, flat, nowhere, 3, (1e-5, 80)))
    assert boundary_f1(np.full((12, 16), 2.0), step(7), everywhere(step(7))) == 0
