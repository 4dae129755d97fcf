"""How good the normals are that are made of Virtual KITTI's depth: ours, and those of others.

    python benchmarks/normals_of_depth.py [--streets N] [--d2nt FOLDER]

Virtual KITTI publishes no normals, so that theirs are not known. Depth is made here in its format
(1242 x 375 pixels, its camera, whole centimetres, 65535 for the sky): streets of this project's
renderer, and planted scenes in closed form, both with their true normals. FOLDER is a copy of
github.com/fengyi233/depth-to-normal-translator (MIT), the method of arXiv 2409.11355's code, which
needs OpenCV; without it, its rows are left out.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from e2eft import scenes
from e2eft.geometry.camera import pixel_rays
from e2eft.geometry.normals import Planes, normals_from_depth, surface_normals
from e2eft.scenes.render import trace_geometry
from tests.planted_depth import (
    QUANTUM_M,
    SCENES,
    beside,
    camera_of,
    depth_codes,
    depth_of,
    error_deg,
    grown,
    seen,
)
from tests.virtual_kitti_files import FOCAL, HEIGHT, WIDTH

CAMERA = camera_of()
SEED = 7
WITHIN_PX, STEEP_DEG, FAR_M = 2, 30.0, 80.0
EDGE_STEP = 0.01
"""Of inverse depth: a larger step that neither of two pixels' tangent planes makes is an edge."""
BLOCK_PX = 8
"""A latent's side: a diffusion objective leaves out those that an unknown normal is in."""
OURS: dict[str, Planes] = {"most neighbours' plane": "neighbours", "own plane": "own"}
Method = Callable[[np.ndarray], np.ndarray]
"""uint16 centimetres to normals."""


@dataclass(frozen=True)
class Frame:
    depth_m: np.ndarray
    normals_cam: np.ndarray

    @property
    def known(self) -> np.ndarray:
        return np.isfinite(depth_of(depth_codes(self.depth_m)))

    def bands(self) -> dict[str, np.ndarray]:
        near = grown(depth_edges(self), WITHIN_PX - 1)
        return {
            "edges": near & self.known,
            "elsewhere": ~near & self.known,
            "all": self.known,
            "far": ~near & self.known & (self.depth_m > FAR_M),
        }


def depth_edges(frame: Frame) -> np.ndarray:
    """Pixels beside which depth jumps, to the sky or by more than EDGE_STEP."""
    rays = pixel_rays(CAMERA, HEIGHT, WIDTH)
    normals, sky = np.nan_to_num(frame.normals_cam), np.isinf(frame.depth_m)
    inverse = np.where(sky, 0, 1 / np.where(sky, 1, frame.depth_m))
    offset = (normals * rays).sum(-1) / np.where(sky, 1, inverse)  # n . X
    pairs: list[np.ndarray] = []
    for one, other in (
        (np.s_[:-1], np.s_[1:]),
        (np.s_[:, :-1], np.s_[:, 1:]),
    ):
        missed: list[np.ndarray] = []
        for here, there in ((one, other), (other, one)):
            with np.errstate(divide="ignore", invalid="ignore"):
                tangent = (normals[here] * rays[there]).sum(-1) / offset[here]
            missed.append(np.abs(np.nan_to_num(tangent) - inverse[there]))
        nearest = np.maximum(inverse[one], inverse[other])
        jumps = np.minimum(*missed) > EDGE_STEP * nearest
        pairs.append((jumps & ~sky[one] & ~sky[other]) | (sky[one] != sky[other]))
    return beside(*pairs)


def streets(count: int) -> Iterator[Frame]:
    """One view each of so many rendered streets, through Virtual KITTI's lens."""
    hfov_deg = float(np.degrees(2 * np.arctan(WIDTH / 2 / FOCAL)))
    for number in range(count):
        scene = scenes.make_scene("street", SEED, number)
        camera = replace(scenes.sample_camera(scene, SEED, 0), hfov_deg=hfov_deg)
        traced = trace_geometry(scene, camera, HEIGHT, WIDTH)
        yield Frame(traced.depth_m.astype(np.float64), traced.normals_cam)


def planted() -> Iterator[Frame]:
    for shapes in SCENES.values():
        scene = seen(shapes)
        yield Frame(scene.depth_m, scene.normals_cam)


