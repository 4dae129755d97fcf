import math

import pytest

from e2eft.config import ScheduleConfig
from e2eft.train.loop import LearningRate

PAPER = LearningRate(3e-5, ScheduleConfig(max_steps=20_000, warmup_steps=100, final_lr_ratio=0.01))


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 0.0),
        (50, 1.5e-5),
        (100, 3e-5),
        (5_000, 9.65e-6),
        (10_000, 3.03e-6),
        (15_000, 9.5e-7),
        (20_000, 3e-7),
        (25_000, 3e-7),
    ],
)
def test_the_papers_schedule(step: int, rate: float) -> None:
    assert PAPER(step) == pytest.approx(rate, rel=5e-3)


def test_its_formula_after_warm_up() -> None:
    for step in (100, 777, 19_999):
        exact = 3e-5 * math.exp((step - 100) / 19_900 * math.log(0.01))
        assert PAPER(step) == pytest.approx(exact, rel=1e-12)


def test_it_rises_then_falls() -> None:
    rates = [PAPER(step) for step in range(0, 20_001, 10)]
    peak = rates.index(max(rates))
    assert peak == 10 and rates[peak] == 3e-5
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (0, 10), (10, 10), (20, 10)])
def test_short_runs_have_finite_rates(warmup: int, total: int) -> None:
    rate = LearningRate(1.0, ScheduleConfig(max_steps=total, warmup_steps=warmup))
    rates = [rate(step) for step in range(total + 1)]
    assert all(0 <= value <= 1 for value in rates)
    assert rates[0] == (0.0 if warmup else 1.0)


def test_a_ratio_of_one_stays_at_the_peak() -> None:
    rate = LearningRate(1e-3, ScheduleConfig(max_steps=10, warmup_steps=0, final_lr_ratio=1.0))
    assert {rate(step) for step in range(11)} == {1e-3}
