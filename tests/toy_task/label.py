"""Labels of shading: 0 dark, 1 bright."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from e2eft.images.resize import resize_depth
from e2eft.tasks.labels import LabelCodec

if TYPE_CHECKING:
    from e2eft.views.gallery import GalleryFigure


class ShadingLabels(LabelCodec):
    """float32 `[h w]` in [0, 1]; written as 8-bit grey."""

    name = "shading"  # type: ignore[assignment]
    ndim = 2
    stated = {  # noqa: RUF012
        "kind": "shading",
        "encoding": "linear uint8",
        "convention": "0 dark, 1 bright",
    }
    npy_ending = ".shading.npy"

    def encode(self, label: np.ndarray, text: dict[str, str]) -> bytes:
        return self._png(np.rint(label * 255).astype(np.uint8), text)

    def decode(self, content: bytes) -> np.ndarray:
        return (self._codes(content, np.uint8) / 255).astype(np.float32)

    def resize(self, label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return resize_depth(label, size)

    def facts(self, label: np.ndarray) -> dict[str, float]:
        return {"brightness": float(label.mean())}

    def figure(self, label: np.ndarray) -> GalleryFigure:
        from e2eft.views.gallery import GalleryFigure

        grey = np.rint(label * 255).astype(np.uint8)
        picture = np.repeat(grey[..., None], 3, axis=-1)
        return GalleryFigure(label=self.name, picture=picture, legend="dark to bright")

    def from_others_png(self, codes: np.ndarray, path: str) -> np.ndarray:
        if codes.dtype != np.uint8 or codes.ndim != 2:
            raise ValueError(f"{path} is {codes.dtype} {codes.shape}, expected 8-bit grey")
        return codes / 255

    def from_others(self, values: np.ndarray, path: str, axes: str) -> np.ndarray:
        if values.ndim != 2:
            raise ValueError(f"{path} has shape {values.shape}, expected [h w]")
        return values.astype(np.float32)


CODEC = ShadingLabels()
