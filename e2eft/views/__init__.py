"""What people look at: colour maps, contact sheets, validation panels and the gallery page.

Arrays in, pictures out. Nothing here needs more than numpy and Pillow, knows of a `Sample`, reads a
file that isn't shipped with it, or writes one. Axes are the project's: OpenCV camera (x right,
y down, z forward), normals facing the camera; depth is planar, NaN where unknown, +inf for sky.
"""
