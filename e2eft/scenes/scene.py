"""What a scene is: plain data that any renderer could draw.

World frame: metres, right-handed, z up. Camera frame: OpenCV (x right, y down, z forward).
Meshes are closed solids with outward winding wherever a camera could get inside them; texture
coordinates always lie in [0, 1] (primitives that repeat a texture are cut at its borders), so that
all textures of a scene fit into one atlas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Family = Literal["indoor", "street"]
FloatArray = NDArray[np.floating]
Texture = NDArray[np.uint8]
Range = tuple[float, float]
Point = tuple[float, float, float]
Vector = Sequence[float] | FloatArray


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles: `vertices` metres [v 3], unit `normals` for shading [v 3], `uvs` [v 2],
    `faces` [f 3].
    """

    vertices: FloatArray
    normals: FloatArray
    uvs: FloatArray
    faces: NDArray[np.integer]

    def moved(self, x: float, y: float, z: float = 0.0) -> Mesh:
        return Mesh(self.vertices + np.array([x, y, z]), self.normals, self.uvs, self.faces)

    def rotated(self, world_from_mesh: FloatArray) -> Mesh:
        rotation = world_from_mesh.T
        return Mesh(self.vertices @ rotation, self.normals @ rotation, self.uvs, self.faces)

    def turned(self, angle: float) -> Mesh:
        """Rotated about z by `angle` radians."""
        cosine, sine = np.cos(angle), np.sin(angle)
        return self.rotated(np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]))

    def tilted(self, angle: float) -> Mesh:
        """Rotated about x by `angle` radians: +y towards +z."""
        cosine, sine = np.cos(angle), np.sin(angle)
        return self.rotated(np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]]))

    def stretched(self, x: float, y: float, z: float) -> Mesh:
        """Scaled by positive factors along the axes; normals follow."""
        factors = np.array([x, y, z])
        normals = self.normals / factors
        normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        return Mesh(self.vertices * factors, normals, self.uvs, self.faces)


@dataclass(frozen=True, eq=False)
class Surface:
    """Opaque material: `texture` is sRGB uint8 [n n 3]; the other two are in [0, 1].

    A mirror is metallic 1 with roughness near 0.
    """

    texture: Texture
    roughness: float = 0.6
    metallic: float = 0.0


@dataclass(frozen=True)
class Glass:
    """Clear glass: a `thin` pane that does not bend light, or a solid of refractive index 1.5."""

    thin: bool = False


@dataclass(frozen=True)
class Light:
    """Emitter; `radiance` is linear RGB. Units are arbitrary: the tone map sets the exposure."""

    radiance: tuple[float, float, float]


Material = Surface | Glass | Light


@dataclass(frozen=True, eq=False)
class MeshItem:
    mesh: Mesh
    material: Material


@dataclass(frozen=True, eq=False)
class Lighting:
    """Light from outside the scene, the sun included.

    `sky_radiance`: linear RGB [h 2h 3], equirectangular; row 0 is the zenith, the last the nadir;
    column u in [0, 1] looks along (sin 2πu, cos 2πu).
    `sky_weight`: how often the renderer samples the sky (0 where a closed room hides it).
    """

    sky_radiance: NDArray[np.float32]
    sky_weight: float = 1.0


@dataclass(frozen=True)
class LookAt:
    """Aim at a point drawn from the box between `low` and `high`, metres."""

    low: Point
    high: Point


@dataclass(frozen=True)
class Heading:
    """Aim along a drawn direction: yaw about z from +x, pitch upwards positive, both degrees."""

    yaw_deg: Range
    pitch_deg: Range


@dataclass(frozen=True)
class ViewZone:
    """Where photographs are taken from: a box of positions, an aim, a range of lenses."""

    low: Point
    high: Point
    aim: LookAt | Heading
    hfov_deg: Range = (45.0, 90.0)
    roll_sigma_deg: float = 2.0
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class Scene:
    """`kind` names the recipe within the family (living_room, canyon, …).

    `identity` tells scenes apart: (stream seed, scene index) of `make_scene`.
    """

    family: Family
    kind: str
    items: tuple[MeshItem, ...]
    lighting: Lighting
    zones: tuple[ViewZone, ...]
    identity: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Camera:
    """Pinhole at `position_m` [3]; `world_from_cam` [3 3] has columns right, down, forward."""

    position_m: FloatArray
    world_from_cam: FloatArray
    hfov_deg: float

    def intrinsics_px(self, height: int, width: int) -> NDArray[np.float64]:
        """[3 3] with the principal point at the image centre and square pixels.

        The centre of pixel (column i, row j) is (i + 0.5, j + 0.5).
        """
        focal_px = width / 2 / np.tan(np.radians(self.hfov_deg) / 2)
        return np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1.0]])


def look_along(
    position_m: FloatArray, forward: FloatArray, hfov_deg: float, roll_deg: float
) -> Camera:
    """A camera at `position_m` looking along `forward` (not vertical), level but for `roll_deg`."""
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    cosine, sine = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
    right, down = cosine * right + sine * down, cosine * down - sine * right
    return Camera(np.asarray(position_m, float), np.stack([right, down, forward], axis=1), hfov_deg)
