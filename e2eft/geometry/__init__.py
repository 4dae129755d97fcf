"""Arrays in, arrays out: cameras, depth and normals, with numpy and torch alone.

Legend of the shape symbols in annotations, here and in the whole package:

========= ========================================================================
``n``     images of a batch
``h w``   rows and columns of an image; row 0 is the top, column 0 the left
``hl wl`` rows and columns of a latent
``c``     channels (``*c``: with or without a channel axis)
``q``     quantiles
``3``     an axis of colour (r, g, b) or of camera coordinates (x, y, z)
``3 3``   the pinhole matrix ``[[fx, s, cx], [0, fy, cy], [0, 0, 1]]`` in pixels
========= ========================================================================

numpy arrays hold one image, channels last (``h w 3``); torch tensors hold a batch, channels first
(``n 3 h w``).

Camera axes are OpenCV's: x right, y down, z forward. Normals have unit length and face the camera,
so a wall across the optical axis is (0, 0, -1). Depth is planar z in metres: NaN unknown, +inf sky.
Pixel (column i, row j) covers the square from (i, j) to (i + 1, j + 1), so its centre is
(i + 0.5, j + 0.5).
"""
