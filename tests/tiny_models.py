"""Models of the blank architecture, with weights that make their outputs depend on their inputs."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from e2eft.config import ModelConfig
from e2eft.model.blank import write_blank_model
from e2eft.model.estimator import Estimator
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import ModelSource


def enliven(estimator: Estimator, seed: int = 0) -> Estimator:
    """Moves the weights away from their initial values, at which images hardly matter."""
    generator = torch.Generator().manual_seed(seed)
    modules: list[nn.Module] = [estimator.denoiser, estimator.codec.vae]
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.3 * float(parameter.std(correction=0)) * noise)
        for convolution in (estimator.denoiser.conv_out, estimator.codec.vae.decoder.conv_out):
            convolution.weight.mul_(2)
    return estimator


def blank_source(folder: Path, seed: int = 0) -> ModelSource:
    """A blank model in Stable Diffusion's layout."""
    write_blank_model(folder, seed)
    return ModelSource("blank", str(folder), str(folder))


def lively(
    folder: Path, settings: ModelConfig | None = None, **options: Any
) -> tuple[ModelSource, Estimator]:
    """An estimator whose output varies, and the source its text encoder came from."""
    source = blank_source(folder)
    settings = settings or ModelConfig()
    return source, enliven(load_estimator(source, settings, **options))


def edit_json(path: Path, **changes: Any) -> None:
    """Changes keys of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
