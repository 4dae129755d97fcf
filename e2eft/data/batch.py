"""Samples of one size as tensors: what a training step and a task see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Samples of one size as tensors on one device, in physical units.

    Axes are OpenCV's (x right, y down, z forward); see `e2eft.geometry` for the legend of shape
    symbols.
    """

    rgb: Float[Tensor, "n 3 h w"]
    """Colour, [-1, 1]. NaN if the images were not decoded because their latents are there."""
    depth_m: Float[Tensor, "n h w"]
    """Planar depth z in metres; NaN unknown, +inf sky."""
    normals_cam: Float[Tensor, "n 3 h w"]
    """Unit normals facing the camera; NaN unknown (sky too)."""
    valid: Bool[Tensor, "n h w"]
    """Where the depth is known, finite and within the data set's range. It does not say whether
    the normal is known there."""
    keys: list[str]
    """The samples' keys, in the order of the first axis."""
    intrinsics_px: Float[Tensor, "n 3 3"]
    """Pinhole matrices; the centre of pixel (column i, row j) is (i + 0.5, j + 0.5)."""
    rgb_latents: Float[Tensor, "n c hl wl"] | None = None
    """The codec's latents of the images, mirrored ones of mirrored images; None: encode `rgb`."""

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Batch:
        """The same batch with every tensor on `device`."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, from which `to` a GPU need not wait."""
        return self._map(Tensor.pin_memory)

    def _map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        tensors = {
            field.name: _moved(value, move)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **tensors)


def _moved(tensor: Tensor, move: Callable[[Tensor], Tensor]) -> Tensor:
    """What is one number in memory, as what was not read is, stays one."""
    if tensor.numel() == 0 or any(tensor.stride()):
        return move(tensor)
    return move(tensor[(0,) * tensor.ndim].clone()).expand(tensor.shape)


def rgb_tensor(images: list[np.ndarray]) -> Float[Tensor, "n 3 h w"]:
    """uint8 `[h w 3]` images of one size as one tensor in [-1, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
