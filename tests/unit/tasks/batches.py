"""Batches for tests, from what a test is about alone."""

import torch
from torch import Tensor

from e2eft.data.batch import Batch


def batch_of(depth_m: Tensor | None = None, normals_cam: Tensor | None = None) -> Batch:
    """A batch with the given depth or normals, or both; what is not given is unknown."""
    if depth_m is None:
        assert normals_cam is not None
        depth_m = torch.full_like(normals_cam[:, 0], torch.nan)
    if normals_cam is None:
        normals_cam = torch.full_like(depth_m[:, None].repeat(1, 3, 1, 1), torch.nan)
    count, height, width = depth_m.shape
    return Batch(
        rgb=torch.zeros(count, 3, height, width),
        depth_m=depth_m,
        normals_cam=normals_cam,
        valid=depth_m.isfinite(),
        keys=[str(index) for index in range(count)],
        intrinsics_px=torch.eye(3).expand(count, 3, 3),
    )
