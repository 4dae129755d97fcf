"""The pyfunc that MLflow registers: encoded images in, labels out.

    model = mlflow.pyfunc.load_model("models:/e2eft-depth@champion")
    answer = model.predict(pandas.DataFrame({"image": [open("a.jpg", "rb").read()]}))

`image` is the content of an image file (over REST: base64). One answer a row, in the rows' order,
at the image's own size, upright:

    depth       16-bit PNG, as labels are: 65535 x affine-invariant depth, 0 near, 1 far
    normals     8-bit PNG, as labels are: right-up-viewer axes
    ...         and of every other task of `e2eft.tasks`; all but the model's own are empty
    meta        JSON: what was done, sizes, how to read the numbers
    error_code  "", or the reason why there is no answer: a word that labelling uses too

MLflow checks the column's type before the model sees it: one that pandas holds as numbers (nothing
but NaN, say) is refused with the request; with dtype=object its cells get their rows.

What there is not is empty, never null. A bad image costs its own row the answer, not the request;
parameters out of bounds, and more than MAX_IMAGES images, are refused with the request.
Cells may also be uint8 arrays `[h w 3]`, sent as `{"image": [array, ...]}` or in a DataFrame; their
answers are float32 arrays, depth `[h w]` or normals `[h w 3]` in OpenCV axes. A batch `[n h w 3]`,
which no schema of columns lets through, goes to `model.unwrap_python_model().predict_arrays`.

The same functions decode, resize, estimate and encode here and in labelling, so the same image gets
the same label. MLflow runs this file as source; it imports nothing that a served model does not
declare (`e2eft.tracking.packaging`).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc.model import PythonModel

from e2eft.config import INT64_MAX, MAX_PROCESSING_PX, SamplingConfig
from e2eft.corpora.reading import content_seed
from e2eft.images.decoder import MIN_SIDE_PX, decode_image
from e2eft.images.reasons import ImageError
from e2eft.images.resize import fitted_size, resize_rgb
from e2eft.model.inference import PreparedImage, predict
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import find_model
from e2eft.tasks import TASKS, get_task, label_codec

MAX_PIXELS = 64_000_000
MAX_IMAGES = 256
"""In one request, whose answers lie in memory together."""
MAX_STEPS = 1000
"""As many as the noise schedule of these models has."""
BATCH_SIZE = 8
AT_ONCE = 32
"""Images that are decoded at the same time."""
UNEXPECTED = "internal_error"
"""Error code for what should not happen; the reason is in `meta`."""


class RequestError(MlflowException, ValueError):
    """A request that is refused as a whole; MLflow's server answers it with 400 and this text."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)


@dataclass(frozen=True)
class Request:
    """One decoded image: `prepared` as the model sees it, and whether arrays were given and are
    wanted."""

    prepared: PreparedImage
    degraded: tuple[str, ...]
    wants_array: bool


