"""Writes a few frames in the exact layout of Hypersim's raw release, from scenes in closed form."""

import csv
import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from e2eft.geometry.camera import pixel_rays
from e2eft.geometry.normals import convert_axes

HEIGHT, WIDTH = 48, 64
STANDARD = np.diag([0.5773502886169104, 0.4330127164626828, -1.0])
TILTED = np.array([[0.62, 0.0, 0.05], [0.0, 0.45, -0.2], [0.0, 0.12, -1.0]])
"""A shifted and tilted lens: the rays' last component changes over the image."""
SPLIT_COLUMNS = (
    "scene_name", "camera_name", "frame_id", "included_in_public_release", "exclude_reason",
    "split_partition_name",
)  # fmt: skip


def intrinsics_of(cam_from_uv: np.ndarray, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """By solving for the homography of four corners, unlike the reader, which inverts matrices."""
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
    uv = np.stack([2 * corners[:, 0] / width - 1, 1 - 2 * corners[:, 1] / height, np.ones(4)], 1)
    rays = uv @ cam_from_uv.T * [1, -1, -1]
    rows = []
    for (x, y), ray in zip(corners, rays, strict=True):
        rows.append([*ray, 0, 0, 0, *(-x * ray)])
        rows.append([0, 0, 0, *ray, *(-y * ray)])
    k = np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)
    return k / k[2, 2]


@dataclass
class HypersimFrame:
    """One frame's truth and what is written of it."""

    depth_m: np.ndarray
    normals_cam: np.ndarray
    radiance: np.ndarray
    intrinsics_px: np.ndarray
    files: dict[str, np.ndarray] = field(default_factory=dict)


def make_frame(seed: int, cam_from_uv: np.ndarray) -> HypersimFrame:
    """A ball before a plane that recedes beyond 65.5 m, lit from the camera."""
    rng = np.random.default_rng(seed)
    intrinsics = intrinsics_of(cam_from_uv)
    rays = pixel_rays(intrinsics, HEIGHT, WIDTH)
    normal = np.array([0.1, -0.95, -0.12])
    normal /= np.linalg.norm(normal)
    facing = rays @ normal
    plane_m = np.where(facing < -0.004, -1.6 / np.minimum(facing, -1e-6), 320.0)
    wall = np.where(facing[..., None] < -0.004, normal, [0.0, 0.0, -1.0])
    centre, radius = np.array([rng.uniform(-0.5, 0.5), 0.2, 2.5]), 0.7
    a, b = (rays**2).sum(-1), rays @ centre
    root = b**2 - a * (centre @ centre - radius**2)
    ball_m = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    depth_m = np.minimum(plane_m, ball_m)
    on_ball = (ball_m < plane_m)[..., None]
    normals = np.where(on_ball, (depth_m[..., None] * rays - centre) / radius, wall)
    shade = np.clip(-normals[..., 2:], 0.05, 1) * rng.uniform(0.5, 3, 3)
    frame = HypersimFrame(depth_m, normals, shade.astype(np.float16), intrinsics)
    distance_m = depth_m * np.linalg.norm(rays, axis=-1)
    frame.files = {
        "color": frame.radiance,
        "depth_meters": distance_m.astype(np.float16),
        "normal_cam": convert_axes(normals, "opencv", "right-up-viewer").astype(np.float16),
        "render_entity_id": np.where(on_ball[..., 0], 7, 3).astype(np.int16),
    }
    return frame


def encode(array: np.ndarray) -> bytes:
    """An HDF5 file with one dataset named `dataset`, chunked and gzip 9 as the release has it."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        chunks = (HEIGHT // 8, WIDTH // 8, *array.shape[2:])
        file.create_dataset("dataset", data=array, chunks=chunks, compression="gzip",
                            compression_opts=9)  # fmt: skip
    return buffer.getvalue()


def path_of(scene: str, camera: str, number: int, content: str) -> str:
    kind = "final" if content == "color" else "geometry"
    return f"{scene}/images/scene_{camera}_{kind}_hdf5/frame.{number:04d}.{content}.hdf5"


@dataclass
class HypersimRelease:
    """The files of a small release, by path below its root, and its two tables."""

    files: dict[str, bytes] = field(default_factory=dict)
    rows: list[tuple[str, str, int, str, str, str]] = field(default_factory=list)
    cameras: dict[str, np.ndarray] = field(default_factory=dict)

    def add(
        self, scene: str, camera: str, number: int, frame: HypersimFrame, split: str = "train"
    ) -> None:
        self.rows.append((scene, camera, number, "True", "", split))
        for content, array in frame.files.items():
            self.files[path_of(scene, camera, number, content)] = encode(array)
        self.files[f"{scene}/_detail/metadata_cameras.csv"] = f"camera_name\n{camera}\n".encode()

    def exclude(self, scene: str, camera: str, number: int) -> None:
        """A frame that was flagged for removal: listed, and in no split."""
        self.rows.append((scene, camera, number, "False", "CONTENT FLAGGED FOR REMOVAL", ""))

    def write_tables(self, folder: Path) -> tuple[Path, Path]:
        """(split CSV, camera CSV)."""
        folder.mkdir(parents=True, exist_ok=True)
        split, cameras = folder / "split.csv", folder / "cameras.csv"
        with split.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([SPLIT_COLUMNS, *self.rows])
        names = [f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3)]
        with cameras.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["scene_name", "settings_output_img_height", *names])
            for scene, matrix in self.cameras.items():
                writer.writerow([scene, 768.0, *matrix.ravel().tolist()])
        return split, cameras

    def write_folders(self, root: Path) -> Path:
        for path, content in self.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        return root

    def zips(self) -> dict[str, bytes]:
        """The per-scene zip files, by name."""
        archives: dict[str, io.BytesIO] = {}
        for path, content in self.files.items():
            scene = path.split("/")[0]
            buffer = archives.setdefault(f"{scene}.zip", io.BytesIO())
            with zipfile.ZipFile(buffer, "a") as archive:
                stored = path.endswith("hdf5")
                method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
                archive.writestr(path, content, method)
        return {name: buffer.getvalue() for name, buffer in archives.items()}

    def write_zips(self, root: Path) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        for name, content in self.zips().items():
            (root / name).write_bytes(content)
        return root
