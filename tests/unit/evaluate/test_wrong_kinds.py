"""Predictions of another kind than they are said to be, or that a protocol cannot fit."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft import evaluate
from e2eft.artifacts import Artifact
from e2eft.evaluate.protocols import LeastSquaresDepth, LeastSquaresDisparity, RansacLogDepth
from e2eft.evaluate.protocols.depth import DepthProtocol
from e2eft.evaluate.scores import SUMMARY
from tests.labelling import scored_here
from tests.scored_frames import config_of, make_frame, write_shards

__all__ = ["scored_here"]
DISPARITY = {"protocol": "least-squares-disparity", "labels_kind": "disparity"}
FRAMES = [make_frame(number) for number in range(3)]


def known_depth(number: int) -> np.ndarray:
    return np.nan_to_num(FRAMES[number].depth_m, nan=9, posinf=9).clip(0.1, 80)


def evaluated(folder: Path, predictions: list[np.ndarray], **fields: Any) -> Artifact:
    """Scores of predictions for the first frames, as another program wrote them."""
    shards = write_shards(folder / "shards", FRAMES[: len(predictions)], [len(predictions)])
    for frame, prediction in zip(FRAMES, predictions, strict=False):
        path = folder / "tree" / f"{frame.key}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, prediction.astype(np.float32))
    config = config_of(folder / "scores", "depth", [shards], panels=0, **fields)
    return evaluate.run(config, [str(folder / "tree")])


@pytest.mark.usefixtures("scored_here")
def test_disparity_that_is_hardly_anywhere_positive_has_no_score_and_says_why(
    tmp_path: Path,
) -> None:
    few = -known_depth(1)
    few[5, 10:29] = 1 / known_depth(1)[5, 10:29]
    flat = np.where(np.arange(32) < 16, 2.0, -1 / known_depth(2))
    scores = evaluated(tmp_path, [1 / known_depth(0), few, flat], **DISPARITY)
    rows = evaluate.read_table(scores)[1].to_pylist()
    assert [row["status"] for row in rows] == ["scored", "no_fit", "no_fit"]
    assert rows[0]["abs_rel"] < 1e-3 and not evaluate.primary_score(scores).complete
    assert rows[1]["detail"] == (
        f"19 of {rows[1]['pixels']} scored pixels are positive, to which alone disparity is "
        "fitted; a fit needs 20"
    )
    assert rows[2]["detail"] == "every scored pixel that is positive is 2"
    assert "2 no fit" in scores.store.read("report.md").decode()


@pytest.mark.usefixtures("scored_here")
@pytest.mark.parametrize(
    ("inverted", "fields", "said"),
    [
        (2, {}, "far is near in 2 of 3 images: is it disparity? see --labels-kind"),
        (2, DISPARITY, "near is far in 2 of 3 images: is it depth? see --labels-kind"),
        (1, {}, ""),
        (1, DISPARITY, ""),
    ],
)
def test_predictions_that_the_fit_turns_upside_down_are_counted_and_asked_about(
    tmp_path: Path,
    inverted: int,
    fields: dict[str, Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    is_depth = "labels_kind" not in fields
    turned = [number < inverted for number in range(3)]
    predictions = [
        known_depth(number) if is_depth != turn else 1 / known_depth(number)
        for number, turn in enumerate(turned)
    ]
    scores = evaluated(tmp_path, predictions, **fields)
    assert evaluate.read_table(scores)[1]["inverted"].to_pylist() == turned
    summary = json.loads(scores.store.read(SUMMARY))
    assert summary["overall"]["inverted"] == summary["domains"]["plane"]["inverted"] == inverted
    report, printed = scores.store.read("report.md").decode(), capsys.readouterr().out
    if said:
        assert f"**{said[0].upper()}{said[1:]}**\n" in report and f"evaluate: {said}\n" in printed
    else:
        assert "--labels-kind" not in report + printed


@pytest.mark.parametrize("kind", [LeastSquaresDepth, LeastSquaresDisparity, RansacLogDepth])
def test_upside_down_is_a_negative_scale_in_the_space_of_the_fit(
    kind: type[DepthProtocol],
) -> None:
    frame, protocol = FRAMES[0], kind(80)
    noise = np.random.default_rng(0).normal(0, 0.3, frame.size)
    prediction = (protocol.space(known_depth(0)) + noise).astype(np.float32)
    scored = protocol.fitted(prediction, frame)
    scale = np.polyfit(prediction[scored], protocol.space(frame.depth_m[scored]), 1)[0]
    assert scale > 0 and not protocol.is_inverted(prediction, frame)
    assert protocol.is_inverted(prediction.max() + 1 - prediction, frame)
    assert not protocol.is_inverted(np.full(frame.size, 0.5), frame)
