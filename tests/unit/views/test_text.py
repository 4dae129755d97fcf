import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from e2eft.views.text import drawable, fitted, font, quantity


@settings(deadline=None)
@given(st.text(st.characters(codec=None), max_size=40))
def test_any_string_becomes_one_line_that_the_font_has(text: str) -> None:
    shown = drawable(text)
    assert all((32 <= ord(c) < 127) or c in "·°±…" for c in shown)
    ImageDraw.Draw(Image.new("L", (40, 20))).text((0, 0), shown, 255, font(12))


def test_the_signs_in_use_have_glyphs_of_their_own() -> None:
    # The box that stands for a missing glyph is the same for every one of them.
    missing = bytes(font(24).getmask("漢"))
    glyphs = {bytes(font(24).getmask(sign)) for sign in "·°±…"}
    assert len(glyphs) == 4 and missing not in glyphs


def test_accents_go_and_strangers_are_marked() -> None:
    assert drawable("Zürich 36° … 漢\n") == "Zurich 36° … ??"


@settings(deadline=None)
@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60), st.integers(0, 300)
)
def test_fitted_fits_and_keeps_both_ends(text: str, width_px: int) -> None:
    shown = fitted(text, width_px, 12)
    assert font(12).getlength(shown) <= width_px
    if shown != text and shown:
        front, _, back = shown.partition("…")
        assert text.startswith(front) and text.endswith(back)
        assert 0 <= len(front) - len(back) <= 1


def test_fitted_cuts_no_more_than_it_must() -> None:
    text = "indoor/a_long_folder/frame_000123"
    room = int(font(12).getlength(text))
    assert fitted(text, room + 1, 12) == text
    assert len(fitted(text, room - 1, 12)) >= len(text) - 2
    assert fitted(text, 100, 12).endswith("0123")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "", "0"),
        (0.052, "", "0.052"),
        (0.3, "", "0.30"),
        (2.844, "m", "2.84 m"),
        (9.999, "m", "10.0 m"),
        (17.46, "m", "17.5 m"),
        (123.4, "m", "123 m"),
        (45.0, "°", "45.0°"),
        (-1.5, "m", "-1.50 m"),
    ],
)
def test_quantity(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text
