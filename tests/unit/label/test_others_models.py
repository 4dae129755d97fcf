"""Labels of others' models: which way normals point, their own steps and sizes, other cards."""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft import cli, label
from e2eft.artifacts import Artifact, ArtifactError
from e2eft.config import (
    Config,
    DataConfig,
    EndToEnd,
    EvaluateConfig,
    LabelConfig,
    ModelConfig,
    SamplingConfig,
    StageConfig,
    TrainConfig,
)
from e2eft.images.decoder import decode_image
from e2eft.label import LabelError, graph
from e2eft.labels.index import open_labels
from e2eft.model.backbones.sd_unet import write_model_index
from e2eft.model.card import CARD_NAME, ModelCard
from e2eft.model.hub import ModelError
from e2eft.model.pinned import as_input, pin_model
from e2eft.model.pretrained import export_source
from e2eft.serve import GeometryModel
from e2eft.tasks import label_codec
from e2eft.train import driver
from tests.corpora import write_plain_corpus
from tests.labelling import (
    label_config,
    run_graph_in_process,
    scored_here,
    without_cluster,
    write_model,
)
from tests.scored_frames import config_of as scoring_config
from tests.scored_frames import make_frame, write_shards
from tests.tiny_models import edit_json

__all__ = ["scored_here", "without_cluster"]
pytestmark = pytest.mark.usefixtures("without_cluster")

LEFT_UP = ModelCard("normals", initial_latent="zeros", axes="left-up-viewer")
RIGHT_UP = ModelCard("normals", initial_latent="zeros")
FLIP_X = np.array([-1, 1, 1], np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("made"), "depth")


def released(made: Path, folder: Path, pipeline: str, **index: Any) -> Path:
    """The same weights as others release them: without a card."""
    shutil.copytree(made, folder)
    (folder / CARD_NAME).unlink()
    write_model_index(folder, pipeline, **index)
    return folder


@pytest.fixture
def e2e_ft(made: Path, tmp_path: Path) -> Path:
    return released(made, tmp_path / "e2e-ft", "StableDiffusionPipeline")


@pytest.fixture
def marigold(made: Path, tmp_path: Path) -> Path:
    return released(
        made, tmp_path / "marigold", "MarigoldDepthPipeline", default_denoising_steps=2,
        default_processing_resolution=32,
    )  # fmt: skip


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_plain_corpus(tmp_path / "images", 2)


def card_file(place: Path, card: ModelCard) -> str:
    place.write_text(json.dumps(card.as_json()))
    return str(place)


def labels_of(artifact: Artifact) -> dict[str, np.ndarray]:
    index = open_labels(artifact.uri)
    return {key: index.read(row) for key, row in index.by_key().items()}


def processed(artifact: Artifact) -> list[int]:
    """The longest side at which the model saw each image."""
    rows = open_labels(artifact.uri).rows()
    return [max(row["processing_width"], row["processing_height"]) for row in rows]


def test_normals_of_a_released_e2e_ft_model_are_turned_and_a_card_says_otherwise(
    e2e_ft: Path, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "e2eft")
    config = label_config(images, tmp_path / "left", e2e_ft, task="normals")
    left = label.run(config)
    assert "read as a released E2E-FT model" in caplog.text and "left-up-viewer" in caplog.text
    assert "left-up-viewer" in left.details["target"]
    cards = {
        name: card_file(tmp_path / f"{name}.json", card)
        for name, card in (("same", LEFT_UP), ("right", RIGHT_UP))
    }
    given = {
        name: label.run(config.model_copy(
            update={"out": str(tmp_path / name), "model_card": place}))
        for name, place in cards.items()
    }  # fmt: skip
    normals, same, right = map(labels_of, (left, given["same"], given["right"]))
    for key, wanted in normals.items():
        assert np.abs(wanted[..., 0]).mean() > 0.05
        np.testing.assert_array_equal(same[key], wanted)
        np.testing.assert_array_equal(right[key] * FLIP_X, wanted)
    assert given["right"].details["model"]["card"]["axes"] == "right-up-viewer"
    assert left.parents == given["right"].parents  # the model is the same


def test_depth_of_a_released_e2e_ft_model_knows_no_axes(
    made: Path, e2e_ft: Path, images: Path, tmp_path: Path
) -> None:
    ours = label.run(label_config(images, tmp_path / "ours", made, native_size=True))
    theirs = label.run(label_config(images, tmp_path / "theirs", e2e_ft))
    for key, depth in labels_of(ours).items():
        np.testing.assert_array_equal(labels_of(theirs)[key], depth)


