"""Labels of depth: 0 near, 1 far."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from e2eft.images.resize import resize_depth
from e2eft.targets import LINEAR
from e2eft.tasks.labels import STRIP_ROWS, LabelCodec, Pipeline

if TYPE_CHECKING:
    from e2eft.config import TaskName
    from e2eft.geometry.normals import Axes
    from e2eft.views.gallery import GalleryFigure

CODES = 65535
"""The largest: 1, the far end."""


class DepthLabels(LabelCodec):
    """float32 `[h w]` in [0, 1], all finite; written as 16-bit PNG, to 1/131070."""

    name: ClassVar[TaskName] = "depth"
    ndim = 2
    stated: ClassVar[dict[str, str]] = {
        "kind": "affine_depth",
        "encoding": "linear uint16: depth = value / 65535",
        "convention": "0 near, 1 far; linear in depth (not disparity), unknown scale and shift",
        "unit": "none",
        "geometry": "planar z",
        "invalid": "none",
    }
    npy_ending = ".npy"
    pipeline = Pipeline(
        "MarigoldDepthPipeline",
        formerly=("MarigoldPipeline",),  # As Marigold's own code has it.
        fields={"scale_invariant": True, "shift_invariant": True},
    )

    @property
    def conventions(self) -> dict[str, str]:
        """`depth_target` is what values are affine in, as data: see `e2eft.targets.target_of`."""
        target = self.depth_target
        said = {"depth_target": json.dumps(target.as_json())}
        if target.kind == LINEAR.kind:
            return self.stated | said
        values = target.values.replace("-", " ")
        other = {
            "kind": self.kind_of_others(target.values),
            "encoding": "linear uint16: value = code / 65535",
            "convention": f"{target.ends}; linear in {values}, unknown scale and shift there",
        }
        return self.stated | other | said

    @property
    def details(self) -> dict[str, Any]:
        return self.conventions | {"depth_target": self.depth_target.as_json()}

    @property
    def exported(self) -> str:
        if self.depth_target.kind == LINEAR.kind:
            return ""
        values = self.depth_target.values.replace("-", " ")
        return (
            "diffusers' MarigoldDepthPipeline gives the same numbers but takes them for depth; "
            f"they are affine in {values}, as e2eft.json says"
        )

    def encode(self, label: np.ndarray, text: dict[str, str]) -> bytes:
        assert np.isfinite(label).all()
        codes = np.empty(label.shape, np.uint16)
        for top in range(0, len(label), STRIP_ROWS):
            rows = slice(top, top + STRIP_ROWS)
            codes[rows] = np.rint(np.clip(label[rows], 0, 1).astype(np.float64) * CODES)
        return self._png(codes, text)

    def decode(self, content: bytes) -> np.ndarray:
        return (self._codes(content, np.uint16) / CODES).astype(np.float32)

    def resize(self, label: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        return resize_depth(label, size)

    def preview(self, label: np.ndarray) -> bytes:
        """In colours over its own 2 % to 98 % range."""
        from e2eft.tasks.depth.pictures import preview

        return preview(self._near_to_far(label))

    def facts(self, label: np.ndarray) -> dict[str, float]:
        near, far = np.quantile(label, (0.02, 0.98))
        return {"depth range": float(far - near)}

    def figure(self, label: np.ndarray) -> GalleryFigure:
        from e2eft.tasks.depth.pictures import figure

        name = self.depth_target.values.replace("-", " ").removeprefix("linear ")
        if not self.depth_target.nearest_is_least:
            name = f"1 - {name}"
        return figure(self._near_to_far(label), name)

    def kind_of_others(self, affine_in: str) -> str:
        return f"affine_{affine_in.replace('-', '_')}"

    def from_others_png(self, codes: np.ndarray, path: str) -> np.ndarray:
        """16-bit grey, 65535 x the value."""
        if codes.dtype not in (np.uint16, np.int32) or codes.ndim != 2:
            raise ValueError(f"{path} is {codes.dtype} {codes.shape}, expected 16-bit grey")
        return codes / CODES

    def from_others(self, values: np.ndarray, path: str, axes: Axes) -> np.ndarray:
        """`[h w]`, `[1 h w]` or `[h w 1]`, of whatever range; it has no axes."""
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        squeezed = values.reshape([side for side in values.shape if side != 1] or [1])
        if values.ndim == 2:
            return values
        if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]) and squeezed.ndim == 2:
            return squeezed
        raise ValueError(f"{path} has shape {values.shape}, expected [h w], [1 h w] or [h w 1]")

    def _near_to_far(self, label: np.ndarray) -> np.ndarray:
        """0 near, 1 far, as colours have it."""
        return label if self.depth_target.nearest_is_least else 1 - label


CODEC = DepthLabels()
