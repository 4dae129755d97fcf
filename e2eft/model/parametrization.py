"""What a denoiser's output means: pure functions from it to the clean latent, and back.

Notation: x_t = a x_0 + s noise, with the coefficients (a, s) of a time as its schedule has them;
`image` is the latent of the colour image. All tensors are `[n c h w]`, coefficients `[n 1 1 1]`.
The clean latent is fp32 whatever the output's precision: a of Stable Diffusion's last timestep is
0.068, of which bf16 has two digits.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Latent = Float[Tensor, "n c h w"]
Coefficient = Float[Tensor, "n 1 1 1"]


@dataclass(frozen=True)
class Point:
    """Where a denoiser is asked: the coefficients of x_t, and the image's latent.

    image: None where there is none, as in training on images themselves.
    """

    a: Coefficient
    s: Coefficient
    image: Latent | None = None


@runtime_checkable
class Parametrization(Protocol):
    """One meaning of an output."""

    def clean(self, output: Latent, x_t: Latent, at: Point) -> Latent:
        """x_0 in fp32."""
        ...

    def target(self, clean: Latent, noise: Latent, at: Point) -> Latent:
        """What a perfect denoiser would give."""
        ...


@dataclass(frozen=True)
class Velocity:
    """v = a noise - s x_0 (Salimans & Ho 2022), so x_0 = a x_t - s v where a^2 + s^2 = 1."""

    def clean(self, output: Latent, x_t: Latent, at: Point) -> Latent:
        return at.a * x_t.float() - at.s * output.float()

    def target(self, clean: Latent, noise: Latent, at: Point) -> Latent:
        return at.a * noise - at.s * clean


@dataclass(frozen=True)
class Epsilon:
    """The noise, so x_0 = (x_t - s noise) / a: undefined where a is 0."""

    def clean(self, output: Latent, x_t: Latent, at: Point) -> Latent:
        return (x_t.float() - at.s * output.float()) / at.a

    def target(self, clean: Latent, noise: Latent, at: Point) -> Latent:
        return noise


@dataclass(frozen=True)
class Sample:
    """x_0 itself."""

    def clean(self, output: Latent, x_t: Latent, at: Point) -> Latent:
        return output.float()

    def target(self, clean: Latent, noise: Latent, at: Point) -> Latent:
        return clean


@dataclass(frozen=True)
class Flow:
    """Flow matching's velocity v = start - x_0 along the straight line from any start: with a = 1 -
    t and s = t, x_0 = x_t - t v. From zeros at t = 1 that is -v, from the image's latent it is what
    the image has over v."""

    def clean(self, output: Latent, x_t: Latent, at: Point) -> Latent:
        return x_t.float() - at.s * output.float()

    def target(self, clean: Latent, noise: Latent, at: Point) -> Latent:
        return noise - clean


@dataclass(frozen=True)
class Residual:
    """What the image's latent has over x_0, wherever the denoiser starts: x_0 = image - output.

    Raises ValueError where there is no image.
    """

    def clean(self, output: Latent, x_t: Latent, at: Point) -> Latent:
        return _image(at).float() - output.float()

    def target(self, clean: Latent, noise: Latent, at: Point) -> Latent:
        return _image(at) - clean


def _image(at: Point) -> Latent:
    if at.image is None:
        raise ValueError("a residual is one of an image's latent, and there is none")
    return at.image
