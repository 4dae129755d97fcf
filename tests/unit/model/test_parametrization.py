"""What outputs mean, each by its formula on numbers that are worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from e2eft.model.parametrization import (
    Epsilon,
    Flow,
    Parametrization,
    Point,
    Residual,
    Sample,
    Velocity,
)

X_T, OUTPUT, IMAGE = 2.0, 0.5, 3.0
OF_ANGLE, OF_LINE = (0.6, 0.8), (0.25, 0.75)
"""Coefficients (a, s) of a process that keeps variance, and of a straight line."""


def full(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value)


def point(coefficients: tuple[float, float], image: float | None = IMAGE) -> Point:
    a, s = coefficients
    return Point(full(a), full(s), None if image is None else full(image))


@pytest.mark.parametrize(
    ("kind", "coefficients", "wanted"),
    [
        (Velocity(), OF_ANGLE, 0.6 * 2 - 0.8 * 0.5),
        (Epsilon(), OF_ANGLE, (2 - 0.8 * 0.5) / 0.6),
        (Sample(), OF_ANGLE, 0.5),
        (Flow(), OF_LINE, 2 - 0.75 * 0.5),
        (Flow(), (0.0, 1.0), 2 - 0.5),
        (Residual(), OF_LINE, 3 - 0.5),
        (Residual(), OF_ANGLE, 3 - 0.5),
    ],
)
def test_the_clean_latent_of_an_output(
    kind: Parametrization, coefficients: tuple[float, float], wanted: float
) -> None:
    made = kind.clean(full(OUTPUT), full(X_T), point(coefficients))
    assert float(made) == pytest.approx(wanted, rel=1e-6)


def test_a_flow_from_zeros_is_minus_its_output_and_from_the_image_what_that_has_over_it() -> None:
    pure = point((0.0, 1.0))
    assert float(Flow().clean(full(OUTPUT), full(0.0), pure)) == -OUTPUT
    assert float(Flow().clean(full(OUTPUT), full(IMAGE), pure)) == IMAGE - OUTPUT
    assert float(Residual().clean(full(OUTPUT), full(0.0), pure)) == IMAGE - OUTPUT


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (Velocity(), False),
        (Epsilon(), False),
        (Sample(), False),
        (Flow(), True),
        (Residual(), True),
    ],
)
@given(time=st.floats(0.01, 0.98), seed=st.integers(0, 9))
def test_the_target_is_what_gives_the_clean_latent(
    kind: Parametrization, line: bool, time: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean, noise, image = (torch.randn(2, 4, 3, 5, generator=generator) for _ in range(3))
    on_a_line = isinstance(kind, Flow)
    a, s = (1 - time, time) if on_a_line else ((1 - time) ** 0.5, time**0.5)
    at = Point(full(a), full(s), image)
    x_t = a * clean + s * noise
    torch.testing.assert_close(
        kind.clean(kind.target(clean, noise, at), x_t, at), clean, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", [Velocity(), Epsilon(), Sample(), Flow(), Residual()])
def test_a_bf16_output_gives_an_fp32_latent(kind: Parametrization) -> None:
    at = point(OF_ANGLE)
    made = kind.clean(full(OUTPUT).bfloat16(), full(X_T).bfloat16(), at)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, kind.clean(full(OUTPUT), full(X_T), at))


def test_a_residual_needs_an_image() -> None:
    for call in (Residual().clean, Residual().target):
        with pytest.raises(ValueError, match="a residual is one of an image's latent"):
            call(full(OUTPUT), full(X_T), point(OF_ANGLE, None))
