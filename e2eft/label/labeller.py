"""The actor that holds a model: chunks of images in, chunks of predictions out."""

import logging
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from e2eft.config import SamplingConfig
from e2eft.label.chunks import Item, from_table, to_table
from e2eft.model.hub import ModelError
from e2eft.model.pinned import model_files
from e2eft.model.source import ModelSource
from e2eft.storage import inside
from e2eft.tasks import get_task
from e2eft.walk import digest_files

if TYPE_CHECKING:
    from ray import ObjectRef

log = logging.getLogger(__name__)

ACCELERATOR_FAILED = 70
"""Exit code of a process that ends itself (EX_SOFTWARE)."""


@dataclass(frozen=True)
class ShippedModel:
    """A pinned model on its way to the machines that run it.

    files: its content in Ray's object store, by path; empty if all actors run on this machine.
    """

    source: ModelSource
    digest: str
    files: dict[str, "ObjectRef[Any]"] = field(default_factory=dict)


class Labeller:
    """Loads its model once. Its input and output are tables of chunks."""

    def __init__(self, model: ShippedModel, task: str, sampling: SamplingConfig) -> None:
        import torch

        from e2eft.model.pretrained import load_estimator

        source, copy = _on_this_machine(model)
        try:
            self.estimator = load_estimator(source)
        finally:
            if copy is not None:
                shutil.rmtree(copy, ignore_errors=True)
        self.estimator.to("cuda" if torch.cuda.is_available() else "cpu")
        self.task = get_task(task)
        self.sampling = sampling

    def __call__(self, table: pa.Table) -> pa.Table:
        return to_table([self.label(items) for items in from_table(table)])

    def label(self, items: list[Item]) -> list[Item]:
        """The items with predictions in place of their pixels; rejected ones as they are.

        A batch that does not fit into memory is halved until it does; one on which the model fails
        otherwise is taken apart. An image that fails alone is rejected.
        """
        todo = [item for item in items if item.array is not None]
        if not todo:
            return items
        started = time.perf_counter()
        predictions, failure = self._attempted(todo)
        if failure is None:
            seconds = (time.perf_counter() - started) / len(todo)
            return [
                item.predicted(prediction, seconds)
                for item, prediction in zip(todo, predictions, strict=True)
            ]
        if len(todo) == 1:
            return [todo[0].rejected(failure.reason, failure.detail)]
        size = (len(todo) + 1) // 2 if failure.reason == "model_oom" else 1
        parts = (todo[start : start + size] for start in range(0, len(todo), size))
        return [item for part in parts for item in self.label(part)]

    def _attempted(self, items: list[Item]) -> tuple[list[np.ndarray], "Failure | None"]:
        """The predictions, or why there are none. What the attempt held is free afterwards."""
        try:
            return self._predict(items), None
        except Exception as error:
            # No more of it than its text: with its frames it holds the tensors of the attempt.
            failure = failure_of(error)
        self._recover()
        return [], failure

    def _recover(self) -> None:
        """Ends this process if its accelerator answers no more: every image that comes later would
        be rejected for what this one has done. Ray starts another process and tries again."""
        import torch

        if not torch.cuda.is_available():
            return
        try:
            torch.cuda.empty_cache()
            torch.zeros(1, device="cuda").add_(1).cpu()
        except Exception:
            log.exception("the accelerator has failed; this process ends")
            os._exit(ACCELERATOR_FAILED)

    def _predict(self, items: list[Item]) -> list[np.ndarray]:
        from e2eft.model.inference import PreparedImage, predict

        images = [
            PreparedImage(item.array, item.array.shape[:2], item.seed)
            for item in items
            if item.array is not None
        ]
        return predict(self.estimator, self.task, images, self.sampling, len(images))


@dataclass(frozen=True)
class Failure:
    """Why a model gave no prediction: `model_oom` or `model_failed`, and what it said."""

    reason: str
    detail: str


def failure_of(error: Exception) -> Failure:
    """What an exception of a model means."""
    import torch

    text = " ".join(str(error).split())
    # torch has no type for memory that the machine itself lacks.
    is_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "DefaultCPUAllocator" in text
    )
    if is_memory:
        return Failure("model_oom", text)
    return Failure("model_failed", f"{type(error).__name__}: {text}")


def _on_this_machine(model: ShippedModel) -> tuple[ModelSource, Path | None]:
    """The model's files here, and the folder to delete after loading if they had to be copied.

    Raises:
        ModelError: if they are neither here nor shipped, or not those that were pinned.
        StorageError: if the name of one leads out of that folder.
    """
    files = model_files(model.source)
    if files and digest_files(files) == model.digest:
        return model.source, None
    if not model.files:
        raise ModelError(
            f"model {model.source.name!r} is missing or changed on the machine that shall run it; "
            "put it on S3, in the registry or on a shared disk"
        )
    import ray

    folder = Path(tempfile.mkdtemp(prefix="e2eft-model-"))
    try:
        for path, content in model.files.items():
            target = inside(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(memoryview(ray.get(content)))
        source = replace(model.source, root=str(folder), shared=str(folder))
        if digest_files(model_files(source)) != model.digest:
            raise ModelError(f"model {model.source.name!r} arrived damaged")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return source, folder
