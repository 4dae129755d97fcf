"""What a driver needs of a model, without what only a worker needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from e2eft.model.hub import ModelError
from e2eft.model.source import channels_of, find_model, read_source_card


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
    assert channels_of(find_model("tiny-marigold-depth")) == (8, 4)
    assert channels_of(find_model("tiny-sd")) == (4, 4)
    assert read_source_card(find_model("tiny-marigold-depth")).task == "depth"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (None, r"its vae/config.json is missing"),
        ("{}", r"its vae/config.json does not say latent_channels"),
        ("[4]", r"its vae/config.json does not say latent_channels"),
        ("{", r"its vae/config.json does not say latent_channels"),
    ],
)
def test_a_component_that_does_not_say_its_channels_is_named(
    written: str | None, said: str, tmp_path: Path
) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    for component in ("unet", "vae"):
        (tmp_path / component).mkdir()
    (tmp_path / "unet/config.json").write_text(json.dumps({"in_channels": 8}))
    if written is not None:
        (tmp_path / "vae/config.json").write_text(written)
    with pytest.raises(ModelError, match=said):
        channels_of(find_model(str(tmp_path)))
