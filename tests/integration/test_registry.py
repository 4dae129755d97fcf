"""Registered models: loaded by name where only what they declare is, and promoted by scores."""

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from e2eft import evaluate
from e2eft.artifacts import Parent
from e2eft.config import ModelConfig, SamplingConfig, TrackingConfig
from e2eft.data.shards import decode_rgb
from e2eft.images.reasons import ImageError
from e2eft.model.card import ModelCard
from e2eft.model.inference import PreparedImage, predict
from e2eft.model.pretrained import export_model, load_estimator
from e2eft.model.source import find_model
from e2eft.tasks import get_task, label_codec
from e2eft.tracking import (
    RegisteredModel,
    download_model,
    promote_if_better,
    register_model,
    resolve_version,
    start_run,
)
from tests.registered import score
from tests.scored_frames import affine, config_of, make_frame, write_labels, write_shards
from tests.services import MlflowServer, free_ports

ISOLATED = Path(__file__).parent / "jobs" / "serve_isolated.py"
PROCESSING_SIZE = 48


@dataclass(frozen=True)
class Registered:
    """A small random model, champion under its name in a registry of its own."""

    config: TrackingConfig
    model: RegisteredModel


def register(folder: Path, task: str, config: TrackingConfig) -> Registered:
    source = find_model("blank", folder)
    card = ModelCard(task=task, initial_latent="gaussian", steps=1, processing_size=PROCESSING_SIZE)
    estimator = load_estimator(source, ModelConfig(initial_latent="gaussian"))
    exported = export_model(estimator, source, folder / "model", card)
    run = start_run(config, "evaluate", f"scores:{task}", {})
    model = register_model(config, run, f"e2eft-{task}", exported, card=card.as_json())
    run.finish()
    assert promote_if_better(config, model.name, model.version, score(0.2))
    return Registered(config, model)


@pytest.fixture(scope="module", params=["depth", "normals"])
def registered(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Registered:
    folder = tmp_path_factory.mktemp(f"registry-{request.param}")
    return register(
        folder, request.param, TrackingConfig(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    )


@pytest.fixture(scope="module")
def images() -> list[bytes]:
    """Three good images of two sizes, one no multiple of anything, and a torn one between."""
    generator = np.random.default_rng(0)
    good: list[bytes] = []
    for shape in [(48, 64), (50, 37), (48, 64)]:
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (*shape, 3), np.uint8)).save(buffer, "PNG")
        good.append(buffer.getvalue())
    return [good[0], good[1][:2000], good[1], good[2]]


def expected_label(folder: Path, task_name: str, content: bytes) -> np.ndarray:
    """What the estimator itself says, put together from its parts for one image."""
    from e2eft.corpora.reading import content_seed
    from e2eft.images.resize import fitted_size, resize_rgb

    estimator, rgb = load_estimator(find_model(str(folder))), decode_rgb(content)
    size = fitted_size(*rgb.shape[:2], PROCESSING_SIZE)
    image = PreparedImage(resize_rgb(rgb, size), rgb.shape[:2], content_seed(content, 0))
    (label,) = predict(estimator, get_task(task_name), [image], SamplingConfig())
    return label_codec(task_name).resize(label, rgb.shape[:2])


