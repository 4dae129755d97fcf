import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from e2eft.views.colour import (
    ERROR,
    INVALID,
    SKY,
    SPECTRAL,
    colour_bar,
    colour_depth,
    colour_error,
    colour_normals,
    depth_range,
    normals_ball,
    ramp,
)

DARK_RED, PALE_YELLOW, BLUE = (158, 1, 66), (255, 255, 191), (94, 79, 162)


def colours_of(values: list[float], **options: float) -> list[tuple[int, ...]]:
    return [tuple(int(c) for c in p) for p in colour_depth(np.array([values]), **options)[0]]


def test_depth_runs_from_dark_red_through_yellow_to_blue() -> None:
    assert colours_of([2.0, 6.0, 10.0], near=2.0, far=10.0) == [DARK_RED, PALE_YELLOW, BLUE]


def test_every_published_colour_is_met_exactly_and_the_way_between_is_straight() -> None:
    assert [tuple(c) for c in ramp(SPECTRAL, np.arange(11) / 10)] == list(SPECTRAL)
    halfway = ramp(SPECTRAL, np.array(0.05)).astype(float)
    assert np.abs(halfway - np.mean(SPECTRAL[:2], axis=0)).max() <= 0.5


def test_beyond_the_ends_the_end_colours_stay() -> None:
    assert colours_of([-5.0, 1.9, 11.0, 1e30], near=2.0, far=10.0) == [DARK_RED] * 2 + [BLUE] * 2


@settings(deadline=None)
@given(st.lists(st.floats(0, 100, width=32), min_size=2, max_size=50))
def test_greater_depth_is_never_further_up_the_map(depths: list[float]) -> None:
    steps = [tuple(c) for c in ramp(SPECTRAL, np.arange(1001) / 1000)]
    places = {colour: i for i, colour in reversed(list(enumerate(steps)))}
    ordered = np.sort(np.array(depths, np.float32))
    found = [places[tuple(c)] for c in colour_depth(ordered[None], near=0.0, far=100.0)[0]]
    assert found == sorted(found)
    assert np.abs(np.array(found) / 10 - ordered).max() <= 0.3  # 1/1000 and repeated colours


def test_unknown_is_black_and_sky_light_grey_and_neither_is_a_depth() -> None:
    values = [1.0, np.nan, np.inf, -np.inf, 2.0]
    shown = colours_of(values, near=1.0, far=2.0)
    assert shown == [DARK_RED, INVALID, SKY, INVALID, BLUE]
    taken = {tuple(c) for c in ramp(SPECTRAL, np.arange(1001) / 1000)}
    assert not taken & {INVALID, SKY}


def test_valid_hides_depth_and_sky_and_keeps_them_out_of_the_range() -> None:
    depth = np.array([[1.0, 3.0, 900.0, np.inf, np.inf]])
    valid = np.array([[True, True, False, False, True]])
    shown = [tuple(c) for c in colour_depth(depth, valid)[0]]
    assert shown == [DARK_RED, BLUE, INVALID, INVALID, SKY]


def test_the_range_ignores_outliers_and_what_is_not_finite() -> None:
    depth = np.linspace(0, 100, 101).reshape(1, -1)
    assert depth_range(depth) == pytest.approx((2.0, 98.0))
    spoilt = np.append(depth, [[np.nan, np.inf, -np.inf]], axis=1)
    assert depth_range(spoilt) == pytest.approx((2.0, 98.0))
    assert np.isnan(depth_range(np.full((2, 2), np.nan))).all()


def test_one_single_depth_is_drawn_in_the_middle_colour() -> None:
    assert set(colours_of([7.0] * 5)) == {PALE_YELLOW}


def test_nothing_known_is_all_black() -> None:
    assert not colour_depth(np.full((3, 4), np.nan, np.float32)).any()


def test_depth_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match=r"far = 1\.0 .* near = 2\.0"):
        colour_depth(np.ones((2, 2)), near=2.0, far=1.0)
    with pytest.raises(ValueError, match=r"\(2, 2, 1\)"):
        colour_depth(np.ones((2, 2, 1)))
    with pytest.raises(ValueError, match=r"valid has shape \(3, 2\)"):
        colour_depth(np.ones((2, 2)), np.ones((3, 2), bool))


