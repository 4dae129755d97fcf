import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from e2eft.metrics.bootstrap import bootstrap_means, mean_interval


def test_the_interval_of_normal_values_is_the_textbook_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, (400, 1))
    mean, low, high = mean_interval(values, 4000)
    standard_error = values.std() / np.sqrt(400)
    assert mean[0] == pytest.approx(values.mean(), abs=1e-12)
    assert low[0] == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.15 * standard_error)
    assert high[0] == pytest.approx(
        values.mean() + 1.96 * standard_error, abs=0.15 * standard_error
    )


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    generator = np.random.default_rng(1)
    values = generator.exponential(1.0, (60, 300))
    _, low, high = mean_interval(values, 1000)
    assert 0.90 <= np.mean((low <= 1) & (high >= 1)) <= 0.97


def test_a_bernoulli_mean_has_the_binomial_deviation() -> None:
    values = np.repeat([[0.0], [1.0]], 50, axis=0)
    means = bootstrap_means(values, 20_000, seed=3)
    assert means.std() == pytest.approx(0.05, rel=0.03)
    assert means.mean() == pytest.approx(0.5, abs=0.002)


def test_columns_share_their_draws() -> None:
    column = np.random.default_rng(2).normal(size=(30, 1))
    means = bootstrap_means(np.hstack([column, 2 * column + 1]), 500)
    assert np.allclose(means[:, 1], 2 * means[:, 0] + 1, atol=1e-12)


def test_the_seed_names_the_draws() -> None:
    values = np.random.default_rng(4).normal(size=(25, 2))
    assert (bootstrap_means(values, 100, 5) == bootstrap_means(values, 100, 5)).all()
    assert (bootstrap_means(values, 100, 5) != bootstrap_means(values, 100, 6)).any()


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(5).normal(size=(20, 3))
    whole = bootstrap_means(values, 101)
    monkeypatch.setattr("e2eft.metrics.bootstrap._CHUNK_ENTRIES", 20 * 7)
    assert np.allclose(bootstrap_means(values, 101), whole, atol=1e-15)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20), st.floats(0.1, 0.99))
def test_the_interval_holds_the_mean_of_equal_values_and_stays_in_their_range(
    values: list[float], level: float
) -> None:
    column = np.array(values)[:, None]
    mean, low, high = mean_interval(column, 200, level=level)
    assert min(values) - 1e-9 <= low[0] <= high[0] <= max(values) + 1e-9
    same, same_low, same_high = mean_interval(np.full_like(column, mean[0]), 50, level=level)
    assert same_low[0] == pytest.approx(same[0], abs=1e-9)
    assert same_high[0] == pytest.approx(same[0], abs=1e-9)


@pytest.mark.parametrize(
    ("values", "resamples", "level", "words"),
    [
        (np.empty((0, 1)), 10, 0.95, "0 images"),
        (np.ones((2, 1)), 0, 0.95, "0 resamples"),
        (np.array([[1.0], [np.nan]]), 10, 0.95, "finite"),
        (np.ones((2, 1)), 10, 1.0, r"level=1\.0"),
    ],
)
def test_what_has_no_interval_is_refused(
    values: np.ndarray, resamples: int, level: float, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        mean_interval(values, resamples, level=level)
