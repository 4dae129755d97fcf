"""Sigmas, and what denoisers are told for them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from e2eft.model.backbones.sd_unet import Timesteps
from e2eft.model.times import Continuous


@pytest.mark.parametrize("length", [1, 50, 999, 1000, 1024, 100_000])
def test_timesteps_come_back_exactly(length: int) -> None:
    time = Timesteps(length)
    every = torch.arange(length)
    sigma = time.sigma(every)
    assert sigma.dtype == torch.float32 and float(sigma[-1]) == 1 and float(sigma[0]) > 0
    told = time.argument(sigma)
    assert told.dtype == torch.int64 and torch.equal(told, every)
    # As the estimator hands them over: a number of Python's, made fp32.
    numbers = torch.tensor([(t + 1) / length for t in range(length)])
    assert torch.equal(time.argument(numbers), every)


@given(uniform=st.floats(0, 3, width=32), length=st.integers(1, 2000))
def test_draws_of_timesteps_are_the_floor_of_their_share(uniform: float, length: int) -> None:
    time = Timesteps(length)
    draw = torch.tensor([uniform])
    wanted = (length * draw).long().clamp(max=length - 1)
    assert torch.equal(time.argument(time.drawn(draw)), wanted)
    assert 0 <= float(wanted) / time.span < 1


def test_continuous_times_are_told_in_fp32_and_cast_last() -> None:
    sigma = torch.tensor([0.0, 0.3, 0.7, 1.0])
    assert torch.equal(Continuous().argument(sigma), sigma)
    thousandths = Continuous(1000.0)
    told = thousandths.argument(sigma.double())
    assert told.dtype == torch.float32 and float(told[-1]) == 1000
    # 0.3 is no number of bf16: cast before it is multiplied, it would be 300.78, then 300.
    assert float(told[1]) == pytest.approx(300, abs=1e-4)
    assert thousandths.drawn(torch.tensor([0.4, 1.7])).tolist() == pytest.approx([0.4, 1.0])
