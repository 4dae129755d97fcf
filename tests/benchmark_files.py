"""Writes a few frames in the exact layouts of the depth evaluation sets, from analytic frames."""

import io
import struct
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat

from e2eft.data.sample import Sample
from tests.frames import analytic_frame

HOLE = np.s_[5:9, 10:17]
"""Pixels in which nothing was measured."""


def measured_frame(number: int, height: int = 60, width: int = 84) -> Sample:
    """An analytic frame, of a size that is no multiple of 8, with a hole in its depth."""
    frame = analytic_frame(number, height, width)
    frame.depth_m[~np.isfinite(frame.depth_m)] = np.nan
    frame.depth_m[HOLE] = np.nan
    return frame


@dataclass
class BenchmarkFiles:
    """Files by path below the root, and the lines of the list."""

    files: dict[str, bytes] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def write_folder(self, root: Path) -> str:
        for path, content in self.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        return str(root)

    def tar(self) -> bytes:
        """Members called ./PATH, and their folders, as `tar -cf x.tar .` makes them."""
        folders = {str(parent) for path in self.files for parent in Path(path).parents}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for folder in sorted(folders):
                info = tarfile.TarInfo("./" if folder == "." else f"./{folder}")
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            for path, content in self.files.items():
                info = tarfile.TarInfo(f"./{path}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return buffer.getvalue()

    def write_tar(self, path: Path) -> str:
        path.write_bytes(self.tar())
        return str(path)

    def write_list(self, path: Path) -> str:
        path.write_text("\n".join(self.lines))  # the published ones lack the last line's end too
        return str(path)


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def codes16(depth_m: np.ndarray, per_metre: float) -> bytes:
    """A 16-bit PNG, 0 where there is no depth."""
    return encoded(np.rint(np.nan_to_num(depth_m) * per_metre).astype(np.uint16))


def nyuv2(frames: dict[str, Sample]) -> BenchmarkFiles:
    """Marigold's PNGs; keys such as `test/kitchen_0004/rgb_0001`."""
    made = BenchmarkFiles()
    for key, frame in frames.items():
        paths = [f"{key.replace('rgb_', kind)}.png" for kind in ("rgb_", "depth_", "filled_")]
        filled = np.where(np.isnan(frame.depth_m), 9.0, frame.depth_m)
        contents = (encoded(frame.rgb), codes16(frame.depth_m, 1000), codes16(filled, 1000))
        made.files.update(zip(paths, contents, strict=True))
        made.lines.append(" ".join(paths))
    return made


def nyuv2_matlab(frames: list[Sample], scenes: list[str], test: list[int]) -> BenchmarkFiles:
    """The published .mat files: axes last first, names as references, a block of 512 bytes before
    the HDF5. `test` counts from 1."""
    depths = np.stack([frame.depth_m.T for frame in frames])
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=512) as file:
        file["images"] = np.stack([frame.rgb.transpose(2, 1, 0) for frame in frames])
        file["rawDepths"] = np.nan_to_num(depths)
        file["depths"] = np.where(np.isnan(depths), np.float32(9), depths)
        names = file.create_dataset("scenes", (1, len(scenes)), h5py.ref_dtype)
        for number, scene in enumerate(scenes):
            letters = np.frombuffer(scene.encode(), np.uint8).astype(np.uint16)[:, None]
            names[0, number] = file.create_dataset(f"#refs#/{number}", data=letters).ref
    content = bytearray(buffer.getvalue())
    content[:19] = b"MATLAB 7.3 MAT-file"
    splits = io.BytesIO()
    others = [n + 1 for n in range(len(frames)) if n + 1 not in test]
    indices = {"testNdxs": test, "trainNdxs": others}
    savemat(splits, {name: np.array(n, np.uint16)[:, None] for name, n in indices.items()})
    # Without the time at which it was written.
    tables = b"MATLAB 5.0 MAT-file".ljust(116) + splits.getvalue()[116:]
    return BenchmarkFiles({"nyu_depth_v2_labeled.mat": bytes(content), "splits.mat": tables})


