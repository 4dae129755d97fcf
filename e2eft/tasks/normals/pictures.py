"""What people see of normals."""

import numpy as np

from e2eft.views.colour import colour_normals
from e2eft.views.gallery import GalleryFigure

_LEGEND = (
    "<div class=axes><span class=ball></span>"
    "<span>red <b>right</b></span><span>green <b>up</b></span><span>blue <b>viewer</b></span></div>"
)


def figure(normals_cam: np.ndarray) -> GalleryFigure:
    """Unit normals `[h w 3]`, OpenCV camera, NaN unknown."""
    return GalleryFigure(label="normals", picture=colour_normals(normals_cam), legend=_LEGEND)