def test_labels_of_another_card_are_not_already_labelled(
    e2e_ft: Path, images: Path, tmp_path: Path
) -> None:
    config = label_config(images, tmp_path / "out", e2e_ft, task="normals")
    first = label.run(config)
    card = card_file(tmp_path / "card.json", RIGHT_UP)
    other = config.model_copy(update={"model_card": card})
    with pytest.raises(ArtifactError, match=r"card_digest None -> .*accepted: no --model-card"):
        label.run(other)
    assert label.run(config) == first
    anew = label.run(other.model_copy(update={"overwrite": True}))
    assert label.run(other) == anew
    card_file(tmp_path / "card.json", LEFT_UP)
    with pytest.raises(ArtifactError, match="accepted: another --model-card"):
        label.run(other)
    with pytest.raises(ArtifactError, match="accepted: another --model-card"):
        label.run(config)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"task": "normals", "axes": "up"}', 'axes "up" should be'),
        ("{", "is no JSON"),
        (None, "is not there"),
    ],
)
def test_a_card_that_cannot_be_read_deletes_nothing(
    content: str | None, said: str, e2e_ft: Path, images: Path, tmp_path: Path
) -> None:
    config = label_config(images, tmp_path / "out", e2e_ft, task="normals")
    first = label.run(config)
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    update = {"model_card": str(tmp_path / "card.json"), "overwrite": True}
    with pytest.raises(ValueError, match=rf"--model-card .*card\.json.*{said}"):
        label.run(config.model_copy(update=update))
    assert label.run(config) == first


def test_a_model_is_seen_at_its_own_size_in_its_own_steps(
    marigold: Path, images: Path, tmp_path: Path
) -> None:
    own = label.run(label_config(images, tmp_path / "own", marigold))
    assert processed(own) == [32, 32] and own.details["processing_size"] == 32
    assert own.details["sampling"] == SamplingConfig(steps=2, spacing="trailing").model_dump()
    asked = {"steps=2, at 32": {"processing_size": 32, "sampling": SamplingConfig(steps=2)},
             "one step": {"sampling": SamplingConfig(steps=1)},
             "native": {"native_size": True}}  # fmt: skip
    made = {
        name: labels_of(label.run(label_config(images, tmp_path / name, marigold, **changes)))
        for name, changes in asked.items()
    }
    for key, depth in labels_of(own).items():
        np.testing.assert_array_equal(made["steps=2, at 32"][key], depth)
        assert np.abs(made["one step"][key] - depth).max() > 1e-3
        assert np.abs(made["native"][key] - depth).max() > 1e-3


def test_labelling_and_serving_agree_on_a_models_own_defaults(
    marigold: Path, images: Path, tmp_path: Path
) -> None:
    labelled = label.run(label_config(images, tmp_path / "out", marigold, save_npy=True))
    index = open_labels(labelled.uri)
    model = GeometryModel().load(marigold)
    for row in index.rows():
        (answer,) = model._answer([(images / row["key"]).read_bytes()], {})
        meta = json.loads(answer["meta"])
        assert (meta["sampling"]["steps"], max(meta["processing_size"])) == (2, 32)
        np.testing.assert_allclose(
            label_codec("depth").decode(answer["depth"]), index.read(row), atol=2 / 65535
        )


def test_a_released_e2e_ft_model_is_registered_as_what_it_was_scored_as(
    e2e_ft: Path, images: Path, tmp_path: Path
) -> None:
    model = pin_model("m", "m", str(e2e_ft), tmp_path)
    assert export_source(model.source, tmp_path / "unneeded", model.card) == e2e_ft
    folder = export_source(model.source, tmp_path / "registered", LEFT_UP)
    served = GeometryModel().load(folder)
    labelled = label.run(label_config(images, tmp_path / "out", e2e_ft, task="normals"))
    index = open_labels(labelled.uri)
    (row,) = [row for row in index.rows() if row["key"] == "000.png"]
    content = (images / "000.png").read_bytes()
    (answer,) = served._answer([content], {})
    assert answer["normals"] and "left-up-viewer" in json.loads(answer["meta"])["target"]
    rgb = decode_image(content, 10**6).rgb
    (normals,) = served.predict_arrays(rgb[None])
    np.testing.assert_allclose(normals, index.read(row), atol=1e-3)


def as_before(config: Config) -> dict[str, Any]:
    """Its identity as version 2 had it."""
    identity = Config.identity(config)
    del identity["card_digest"]
    identity.pop("processing_px", None)
    identity["sampling"] |= {"steps": 1, "spacing": "trailing"}
    return identity


@pytest.mark.parametrize("task", ["depth", "normals"])
def test_a_base_of_others_is_told_and_which_way_its_normals_will_point(
    task: Any, e2e_ft: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "e2eft")
    config = TrainConfig(
        base=str(e2e_ft), out="o", task=task, objective=EndToEnd(), data=DataConfig(uris=("d",))
    )
    driver._require_trainable(config, as_input(config.base, "base"), deletes=True)
    assert "read as a released E2E-FT model" in caplog.text
    assert ("normals will be right-up-viewer" in caplog.text) is (task == "normals")
    none = config.model_copy(update={"model": ModelConfig(initial_latent="none")})
    with pytest.raises(ModelError, match=r"takes 8 channels, but this run gives it 4"):
        driver._require_trainable(none, as_input(config.base, "base"), deletes=False)