def kitti(frames: dict[tuple[str, int], Sample], without_truth: int = 0) -> BenchmarkFiles:
    """The raw recordings and annotated depth; keys such as (`2011_09_26_drive_0002`, 69)."""
    made = BenchmarkFiles()
    for (drive, number), frame in frames.items():
        image = f"{drive[:10]}/{drive}_sync/image_02/data/{number:010d}.png"
        depth = f"{drive}_sync/proj_depth/groundtruth/image_02/{number:010d}.png"
        made.files |= {image: encoded(frame.rgb), depth: codes16(frame.depth_m, 256)}
        made.lines.append(f"{image} {depth} 721.5377")
    for number in range(without_truth):
        image = f"2011_09_26/2011_09_26_drive_0009_sync/image_02/data/{number:010d}.png"
        made.lines.insert(1, f"{image} None 721.5377")
    return made


def eth3d(frames: dict[tuple[str, str], Sample]) -> BenchmarkFiles:
    """Keys such as (`office`, `DSC_0219`)."""
    made = BenchmarkFiles()
    for (scene, name), frame in frames.items():
        image = f"rgb/{scene}/images/dslr_images/{name}.JPG"
        depth = f"depth/{scene}_dslr_depth/{scene}/ground_truth_depth/dslr_images/{name}.JPG"
        raw = np.where(np.isnan(frame.depth_m), np.inf, frame.depth_m).astype("<f4")
        made.files |= {image: encoded(frame.rgb, "JPEG"), depth: raw.tobytes()}
        made.lines.append(f"{image} {depth}")
    return made


def scannet(frames: dict[tuple[str, int], Sample]) -> BenchmarkFiles:
    """Keys such as (`scene0406_02`, 300)."""
    made = BenchmarkFiles()
    for (scene, number), frame in frames.items():
        image, depth = f"{scene}/color/{number:06d}.jpg", f"{scene}/depth/{number:06d}.png"
        made.files |= {image: encoded(frame.rgb, "JPEG"), depth: codes16(frame.depth_m, 1000)}
        made.lines.append(f"{image} {depth}")
    return made


def diode(frames: dict[str, Sample]) -> BenchmarkFiles:
    """Keys such as `indoors/scene_00019/scan_00183/00019_00183_indoors_000_010`.

    Where the mask is 0 the depth holds nonsense, as in the data set, and not 0.
    """
    made = BenchmarkFiles()
    for key, frame in frames.items():
        mask = np.isfinite(frame.depth_m).astype(np.float32)
        depth = np.where(mask == 0, np.float32(1.234), frame.depth_m)[..., None]
        paths = [f"{key}{ending}" for ending in (".png", "_depth.npy", "_depth_mask.npy")]
        made.files |= zip(paths, (encoded(frame.rgb), npy(depth), npy(mask)), strict=True)
        made.lines.append(" ".join(paths))
    return made


def ibims(frames: dict[str, Sample]) -> BenchmarkFiles:
    """Keys such as `corridor_01`; one of the masks leaves out the hole, the other a corner."""
    made = BenchmarkFiles()
    for name, frame in frames.items():
        valid, opaque = np.ones((2, *frame.size), bool)
        valid[HOLE], opaque[:4, :4] = False, False
        depth = np.where(np.isnan(frame.depth_m), 3.0, frame.depth_m)
        (fx, _, cx), (_, fy, cy), _ = frame.intrinsics_px
        made.files |= {
            f"rgb/{name}.png": encoded(frame.rgb),
            f"depth/{name}.png": codes16(depth, 65535 / 50),
            f"mask_invalid/{name}.png": encoded(valid),
            f"mask_transp/{name}.png": encoded(opaque),
            f"edges/{name}.png": encoded(opaque),
            f"calib/{name}.txt": f"{fx},{fy},{cx - 0.5},{cy - 0.5}\n".encode(),
        }
        made.lines.append(name)
    return made


def sintel(frames: dict[tuple[str, int], Sample]) -> BenchmarkFiles:
    """Keys such as (`alley_1`, 1); the sky is at 1e10."""
    made = BenchmarkFiles()
    for (scene, number), frame in frames.items():
        at = f"{scene}/frame_{number:04d}"
        height, width = frame.size
        depth = np.where(np.isnan(frame.depth_m), 1e10, frame.depth_m).astype("<f4")
        matrix = frame.intrinsics_px - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
        tag = struct.pack("<f", 202021.25)
        made.files |= {
            f"final/{at}.png": encoded(frame.rgb),
            f"clean/{at}.png": encoded(255 - frame.rgb),
            f"depth/{at}.dpt": tag + struct.pack("<ii", width, height) + depth.tobytes(),
            f"camdata_left/{at}.cam": tag + matrix.astype("<f8").tobytes() + bytes(12 * 8),
        }
    return made
