"""What people see of depth."""

import io

import numpy as np
from PIL import Image

from e2eft.images.resize import resize_depth
from e2eft.views.colour import colour_depth
from e2eft.views.gallery import GalleryFigure

PREVIEW_SIDE_PX = 1024
PREVIEW_QUALITY = 90
_HISTOGRAM_BINS = 64


def preview(depth: np.ndarray) -> bytes:
    """Depth in colours over its own 2 % to 98 % range, at most PREVIEW_SIDE_PX a side, as JPEG."""
    height, width = depth.shape
    shrink = min(1.0, PREVIEW_SIDE_PX / max(height, width))
    size = max(1, round(height * shrink)), max(1, round(width * shrink))
    buffer = io.BytesIO()
    picture = Image.fromarray(colour_depth(resize_depth(depth, size)))
    picture.save(buffer, "JPEG", quality=PREVIEW_QUALITY)
    return buffer.getvalue()


def figure(depth: np.ndarray, name: str = "depth") -> GalleryFigure:
    """Relative depth `[h w]`, 0 near to 1 far, NaN unknown, +inf sky, in colours that stand for the
    same depth on every card. name: of its values."""
    picture = colour_depth(depth, near=0.0, far=1.0)
    return GalleryFigure(label=name, picture=picture, legend=_legend(depth, name), values=depth)


def _legend(depth: np.ndarray, name: str) -> str:
    """A histogram over the colour bar: one axis for both, near to far. Heights are square roots."""
    counts = np.histogram(depth[np.isfinite(depth)], _HISTOGRAM_BINS, (0.0, 1.0))[0]
    heights = 20 * np.sqrt(counts / max(1, counts.max()))
    steps = "".join(f"V{20 - h:.1f}h1" for h in heights)
    return (
        f'<svg class=histogram viewBox="0 0 {_HISTOGRAM_BINS} 20" preserveAspectRatio=none'
        f' role=img aria-label="histogram of {name}"><path d="M0 20{steps}V20Z"/></svg>'
        "<div class=bar><i class=mark hidden></i></div>"
        f"<div class=ends><span>0 near</span><span>relative {name}</span><span>far 1</span></div>"
    )
