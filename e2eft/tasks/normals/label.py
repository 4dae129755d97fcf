"""Labels of surface normals: unit vectors in OpenCV's camera axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from e2eft.images.resize import resize_normals
from e2eft.tasks.labels import STRIP_ROWS, LabelCodec, Pipeline

if TYPE_CHECKING:
    from e2eft.config import TaskName
    from e2eft.geometry.normals import Axes
    from e2eft.views.gallery import GalleryFigure


class NormalsLabels(LabelCodec):
    """float32 `[h w 3]` unit vectors in OpenCV axes, NaN unknown; written as 8-bit PNG in
    right-up-viewer axes, whose rounding costs at most 0.4 degrees, and therefore as an array."""

    name: ClassVar[TaskName] = "normals"
    ndim = 3
    stated: ClassVar[dict[str, str]] = {
        "kind": "normals",
        "encoding": "uint8: n = value / 127.5 - 1",
        "convention": "unit vectors facing the camera",
        "axes": "right-up-viewer: x right, y up, z to the viewer",
        "npy_axes": "opencv: x right, y down, z forward",
        "unit": "none",
        "invalid": "0 0 0",
    }
    npy_ending = ".normals.npy"
    always_npy = True
    has_directions = True
    pipeline = Pipeline("MarigoldNormalsPipeline")

    def encode(self, label: np.ndarray, text: dict[str, str]) -> bytes:
        from e2eft.views.colour import colour_normals

        codes = np.empty(label.shape, np.uint8)
        for top in range(0, len(label), STRIP_ROWS):
            codes[top : top + STRIP_ROWS] = colour_normals(label[top : top + STRIP_ROWS])
        return self._png(codes, text)

    def decode(self, content: bytes) -> np.ndarray:
        codes = self._codes(content, np.uint8)
        normals = (codes / 127.5 - 1) * (1.0, -1.0, -1.0)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        normals[(codes == 0).all(axis=-1)] = np.nan
        return normals.astype(np.float32)

    def resize(self, label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return resize_normals(label, size)

    def facts(self, label: np.ndarray) -> dict[str, float]:
        return {"facing camera": float(-np.nanmean(label[..., 2]))}

    def figure(self, label: np.ndarray) -> GalleryFigure:
        from e2eft.tasks.normals.pictures import figure

        return figure(label)

    def from_others_png(self, codes: np.ndarray, path: str) -> np.ndarray:
        """8-bit RGB, 127.5 (n + 1); black where there is none."""
        if codes.dtype != np.uint8 or codes.ndim != 3:
            raise ValueError(f"{path} is {codes.dtype} {codes.shape}, expected 8-bit RGB")
        values = codes[..., :3] / 127.5 - 1
        values[(codes[..., :3] == 0).all(axis=-1)] = np.nan
        return values

    def from_others(self, values: np.ndarray, path: str, axes: Axes) -> np.ndarray:
        """`[h w 3]` or `[3 h w]`; of length 1, or 0 where they are unknown."""
        from e2eft.geometry.normals import convert_axes, lengths_of, why_not_normals

        if values.ndim == 3 and values.shape[0] == 3 != values.shape[2]:
            values = np.moveaxis(values, 0, -1)
        if values.ndim != 3 or values.shape[2] != 3:
            raise ValueError(f"{path} has shape {values.shape}, expected [h w 3] or [3 h w]")
        values = values.astype(np.float64)
        if reason := why_not_normals(values):
            raise ValueError(f"{path}: {reason}")
        length = lengths_of(values)[..., None]
        known = np.isfinite(length) & (length > 0)
        unit = np.divide(values, length, out=np.full_like(values, np.nan), where=known)
        return convert_axes(unit.astype(np.float32), axes, "opencv")


CODEC = NormalsLabels()
