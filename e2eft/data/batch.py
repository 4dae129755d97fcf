"""Samples of one size as tensors: what a training step and a task see."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """Where the depth is known, finite and within the data set's range. It says nothing about the
    normals."""
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
        return replace(
            self,
            rgb=self.rgb.to(device, non_blocking=non_blocking),
            depth_m=self.depth_m.to(device, non_blocking=non_blocking),
            normals_cam=self.normals_cam.to(device, non_blocking=non_blocking),
            valid=self.valid.to(device, non_blocking=non_blocking),
            intrinsics_px=self.intrinsics_px.to(device, non_blocking=non_blocking),
            rgb_latents=None
            if self.rgb_latents is None
            else self.rgb_latents.to(device, non_blocking=non_blocking),
        )


def rgb_tensor(images: list[np.ndarray]) -> Float[Tensor, "n 3 h w"]:
    """uint8 `[h w 3]` images of one size as one tensor in [-1, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
