"""Tasks: what a model's three-channel image means, how it is scored and what is kept of it."""

from __future__ import annotations

from e2eft.tasks.base import Batch, GeometryTask
from e2eft.tasks.depth import AffineInvariantDepth
from e2eft.tasks.normals import AngularNormals

__all__ = ["AffineInvariantDepth", "AngularNormals", "Batch", "GeometryTask", "get_task"]


def get_task(name: str, *, max_depth_m: float = 80.0) -> GeometryTask:
    """The task called `name` on the command line and in manifests.

    Args:
        max_depth_m: depth beyond this is neither supervised nor scored; without effect on normals.

    Raises:
        ValueError: if there is no task of that name.
    """
    match name:
        case "depth":
            return AffineInvariantDepth(max_depth_m=max_depth_m)
        case "normals":
            return AngularNormals()
        case _:
            raise ValueError(f"task {name!r}: expected one of 'depth', 'normals'")
