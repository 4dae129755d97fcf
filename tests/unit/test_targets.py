import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from e2eft.targets import (
    DepthTarget,
    Disparity,
    LinearDepth,
    LogDepth,
    SqrtDisparity,
    target_of,
)

TARGETS = [LinearDepth(), LogDepth(), LogDepth(eps_m=1.0), Disparity(), SqrtDisparity()]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
@given(depth_m=st.floats(0.01, 1000))
def test_depth_comes_back_and_numpy_agrees_with_torch(target: DepthTarget, depth_m: float) -> None:
    array, tensor = np.array([depth_m]), torch.tensor([depth_m], dtype=torch.float64)
    values = target.of_depth(array)
    assert float(target.to_depth(values)[0]) == pytest.approx(depth_m, rel=1e-9)
    assert target.of_depth(tensor).numpy() == pytest.approx(values, rel=1e-14)
    assert float(target.to_depth(target.of_depth(tensor))) == pytest.approx(depth_m, rel=1e-9)


@pytest.mark.parametrize(
    ("target", "of_two"),
    [
        (LinearDepth(), 2.0),
        (LogDepth(eps_m=0.5), math.log(2.5)),
        (Disparity(), 0.5),
        (SqrtDisparity(), 1 / math.sqrt(2)),
    ],
)
def test_values_by_hand(target: DepthTarget, of_two: float) -> None:
    assert float(target.of_depth(np.array(2.0))) == pytest.approx(of_two)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_values_grow_with_depth_or_fall_as_the_target_says(target: DepthTarget) -> None:
    near, far = target.of_depth(np.array([1.0, 2.0]))
    assert (near < far) == target.nearest_is_least
    assert target.ends == ("0 near 1 far" if near < far else "0 far 1 near")


@pytest.mark.parametrize("target", [Disparity(), SqrtDisparity()])
def test_no_disparity_is_far_away_and_its_gradient_finite(target: DepthTarget) -> None:
    values = torch.tensor([0.0, -1.0, 0.5], requires_grad=True)
    depth_m = target.to_depth(values)
    depth_m.sum().backward()
    assert depth_m[:2].tolist() == pytest.approx([1e9, 1e9]) and float(depth_m[2].detach()) < 5
    assert values.grad is not None and values.grad.isfinite().all() and not values.grad[:2].any()


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_a_target_is_read_back_from_what_it_says(target: DepthTarget) -> None:
    assert target_of(target.as_json()) == target


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "kind None is no depth target; they are linear, log, disparity, sqrt-disparity"),
        ({"kind": "metric"}, "kind 'metric' is no depth target"),
        ({"kind": "linear", "eps_m": 1.0}, "linear: .*'eps_m'"),
        ({"kind": "log", "eps_m": -1.0}, "eps_m -1: expected metres, 0 or more"),
        ({"kind": "log", "low": 0.9, "high": 0.1}, "low 0.9, high 0.1"),
    ],
)
def test_what_is_no_target_is_named(content: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        target_of(content)


def test_the_linear_target_says_what_cards_have_always_said() -> None:
    assert LinearDepth().phrase == "affine-invariant linear depth, 0 near 1 far"
