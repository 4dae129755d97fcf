"""Cards: what is read of them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from e2eft.config import SamplingConfig
from e2eft.model.card import ModelCard, given_card, parse_card
from e2eft.model.hub import ModelError

RIGHT = {"task": "depth", "steps": 4, "processing_size": 768}


@pytest.mark.parametrize(
    ("field", "value", "possible"),
    [
        ("task", "disparity", "'depth', 'normals' or 'image'"),
        ("initial_latent", "ones", "'zeros', 'gaussian', 'pyramid' or 'none'"),
        ("initial_latent", None, "'zeros', 'gaussian', 'pyramid' or 'none'"),
        ("spacing", "even", "'leading', 'trailing' or 'linspace'"),
        ("axes", "left", "'right-up-viewer', 'left-up-viewer' or 'opencv'"),
        ("steps", "four", "a valid integer"),
        ("steps", 0, "greater than or equal to 1"),
        ("steps", True, "a valid integer"),
        ("steps", 1.5, "a valid integer"),
        ("prompt_tokens", 3, "2 or 77"),
        *(("processing_size", px, "0 or from 8 to 4096") for px in (-1, 1, 7, 4097, 10_000_000)),
        ("processing_size", "768", "a valid integer"),
        ("target", 3, "a valid string"),
        ("full_z_range", "yes", "a valid boolean"),
        ("predicts", "v", "'', 'sample' or 'residual'"),
    ],
)
def test_a_value_that_is_not_known_is_named_with_those_that_are(
    field: str, value: Any, possible: str
) -> None:
    with pytest.raises(ModelError, match=r"^the card: ") as error:
        ModelCard.of(RIGHT | {field: value}, "the card")
    said = str(error.value)
    assert said.startswith(f"the card: {field} {json.dumps(value)} should be ")
    assert said.endswith(possible)


def test_a_card_says_its_task_and_nothing_that_is_not_known() -> None:
    with pytest.raises(ModelError, match=r"^the card: task is missing$"):
        ModelCard.of({"steps": 4}, "the card")
    assert ModelCard.of(RIGHT, "") == ModelCard("depth", steps=4, processing_size=768)
    for more in ({"Steps": 4}, {"processing-size": 768}, {"version": 99}, {"format": 2}):
        with pytest.raises(ModelError, match=r"^the card: .* they are task, target, ") as error:
            ModelCard.of(RIGHT | more, "the card")
        assert f"{json.dumps(*more)} is no field of a card" in str(error.value)
    for text in ("{", "[]", "3"):
        with pytest.raises(ModelError, match=r"^the card is no "):
            parse_card(text, "the card")


def test_a_cards_digest_is_of_what_it_says(tmp_path: Path) -> None:
    one, same, other = (tmp_path / name for name in ("one.json", "same.json", "other.json"))
    one.write_text(json.dumps(RIGHT))
    same.write_text(json.dumps(RIGHT | {"axes": "right-up-viewer"}, indent=4), "utf-8-sig")
    other.write_text(json.dumps(RIGHT | {"axes": "left-up-viewer"}))
    digests = [given_card(str(path))[1] for path in (one, same, other)]
    assert digests[0] == digests[1] != digests[2]
    assert given_card(None) == ("", None)
    with pytest.raises(ModelError, match=r"--model-card .*absent\.json is not there"):
        given_card(str(tmp_path / "absent.json"))
    other.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match=r"--model-card .*other\.json is no JSON"):
        given_card(str(other))


def test_what_is_left_open_is_the_models() -> None:
    card = ModelCard("depth", steps=4, spacing="leading")
    filled = card.filled(SamplingConfig(seed=3))
    assert filled == SamplingConfig(steps=4, spacing="leading", seed=3)
    asked = SamplingConfig(steps=1, spacing="trailing", initial_latent="zeros")
    assert card.filled(asked) == asked


def test_a_field_that_came_later_changes_no_digest() -> None:
    """Digests as version 1 made them, without `predicts`."""
    cards = {
        ModelCard("depth"): "8f60f863ac3a953d6e8246f7031849d7c6c3276c39bdbb818be0c7f80917e6a4",
        ModelCard(
            "normals", "unit", "pyramid", 3, "leading", 77, 640
        ): "482bbf07ea5433695f2142258b33017a258ba86417b58d1ab1c45b94172d5a4f",
    }
    for card, digest in cards.items():
        assert card.digest() == digest and "predicts" not in card.as_json()
        assert ModelCard.of(card.as_json(), "") == card
    later = ModelCard("depth", predicts="residual")
    assert ModelCard.of(later.as_json(), "") == later
    assert later.digest() not in cards.values()
