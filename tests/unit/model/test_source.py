"""What a driver needs of a model, without what only a worker needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from e2eft.model.hub import ModelError
from e2eft.model.source import find_model, recognized


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("e2eft.label.job, e2eft.label.labeller, e2eft.model.pinned", {"torch", "diffusers"}),
        ("e2eft.train.driver, e2eft.evaluate.stage", {"diffusers", "deepspeed"}),
    ],
)
def test_drivers_load_no_model_library(modules: str, heavy: set[str]) -> None:
    code = f"import sys, {modules}; print(*({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_packaged_models_channels_are_in_its_two_folders() -> None:
    depth, image = (recognized(find_model(name)) for name in ("tiny-marigold-depth", "tiny-sd"))
    assert (depth.in_channels, depth.latent_channels) == (8, 4)
    assert (image.in_channels, image.latent_channels) == (4, 4)
    assert (depth.card.task, image.card.task) == ("depth", "image")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, r"cannot load its vae: vae/config.json is missing"),
        ("{}", r"its VAE shrinks images 0 times"),
        (
            '{"block_out_channels": [1, 2, 3, 4]}',
            r"its vae/config.json does not say latent_channels",
        ),
        ("[4]", r"vae/config.json holds no JSON object; copy it again"),
        ("{", r"vae/config.json is no JSON \("),
    ],
)
def test_a_component_that_does_not_say_its_channels_is_named(
    written: str | None, said: str, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    for component in ("unet", "vae", "text_encoder"):
        (tmp_path / component).mkdir()
        (tmp_path / component / "config.json").write_text(json.dumps({"in_channels": 8}))
    (tmp_path / "vae/config.json").unlink()
    if written is not None:
        (tmp_path / "vae/config.json").write_text(written)
    with pytest.raises(ModelError, match=said):
        recognized(find_model(str(tmp_path)))
