"""Models that are not taken, by the names that their folders give: what they are, for a person."""

import json
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

POINTER = "version https://git-lfs.github.com/spec/"
"""How a file begins that Git LFS has left in another's place."""
HEAD_BYTES = 1 << 20
"""Of a file of weights, which hold the names of any model's tensors."""
TAKEN = (
    "taken are Stable Diffusion 1 and 2, Marigold's depth and normals models, those of E2E-FT, "
    "what `e2eft train` makes, and FLUX.2 klein with a card, as folders in diffusers' layout"
)

_PIPELINES: tuple[tuple[str, str], ...] = (
    (r"^Onnx|OnnxPipeline$", "an ONNX export"),
    (r"^Flax", "a Flax export"),
    (r"InstructPix2Pix", "an InstructPix2Pix model, which edits images"),
    (r"^Marigold(Intrinsics|IID)", "Marigold's model of intrinsic images (IID)"),
    (
        r"^Marigold(?!(Depth|Normals)?Pipeline$)",
        "a model of Marigold's family that estimates neither depth nor normals",
    ),
    (r"^Lotus|^DirectDiffusion", "a Lotus model"),
    (r"^GeoWizard|^DepthNormalEstimation", "a GeoWizard model"),
    (r"^StableNormal|^YOSONormal", "a StableNormal model"),
    (r"^DepthMaster", "a DepthMaster model"),
    (r"^GenPercept", "a GenPercept model"),
    (r"^DepthFM", "a DepthFM model"),
    (r"^PixelPerfectDepth", "a Pixel-Perfect Depth model"),
    (r"^Step1X", "Step1X-Edit (FE2E's base), a diffusion transformer with flow matching"),
    (r"^QwenImage", "Qwen-Image (Marigold V2's base), a diffusion transformer with flow matching"),
    (r"^Flux2", "FLUX.2, a diffusion transformer with flow matching"),
    (r"^Flux", "FLUX.1 (Lotus-2's base), a diffusion transformer with flow matching"),
    (r"^StableDiffusion3", "Stable Diffusion 3, a diffusion transformer with flow matching"),
    (r"^StableDiffusionXL|^Kolors", "Stable Diffusion XL"),
    (r"ControlNet|Adapter|GLIGEN|^PIA", "an image model with a network that steers it"),
    (r"Inpaint|PaintByExample", "an inpainting model"),
    (r"Upscale|SuperResolution", "an upscaler"),
    (r"Depth2Img", "an image model that is guided by depth"),
    (r"LDM3D", "an image model that also makes disparity (LDM3D)"),
    (r"ImageVariation|UnCLIP", "an image model that is given an image's CLIP embedding"),
    (r"LatentConsistency", "a latent consistency model (LCM)"),
    (r"Video|^AnimateDiff|^Wan|^LTX|^CogVideo|^Mochi|^Latte|^Cosmos|^I2VGen", "a video model"),
    (r"Audio|Music|Spectrogram|DanceDiffusion", "an audio model"),
)
_LORA = "LoRA weights alone; fuse them into their model with diffusers, and save that"
_OF_LORA = re.compile(r"lora_|_lora\.|lokr_|hada_")
"""In the names of such weights, as diffusers, PEFT, kohya and LyCORIS call them."""
_CALLED_LORA = re.compile(r"(?<![a-z])lora(?![a-z])|^adapter_", re.IGNORECASE)
_TRANSFORMERS = "a diffusion transformer"
_OF_MODELS = (".onnx", ".gguf", ".ckpt", ".safetensors", ".pt", ".pth", ".bin")
_LONE = {
    "ControlNet": "a ControlNet alone",
    "UNet": "a UNet alone",
    "Autoencoder": "a VAE alone",
    "Transformer": "the transformer of a model alone",
    "Scheduler": "a scheduler alone",
}


def kind_of(index: dict[str, Any], denoiser: str, pipelines: Collection[str]) -> str:
    """What the model of this `model_index.json` is, if it is known to be something else; or "".

    Args:
        denoiser, pipelines: of the backbone that the index names; see `e2eft.model.backbones`.
    """
    name = str(index.get("_class_name", ""))
    for pattern, what in _PIPELINES:
        if name not in pipelines and re.search(pattern, name):
            return f"{what} ({name})"
    if "transformer" in index and denoiser != "transformer":
        return f"{_TRANSFORMERS} ({name})"
    if any("Onnx" in str(part) for part in index.values()):
        return f"an ONNX export ({name})"
    return ""


def files_of_something_else(
    names: Collection[str], config: dict[str, Any], begins: Callable[[str], bytes] | None = None
) -> str:
    """What a folder without `model_index.json` holds, and what to do with it; "" if that is not
    known.

    Args:
        names: of the files and folders directly in it.
        config: its `config.json`.
        begins: how a file of that name begins, if that can be known.
    """
    if any(map(_is_called_lora, names)):
        return _LORA
    kind = str(config.get("_class_name", ""))
    if found := next((what for part, what in _LONE.items() if part in kind), ""):
        return f"{found} ({kind}); give the folder of the whole model"
    if architectures := config.get("architectures"):
        return f"a model of transformers ({', '.join(map(str, architectures))})"
    told = (lone_file(name, begins) for name in sorted(names))
    return next(filter(None, told), "")


def lone_file(name: str, begins: Callable[[str], bytes] | None = None) -> str:
    """What a file is that holds a whole model, and what to do with it; "" if it does not.

    Args:
        begins: how a file of that name begins, if that can be known.
    """
    if not name.endswith(_OF_MODELS):
        return ""
    head = begins(name) if begins else b""
    if head.startswith(POINTER.encode()):
        return f"a pointer of Git LFS ({name}); run `git lfs pull` there"
    if _is_called_lora(name) or any(map(_OF_LORA.search, _tensors(head))):
        return _LORA
    if name.endswith(".onnx"):
        return f"an ONNX export ({name})"
    if name.endswith(".gguf"):
        return f"a quantized single-file checkpoint ({name})"
    return (
        f"a single-file checkpoint ({name}); convert it: diffusers' from_single_file, then "
        "save_pretrained"
    )


def _is_called_lora(name: str) -> bool:
    return bool(_CALLED_LORA.search(name))


def _tensors(head: bytes) -> list[str]:
    """The names of the tensors in a file of safetensors that begins so; none of another's."""
    with suppress(ValueError):
        return list(json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")]))
    return []
