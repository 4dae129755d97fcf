"""Latents of VAEs as denoisers take them: by numbers, and there and back."""

import pytest
import torch
from torch import Tensor

from e2eft.model.normalization import (
    BatchNormStatistics,
    Normalizer,
    PerChannel,
    ScaleShift,
    Unchanged,
    pack,
    unpack,
)

MEANS, VARIANCES = torch.linspace(-1, 2, 12), torch.linspace(0.2, 4, 12)
STATISTICS = BatchNormStatistics(MEANS, VARIANCES, eps=1e-4, patch=2)
ALL: list[Normalizer] = [
    Unchanged(),
    ScaleShift(0.3611, 0.1159),
    PerChannel((0.5, -1.0, 0.0), (2.0, 0.5, 1.5)),
    STATISTICS,
]


def latents() -> Tensor:
    return 3 * torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(0)) + 1


@pytest.mark.parametrize("normalizer", ALL)
def test_there_and_back_is_the_same(normalizer: Normalizer) -> None:
    raw = latents()
    made = normalizer.normalize(raw)
    assert made.shape == raw.shape
    torch.testing.assert_close(normalizer.denormalize(made), raw, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        normalizer.normalize(normalizer.denormalize(raw)), raw, rtol=1e-5, atol=1e-5
    )
    assert normalizer.normalize(raw.bfloat16()).dtype == torch.bfloat16


def test_each_by_its_formula() -> None:
    raw = latents()
    torch.testing.assert_close(Unchanged().normalize(raw), raw, rtol=0, atol=0)
    torch.testing.assert_close(ScaleShift(2.0, 0.5).normalize(raw), (raw - 0.5) * 2)
    made = PerChannel((0.5, -1.0, 0.0), (2.0, 0.5, 1.5)).normalize(raw)
    torch.testing.assert_close(made[:, 1], (raw[:, 1] + 1) / 0.5)
    made = STATISTICS.normalize(raw)
    # Channel 1, row 1 and column 0 of a token: the packed channel 1 * 4 + 1 * 2 + 0.
    wanted = (raw[:, 1, 1::2, 0::2] - MEANS[6]) / (VARIANCES[6] + 1e-4).sqrt()
    torch.testing.assert_close(made[:, 1, 1::2, 0::2], wanted)


def test_a_batch_normalization_gives_the_same_of_packed_latents() -> None:
    norm = torch.nn.BatchNorm2d(12, eps=1e-4, affine=False).eval()
    norm.running_mean, norm.running_var = MEANS, VARIANCES
    raw = latents()
    torch.testing.assert_close(pack(STATISTICS.normalize(raw), 2), norm(pack(raw, 2)))


def test_packing_keeps_every_number() -> None:
    raw = latents()
    packed = pack(raw, 2)
    assert packed.shape == (2, 12, 2, 3)
    assert float(packed[1, 2 * 4 + 1 * 2 + 0, 1, 2]) == float(raw[1, 2, 3, 4])
    assert torch.equal(unpack(packed, 2), raw)