class GeometryModel(PythonModel):
    """A model of one task. `predict` may be called as often as one likes; it keeps no state."""

    def load_context(self, context: Any) -> None:
        """Called by MLflow with the model's artifacts."""
        self.load(Path(context.artifacts["model"]))

    def load(self, folder: Path) -> "GeometryModel":
        """Loads a model folder in diffusers' layout, onto a GPU if there is one.

        Raises:
            ModelError: if it is not complete.
        """
        self.estimator = load_estimator(find_model(str(folder)))
        self.estimator.to("cuda" if torch.cuda.is_available() else "cpu")
        card = self.estimator.card
        task = get_task(card.task, depth_target=card.depth_target)
        self.task = task.read_from(card.axes, card.full_z_range)
        return self

    def predict(  # type: ignore[override]
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answers for the column `image`, never an exception for what is in it.

        Args:
            params: `processing_size` (longest side in pixels; 0: the model's own), `steps` (0: the
                model's own) and `seed` of the initial noise, all optional.

        Raises:
            RequestError: for a parameter out of bounds, or too many images.
        """
        images = model_input["image"]
        if len(images) > MAX_IMAGES:
            raise RequestError(f"{len(images)} images; send at most {MAX_IMAGES} in one request")
        answers = self._answer(images.tolist(), params or {})
        return pd.DataFrame(answers, columns=columns(), index=images.index)

    def predict_arrays(self, rgb: np.ndarray, **params: int) -> np.ndarray:
        """Labels of uint8 `[n h w 3]`: float32 `[n h w]` or `[n h w 3]`, as the task has them.

        Raises:
            ValueError: if an image has no answer. RequestError: for a parameter out of bounds.
        """
        answers = self._answer(list(rgb), params)
        if failed := [answer for answer in answers if answer["error_code"]]:
            raise ValueError(
                f"{len(failed)} of {len(answers)} images have no answer: "
                f"{failed[0]['error_code']} {failed[0]['meta']}"
            )
        return np.stack([answer[self.task.name] for answer in answers])

    def _answer(self, images: list[Any], settings: dict[str, Any]) -> list[dict[str, Any]]:
        card = self.estimator.card
        steps = bounded(settings, "steps", MAX_STEPS)
        longest_px = bounded(settings, "processing_size", MAX_PROCESSING_PX)
        seed = bounded(settings, "seed", INT64_MAX)
        sampling = card.filled(SamplingConfig(steps=steps or None, seed=seed))
        longest_px = longest_px or card.processing_size or None
        return [
            answer
            for start in range(0, len(images), AT_ONCE)
            for answer in self._answer_some(images[start : start + AT_ONCE], longest_px, sampling)
        ]

    def _answer_some(
        self, images: list[Any], longest_px: int | None, sampling: SamplingConfig
    ) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        requests: list[tuple[int, Request]] = []
        for number, image in enumerate(images):
            answers.append(dict.fromkeys(TASKS, b"") | {"meta": "", "error_code": ""})
            try:
                requests.append((number, read_request(image, longest_px, sampling.seed)))
            except Exception as error:  # Whatever is in a cell must not cost the others theirs.
                answers[-1] |= _failure_of(error)
        predictions = self._predict([request for _, request in requests], sampling)
        for (number, request), prediction in zip(requests, predictions, strict=True):
            try:
                answers[number] |= self._encode(request, prediction, sampling)
            except Exception as error:
                answers[number] |= _failure_of(error)
        return answers

    def _predict(
        self, requests: list[Request], sampling: SamplingConfig
    ) -> list[np.ndarray | Exception]:
        """A prediction for each request; where a batch fails, each of its images is tried alone."""
        images = [request.prepared for request in requests]
        try:
            return list(predict(self.estimator, self.task, images, sampling, BATCH_SIZE))
        except (
            Exception
        ) as error:  # Whatever one image does must not cost the others their answers.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if len(requests) == 1:
                return [error]
            return [self._predict([request], sampling)[0] for request in requests]

    def _encode(
        self, request: Request, prediction: np.ndarray | Exception, sampling: SamplingConfig
    ) -> dict[str, Any]:
        if isinstance(prediction, Exception):
            raise prediction
        if not np.isfinite(prediction).all():
            return _failure("model_nan", "the model's output is not finite")
        name, size = self.task.name, request.prepared.size
        codec = label_codec(name, self.estimator.card.depth_target)
        label: np.ndarray | bytes = codec.resize(prediction, size)
        meta = {
            "task": name,
            "target": self.estimator.card.target or self.task.target,
            **(codec.conventions if not request.wants_array else {}),
            "size": list(size),
            "processing_size": list(request.prepared.rgb.shape[:2]),
            "sampling": sampling.model_dump(mode="json"),
            "degraded": list(request.degraded),
        }
        if not request.wants_array:
            label = codec.encode(label, {})
        return {name: label, "meta": json.dumps(meta)}


def columns() -> list[str]:
    """Of an answer; as `serving_signature` has them."""
    return [*TASKS, "meta", "error_code"]


def read_request(image: Any, longest_px: int | None, seed: int) -> Request:
    """One cell of the column `image`.

    Raises:
        ImageError: if it is no image, or none that can be processed.
    """
    wants_array = isinstance(image, np.ndarray)
    if wants_array:
        rgb, degraded = _checked_array(image), ()
        height, width = rgb.shape[:2]
        content = rgb.tobytes()
    elif isinstance(image, bytes | bytearray | memoryview):
        content = bytes(image)
        decoded = decode_image(content, MAX_PIXELS, longest_px)
        rgb, degraded = decoded.rgb, decoded.degraded
        height, width = decoded.size
    else:
        raise ImageError(
            "decode_unsupported", f"{type(image).__name__}; send an image file's bytes"
        )
    size = fitted_size(height, width, longest_px)
    if max(size) > MAX_PROCESSING_PX:
        raise ImageError(
            "decode_bomb",
            f"{width} x {height} pixels at their own size; send processing_size, at most "
            f"{MAX_PROCESSING_PX}",
        )
    if min(size) < MIN_SIDE_PX:
        raise ImageError(
            "aspect_extreme", f"{width} x {height} pixels become {size[1]} x {size[0]}"
        )
    prepared = PreparedImage(resize_rgb(rgb, size), (height, width), content_seed(content, seed))
    return Request(prepared, degraded, wants_array)


def _checked_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3:
        raise ImageError(
            "decode_unsupported", f"{array.dtype} {array.shape}; an array must be uint8 [h w 3]"
        )
    if min(array.shape[:2]) < MIN_SIDE_PX:
        raise ImageError("too_small", f"{array.shape[1]} x {array.shape[0]} pixels")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ImageError("decode_bomb", f"{array.shape[1]} x {array.shape[0]} pixels")
    return array


def bounded(settings: dict[str, Any], name: str, most: int) -> int:
    """A parameter of a request, 0 if it is not given.

    Raises:
        RequestError: for anything but a whole number from 0 to `most`.
    """
    value = settings.get(name)
    if value is None:
        return 0
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if number != value or not 0 <= number <= most:
        raise RequestError(f"{name} {value}: expected a whole number from 0 to {most}")
    return number


def _failure_of(error: Exception) -> dict[str, str]:
    if isinstance(error, ImageError):
        return _failure(error.reason, error.detail)
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return _failure("model_oom" if is_memory else UNEXPECTED, str(error) or type(error).__name__)


def _failure(reason: str, detail: str) -> dict[str, str]:
    return {"error_code": reason, "meta": json.dumps({"detail": detail})}


set_model(GeometryModel())
