"""The exponential moving average of the weights, partitioned as the master weights are."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class MovingAverage:
    """An fp32 average of the weights: every rank keeps that of its own share, so that a step costs
    no communication and no memory that ZeRO saves."""

    def __init__(self, engine: Any, decay: float) -> None:
        self.engine, self.decay = engine, decay
        self._shares: list[Tensor] | None = None

    @torch.no_grad()
    def update(self) -> None:
        """To be called after every optimizer step; the first one starts it."""
        masters = self.engine.masters()
        if self._shares is None:
            self._shares = _copies(masters)
            return
        for share, master in zip(self._shares, masters, strict=True):
            share.lerp_(master, 1 - self.decay)

    def weights(self) -> dict[str, Tensor]:
        """The full average on rank 0's CPU, nothing elsewhere. Collective."""
        assert self._shares is not None
        with self._masters_kept() as masters:
            _copy_to(masters, self._shares)
            return self.engine.weights()

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Goes on from what `weights` returned on rank 0, given to every rank."""
        with self._masters_kept() as masters:
            self.engine.set_masters(weights)
            self._shares = _copies(masters)

    @contextmanager
    def _masters_kept(self) -> Iterator[list[Tensor]]:
        """The engine knows how to gather its master weights, so these lend it their place."""
        masters = self.engine.masters()
        kept = _copies(masters)
        try:
            yield masters
        finally:
            _copy_to(masters, kept)


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors]


@torch.no_grad()
def _copy_to(targets: list[Tensor], sources: list[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
