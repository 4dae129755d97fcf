"""Diffusers models as weights and as folders, component by component.

The libraries' own `save_pretrained` writes on one rank only where torch.distributed is initialized,
which a worker that writes to its own disk must not depend on.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
TRANSFORMERS_WEIGHTS = "model.safetensors"


def _save_weights(module: Any, path: Path, dtype: torch.dtype) -> None:
    state = {
        name: tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
        for name, tensor in module.state_dict().items()
    }
    save_file(state, path, metadata={"format": "pt"})


def with_weights(module: Any, weights: dict[str, torch.Tensor]) -> Any:
    """A diffusers model of this architecture with these weights: a trained one's parameters may be
    in bf16, or partitioned over the ranks."""
    with torch.device("meta"):
        fresh = type(module).from_config(module.config)
    fresh.load_state_dict(weights, assign=True)
    return fresh


def save_diffusers(module: Any, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes a diffusers model's config and weights, without the path it was loaded from."""
    folder.mkdir(parents=True, exist_ok=True)
    module.save_config(folder)
    written = folder / "config.json"
    config = json.loads(written.read_text())
    config.pop("_name_or_path", None)
    written.write_text(json.dumps(config, indent=1))
    _save_weights(module, folder / DIFFUSERS_WEIGHTS, dtype)


def save_transformers(module: Any, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes a transformers model's config and weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**module.config.to_diff_dict(), "architectures": [type(module).__name__]}
    (folder / "config.json").write_text(json.dumps(config, indent=1, default=str))
    _save_weights(module, folder / TRANSFORMERS_WEIGHTS, dtype)


def write_index(folder: Path, pipeline: str, parts: Mapping[str, Any], **settings: Any) -> None:
    """Writes `model_index.json`: which pipeline the folder is for, its parts, and what else that
    reads from there."""
    index = {"_class_name": pipeline, **parts, **settings}
    (folder / "model_index.json").write_text(json.dumps(index, indent=1))
