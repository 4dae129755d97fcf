"""Scenes in closed form with edges of every kind, seen by Virtual KITTI's camera: depth as it is
stored, and the true normals.

World and camera axes are one: x right, y down, z forward, metres; the ground is 1.6 m below the
camera.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from e2eft.geometry.camera import Intrinsics, pixel_rays
from tests.virtual_kitti_files import CX, CY, FOCAL, HEIGHT, WIDTH

QUANTUM_M, SKY = 0.01, 65535
GROUND_M = 1.6
Vector = Sequence[float] | np.ndarray
Hit = tuple[np.ndarray, np.ndarray]
"""Depth [h w], +inf where it is missed, and unit normals [h w 3]."""
Shape = Callable[[np.ndarray], Hit]
"""What rays with z = 1 [h w 3] from the camera hit."""


@dataclass(frozen=True)
class PlantedDepth:
    """depth_m: exact, +inf sky. normals_cam: NaN at the sky. surface: number of the shape, -1."""

    depth_m: np.ndarray
    normals_cam: np.ndarray
    surface: np.ndarray
    intrinsics_px: Intrinsics

    @property
    def codes(self) -> np.ndarray:
        """uint16 centimetres, 65535 sky."""
        return depth_codes(self.depth_m)

    @property
    def stored_m(self) -> np.ndarray:
        return depth_of(self.codes)

    def near_edges(self, within_px: int = 2) -> np.ndarray:
        """Pixels that are at most so far from a pixel of another surface."""
        surface = self.surface
        edges = beside(surface[1:] != surface[:-1], surface[:, 1:] != surface[:, :-1])
        return grown(edges, within_px - 1)


def depth_codes(depth_m: np.ndarray) -> np.ndarray:
    far = ~(depth_m < SKY * QUANTUM_M)
    metres = np.where(far, 0, depth_m)
    return np.where(far, SKY, np.rint(metres / QUANTUM_M)).astype(np.uint16)


def depth_of(codes: np.ndarray) -> np.ndarray:
    return np.where(codes == SKY, np.inf, codes * QUANTUM_M)


def beside(below: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Both pixels of each marked pair: [h-1 w] one above the other, [h w-1] side by side."""
    marked = np.zeros((right.shape[0], below.shape[1]), bool)
    marked[1:] |= below
    marked[:-1] |= below
    marked[:, 1:] |= right
    marked[:, :-1] |= right
    return marked


def grown(marked: np.ndarray, radius: int) -> np.ndarray:
    height, width = marked.shape
    padded, result = np.pad(marked, radius), np.zeros_like(marked)
    for row in range(2 * radius + 1):
        for column in range(2 * radius + 1):
            result |= padded[row : row + height, column : column + width]
    return result


