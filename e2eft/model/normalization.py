"""How the latents of a VAE become what a denoiser takes, and back: pure functions."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Latent = Float[Tensor, "n c h w"]


@runtime_checkable
class Normalizer(Protocol):
    """`denormalize` undoes `normalize` but for rounding. Precision and device stay the latent's."""

    def normalize(self, raw: Latent) -> Latent:
        """The denoiser's latent of a VAE's."""
        ...

    def denormalize(self, latent: Latent) -> Latent:
        """The VAE's latent of a denoiser's."""
        ...


@dataclass(frozen=True)
class Unchanged:
    """A VAE whose latents are taken as they are."""

    def normalize(self, raw: Latent) -> Latent:
        return raw

    def denormalize(self, latent: Latent) -> Latent:
        return latent


@dataclass(frozen=True)
class ScaleShift:
    """(raw - shift) scale, alike for all channels."""

    scale: float
    shift: float = 0.0

    def normalize(self, raw: Latent) -> Latent:
        return (raw - self.shift) * self.scale

    def denormalize(self, latent: Latent) -> Latent:
        return latent / self.scale + self.shift


@dataclass(frozen=True)
class PerChannel:
    """(raw - mean) / std, with a mean and a deviation of each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalize(self, raw: Latent) -> Latent:
        return (raw - _broadcast(self.mean, raw)) / _broadcast(self.std, raw)

    def denormalize(self, latent: Latent) -> Latent:
        return latent * _broadcast(self.std, latent) + _broadcast(self.mean, latent)


def _broadcast(values: tuple[float, ...], like: Tensor) -> Float[Tensor, "1 c 1 1"]:
    return like.new_tensor(values).view(1, -1, 1, 1)


@dataclass(frozen=True)
class BatchNormStatistics:
    """(raw - mean) / sqrt(variance + eps) of latents whose `patch` x `patch` neighbours are packed
    into channels, so that each of those places has statistics of its own.

    mean, variance: `[c patch^2]`, as a batch normalization of the packed latents ran up. Both sides
    of a latent must be multiples of `patch`.
    """

    mean: Float[Tensor, " packed"]
    variance: Float[Tensor, " packed"]
    eps: float
    patch: int

    def normalize(self, raw: Latent) -> Latent:
        mean, std = self._statistics(raw)
        return unpack((pack(raw, self.patch) - mean) / std, self.patch)

    def denormalize(self, latent: Latent) -> Latent:
        mean, std = self._statistics(latent)
        return unpack(pack(latent, self.patch) * std + mean, self.patch)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        std = (self.variance + self.eps).sqrt()
        return self.mean.view(1, -1, 1, 1).to(like), std.view(1, -1, 1, 1).to(like)


def pack(latent: Latent, patch: int) -> Float[Tensor, "n packed hp wp"]:
    """Moves `patch` x `patch` neighbours into channels: channel, then row, then column."""
    return functional.pixel_unshuffle(latent, patch)


def unpack(packed: Float[Tensor, "n packed hp wp"], patch: int) -> Latent:
    """What `pack` packed."""
    return functional.pixel_shuffle(packed, patch)