def begin_before(config: StageConfig, monkeypatch: pytest.MonkeyPatch, until: int = 2) -> None:
    """Begins a job as one of identity version 2; it is killed after some chunks."""

    def until_killed(*arguments: Any) -> Iterator[Any]:
        for number, rows in enumerate(run_graph_in_process(*arguments)):
            if number == until:
                raise KeyboardInterrupt
            yield rows

    with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
        patch.setattr(graph, "run_graph", until_killed)
        for kind in (LabelConfig, EvaluateConfig):
            patch.setattr(kind, "identity", as_before)
        cli.execute(config)
    for name in ("_claim.json", "manifest.json"):
        for file in Path(config.out).rglob(name):
            edit_json(file, identity_version=2)


def test_a_job_goes_on_with_the_steps_and_the_size_that_it_began_with(
    marigold: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_plain_corpus(tmp_path / "images", 6)
    config = label_config(images, tmp_path / "out", marigold, images_per_part=2)
    begin_before(config, monkeypatch)
    artifact = label.run(config)
    assert (artifact.details["sampling"]["steps"], artifact.details["processing_size"]) == (1, None)
    assert processed(artifact)[4:] == [64, 64]
    assert label.run(config) == artifact
    with pytest.raises(ArtifactError, match=r"--steps 1 -> 2"):
        label.run(config.model_copy(update={"sampling": SamplingConfig(steps=2)}))


def test_normals_that_were_begun_mirrored_are_not_gone_on_with(
    e2e_ft: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_plain_corpus(tmp_path / "images", 6)
    config = label_config(images, tmp_path / "out", e2e_ft, task="normals", images_per_part=2)
    begin_before(config, monkeypatch)
    with pytest.raises(LabelError, match="were taken for right-up-viewer, which they are not"):
        label.run(config)
    artifact = label.run(config.model_copy(update={"out": str(tmp_path / "other")}))
    assert artifact.counts["ok"] == 6


def test_normals_that_were_finished_mirrored_are_told(
    e2e_ft: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    config = label_config(images, tmp_path / "out", e2e_ft, task="normals")
    begin_before(config, monkeypatch, until=99)
    label.run(config)
    assert "have x to the left" not in caplog.text
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    del manifest["details"]["model"]["card"]["axes"]
    edit_json(tmp_path / "out/manifest.json", details=manifest["details"])
    label.run(config)
    assert "already labelled" in capsys.readouterr().out
    assert "have x to the left; label anew with another --out" in caplog.text


@pytest.fixture
def scoring(marigold: Path, tmp_path: Path, scored_here: None) -> EvaluateConfig:
    data = write_shards(tmp_path / "shards", [make_frame(number) for number in range(4)], [4])
    return scoring_config(tmp_path / "scores", "depth", [data], model=str(marigold), labels=())


def said_of_labels(scores: Artifact) -> tuple[dict[str, Any], str]:
    (labels,) = json.loads(scores.store.read("scores.json"))["labels"]
    (line,) = (
        line for line in scores.store.read("report.md").decode().splitlines() if "- labels" in line
    )
    return labels, line.partition("): ")[2]


def test_scores_are_of_a_models_own_steps_and_size_and_name_them(
    scoring: EvaluateConfig, tmp_path: Path
) -> None:
    labels, line = said_of_labels(cli.execute(scoring))
    assert (labels["sampling"]["steps"], labels["processing_size"]) == (2, 32)
    assert line == "2 steps, trailing, longest side 32 px"
    other = {"out": str(tmp_path / "one"), "sampling": SamplingConfig(steps=1, spacing="leading")}
    _, line = said_of_labels(cli.execute(scoring.model_copy(update=other)))
    assert line == "1 step, leading, longest side 32 px"


def test_scores_go_on_with_the_steps_that_they_began_with(
    scoring: EvaluateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_before(scoring, monkeypatch, until=0)
    shutil.rmtree(Path(scoring.out, "labels"))  # It was killed before they were begun.
    scores = cli.execute(scoring)
    assert said_of_labels(scores)[0]["sampling"]["steps"] == 1
    assert cli.execute(scoring) == scores


def test_scores_with_another_card_are_other_scores(scoring: EvaluateConfig, tmp_path: Path) -> None:
    scores = cli.execute(scoring)
    card = ModelCard("depth", steps=3, processing_size=48)
    given = scoring.model_copy(update={"model_card": card_file(tmp_path / "card.json", card)})
    with pytest.raises(ArtifactError, match=r"card_digest None -> .*accepted: no --model-card"):
        cli.execute(given)
    assert cli.execute(scoring) == scores
    made = cli.execute(given.model_copy(update={"out": str(tmp_path / "other")}))
    assert said_of_labels(made)[1] == "3 steps, trailing, longest side 48 px"


@pytest.mark.parametrize("stage", ["label", "evaluate"])
def test_a_card_on_the_command_line_is_a_file(stage: str) -> None:
    places = {"label": "depth --images i", "evaluate": "synthetic-depth --data d"}[stage]
    argv = f"{places} --out o --model m --model-card card.json".split()
    config: Any = cli.parse(stage, argv)
    assert (config.model_card, config.card_digest) == ("card.json", None)
    assert config.sampling == SamplingConfig()
