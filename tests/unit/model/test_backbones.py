"""The table of backbones: what an index names, and that both halves of each are there."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from e2eft.config import VAE_FACTOR
from e2eft.model.backbones import DEFAULT, DENOISERS, backbone, layout, name_in, name_read
from e2eft.model.hub import ModelError
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import find_model, recognized_at
from e2eft.model.weights import STEMS
from tests.tiny_flux2 import write_tiny_flux2
from tests.tiny_models import blank_source

NAMES = sorted(set(DENOISERS.values()))


def written(name: str, folder: Path) -> str:
    if name == "flux2":
        return str(write_tiny_flux2(folder))
    return blank_source(folder).root


@pytest.mark.parametrize(
    ("index", "name"),
    [
        ({"unet": ["diffusers", "UNet2DConditionModel"]}, "sd_unet"),
        ({"transformer": ["diffusers", "Flux2Transformer2DModel"]}, "flux2"),
        ({"transformer": ["diffusers", "SD3Transformer2DModel"]}, DEFAULT),
        ({"unet": ["mine", "MyUNet"]}, DEFAULT),
        ({"unet": "UNet2DConditionModel", "transformer": []}, DEFAULT),
        ({}, DEFAULT),
    ],
)
def test_the_denoisers_class_names_the_backbone(index: dict[str, Any], name: str) -> None:
    assert name_in(index) == name_read(json.dumps(index)) == name
    assert name_read("\ufeff" + json.dumps(index)) == name


@pytest.mark.parametrize("text", [None, "", "{", "[]", "3"])
def test_what_is_no_index_is_held_against_the_default(text: str | None) -> None:
    assert name_read(text) == DEFAULT


@pytest.mark.parametrize("name", NAMES)
def test_both_halves_of_a_backbone_speak_of_the_same_model(name: str, tmp_path: Path) -> None:
    taken, heavy = layout(name), backbone(name)
    assert taken.name == name and taken.denoiser in taken.components
    assert {part for part in taken.components if part in STEMS} >= heavy.classes.keys()
    assert {taken.denoiser, "vae"} == heavy.classes.keys()
    place = written(name, tmp_path / "model")
    found = recognized_at(place)
    assert found.backbone == find_model(place).backbone == name
    estimator = load_estimator(find_model(place))
    assert isinstance(estimator.denoiser, heavy.classes[taken.denoiser])
    codec = estimator.codec
    assert codec.channels == found.latent_channels and codec.factor >= VAE_FACTOR
    assert codec.size_multiple % codec.factor == 0


@pytest.mark.parametrize("name", NAMES)
def test_training_speaks_of_parts_that_are_there(name: str, tmp_path: Path) -> None:
    training = layout(name).training
    if training is None:
        found = recognized_at(written(name, tmp_path / "model"))
        with pytest.raises(ModelError, match="`e2eft train` does not take"):
            layout(name).require_trainable("m", found, Any, conditional=True)  # type: ignore[arg-type]
        return
    estimator = load_estimator(find_model(written(name, tmp_path / "model")))
    modules = {layout(name).denoiser: estimator.denoiser, "vae": estimator.codec.vae}
    for parts in (training.parameters, training.checkpointed, training.partitioned):
        assert set(parts) <= modules.keys()
    assert all(modules[part]._supports_gradient_checkpointing for part in training.checkpointed)
    blocks = {type(block).__name__ for module in modules.values() for block in module.modules()}
    assert set(training.compiled) <= blocks


def test_layouts_need_neither_torch_nor_diffusers() -> None:
    heavy = {"torch", "diffusers", "transformers"}
    program = (
        "import sys; from e2eft.model.backbones import DENOISERS, layout; "
        "from e2eft.model import pinned, recognition, source; "
        "[layout(name) for name in DENOISERS.values()]; "
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
