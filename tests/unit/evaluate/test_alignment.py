"""Alignments against independent float64 formulations, on random and adversarial inputs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from e2eft.evaluate.protocols import alignment

ALL = np.arange(8)
SIZE = (6, 8)

positive = arrays(np.float32, SIZE, elements=st.floats(0.125, 64, width=32))
masks = arrays(np.bool_, SIZE)


def by_lstsq(prediction: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(scale, shift) as the reference code finds them, but in float64."""
    design = np.stack([prediction, np.ones_like(prediction)], axis=1).astype(np.float64)
    return np.linalg.lstsq(design, target.astype(np.float64), rcond=None)[0]


@settings(max_examples=50)
@given(positive, positive, masks)
def test_least_squares_is_numpys(
    prediction: np.ndarray, target: np.ndarray, mask: np.ndarray
) -> None:
    mask[0, :3] = True
    if np.ptp(prediction[mask]) < 1e-3:
        prediction[0, 0] += 1
    scale, shift = by_lstsq(prediction[mask], target[mask])
    aligned = alignment.by_least_squares(prediction, target, mask, ALL)
    expected = scale * prediction.astype(np.float64) + shift
    assert np.allclose(aligned[mask], expected[mask], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "prediction",
    [
        1e4 + np.linspace(0, 1, 48).reshape(SIZE),
        np.linspace(-1e-6, 1e-6, 48).reshape(SIZE),
        np.where(np.arange(48).reshape(SIZE) == 5, 1e6, 0.5),
        np.linspace(1, 0, 48).reshape(SIZE),
    ],
    ids=["far-off", "tiny", "one-outlier", "upside-down"],
)
def test_least_squares_keeps_its_digits(prediction: np.ndarray) -> None:
    target = np.random.default_rng(0).uniform(0.5, 80, SIZE)
    mask = np.ones(SIZE, bool)
    # Centred by hand: lstsq itself loses digits on the first of these.
    centred = prediction - prediction.mean()
    scale = (centred * (target - target.mean())).sum() / (centred**2).sum()
    aligned = alignment.by_least_squares(prediction, target, mask, ALL)
    assert np.allclose(aligned, target.mean() + scale * centred, rtol=1e-6)


def test_a_prediction_of_tiny_spread_is_fitted_to_its_own_rounding() -> None:
    """1e-3 on 0.5 in float32: the fit adds nothing to that, the published one, in float32, does."""
    target = np.random.default_rng(0).uniform(1, 10, (480, 640)).astype(np.float32)
    prediction = (0.5 + 1e-3 * (target.astype(np.float64) - 1) / 9).astype(np.float32)
    mask = np.ones(target.shape, bool)

    def abs_rel(aligned: np.ndarray) -> float:
        return float(np.mean(np.abs(aligned - target.astype(np.float64)) / target))

    design = np.stack([prediction.ravel(), np.ones(prediction.size, np.float32)], axis=1)
    scale, shift = np.linalg.lstsq(design, target.ravel(), rcond=None)[0]
    published = abs_rel(scale * prediction + shift)
    exact_scale, exact_shift = by_lstsq(prediction.ravel(), target.ravel())
    exact = abs_rel(exact_scale * prediction.astype(np.float64) + exact_shift)
    ours = abs_rel(alignment.by_least_squares(prediction, target, mask, np.arange(640)))
    assert ours == pytest.approx(exact, rel=1e-6) and exact == pytest.approx(3.4e-5, rel=0.02)
    assert published > 1.05 * ours


def test_a_constant_prediction_becomes_the_mean_of_the_fitted_space() -> None:
    target = np.random.default_rng(1).uniform(1, 9, SIZE)
    constant, mask = np.full(SIZE, 0.5), np.ones(SIZE, bool)
    assert np.allclose(alignment.by_least_squares(constant, target, mask, ALL), target.mean())
    harmonic = 1 / (1 / target).mean()
    assert np.allclose(alignment.by_disparity(constant, target, mask, ALL), harmonic)
    log_mean = np.expm1(np.log1p(target).mean())
    assert np.allclose(alignment.by_ransac_in_log_depth(constant, target, mask), log_mean)


