"""The weights of a model's components as files: which of them are read, and what is wrong with
them. Reads their headers only, and needs no torch."""

import json
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from e2eft.model.hub import ModelError
from e2eft.model.others import POINTER

STEMS = {
    "unet": "diffusion_pytorch_model",
    "transformer": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
"""How the weights of components begin that have any, as diffusers and transformers write them."""
PICKLED = "bin"
VARIANTS = ("", "fp16", "bf16", PICKLED)
"""In the order in which they are taken; "": the one without a name, which is full precision;
`PICKLED`: no safetensors, but a pickle of them, which is read with PyTorch's restricted unpickler.
"""
_PICKLES = {
    "unet": "diffusion_pytorch_model.bin",
    "transformer": "diffusion_pytorch_model.bin",
    "vae": "diffusion_pytorch_model.bin",
    "text_encoder": "pytorch_model.bin",
}
_COUNTS = ("position_ids", "num_batches_tracked")
"""How the names of tensors end that are whole numbers in any model."""
_FLOATS = ("F16", "BF16", "F32", "F64")
"""How safetensors call the numbers that weights are stored as where they are not quantized."""
Shape = tuple[int, ...]
_OTHERS = (".bin", ".ckpt", ".pt", ".pth", ".msgpack", ".h5", ".onnx", ".gguf", ".xml")


def variant_of(component: str, names: Collection[str]) -> str | None:
    """The variant of a component's weights that is read, of those among its files."""
    for variant in VARIANTS:
        if {_single(component, variant), _index(component, variant)} & set(names):
            return variant
    return None


def is_read(component: str, name: str, variant: str) -> bool:
    """Whether loading this variant of a component may read this file of it."""
    if name in (_single(component, variant), _index(component, variant)):
        return True
    dotted = f"\\.{variant}" if variant else ""
    shards = rf"{STEMS[component]}{dotted}-\d+-of-\d+\.safetensors"
    return variant != PICKLED and bool(re.fullmatch(shards, name))


def _single(component: str, variant: str) -> str:
    if variant == PICKLED:
        return _PICKLES[component]
    return ".".join(filter(None, [STEMS[component], variant, "safetensors"]))


def _index(component: str, variant: str) -> str:
    return ".".join(filter(None, [STEMS[component], "safetensors.index", variant, "json"]))


def no_weights(name: str, component: str, names: Iterable[str]) -> ModelError:
    """What to say of a component without weights that are read, by the files that it has."""
    wanted = _single(component, "")
    others = sorted(file for file in names if file.endswith(_OTHERS))
    if not others:
        return _broken(name, component, f"{component}/{wanted} is missing; copy it again")
    return _broken(
        name,
        component,
        f"{component}/{others[0]} is of a format that is not read; save the model anew with "
        f"diffusers' save_pretrained, which writes {wanted}",
    )


def _broken(name: str, component: str, why: str) -> ModelError:
    return ModelError(f"model {name!r}: cannot load its {component}: {why}")


def require_weights(name: str, component: str, folder: Path) -> str:
    """The variant that is read of a component in a local folder.

    Raises:
        ModelError: if there is none, or if a file of it is missing, cut, quantized, or a pointer of
            Git LFS.
    """
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    variant = variant_of(component, names)
    if variant is None:
        raise no_weights(name, component, names)
    if (single := _single(component, variant)) in names:
        _tensors(name, component, folder / single)
        return variant
    index = folder / _index(component, variant)
    promised = _promised(name, component, index)
    for shard, tensors in promised.items():
        if not (folder / shard).is_file():
            why = f"{component}/{shard} is missing, which {index.name} names; copy it again"
            raise _broken(name, component, why)
        if missing := tensors - _tensors(name, component, folder / shard).keys():
            why = f"{component}/{shard} lacks {min(missing)}; copy it again"
            raise _broken(name, component, why)
    return variant


def tensors_of(name: str, component: str, folder: Path) -> dict[str, Shape] | None:
    """The tensors in the weights that are read of a component; None if only reading all of them
    would tell.

    Raises:
        ModelError: as `require_weights`.
    """
    variant = require_weights(name, component, folder)
    if variant == PICKLED:
        return None
    files = (path for path in folder.iterdir() if is_read(component, path.name, variant))
    found: dict[str, Shape] = {}
    for path in files:
        if path.suffix == ".safetensors":
            found |= _tensors(name, component, path)
    return found


def pickle_of(component: str, folder: Path) -> Path:
    """The file of a component's weights in the variant `PICKLED`."""
    return folder / _single(component, PICKLED)


def require_float(name: str, component: str, file: str, tensor: str, kind: str) -> None:
    """Raises ModelError for weights that are stored as another kind of numbers, unless these
    are whole by nature."""
    if kind not in _FLOATS and not tensor.endswith(_COUNTS):
        why = f"{component}/{file} holds {tensor} as {kind}; save it unquantized, as {_FLOATS[2]}"
        raise _broken(name, component, why)


def _promised(name: str, component: str, index: Path) -> dict[str, set[str]]:
    """Tensors by the shards that an index says they are in."""
    shards: dict[str, set[str]] = {}
    try:
        content: Any = json.loads(index.read_text())
        for tensor, shard in content["weight_map"].items():
            shards.setdefault(str(shard), set()).add(tensor)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = f"{component}/{index.name} is no index of shards ({error}); copy it again"
        raise _broken(name, component, why) from None
    return shards


def _tensors(name: str, component: str, path: Path) -> dict[str, Shape]:
    """What a file of weights holds, by its header, which tells too whether the file is whole;
    nothing, of a pickle."""
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER.encode():
                why = f"{component}/{path.name} is a pointer of Git LFS; run `git lfs pull` there"
                raise _broken(name, component, why)
        if path.suffix == f".{PICKLED}":
            return {}
        with safe_open(path, framework="numpy") as weights:
            found = {key: weights.get_slice(key) for key in sorted(weights.keys())}
            for key, tensor in found.items():
                require_float(name, component, path.name, key, tensor.get_dtype())
            return {key: tuple(tensor.get_shape()) for key, tensor in found.items()}
    except (SafetensorError, OSError) as error:
        why = f"{component}/{path.name} is damaged ({' '.join(str(error).split())}); copy it again"
        raise _broken(name, component, why) from None
