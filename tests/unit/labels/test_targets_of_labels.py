"""What labels of depth are affine in: said in every file and in the manifest, and read again."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2eft import evaluate, label
from e2eft.evaluate.pairing import how_made
from e2eft.labels import open_labels
from e2eft.model.card import CARD_NAME, ModelCard, parse_card
from e2eft.targets import LINEAR, DepthTarget, Disparity, LogDepth, SqrtDisparity, target_of
from e2eft.tasks import label_codec
from tests.corpora import write_plain_corpus
from tests.labelling import label_config, scored_here, without_cluster, write_model
from tests.scored_frames import config_of, make_frame, write_shards

__all__ = ["scored_here", "without_cluster"]

CASES = [
    (LINEAR, "affine_depth", "linear uint16: depth = value / 65535", "0 near, 1 far"),
    (LogDepth(), "affine_log_depth", "linear uint16: value = code / 65535", "linear in log depth"),
    (
        LogDepth(eps_m=1.0),
        "affine_shifted_log_depth",
        "linear uint16: value = code / 65535",
        "linear in shifted log depth",
    ),
    (Disparity(), "affine_disparity", "linear uint16: value = code / 65535", "0 far 1 near"),
    (SqrtDisparity(), "affine_sqrt_disparity", "linear uint16: value = code / 65535", "0 far"),
]


@pytest.mark.parametrize(("target", "kind", "encoding", "convention"), CASES)
def test_a_file_says_what_its_numbers_are(
    target: DepthTarget, kind: str, encoding: str, convention: str
) -> None:
    codec = label_codec("depth", target)
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    picture = codec.encode(values, {"key": "a"})
    text = Image.open(io.BytesIO(picture)).text  # type: ignore[attr-defined]
    assert target_of(json.loads(text["depth_target"])) == target
    assert text["kind"] == codec.kind == kind and text["encoding"] == encoding
    assert convention in text["convention"]
    np.testing.assert_allclose(codec.decode(picture), values, atol=1e-5)


def test_a_gallery_shows_what_is_near_in_one_colour_whatever_the_target_is() -> None:
    depth = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (8, 1))
    linear = label_codec("depth").figure(depth)
    disparity = label_codec("depth", Disparity()).figure(1 - depth)
    np.testing.assert_array_equal(linear.picture, disparity.picture)
    assert (linear.label, disparity.label) == ("depth", "1 - disparity")
    assert label_codec("depth", LogDepth()).figure(depth).label == "log depth"


def test_a_card_that_does_not_say_is_of_linear_depth_and_says_nothing() -> None:
    assert "depth_target" not in ModelCard("depth").as_json()
    assert parse_card('{"task": "depth"}', "a card").depth_target == LINEAR
    card = ModelCard("depth", depth_target=LogDepth(eps_m=0.01))
    assert parse_card(json.dumps(card.as_json()), "a card") == card
    assert card.digest() != ModelCard("depth").digest()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of log depth."""
    folder = write_model(tmp_path / "model", "depth")
    card = json.loads((folder / CARD_NAME).read_text())
    card["depth_target"] = LogDepth(eps_m=0.5).as_json()
    (folder / CARD_NAME).write_text(json.dumps(card))
    return folder


def test_labels_say_what_their_models_card_says(
    model: Path, tmp_path: Path, without_cluster: None
) -> None:
    images = write_plain_corpus(tmp_path / "images", 2)
    labels = label.run(label_config(images, tmp_path / "out", model))
    assert target_of(labels.details["depth_target"]) == LogDepth(eps_m=0.5)
    assert labels.details["kind"] == "affine_shifted_log_depth"
    index = open_labels(labels.uri)
    assert index.depth_target == LogDepth(eps_m=0.5) and index.kind == labels.details["kind"]
    (row, _) = index.rows()
    text = Image.open(io.BytesIO(index.store.read(row["depth_path"]))).text  # type: ignore[attr-defined]
    assert target_of(json.loads(text["depth_target"])) == index.depth_target
    page = labels.store.read("gallery.html").decode()
    assert "shifted log depth" in page
    assert how_made(index)["depth_target"] == labels.details["depth_target"], "for scores"


def test_another_programs_sqrt_disparity_is_scored_as_what_it_is(
    tmp_path: Path, scored_here: None
) -> None:
    frames = [make_frame(seed) for seed in range(2)]
    shards = write_shards(tmp_path / "shards", frames, [2])
    for frame in frames:
        depth_m = np.nan_to_num(frame.depth_m, nan=9, posinf=79).clip(0.1, 79)
        path = tmp_path / "tree" / f"{frame.key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (0.3 * depth_m**-0.5).astype("f4"))
    config = config_of(
        tmp_path / "s", "depth", [shards],
        protocol="least-squares-own-space", labels_kind="sqrt-disparity",
    )  # fmt: skip
    assert evaluate.primary_score(evaluate.run(config, [str(tmp_path / "tree")])).value < 1e-4


@pytest.mark.parametrize("protocol", ["least-squares-own-space", "least-squares-log-depth"])
def test_log_depth_is_perfect_where_it_is_fitted_as_log_depth(
    protocol: str, tmp_path: Path, scored_here: None
) -> None:
    frames = [make_frame(seed) for seed in range(2)]
    shards = write_shards(tmp_path / "shards", frames, [2])
    for frame in frames:
        depth_m = np.nan_to_num(frame.depth_m, nan=9, posinf=79).clip(0.1, 79)
        path = tmp_path / "tree" / f"{frame.key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (0.1 * np.log(depth_m) + 0.4).astype("f4"))
    config = config_of(
        tmp_path / "s", "depth", [shards], protocol=protocol, labels_kind="log-depth"
    )
    scores = evaluate.run(config, [str(tmp_path / "tree")])
    assert evaluate.primary_score(scores).value < 1e-4
    as_depth = config_of(
        tmp_path / "d", "depth", [shards],
        protocol="least-squares-own-space", labels_kind="depth",
    )  # fmt: skip
    scores = evaluate.run(as_depth, [str(tmp_path / "tree")])
    assert evaluate.primary_score(scores).value > 5e-3