@pytest.mark.deep
@pytest.mark.slow
@pytest.mark.parametrize("registered", ["depth"], indirect=True)
def test_a_process_with_only_the_declared_requirements_gives_the_same_answers(
    registered: Registered, images: list[bytes], tmp_path: Path
) -> None:
    for number, content in enumerate(images):
        (tmp_path / f"{number}.bin").write_bytes(content)
    np.save(tmp_path / "rgb.npy", np.stack([decode_rgb(images[0]), decode_rgb(images[3])]))
    # -I: neither this folder, nor PYTHONPATH, nor the user's packages.
    command = [sys.executable, "-I", str(ISOLATED), str(registered.config.tracking_uri)]
    command += [f"models:/{registered.model.name}@champion", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert [answer["error_code"] for answer in answers] == ["", "decode_truncated", "", ""]
    for number in (0, 2, 3):
        expected = expected_label(registered.model.folder, "depth", images[number])
        meta = json.loads(answers[number]["meta"])
        assert meta["task"] == "depth" and meta["size"] == list(expected.shape)
        assert max(meta["processing_size"]) == PROCESSING_SIZE
        depth = label_codec("depth").decode((tmp_path / f"{number}.depth").read_bytes())
        assert np.abs(depth - expected).max() < 2e-5
        assert (tmp_path / f"{number}.normals").read_bytes() == b""
    assert (tmp_path / "1.depth").read_bytes() == b""
    arrays = np.load(tmp_path / "arrays.npy")
    assert arrays.dtype == np.float32 and arrays.shape[:3] == (2, 48, 64)
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["ray"] == "No module named 'ray'"
    assert not {"ray", "deepspeed", "mitsuba", "pytest", "tests"} & set(facts["modules"])
    assert (
        "/site-packages/" not in facts["e2eft"] and str(ISOLATED.parents[3]) not in facts["e2eft"]
    )


def test_loaded_by_alias_it_answers_as_the_estimator_does(
    registered: Registered, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd

    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(registered.config.tracking_uri))
    model = mlflow.pyfunc.load_model(f"models:/{registered.model.name}@champion")
    answers = model.predict(pd.DataFrame({"image": images}))
    assert answers["error_code"].tolist() == ["", "decode_truncated", "", ""]
    task = registered.model.name.removeprefix("e2eft-")
    for number in (0, 2, 3):
        expected = expected_label(registered.model.folder, task, images[number])
        if task == "depth":
            depth = label_codec("depth").decode(answers["depth"][number])
            assert np.abs(depth - expected).max() < 2e-5
        else:
            cosine = (label_codec("normals").decode(answers["normals"][number]) * expected).sum(-1)
            assert np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).max() < 0.6


def test_arrays_give_float_arrays_equal_to_the_estimators(
    registered: Registered, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd

    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(registered.config.tracking_uri))
    model = mlflow.pyfunc.load_model(f"models:/{registered.model.name}@champion")
    task = registered.model.name.removeprefix("e2eft-")
    rgb = [decode_rgb(images[number]) for number in (0, 2)]
    answers = model.predict({"image": [*rgb, rgb[0].astype(np.float32), "text"]})
    assert answers["error_code"].tolist() == ["", "", *["decode_unsupported"] * 2]
    direct = model.unwrap_python_model().predict_arrays(rgb[0][None])
    assert np.abs(direct[0] - answers[task][0]).max() < 1e-5
    assert answers[task][1].shape[:2] == rgb[1].shape[:2]
    alone = model.predict(pd.DataFrame({"image": [rgb[1]]}, index=["row"]))
    assert alone.index.tolist() == ["row"]
    assert np.abs(alone[task].iloc[0] - answers[task][1]).max() < 1e-5
    smaller = model.predict({"image": [images[0]]}, params={"processing_size": 16, "seed": 3})
    meta = json.loads(smaller["meta"][0])
    assert max(meta["processing_size"]) == 16 and meta["sampling"]["seed"] == 3


