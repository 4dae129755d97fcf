"""One texture for a whole scene.

A renderer traces every material it meets; one opaque material over one atlas keeps its kernels
small and the same for every scene, which is most of the speed at training resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from e2eft.scenes.scene import FloatArray, Texture

_GUTTER = 2


@dataclass(frozen=True, eq=False)
class Atlas:
    """`image` sRGB uint8 [h w 3], row 0 at v = 0; texture k is the square of `sizes_px[k]` pixels
    whose corner (x, y) is `origins_px[k]`.
    """

    image: Texture
    origins_px: NDArray[np.int64]
    sizes_px: NDArray[np.int64]

    def place(self, texture: int, uvs: FloatArray) -> FloatArray:
        """Coordinates in the atlas [n 2], in [0, 1], of `uvs` [n 2] within one texture."""
        height, width = self.image.shape[:2]
        pixels = self.origins_px[texture] + uvs * self.sizes_px[texture]
        return pixels / np.array([width, height])


def pack(textures: Sequence[Texture]) -> Atlas:
    """Shelves of textures, each in a gutter that continues it as a repeat would.

    Bilinear lookups at a texture's border need it.
    """
    sizes = np.array([texture.shape[0] for texture in textures])
    padded = sizes + 2 * _GUTTER
    width = int(max(padded.max(), np.ceil(np.sqrt(float((padded**2).sum())) * 1.1)))
    origins = np.zeros((len(textures), 2), np.int64)
    x = y = shelf = 0
    for k in np.argsort(-sizes, kind="stable"):
        if x + padded[k] > width:
            x, y, shelf = 0, y + shelf, 0
        origins[k] = x + _GUTTER, y + _GUTTER
        x, shelf = x + padded[k], max(shelf, int(padded[k]))
    image = np.zeros((y + shelf, width, 3), np.uint8)
    pad = ((_GUTTER, _GUTTER), (_GUTTER, _GUTTER), (0, 0))
    for texture, (left, low), size in zip(textures, origins - _GUTTER, padded, strict=True):
        image[low : low + size, left : left + size] = np.pad(texture, pad, mode="wrap")
    return Atlas(image, origins, sizes)
