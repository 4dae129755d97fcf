"""Tasks: what a model's three-channel image means, how it is scored and what is kept of it.

Each is a package of its own, in two halves:

    label.py    its labels: files, numbers, how people see them; an object `CODEC`, without torch
    task.py     its images: decode, loss, errors; a function `build`, with torch

Nothing outside of a task's package asks which task it is; it asks the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING

from e2eft.losses import Loss
from e2eft.targets import LINEAR, DepthTarget

if TYPE_CHECKING:
    from e2eft.tasks.base import GeometryTask
    from e2eft.tasks.labels import LabelCodec

__all__ = ["TASKS", "TaskSettings", "get_task", "label_codec", "label_codecs"]

TASKS: dict[str, str] = {
    "depth": "e2eft.tasks.depth",
    "normals": "e2eft.tasks.normals",
}
"""Every task's package, by the task's name; in the order of the label index's columns."""


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What a run may choose of its task; a task looks at what is a matter of its own.

    max_depth_m: what is further away is neither supervised nor scored.
    depth_target: the space in which depth is predicted.
    losses: their sum is minimized; none: the task's own, which is the paper's.
    """

    max_depth_m: float = 80.0
    depth_target: DepthTarget = LINEAR
    losses: tuple[Loss, ...] = ()


def get_task(
    name: str,
    *,
    max_depth_m: float = 80.0,
    depth_target: DepthTarget | None = None,
    losses: Sequence[Loss] = (),
) -> GeometryTask:
    """What a model's images are in the task called `name` on the command line and in manifests.

    Args:
        max_depth_m, depth_target, losses: see `TaskSettings`.

    Raises:
        ValueError: if there is no task of that name, or a loss is another task's.
    """
    package = _package(name)
    for loss in losses:
        if loss.task != name:
            raise ValueError(f"the loss {loss.kind} is one of {loss.task}, not of {name}")
    settings = TaskSettings(
        max_depth_m=max_depth_m,
        depth_target=depth_target or LINEAR,
        losses=tuple(losses),
    )
    return import_module(f"{package}.task").build(settings)


def label_codec(name: str, depth_target: DepthTarget = LINEAR) -> LabelCodec:
    """What a label is in the task of that name. Brings no torch along.

    Args:
        depth_target: what labels of depth are affine in.

    Raises:
        ValueError: if there is no task of that name.
    """
    codec: LabelCodec = import_module(f"{_package(name)}.label").CODEC
    return replace(codec, depth_target=depth_target)


def label_codecs() -> tuple[LabelCodec, ...]:
    """Those of all tasks, in the order of `TASKS`."""
    return tuple(map(label_codec, TASKS))


def _package(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"task {name!r}: expected one of {', '.join(map(repr, TASKS))}")
    return TASKS[name]
