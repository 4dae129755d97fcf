"""Loading and exporting whole models: others' folders, the packaged small models, and folders that
diffusers' own Marigold pipelines load unchanged."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from e2eft.config import ModelConfig
from e2eft.model import loading
from e2eft.model.backbones import backbone
from e2eft.model.card import CARD_NAME, ModelCard
from e2eft.model.codec import Codec
from e2eft.model.estimator import Estimator
from e2eft.model.pinned import brought_here, model_files
from e2eft.model.source import ModelSource, recognized


def require_tensors(source: ModelSource) -> None:
    """Raises ModelError if a model on this machine has not the tensors that its configurations say;
    reads no more than their names and shapes."""
    for component, kind in backbone(source.backbone).classes.items():
        loading.require_tensors(source, component, kind)


def export_source(source: ModelSource, folder: Path, card: ModelCard) -> Path:
    """A single folder with all of a model, which says of itself what this card says: its own if it
    does, else a copy in `folder`."""
    if source.root != source.shared:
        return export_model(load_estimator(source), source, folder, card)
    if recognized(replace(source, card="")).card == card:
        return Path(source.root)
    for name, path in model_files(source).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    (folder / CARD_NAME).write_text(json.dumps(card.as_json(), indent=1))
    return folder


def load_codec(source: ModelSource) -> Codec:
    """The frozen VAE alone, in fp32 on the CPU.

    Raises:
        ModelError: if it is missing or has another factor than its backbone's.
    """
    source = brought_here(source, ("vae",))
    return backbone(source.backbone).load_codec(source)


def load_estimator(
    source: ModelSource, settings: ModelConfig | None = None, *, conditional: bool = True
) -> Estimator:
    """A model in fp32 on the CPU.

    Args:
        source: from `find_model`.
        settings: how it shall be trained. None: run it as its card says.
        conditional: False for a model that denoises images themselves (Stable Diffusion's
        objective).

    Raises:
        ModelError: if a component is missing or does not fit, its weights are not finite, or it is
            none that is trained and there are settings.
    """
    source = brought_here(source)
    found = recognized(source)
    return backbone(found.backbone).load(source, found, settings, conditional=conditional)


def export_model(
    estimator: Estimator, source: ModelSource, folder: Path, card: ModelCard, *, half: bool = False
) -> Path:
    """Writes a complete model folder, as the backbone of `source` writes it, and the card.

    Args:
        half: store fp16 weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dtype = torch.float16 if half else torch.float32
    backbone(source.backbone).export(estimator, source, folder, card, dtype)
    (folder / CARD_NAME).write_text(json.dumps(card.as_json(), indent=1))
    return folder
