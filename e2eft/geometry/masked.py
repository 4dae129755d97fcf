"""Statistics of each image over its valid pixels, without leaving the device.

Values at invalid pixels may be anything, NaN included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def masked_mean(
    values: Float[Tensor, "n h w"], valid: Bool[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """Mean of each image's valid pixels; NaN where there are none."""
    return values.where(valid, 0).sum((1, 2)) / valid.sum((1, 2))


def masked_quantiles(
    values: Float[Tensor, "n h w"], valid: Bool[Tensor, "n h w"], fractions: Sequence[float]
) -> Float[Tensor, "n q"]:
    """Quantiles of each image's valid pixels; NaN where there are none.

    Interpolates linearly, as `numpy.quantile` does. `torch.quantile` refuses more than 16 million
    values, fewer than a benchmark's photograph has.

    Args:
        values: finite where valid.
        fractions: between 0 and 1; 0.5 is the median.
    """
    ordered = values.masked_fill(~valid, torch.inf).flatten(1).sort(dim=1).values  # [n h*w]
    count = valid.sum((1, 2))[:, None]  # [n 1]
    last = (count - 1).clamp(min=0).double()  # float32 cannot tell a large image's ranks apart
    ranks = torch.cat([fraction * last for fraction in fractions], dim=1)  # [n q]
    lower = ordered.gather(1, ranks.floor().long())
    upper = ordered.gather(1, ranks.ceil().long())
    quantiles = torch.lerp(lower, upper, ranks.frac().to(values.dtype))
    return quantiles.where(count > 0, torch.nan)
