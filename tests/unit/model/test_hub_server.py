"""Models of a hub that answers, and of one that does not: what is fetched, and what is said."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2eft.model.backbones.sd_unet import write_model_index
from e2eft.model.hub import ModelError
from e2eft.model.pinned import as_input, pin_model
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import find_model, recognized_at
from tests.hub_server import Hub, commit_of, hub_of, unanswered, use_hub
from tests.model_layouts import Parts, as_variant

FULL, HALF, EDITS, FILE = "o/full", "o/half", "o/edits", "o/file"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    zoo = Parts(root)
    full = zoo.copy(root / "full" / "model")
    both, half = (Path(shutil.copytree(full, root / name)) for name in ("both", "half"))
    as_variant(half)
    for component in ("unet", "vae"):
        for file in (half / component).glob("*.fp16.safetensors"):
            shutil.copy(file, both / component)
    (both / "unet" / "diffusion_pytorch_model.non_ema.safetensors").touch()
    (both / "sample.jpg").touch()
    edits = Path(shutil.copytree(full, root / "edits"))
    write_model_index(edits, "StableDiffusionInstructPix2PixPipeline")
    (root / "file").mkdir()
    (root / "file" / "depthfm-v1.ckpt").touch()
    return {FULL: both, HALF: half, EDITS: edits, FILE: root / "file"}


@pytest.fixture
def hub(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_of(models) as hub:
        use_hub(hub.url, tmp_path / "cache", monkeypatch)
        yield hub


def test_of_a_model_with_variants_the_full_weights_are_fetched(
    hub: Hub, models: dict[str, Path], tmp_path: Path
) -> None:
    pinned = pin_model(FULL, FULL, FULL, tmp_path)
    assert pinned.uri == f"{FULL}@{commit_of(models[FULL])}" and pinned.card.task == "depth"
    weights = [path for path in hub.asked if path.endswith(".safetensors")]
    assert sorted(weights) == [
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    assert "sample.jpg" not in hub.asked
    hub.asked.clear()
    assert pin_model(FULL, FULL, FULL, tmp_path).digest == pinned.digest and not hub.asked


def test_of_a_model_with_fp16_variants_only_those_are_fetched(hub: Hub, tmp_path: Path) -> None:
    pinned = pin_model(HALF, HALF, HALF, tmp_path)
    weights = [path for path in hub.asked if path.endswith(".safetensors")]
    assert len(weights) == 3 and all(path.endswith(".fp16.safetensors") for path in weights)
    assert load_estimator(pinned.source).card == load_estimator(find_model(HALF)).card


def test_weights_of_something_else_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    for attempt in (lambda: pin_model(EDITS, EDITS, EDITS, tmp_path), lambda: recognized_at(EDITS)):
        with pytest.raises(ModelError, match="'o/edits' is an InstructPix2Pix model"):
            attempt()
    assert not [path for path in hub.asked if path.endswith(".safetensors")]
    with pytest.raises(ModelError, match=r"o/file holds a single-file checkpoint \(depthfm-v1"):
        recognized_at(FILE)


def test_a_mistyped_folder_has_two_readings(hub: Hub, tmp_path: Path) -> None:
    for attempt in (
        lambda: pin_model("modles/x", "modles/x", "modles/x", tmp_path),
        lambda: recognized_at("modles/x"),
    ):
        with pytest.raises(ModelError) as error:
            attempt()
        said = str(error.value)
        assert f"there is no folder {Path('modles/x').absolute()}; as a model of the hub" in said
        assert "\n" not in said and "404" in said


@pytest.mark.parametrize("refusing", [True, False], ids=["refuses", "hangs"])
def test_a_hub_out_of_reach_says_so_at_once_and_is_asked_once(
    refusing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with unanswered(refusing=refusing) as url:
        use_hub(url, tmp_path / "cache", monkeypatch)
        started = time.monotonic()
        assert as_input("models/x", "base").digest == ""
        for attempt in (
            lambda: pin_model("models/x", "models/x", "models/x", tmp_path),
            lambda: recognized_at("models/x"),
            lambda: load_estimator(find_model("models/x")),
        ):
            with pytest.raises(ModelError, match=r"there is no folder .*models/x; as a model of"):
                attempt()
        assert time.monotonic() - started < (1 if refusing else 3)


def test_what_was_fetched_is_used_while_the_hub_is_away(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_of(models) as hub:
        use_hub(hub.url, tmp_path / "cache", monkeypatch)
        pinned = pin_model(FULL, FULL, FULL, tmp_path)
    with unanswered(refusing=False) as url:
        use_hub(url, tmp_path / "cache", monkeypatch)
        started = time.monotonic()
        for name in (FULL, pinned.uri):
            assert pin_model(name, name, name, tmp_path).digest == pinned.digest
        assert time.monotonic() - started < 3