def d2nt_of(folder: str) -> Method:
    """Its third version, as that code calls it: depth in centimetres, the sky's 65535 among it."""
    sys.path.insert(0, folder)
    from d2nt import depth2normal  # pyright: ignore[reportMissingImports]

    # It counts pixels from 1, we their centres from 0.5.
    camera = CAMERA + np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return lambda codes: depth2normal(codes.astype(np.float32), camera, "d2nt_v3")


def ours(planes: Planes) -> Method:
    return lambda codes: surface_normals(depth_of(codes), CAMERA, QUANTUM_M, planes)


def where_known(method: Method, other: Method) -> Method:
    """`method`, but unknown where the other's normals are."""
    return lambda codes: np.where(np.isfinite(other(codes)), method(codes), np.nan)


def blocks_of(pixels: np.ndarray) -> np.ndarray:
    """[rows columns pixels of a block]; what is left at the borders is left out."""
    rows, columns = (side // BLOCK_PX for side in pixels.shape)
    whole = pixels[: rows * BLOCK_PX, : columns * BLOCK_PX]
    blocks = whole.reshape(rows, BLOCK_PX, columns, BLOCK_PX).swapaxes(1, 2)
    return blocks.reshape(rows, columns, -1)


def share_of_blocks(error: np.ndarray, known: np.ndarray) -> float:
    """Of the blocks whose depth is known, those that an unknown normal is in."""
    whole, broken = blocks_of(known).all(-1), blocks_of(np.isnan(error)).any(-1)
    return float(np.mean(broken, where=whole))


def measured(method: Method, frames: list[Frame], bands: list[dict[str, np.ndarray]]) -> str:
    """One row: of each band mean error, share above STEEP_DEG, share unknown; share of blocks that
    are not whole; seconds a frame."""
    spent, errors = 0.0, list[np.ndarray]()
    for frame in frames:
        codes = depth_codes(frame.depth_m)
        started = time.process_time()
        found = method(codes)
        spent += time.process_time() - started
        errors.append(error_deg(found, frame.normals_cam))
    cells: list[str] = []
    for name in ("edges", "elsewhere", "all", "far"):
        pairs = zip(errors, bands, strict=True)
        error = np.concatenate([one[band[name]] for one, band in pairs])
        told = error[np.isfinite(error)]
        steep, unknown = (told > STEEP_DEG).mean(), np.isnan(error).mean()
        cells.append(f"{told.mean():.2f}° {steep:.1%} {unknown:.2%}")
    pairs = zip(errors, bands, strict=True)
    blocks = np.mean([share_of_blocks(error, band["all"]) for error, band in pairs])
    return " | ".join([*cells, f"{blocks:.1%}", f"{spent / len(frames):.2f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streets", type=int, default=16)
    parser.add_argument("--d2nt")
    arguments = parser.parse_args()
    methods: dict[str, Method] = {
        "central differences": lambda codes: normals_from_depth(depth_of(codes), CAMERA)
    }
    if arguments.d2nt:
        d2nt = d2nt_of(arguments.d2nt)
        methods["D2NT v3"] = d2nt
        methods["D2NT v3, where own plane is known"] = where_known(d2nt, ours("own"))
    methods |= {name: ours(planes) for name, planes in OURS.items()}
    for title, frames in (
        (f"{arguments.streets} rendered streets", list(streets(arguments.streets))),
        (f"{len(SCENES)} planted scenes", list(planted())),
    ):
        bands = [frame.bands() for frame in frames]
        shares = {
            name: sum(band[name].sum() for band in bands) / sum(band["all"].sum() for band in bands)
            for name in ("edges", "far")
        }
        print(f"\n{title}: {shares['edges']:.1%} near edges, {shares['far']:.1%} far\n")
        print(f"| | within {WITHIN_PX} px of a depth edge | elsewhere | all | elsewhere, beyond "
              f"{FAR_M:g} m | blocks | CPU-s |\n|---|---|---|---|---|---|---|")  # fmt: skip
        for name, method in methods.items():
            print(f"| {name} | {measured(method, frames, bands)} |", flush=True)


if __name__ == "__main__":
    main()