@pytest.mark.parametrize(
    ("normal_cam", "colour"),
    [
        ((0, 0, -1), (128, 128, 255)),  # a wall that faces the camera
        ((0, -1, 0), (128, 255, 128)),  # the floor
        ((0, 1, 0), (128, 0, 128)),  # the ceiling
        ((1, 0, 0), (255, 128, 128)),  # a wall on the left
        ((-1, 0, 0), (0, 128, 128)),
        ((np.nan, 0, -1), INVALID),
    ],
)
def test_normals_are_right_up_viewer(
    normal_cam: tuple[float, ...], colour: tuple[int, ...]
) -> None:
    assert tuple(colour_normals(np.array([[normal_cam]], np.float32))[0, 0]) == colour


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=3).filter(lambda v: np.hypot(*v[:2]) > 0.01))
def test_normals_can_be_read_back_within_rounding(direction: list[float]) -> None:
    normal_cam = np.array(direction) / np.linalg.norm(direction)
    code = colour_normals(normal_cam[None, None])[0, 0] / 127.5 - 1
    back = code * (1, -1, -1) / np.linalg.norm(code)
    assert np.degrees(np.arccos(np.clip(back @ normal_cam, -1, 1))) < 0.39


def test_normals_leave_their_input_alone_and_want_three_channels() -> None:
    normals_cam = np.full((2, 2, 3), np.nan)
    colour_normals(normals_cam)
    assert np.isnan(normals_cam).all()
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        colour_normals(np.zeros((2, 3)))


def lightness(srgb: np.ndarray) -> np.ndarray:
    """CIE L* (D65) of sRGB colours [n 3]."""
    linear = np.where(srgb <= 10.31475, srgb / 3294.6, ((srgb / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126729, 0.7151522, 0.0721750)
    return 116 * np.cbrt(luminance) - 16


def test_errors_rise_evenly_in_lightness_and_start_above_black() -> None:
    light = lightness(ramp(ERROR, np.linspace(0, 1, 41)).astype(float))
    steps = np.diff(light)
    assert light[0] > 20 and light[-1] > 95
    assert steps.min() > 0.6 * steps.mean() and steps.max() < 1.4 * steps.mean()


def test_errors_are_clipped_at_max_and_black_where_unknown() -> None:
    shown = colour_error(np.array([[0.0, 0.25, 0.5, 9.0, np.nan, np.inf]]), 0.5)[0]
    assert [tuple(c) for c in shown] == [
        ERROR[0], ERROR[4], ERROR[-1], ERROR[-1], INVALID, INVALID,
    ]  # fmt: skip


@pytest.mark.parametrize("limit", [0.0, -1.0, np.nan, np.inf])
def test_errors_want_a_positive_max(limit: float) -> None:
    with pytest.raises(ValueError, match="max = "):
        colour_error(np.zeros((2, 2)), limit)


def test_the_bar_shows_the_whole_map_between_its_ends() -> None:
    bar = np.asarray(colour_bar(SPECTRAL, 1.2, 8.4, "m", width_px=160, height_px=18))
    assert bar.shape == (18, 160, 3)
    middle = [tuple(c) for c in bar[4]]
    start, end = middle.index(DARK_RED), len(middle) - 1 - middle[::-1].index(BLUE)
    assert (bar[4, start : end + 1] == ramp(SPECTRAL, np.linspace(0, 1, end + 1 - start))).all()
    # Letters on both sides, on white.
    assert start > 20 and bar[:, :start].min() < 128 < 255 == bar[:, :start].max()
    assert end < 140 and bar[:, end + 1 :].min() < 128


def test_a_bar_without_room_for_text_is_colours_only() -> None:
    bar = np.asarray(colour_bar(SPECTRAL, 1.2, 8.4, "m", width_px=60, height_px=18))
    assert tuple(bar[9, 0]) == DARK_RED and tuple(bar[9, -1]) == BLUE


def test_a_bar_of_nothing_has_no_colours() -> None:
    bar = np.asarray(colour_bar(SPECTRAL, np.nan, np.nan, "m", width_px=160)).astype(int)
    assert bar.min() < 128  # it says so in words
    assert np.ptp(bar, axis=2).max() == 0


def test_the_ball_is_a_sphere_seen_from_the_front() -> None:
    ball = normals_ball(65)
    assert ball.shape == (65, 65, 4)
    assert tuple(ball[32, 32]) == (128, 128, 255, 255)
    assert (ball[[0, 0, -1, -1], [0, -1, 0, -1], 3] == 0).all()
    right, up = ball[32, 60], ball[4, 32]
    assert right[0] > 220 and right[1] == 128
    assert up[1] > 220 and up[0] == 128