def error_deg(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Angles [h w]; NaN where either is unknown."""
    return np.degrees(np.arccos((found.astype(np.float64) * wanted).sum(-1).clip(-1, 1)))


def camera_of(height: int = HEIGHT, width: int = WIDTH) -> Intrinsics:
    """Virtual KITTI's, of a smaller image: the middle of its own."""
    centre_x, centre_y = CX + 0.5 - (WIDTH - width) / 2, CY + 0.5 - (HEIGHT - height) / 2
    return np.array([[FOCAL, 0, centre_x], [0, FOCAL, centre_y], [0, 0, 1]])


def seen(shapes: Sequence[Shape], height: int = HEIGHT, width: int = WIDTH) -> PlantedDepth:
    """The nearest of the shapes at every pixel's centre."""
    camera = camera_of(height, width)
    rays = pixel_rays(camera, height, width)
    depth_m, surface = np.full((height, width), np.inf), np.full((height, width), -1)
    normals = np.full((height, width, 3), np.nan)
    for number, shape in enumerate(shapes):
        hit_m, normal = shape(rays)
        nearer = hit_m < depth_m
        depth_m[nearer], surface[nearer], normals[nearer] = hit_m[nearer], number, normal[nearer]
    return PlantedDepth(depth_m, normals, surface, camera)


def rectangle(corner: Vector, side: Vector, other: Vector) -> Shape:
    """A parallelogram with right angles: its corner, and the two sides that leave it."""
    start, sides = np.array(corner, float), np.array([side, other], float)
    normal = np.cross(*sides)
    normal /= np.linalg.norm(normal)

    def hit(rays: np.ndarray) -> Hit:
        facing = rays @ normal
        with np.errstate(divide="ignore", invalid="ignore"):
            depth_m = (normal @ start) / facing
            along = (rays * depth_m[..., None] - start) @ (sides / (sides**2).sum(1)[:, None]).T
        inside = (depth_m > 0) & ((along >= 0) & (along <= 1)).all(-1)
        return np.where(inside, depth_m, np.inf), normal * -np.sign(facing)[..., None]

    return hit


def ground(to_m: float = 600.0, from_m: float = 2.0) -> Shape:
    return rectangle((-500, GROUND_M, from_m), (1000, 0, 0), (0, 0, to_m - from_m))


def box(x_m: float, z_m: float, size: Sequence[float], turn_deg: float = 0.0) -> list[Shape]:
    """It stands on the ground, its nearest corner at (x, z), turned about the vertical."""
    wide, high, deep = size
    cosine, sine = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    right, ahead = np.array([cosine, 0, sine]) * wide, np.array([-sine, 0, cosine]) * deep
    corner, up = np.array([x_m, GROUND_M, z_m]), np.array([0, -high, 0.0])
    return [
        rectangle(corner, right, up),
        rectangle(corner, ahead, up),
        rectangle(corner + right, ahead, up),
        rectangle(corner + up, right, ahead),
    ]


def post(x_m: float, z_m: float, radius_m: float, top_m: float = -4.0) -> Shape:
    """An upright cylinder from the ground to y = `top_m`."""

    def hit(rays: np.ndarray) -> Hit:
        flat = rays[..., [0, 2]]
        centre = np.array([x_m, z_m])
        a, b = (flat**2).sum(-1), flat @ centre
        under = b**2 - a * (centre @ centre - radius_m**2)
        depth_m = (b - np.sqrt(np.where(under > 0, under, np.nan))) / a
        points = rays * np.nan_to_num(depth_m)[..., None]
        inside = (under > 0) & (points[..., 1] > top_m) & (points[..., 1] < GROUND_M)
        normals = (points - [x_m, 0, z_m]) * [1, 0, 1] / radius_m
        return np.where(inside, depth_m, np.inf), normals

    return hit


def ball(centre_m: Sequence[float], radius_m: float) -> Shape:
    def hit(rays: np.ndarray) -> Hit:
        centre = np.array(centre_m, float)
        a, b = (rays**2).sum(-1), rays @ centre
        under = b**2 - a * (centre @ centre - radius_m**2)
        depth_m = (b - np.sqrt(np.where(under > 0, under, np.nan))) / a
        normals = (rays * np.nan_to_num(depth_m)[..., None] - centre) / radius_m
        return np.where(under > 0, depth_m, np.inf), normals

    return hit


def wall(z_m: float) -> Shape:
    return rectangle((-60, -20, z_m), (120, 0, 0), (0, 22, 0))


def fence(z_m: float, board_px: float, gap_px: float, top_m: float = 0.0) -> list[Shape]:
    """Upright boards in a plane, of the width in pixels that they have there."""
    wide, step = board_px * z_m / FOCAL, (board_px + gap_px) * z_m / FOCAL
    count = round(120 / (board_px + gap_px))
    upright = (0, GROUND_M - top_m, 0)
    return [
        rectangle(((n - count / 2) * step + 0.003, top_m, z_m), (wide, 0, 0), upright)
        for n in range(count)
    ]


def _posts() -> list[Shape]:
    return [
        post((n - 3.5) * z_m * 0.055, z_m, width_px * z_m / FOCAL / 2)
        for n, (width_px, z_m) in enumerate(zip((3, 5, 7, 9) * 2, (9, 12, 15, 20) * 2, strict=True))
    ]


def _steps() -> list[Shape]:
    """Walls behind each other, from 0.1 to 1.6 m apart."""
    z_m = 12 + 0.1 * np.array([0, 1, 3, 7, 15, 31])
    return [rectangle((-2.6 + 0.83 * n, -4, z), (0.83, 0, 0), (0, 6, 0)) for n, z in enumerate(z_m)]


SCENES: dict[str, list[Shape]] = {
    "posts": [ground(), wall(41.3), *_posts()],
    "fence of 4 px": [ground(), wall(20.3), *fence(10, 4, 5)],
    "fence of 3 px": [ground(), *fence(12, 3, 3)],
    "fence of 2 px": [ground(), wall(18.2), *fence(10, 2, 5)],
    "corners": [ground(), wall(30.3), *box(-1.6, 10, (1.5, 2.4, 1.5), 35),
                *box(0.9, 13, (1.5, 1.9, 1.5), -50), *box(0.3, 20, (1, 2, 2), 20)],
    "steps": [ground(), *_steps()],
    "walls along a road": [ground(), rectangle((-3.1, -4, 5), (0, 0, 60), (0, 6, 0)),
                           rectangle((4, -4, 5), (-2, 0, 40), (0, 6, 0))],
    "room": [ground(), rectangle((-3, -4, 5), (0, 0, 8.53), (0, 6, 0)),
             rectangle((3, -4, 5), (0, 0, 8.53), (0, 6, 0)), wall(13.53)],
    "balls": [ground(), wall(40.3), ball((-1.5, 1, 11), 0.7), ball((0.1, 0.4, 14), 1.1),
              ball((3, 0, 22), 1.5)],
}  # fmt: skip
"""Edges of every kind: thin things, corners, one thing before another, the ground at a wall."""