def test_nothing_in_the_images_raises(
    registered: Registered, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from e2eft import serve

    model = serve.GeometryModel().load(registered.model.folder)
    narrow = io.BytesIO()
    Image.new("RGB", (2000, 10)).save(narrow, "PNG")
    bad = [b"", b"GIF89a", None, 3.5, np.zeros((4, 4, 3), np.uint8), narrow.getvalue()]
    import pandas as pd

    answers = model.predict(None, pd.DataFrame({"image": [*bad, images[0]]}))
    codes = answers["error_code"].tolist()
    assert codes.pop(1).startswith("decode_")
    refused = ["empty_file", "decode_unsupported", "decode_unsupported", "too_small"]
    assert codes == [*refused, "aspect_extreme", ""]

    def breaks_on_one(estimator: object, task: object, prepared: list[PreparedImage], *a: object):
        if any(image.rgb.shape[:2] == (36, 48) for image in prepared):
            raise RuntimeError("no kernel for this image")
        return [np.full(image.rgb.shape[:2], 0.5, np.float32) for image in prepared]

    if registered.model.name == "e2eft-depth":
        monkeypatch.setattr(serve, "predict", breaks_on_one)
        answers = model.predict(None, pd.DataFrame({"image": [images[0], images[2]]}))
        assert answers["error_code"].tolist() == ["internal_error", ""]
        assert "no kernel" in json.loads(answers["meta"][0])["detail"]
        with pytest.raises(ValueError, match=r"1 of 1 images have no answer.*no kernel"):
            model.predict_arrays(decode_rgb(images[0])[None])


def test_a_request_out_of_bounds_is_refused_and_one_bad_cell_is_not(
    registered: Registered, images: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd

    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(registered.config.tracking_uri))
    model = mlflow.pyfunc.load_model(f"models:/{registered.model.name}@champion")
    one = {"image": [images[0]]}
    for params, said in (
        ({"steps": 1001}, "steps 1001: expected a whole number from 0 to 1000"),
        ({"steps": -1}, "steps -1: expected"),
        ({"processing_size": 4097}, "processing_size 4097: expected a whole number from 0 to 4096"),
        ({"processing_size": -8}, "processing_size -8: expected"),
        ({"seed": -1}, "seed -1: expected"),
    ):
        with pytest.raises(mlflow.MlflowException, match=said) as error:
            model.predict(one, params=params)
        assert error.value.error_code == "INVALID_PARAMETER_VALUE"
    with pytest.raises(mlflow.MlflowException, match="257 images; send at most 256"):
        model.predict({"image": [b""] * 257})
    # More than are decoded at once, each in its row.
    cells = [images[0], *[b""] * 40, images[0]]
    answers = model.predict(pd.DataFrame({"image": cells}))
    assert answers["error_code"].tolist() == ["", *["empty_file"] * 40, ""]

    from e2eft import serve

    def breaks(content: bytes, max_pixels: int, longest_px: int | None) -> Any:
        raise MemoryError if content == b"big" else OSError("no such codec")

    own = serve.GeometryModel().load(registered.model.folder)
    with pytest.raises(ImageError, match="send processing_size, at most 4096"):
        serve.read_request(np.zeros((32, 5000, 3), np.uint8), None, 0)
    monkeypatch.setattr(serve, "decode_image", breaks)
    rows = own.predict(None, pd.DataFrame({"image": [b"big", b"odd", np.zeros((48, 48, 3), "u1")]}))
    assert rows["error_code"].tolist() == ["model_oom", "internal_error", ""]
    assert json.loads(rows["meta"][1])["detail"] == "no such codec"


def test_the_same_files_are_the_same_version(
    registered: Registered, capfd: pytest.CaptureFixture[str]
) -> None:
    config, model = registered.config, registered.model
    run = start_run(config, "again", "again", {})
    again = register_model(config, run, model.name, model.folder)
    assert again.version == model.version
    (model.folder / "README.md").write_text("changed")
    changed = register_model(config, run, model.name, model.folder)
    (model.folder / "README.md").unlink()
    run.finish()
    assert int(changed.version) == int(model.version) + 1
    assert capfd.readouterr() == ("", "")
    assert resolve_version(config, f"models:/{model.name}@challenger")[1] == changed.version
    assert resolve_version(config, f"models:/{model.name}@champion")[1] == model.version


def test_models_go_to_the_tracking_server_whatever_else_the_process_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    (port,) = free_ports(1)
    elsewhere = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", elsewhere)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere)
    mlflow.set_registry_uri(elsewhere)
    mlflow.set_tracking_uri(f"{elsewhere}/tracking")
    try:
        here = register(
            tmp_path, "depth", TrackingConfig(tracking_uri=f"sqlite:///{tmp_path}/m.db")
        )
        fetched = download_model(here.config, "models:/e2eft-depth@champion", tmp_path / "copy")
        assert fetched.version == here.model.version
        assert mlflow.get_tracking_uri() == f"{elsewhere}/tracking"
        assert mlflow.get_registry_uri() == os.environ["MLFLOW_REGISTRY_URI"] == elsewhere
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        mlflow.set_registry_uri(None)  # type: ignore[arg-type]


def test_a_server_with_object_storage_registers_and_hands_out_models(
    mlflow_server: MlflowServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    registered = register(tmp_path, "depth", TrackingConfig(tracking_uri=mlflow_server.uri))
    assert "of model 'e2eft-depth'" not in capsys.readouterr().err, "MLflow's own words"
    fetched = download_model(registered.config, "models:/e2eft-depth@champion", tmp_path / "here")
    assert fetched.uri == f"models:/e2eft-depth/{registered.model.version}"
    assert tmp_path / "here" in fetched.folder.parents
    for path in registered.model.folder.rglob("*"):
        if path.is_file():
            relative = path.relative_to(registered.model.folder)
            assert (fetched.folder / relative).read_bytes() == path.read_bytes()
    load_estimator(find_model(str(fetched.folder)))


def test_evaluation_registers_promotes_and_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three candidates: the first is champion at once, a worse one is not, a better one is."""
    from e2eft.evaluate import job

    monkeypatch.setattr(
        job,
        "_rows_as_they_come",
        lambda function, chunks, task, _: (
            row for chunk in chunks for row in function(chunk, task)
        ),
    )
    tracking = TrackingConfig(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    frames = [make_frame(number) for number in range(6)]
    shards = write_shards(tmp_path / "shards", frames, [6])
    source = find_model("blank", tmp_path)
    estimator = load_estimator(source, ModelConfig())
    outcomes = []
    for number, power in enumerate((2.0, 3.0, 1.2)):
        card = ModelCard(task="depth", processing_size=32 + number)
        folder = export_model(estimator, source, tmp_path / f"model-{number}", card)
        predictions = {frame.key: affine(frame) ** power for frame in frames}
        labels = write_labels(tmp_path / f"labels-{number}", "depth", predictions, shards)
        config = config_of(tmp_path / f"scores-{number}", "depth", [shards], tracking=tracking)
        config = config.model_copy(update={"register_as": "candidate"})
        scores = evaluate.run(config, [labels.uri])
        outcomes.append(evaluate.register(config, scores, folder, card.as_json()))
    assert [bool(outcome) for outcome in outcomes] == [True, False, True]
    assert resolve_version(tracking, "models:/candidate@champion") == ("candidate", "3")
    assert resolve_version(tracking, "models:/candidate@challenger") == ("candidate", "3")

    others = write_shards(tmp_path / "others", [make_frame(n, "other") for n in range(4)], [4])
    predictions = {f"other/{n:04d}": affine(make_frame(n, "other")) for n in range(4)}
    maker = Parent("model", "models:/candidate/3", "digest")
    labels = write_labels(tmp_path / "l", "depth", predictions, others, model=maker)
    config = config_of(tmp_path / "s", "depth", [others], tracking=tracking)
    found = evaluate.score_of(evaluate.run(config, [labels.uri]))
    assert found.terms["labelled"] == {"sampling": {"seed": 0}}  # the model's own steps
    worse = replace(found, value=0.5, scores_digest="0" * 64)
    answer = promote_if_better(tracking, "candidate", "2", worse)
    assert not answer and "version 3 stays champion" in answer.reason and "0.5" in answer.reason
    # With another sampling the champion has no score, and keeps the one that it has.
    leading = write_labels(
        tmp_path / "leading", "depth", predictions, others, model=maker,
        sampling=SamplingConfig(spacing="leading"),
    )  # fmt: skip
    config = config_of(tmp_path / "again", "depth", [others], tracking=tracking)
    again = evaluate.score_of(evaluate.run(config, [leading.uri]))
    assert again.terms_digest != found.terms_digest
    assert not promote_if_better(tracking, "candidate", "2", worse)
