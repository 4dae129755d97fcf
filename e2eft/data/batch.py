"""Samples of one size as tensors: what a training step and a task see."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    """Colour, [-1, 1]."""
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
        )
