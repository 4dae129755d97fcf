import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from e2eft.geometry.masked import masked_mean, masked_quantiles


@given(
    values=npst.arrays(np.float64, (3, 4, 5), elements=st.floats(-100, 100)),
    valid=npst.arrays(np.bool_, (3, 4, 5)),
    fractions=st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_quantiles_are_those_of_numpy(
    values: np.ndarray, valid: np.ndarray, fractions: list[float]
) -> None:
    holed = np.where(valid, values, np.nan)
    quantiles = masked_quantiles(torch.tensor(holed), torch.tensor(valid), fractions)
    for image, mask, row in zip(values, valid, quantiles.numpy(), strict=True):
        expected = np.quantile(image[mask], fractions) if mask.any() else np.nan
        np.testing.assert_allclose(row, np.broadcast_to(expected, row.shape), atol=1e-9)


def test_quantiles_do_not_depend_on_what_is_invalid() -> None:
    values = torch.tensor([[[1.0, 2.0, 3.0, 0.0]]])
    valid = torch.tensor([[[True, True, True, False]]])
    for junk in (-1e30, 1e30, torch.inf, -torch.inf, torch.nan):
        values[0, 0, 3] = junk
        assert masked_quantiles(values, valid, (0.0, 0.5, 1.0)).tolist() == [[1, 2, 3]]


def test_ranks_are_exact_where_float32_cannot_count() -> None:
    # One pixel more than float32 counts to, and than torch.quantile accepts.
    count = 2**24 + 1
    values = torch.arange(count, dtype=torch.float64).view(1, 1, count)
    valid = torch.ones_like(values, dtype=torch.bool)
    assert masked_quantiles(values, valid, (1.0,)).item() == count - 1
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(values.flatten(), 1.0)


def test_mean_skips_invalid_pixels_and_their_gradient() -> None:
    values = torch.tensor([[[1.0, 4.0, torch.nan]], [[1.0, 1.0, 1.0]]], requires_grad=True)
    valid = torch.tensor([[[True, True, False]], [[False, False, False]]])
    means = masked_mean(values, valid)
    assert means[0].item() == 2.5
    assert means[1].isnan()
    means[0].backward()
    assert values.grad is not None
    assert values.grad.tolist() == [[[0.5, 0.5, 0.0]], [[0.0, 0.0, 0.0]]]
