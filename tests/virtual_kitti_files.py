"""Writes a few frames in the exact layout of Virtual KITTI 2.0.3, from streets in closed form."""

import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from e2eft.geometry.camera import pixel_rays

HEIGHT, WIDTH = 375, 1242
FOCAL, CX, CY = 725.0087, 620.5, 187.0
HEADER = "frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"


@dataclass(frozen=True)
class StreetTruth:
    """Planar depth in metres (+inf sky), unit normals, OpenCV axes, and what is written of them."""

    depth_m: np.ndarray
    normals_cam: np.ndarray
    rgb: np.ndarray

    @property
    def codes(self) -> np.ndarray:
        """uint16 centimetres, 65535 sky."""
        far = np.isinf(self.depth_m)
        return np.where(far, 65535, np.rint(np.where(far, 0, self.depth_m) * 100)).astype(np.uint16)


def make_street(seed: int, height: int = HEIGHT, width: int = WIDTH) -> StreetTruth:
    """Ground, two walls, a box across the street and a pole; sky above."""
    rng = np.random.default_rng(seed)
    centre_x, centre_y = CX + 0.5 - (WIDTH - width) / 2, CY + 0.5 - (HEIGHT - height) / 2
    camera = np.array([[FOCAL, 0, centre_x], [0, FOCAL, centre_y], [0, 0, 1]])
    rays = pixel_rays(camera, height, width)
    depth, normals = np.full((height, width), np.inf), np.full((height, width, 3), np.nan)
    for normal, distance in (([0, -1, 0], -1.6), ([1, 0, 0], -9.0), ([-1, 0, 0], -7.0)):
        facing = rays @ np.array(normal, float)
        hit = np.where(facing < -1e-4, distance / np.minimum(facing, -1e-4), np.inf)
        near = np.minimum(hit, 150)
        hit[(hit > 150) | (rays[..., 1] * near < -4)] = np.inf  # walls end 4 m above the camera
        nearer = hit < depth
        depth[nearer], normals[nearer] = hit[nearer], normal
    for near, rows, columns in ((14.0, (0.35, 0.6), 90), (6.5, (0.1, 0.75), 6)):
        left = int(rng.integers(width // 4, 3 * width // 4))
        box = np.s_[int(rows[0] * height) : int(rows[1] * height), left : left + columns]
        depth[box], normals[box] = near, [0, 0, -1]
    shade = np.nan_to_num(-normals @ np.array([0.3, 0.5, 0.8]), nan=0.9)[..., None]
    rgb = np.clip(shade * rng.uniform(120, 250, 3), 0, 255).astype(np.uint8)
    return StreetTruth(depth, normals, rgb)


@dataclass
class VirtualKittiRelease:
    """Files by path as within the archives: `rgb`, `depth` and `textgt` apart."""

    files: dict[str, dict[str, bytes]] = field(
        default_factory=lambda: {"rgb": {}, "depth": {}, "textgt": {}}
    )
    sequences: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(self, scene: str, variation: str, frame: int, truth: StreetTruth) -> None:
        """The frame for both cameras."""
        for camera in (0, 1):
            at = f"{scene}/{variation}/frames/{{kind}}/Camera_{camera}/{{kind}}_{frame:05d}"
            self.files["rgb"][at.format(kind="rgb") + ".jpg"] = _encoded(truth.rgb, "JPEG")
            self.files["depth"][at.format(kind="depth") + ".png"] = _encoded(truth.codes, "PNG")
        frames = max(self.sequences.get((scene, variation), 0), frame + 1)
        self.sequences[scene, variation] = frames
        lines = [f"{n} {c} {FOCAL} {FOCAL} {CX:g} {CY:g}" for n in range(frames) for c in (0, 1)]
        table = "\n".join([HEADER, *lines]) + "\n"
        self.files["textgt"][f"{scene}/{variation}/intrinsic.txt"] = table.encode()
        self.files["textgt"][f"{scene}/{variation}/pose.txt"] = b"frame cameraID\n"

    def write(self, root: Path, layout: str) -> Path:
        """layout: `merged`, `archives` (folders named as them), `kinds` or `tars`."""
        for kind, files in self.files.items():
            if layout == "tars":
                ending = ".tar.gz" if kind == "textgt" else ".tar"
                root.mkdir(parents=True, exist_ok=True)
                (root / f"vkitti_2.0.3_{kind}{ending}").write_bytes(self.tar(kind))
                continue
            folder = {"merged": "", "archives": f"vkitti_2.0.3_{kind}", "kinds": kind}[layout]
            for path, content in files.items():
                target = root / folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        return root

    def tar(self, kind: str) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "textgt" else "w") as archive:
            for path, content in self.files[kind].items():
                info = tarfile.TarInfo(path)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()
