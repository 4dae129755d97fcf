"""What a label is: its numbers, its files and what people see of it. Needs no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from e2eft.images.decoder import load_picture
from e2eft.images.png import encode_png
from e2eft.targets import LINEAR, DepthTarget

if TYPE_CHECKING:
    from e2eft.config import TaskName
    from e2eft.geometry.normals import Axes
    from e2eft.views.gallery import GalleryFigure

MAX_PIXELS = 2**28
"""Of a label's picture; a header that says more is damaged."""
STRIP_ROWS = 64
"""Of a label that are in float64 at a time."""


@dataclass(frozen=True)
class Pipeline:
    """The pipeline of diffusers that reads a task's models.

    name, formerly: `_class_name` in `model_index.json`, now and in older folders. fields: what it
    reads there besides what all of Marigold's pipelines do.
    """

    name: str
    formerly: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class LabelCodec(ABC):
    """A task's labels. A *label* is float32 `[h w]` or `[h w 3]` and lies on its image pixel by
    pixel; what its numbers are is the task's.

    depth_target: what labels of depth are affine in.
    """

    depth_target: DepthTarget = LINEAR

    name: ClassVar[TaskName]
    ndim: ClassVar[int]
    """Axes of a label: 2, `[h w]`, or 3, `[h w 3]`."""
    stated: ClassVar[dict[str, str]]
    """See `conventions`."""
    npy_ending: ClassVar[str]
    """Of the float32 array beside the picture; no two tasks have the same."""
    always_npy: ClassVar[bool] = False
    """Whether that array is written unasked, since the picture is too coarse."""
    has_directions: ClassVar[bool] = False
    """Whether a model's card must say in which axes its image is (`axes`, `full_z_range`)."""
    pipeline: ClassVar[Pipeline | None] = None

    @property
    def conventions(self) -> dict[str, str]:
        """What the numbers in a label's picture mean: text chunks of the PNG and part of the
        manifest. `kind` is what protocols know them by."""
        return self.stated

    @property
    def details(self) -> dict[str, Any]:
        """The same for the manifest, as data where text is none."""
        return dict(self.conventions)

    @property
    def exported(self) -> str:
        """What is lost where the task's pipeline of diffusers reads a model; "" if nothing."""
        return ""

    @property
    def kind(self) -> str:
        """What the numbers are, in one word."""
        return self.conventions["kind"]

    @property
    def column(self) -> str:
        """Of the label index: the path of the picture."""
        return f"{self.name}_path"

    def path(self, name: str) -> str:
        """Of the picture of the image that the plan calls `name`."""
        return f"{self.name}/{name}.png"

    def npy_path(self, name: str) -> str:
        """Of its array."""
        return f"npy/{name}{self.npy_ending}"

    def is_label(self, array: np.ndarray) -> bool:
        """Whether an array is of a label's type and shape."""
        return array.dtype.kind == "f" and _is_label_shape(array.shape, self.ndim)

    @abstractmethod
    def encode(self, label: np.ndarray, text: dict[str, str]) -> bytes:
        """The label as a PNG that says `conventions` and `text` in its text chunks."""

    @abstractmethod
    def decode(self, content: bytes) -> np.ndarray:
        """The inverse of `encode`.

        Raises:
            ValueError: for another picture, or a damaged one.
        """

    @abstractmethod
    def resize(self, label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The label at (height, width)."""

    def preview(self, label: np.ndarray) -> bytes | None:
        """A small JPEG for people, if the label's own picture says nothing to them."""
        return None

    @abstractmethod
    def facts(self, label: np.ndarray) -> dict[str, float]:
        """Numbers by which people sort a gallery's cards, by name."""

    @abstractmethod
    def figure(self, label: np.ndarray) -> GalleryFigure:
        """What a gallery shows of a label that has the size of the card's image."""

    def kind_of_others(self, affine_in: str) -> str:
        """The kind of labels that another program wrote.

        Args:
            affine_in: a value of `--labels-kind`: what numbers with a scale and a shift of
                their own are affine in.
        """
        return self.kind

    @abstractmethod
    def from_others_png(self, codes: np.ndarray, path: str) -> np.ndarray:
        """Numbers, for `from_others`, out of the pixels of a picture that another program wrote.

        Args:
            path: for messages.

        Raises:
            ValueError: if it is of another type or shape.
        """

    @abstractmethod
    def from_others(self, values: np.ndarray, path: str, axes: Axes) -> np.ndarray:
        """A label out of floating point numbers that another program wrote; of no certain range.

        Args:
            path: for messages.
            axes: of directions.

        Raises:
            ValueError: for another shape, or numbers that cannot be of this task.
        """

    def _png(self, codes: np.ndarray, text: dict[str, str]) -> bytes:
        return encode_png(codes, self.conventions | text)

    def _codes(self, content: bytes, dtype: type) -> np.ndarray:
        codes = np.asarray(load_picture(content, MAX_PIXELS))
        if codes.dtype != dtype or not _is_label_shape(codes.shape, self.ndim):
            raise ValueError(f"a picture of {codes.dtype} {codes.shape} is no label")
        return codes


def _is_label_shape(shape: tuple[int, ...], ndim: int) -> bool:
    return len(shape) == ndim and shape[2:] in ((), (3,))
