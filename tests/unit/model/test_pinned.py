"""What fixes a model to its bytes, whatever its folders are made of."""

import shutil
from pathlib import Path

import pytest

from e2eft.artifacts import Parent
from e2eft.errors import DamagedError, from_json
from e2eft.model.hub import ModelError
from e2eft.model.pinned import as_input, content_digest, model_files, pin_model
from e2eft.model.source import ModelSource
from e2eft.train.base import _found
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


@pytest.mark.parametrize("prefix", ["", "nested"])
def test_a_model_in_a_store_has_the_digest_of_its_files_wherever_they_are(
    prefix: str, tmp_path: Path
) -> None:
    folder = tmp_path / "store" / prefix
    blank_source(folder)
    (folder / "notes.txt").write_text("not a part of it")
    base = as_input(f"file://{folder}", "base")
    assert base == Parent("base", f"file://{folder}", digest(folder))
    assert content_digest(base) == base.digest
    assert as_input(str(folder), "base") == Parent("base", str(folder), base.digest)
    assert content_digest(as_input("tiny-sd", "base")) == ""
    (folder / "notes.txt").write_text("changed")
    assert as_input(base.uri, "base") == base
    (folder / "scheduler/scheduler_config.json").write_text("{}")
    assert as_input(base.uri, "base").digest not in ("", base.digest)


def test_a_base_that_has_changed_since_it_was_recorded_is_not_trained(tmp_path: Path) -> None:
    blank_source(tmp_path / "model")
    recorded = as_input(f"file://{tmp_path}/model", "base")
    for digest in ("", recorded.digest):
        assert _found(recorded.uri, digest, tmp_path)["root"] == str(tmp_path / "model")
    (tmp_path / "model/scheduler/scheduler_config.json").write_text("{}")
    error = from_json(_found(recorded.uri, recorded.digest, tmp_path)["error"])
    assert isinstance(error, ModelError) and "has changed since the run began" in str(error)
