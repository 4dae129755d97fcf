"""When a denoiser is asked: sigma in [0, 1], 1 where x_t is pure noise, and each denoiser's own
argument for it.

Sigmas are fp32. The argument is computed in fp32 too, and cast to a denoiser's precision last, if
at all: 999 in bf16 is 1000.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Sigma = Float[Tensor, " n"]


@runtime_checkable
class TimeConvention(Protocol):
    """How a denoiser counts time."""

    @property
    def span(self) -> float:
        """What the argument is divided by for the time from 0 (clean) to, at most, 1 (noise)."""
        ...

    def argument(self, sigma: Sigma) -> Tensor:
        """What the denoiser is told, `[n]`: fp32, or integers."""
        ...

    def drawn(self, uniform: Sigma) -> Sigma:
        """The sigmas that numbers from 0 to 1, or beyond where they shall be 1, stand for."""
        ...


@dataclass(frozen=True)
class Continuous:
    """A time that is sigma, `span` times as large."""

    span: float = 1.0

    def argument(self, sigma: Sigma) -> Tensor:
        return sigma.float() * self.span

    def drawn(self, uniform: Sigma) -> Sigma:
        return uniform.clamp(max=1)
