"""Packs trained base models into e2eft/bases: two UNets, everything else once.

python tools/pack_bases.py TINY_SD_RUN TINY_MARIGOLD_RUN
"""

import filecmp
import shutil
import sys
from pathlib import Path

BASES = Path(__file__).resolve().parent.parent / "e2eft" / "bases"
SHARED = ("vae", "text_encoder", "tokenizer", "scheduler")
OWN = ("model_index.json", "e2eft.json")
LIMIT_BYTES = 16 * 2**20


def pack(image_model: Path, depth_model: Path, target: Path) -> None:
    """Copies what is shared once; refuses models whose VAEs differ."""
    weights = "vae/diffusion_pytorch_model.safetensors"
    if not filecmp.cmp(image_model / weights, depth_model / weights, shallow=False):
        sys.exit(f"{image_model} and {depth_model} have different VAEs")
    for name in ("shared", "tiny-sd", "tiny-marigold-depth"):
        shutil.rmtree(target / name, ignore_errors=True)
    for component in SHARED:
        shutil.copytree(depth_model / component, target / "shared" / component)
    for name, source in (("tiny-sd", image_model), ("tiny-marigold-depth", depth_model)):
        shutil.copytree(source / "unet", target / name / "unet")
        for file in OWN:
            shutil.copy(source / file, target / name / file)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    if size > LIMIT_BYTES:
        sys.exit(f"{target} holds {size / 2**20:.1f} MB, more than {LIMIT_BYTES / 2**20:.0f}")
    print(f"{target}: {size / 2**20:.1f} MB")


def model_folder(run: str) -> Path:
    """The model in a run's artifact, or the folder itself."""
    folder = Path(run)
    return folder / "model" if (folder / "model").is_dir() else folder


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    pack(model_folder(sys.argv[1]), model_folder(sys.argv[2]), BASES)
