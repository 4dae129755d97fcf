"""What fixes a model to its bytes, whatever its folders are made of."""

import shutil
from pathlib import Path

import pytest

from e2eft.errors import DamagedError
from e2eft.model.pinned import model_files, pin_model
from e2eft.model.pretrained import ModelSource
from e2eft.walk import digest_files
from tests.tiny_models import blank_source


def digest(folder: Path) -> str:
    return digest_files(model_files(ModelSource("m", str(folder), str(folder))))


def linked(model: Path, folder: Path) -> Path:
    """A model folder whose components are links to another one's."""
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def test_a_model_of_links_has_the_digest_of_what_they_lead_to(tmp_path: Path) -> None:
    blank_source(tmp_path / "a", seed=0)
    blank_source(tmp_path / "b", seed=1)
    real = [digest(tmp_path / name) for name in "ab"]
    links = [digest(linked(tmp_path / name, tmp_path / f"{name}-links")) for name in "ab"]
    assert links == real and real[0] != real[1]
    mixed = linked(tmp_path / "a", tmp_path / "mixed")
    (mixed / "unet").unlink()
    (mixed / "unet").symlink_to(tmp_path / "b" / "unet")
    assert digest(mixed) not in real
    pinned = pin_model("mixed", "mixed", str(mixed), tmp_path)
    assert pinned.digest == digest(mixed)


def test_a_file_that_a_link_promises_is_missed(tmp_path: Path) -> None:
    blank_source(tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.move(weights, tmp_path / "weights")
    weights.symlink_to(tmp_path / "gone")
    with pytest.raises(DamagedError, match=r"unet/.*is a link to .*gone, which is not there"):
        pin_model("m", "m", str(tmp_path / "model"), tmp_path)
