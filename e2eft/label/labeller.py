"""The actor that holds a model: chunks of images in, chunks of predictions out."""

import shutil
import tempfile
import time
from dataclasses import dataclass, field
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
from e2eft.walk import digest_files

if TYPE_CHECKING:
    from ray import ObjectRef


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
        from e2eft.tasks import get_task

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

        A batch that does not fit into the accelerator's memory is halved until it does.
        """
        import torch

        todo = [item for item in items if item.array is not None]
        if not todo:
            return items
        started = time.perf_counter()
        try:
            predictions = self._predict(todo)
        except torch.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            if len(todo) == 1:
                return [todo[0].rejected("model_oom", str(error))]
            half = len(todo) // 2
            return self.label(todo[:half]) + self.label(todo[half:])
        seconds = (time.perf_counter() - started) / len(todo)
        return [
            item.predicted(prediction, seconds)
            for item, prediction in zip(todo, predictions, strict=True)
        ]

    def _predict(self, items: list[Item]) -> list[np.ndarray]:
        from e2eft.model.inference import PreparedImage, predict

        images = [
            PreparedImage(item.array, item.array.shape[:2], item.seed)
            for item in items
            if item.array is not None
        ]
        return predict(self.estimator, self.task, images, self.sampling, len(images))


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
        source = ModelSource(model.source.name, str(folder), str(folder))
        if digest_files(model_files(source)) != model.digest:
            raise ModelError(f"model {model.source.name!r} arrived damaged")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return source, folder