@settings(max_examples=50)
@given(positive, masks, st.floats(0.01, 20), st.floats(-3, 3))
def test_affine_disparity_comes_back_as_depth(
    depth: np.ndarray, mask: np.ndarray, scale: float, shift: float
) -> None:
    mask[0, :3] = True
    depth[0, :2] = 1.0, 2.0
    prediction = scale / depth.astype(np.float64)
    prediction += shift - min(0, (prediction + shift).min()) + 0.1
    aligned = alignment.by_disparity(prediction, np.where(mask, depth, np.nan), mask, ALL)
    assert np.allclose(aligned[mask], depth[mask], rtol=1e-6)


def test_disparity_is_fitted_where_the_prediction_is_positive_and_inverted_with_a_floor() -> None:
    depth = np.array([[1.0, 2.0, 4.0, 8.0, 3.0]])
    prediction = np.array([[1.0, 0.5, 0.25, 0.125, -7.0]])
    aligned = alignment.by_disparity(prediction, depth, np.ones((1, 5), bool), np.arange(5))
    assert np.allclose(aligned[0, :4], depth[0, :4])
    assert aligned[0, 4] == 1 / alignment.MIN_DISPARITY
    nowhere = alignment.by_disparity(
        -prediction.clip(0), depth, np.ones((1, 5), bool), np.arange(5)
    )
    assert np.isfinite(nowhere).all()


def test_ransac_is_deaf_to_a_third_of_outliers_and_repeats_itself() -> None:
    generator = np.random.default_rng(2)
    truth = generator.uniform(0.5, 60, (40, 50))
    prediction = (np.log1p(truth) - 0.7) / 3.1
    outliers = generator.random(truth.shape) < 0.3
    prediction[outliers] += generator.uniform(1, 5, outliers.sum())
    mask = np.ones(truth.shape, bool)
    aligned = alignment.by_ransac_in_log_depth(prediction, truth, mask)
    assert np.allclose(aligned[~outliers], truth[~outliers], rtol=1e-6)
    assert aligned.max() == pytest.approx(truth.max())
    assert (aligned == alignment.by_ransac_in_log_depth(prediction, truth, mask)).all()


def test_ransac_never_turns_near_into_far() -> None:
    truth = np.linspace(1, 10, 48).reshape(SIZE)
    inverted = 1 / truth
    aligned = alignment.by_ransac_in_log_depth(inverted, truth, np.ones(SIZE, bool))
    ratio = np.log1p(truth).mean() / inverted.mean()
    assert np.allclose(aligned, np.clip(np.expm1(ratio * inverted), 1e-3, 10))
    lonely = np.zeros(SIZE, bool)
    lonely[2, 3] = True
    aligned = alignment.by_ransac_in_log_depth(truth, truth, lonely)
    assert np.isfinite(aligned).all() and aligned.max() <= truth[2, 3]


@pytest.mark.parametrize(("size", "expected"), [((300, 400), 128), ((4032, 6048), 1024)])
def test_the_fit_of_large_images_drops_columns_as_the_reference_does(
    size: tuple[int, int], expected: int
) -> None:
    longest = 128 if size[0] == 300 else 1024
    factor = np.min(longest / np.array(size))
    columns = np.tile(np.arange(size[1], dtype=np.float32), (2, 1))
    upsample = torch.nn.Upsample(scale_factor=factor, mode="nearest")
    reference = upsample(torch.from_numpy(columns)[None])[0, 0].numpy()
    found = alignment.fit_columns(size, longest)
    assert len(found) == expected and (found == reference).all()
    assert (alignment.fit_columns(size, None) == np.arange(size[1])).all()
    assert (alignment.fit_columns(size, 10_000) == np.arange(size[1])).all()
