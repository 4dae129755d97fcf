"""Tasks: what a model's three-channel image means, how it is scored and what is kept of it.

Each is a package of its own, in two halves:

    label.py    its labels: files, numbers, how people see them; an object `CODEC`, without torch
    task.py     its images: decode, loss, errors; a function `build`, with torch

Nothing outside of a task's package asks which task it is; it asks the task.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from e2eft.tasks.base import GeometryTask
    from e2eft.tasks.labels import LabelCodec

__all__ = ["TASKS", "get_task", "label_codec", "label_codecs"]

TASKS: dict[str, str] = {
    "depth": "e2eft.tasks.depth",
    "normals": "e2eft.tasks.normals",
}
"""Every task's package, by the task's name; in the order of the label index's columns."""


def get_task(name: str, *, max_depth_m: float = 80.0) -> GeometryTask:
    """What a model's images are in the task called `name` on the command line and in manifests.

    Args:
        max_depth_m: what is further away is neither supervised nor scored, where that is a matter
            of depth.

    Raises:
        ValueError: if there is no task of that name.
    """
    return import_module(f"{_package(name)}.task").build(max_depth_m=max_depth_m)


def label_codec(name: str) -> LabelCodec:
    """What a label is in the task of that name. Brings no torch along.

    Raises:
        ValueError: if there is no task of that name.
    """
    return import_module(f"{_package(name)}.label").CODEC


def label_codecs() -> tuple[LabelCodec, ...]:
    """Those of all tasks, in the order of `TASKS`."""
    return tuple(map(label_codec, TASKS))


def _package(name: str) -> str:
    if name not in TASKS:
        raise ValueError(f"task {name!r}: expected one of {', '.join(map(repr, TASKS))}")
    return TASKS[name]
