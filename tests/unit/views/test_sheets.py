import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from e2eft.views.colour import ERROR, colour_depth, colour_error, colour_normals
from e2eft.views.sheets import Tile, contact_sheet, depth_panel, normals_panel, stack_rows

H, W = 128, 160
RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (H, W, 3), dtype=np.uint8)
DEPTH_M = RNG.uniform(1, 9, (H, W)).astype(np.float32)
NORMALS_CAM = np.dstack([np.zeros((H, W)), np.full((H, W), -0.6), np.full((H, W), -0.8)])
NORMALS_CAM[:, 80:] = (0, 0, -1)
FULL = Tile(
    key="indoor/000001", kind="synthetic", rgb=RGB, depth_m=DEPTH_M, normals_cam=NORMALS_CAM
)


def places(sheet: Image.Image, picture: np.ndarray) -> list[tuple[int, int]]:
    """Where (left, top) `picture` lies in `sheet`, pixel for pixel."""
    pixels = np.asarray(sheet)
    height, width = picture.shape[:2]
    corners = (pixels[: -height or None, : -width or None] == picture[0, 0]).all(axis=-1)
    return [
        (int(x), int(y))
        for y, x in zip(*np.nonzero(corners), strict=True)
        if (pixels[y : y + height, x : x + width] == picture).all()
    ]


def test_a_tile_shows_image_depth_and_normals_side_by_side_unblurred() -> None:
    sheet = contact_sheet([FULL], depth_range_m=(1.0, 9.0))
    shown = [RGB, colour_depth(DEPTH_M, near=1.0, far=9.0), colour_normals(NORMALS_CAM)]
    (a,), (b,), (c,) = (places(sheet, picture) for picture in shown)
    assert a[1] == b[1] == c[1]
    assert b[0] - a[0] == c[0] - b[0] > W
    assert sheet.width >= c[0] + W and sheet.height >= c[1] + H


def test_a_caption_stands_above_and_a_legend_below() -> None:
    sheet = contact_sheet([FULL])
    ((left, top),) = places(sheet, RGB)
    pixels = np.asarray(sheet)
    assert pixels[:top].min() < 100
    assert pixels[top + H :].min() < 150
    assert (pixels[:, :left] == 255).all()


def test_without_a_shared_range_a_tile_has_its_own() -> None:
    doubled = Tile(key="b", rgb=RGB, depth_m=2 * DEPTH_M)
    sheet = contact_sheet([FULL, doubled])
    assert len(places(sheet, colour_depth(DEPTH_M))) == 2
    shared = contact_sheet([FULL, doubled], depth_range_m=(1.0, 18.0))
    assert len(places(shared, colour_depth(DEPTH_M, near=1.0, far=18.0))) == 1


@pytest.mark.parametrize(("side_px", "times"), [(160, 1), (319, 1), (320, 2), (480, 3)])
def test_small_frames_grow_by_whole_pixels(side_px: int, times: int) -> None:
    sheet = contact_sheet([Tile(key="a", rgb=RGB)], side_px=side_px)
    assert len(places(sheet, RGB.repeat(times, axis=0).repeat(times, axis=1))) == 1


def test_large_frames_shrink_by_whole_blocks() -> None:
    sheet = contact_sheet([Tile(key="a", rgb=RGB)], side_px=100)
    means = RGB.reshape(H // 2, 2, W // 2, 2, 3).mean(axis=(1, 3))
    small = contact_sheet([Tile(key="a", rgb=np.rint(means).astype(np.uint8))])
    assert sheet.size == small.size
    top = 24
    pictures = (np.asarray(s)[top : top + 64, 6:86].astype(int) for s in (sheet, small))
    assert np.abs(np.subtract(*pictures)).max() <= 1


def test_sizes_follow_the_grid() -> None:
    one = contact_sheet([FULL])
    for count, columns, across, down in [(4, 2, 2, 2), (5, 2, 2, 3), (3, 8, 3, 1), (3, 1, 1, 3)]:
        sheet = contact_sheet([FULL] * count, columns=columns)
        assert sheet.size == (one.width * across, one.height * down)
    bare = contact_sheet([Tile(key="a", rgb=RGB)])
    assert W <= bare.width < one.width - 2 * W
    mixed = contact_sheet([Tile(key="a", rgb=RGB), FULL])
    assert mixed.size == (one.width, bare.height + one.height)


def test_no_tile_of_a_grid_covers_another() -> None:
    block = contact_sheet([FULL])
    ((left, top),) = places(block, RGB)
    lattice = [(left + block.width * (i % 2), top + block.height * (i // 2)) for i in range(5)]
    assert places(contact_sheet([FULL] * 5, columns=2), RGB) == lattice


def test_depths_that_have_no_range_are_drawn_all_the_same() -> None:
    wall = np.full((H, W), 2.0, np.float32)
    sheet = contact_sheet([Tile(key="wall", rgb=RGB, depth_m=wall)])
    assert len(places(sheet, colour_depth(wall))) == 1
    unknown = np.full((H, W), np.nan, np.float32)
    sheet = contact_sheet([Tile(key="none", rgb=RGB, depth_m=unknown)])
    assert len(places(sheet, np.zeros((H, W, 3), np.uint8))) == 1


@settings(max_examples=30, deadline=None)
@given(st.text(st.characters(codec=None), max_size=200))
def test_no_key_can_break_or_widen_a_sheet(key: str) -> None:
    tile = Tile(key=key, kind=key, rgb=RGB[:20, :40])
    assert contact_sheet([tile]).size == contact_sheet([Tile(key="", rgb=tile.rgb)]).size


def test_a_sheet_refuses_what_it_cannot_lay_out() -> None:
    with pytest.raises(ValueError, match="at least one tile"):
        contact_sheet([])
    with pytest.raises(ValueError, match="columns = 0"):
        contact_sheet([FULL], columns=0)
    with pytest.raises(ValueError, match="side_px = 0"):
        contact_sheet([FULL], side_px=0)
    with pytest.raises(ValueError, match="depth_range_m"):
        contact_sheet([FULL], depth_range_m=(3.0, 3.0))
    with pytest.raises(ValueError, match="no rows"):
        stack_rows([])


def test_a_depth_panel_colours_the_prediction_by_the_range_of_the_truth() -> None:
    prediction_m = DEPTH_M * 1.2
    error = np.abs(prediction_m / DEPTH_M - 1)
    panel = depth_panel(RGB, DEPTH_M, prediction_m, error, "AbsRel 0.2", error_max=0.4)
    near_m, far_m = np.percentile(DEPTH_M.astype(float), (2, 98))
    shown = [
        RGB,
        colour_depth(DEPTH_M),
        colour_depth(prediction_m, near=near_m, far=far_m),
        colour_error(error, 0.4),
    ]
    lefts = [place[0] for picture in shown for place in places(panel, picture)]
    assert len(lefts) == 4 and lefts == sorted(lefts)


def test_a_prediction_that_misses_a_flat_wall_does_not_look_like_it() -> None:
    wall = np.full((H, W), 2.0, np.float32)
    panel = depth_panel(RGB, wall, wall + 1, np.full((H, W), 0.5), "")
    assert len(places(panel, colour_depth(wall))) == 1  # the truth only, not the prediction


def test_without_truth_the_prediction_has_its_own_range() -> None:
    unknown = np.full((H, W), np.nan, np.float32)
    panel = depth_panel(RGB, unknown, DEPTH_M, unknown, "no truth")
    assert len(places(panel, colour_depth(DEPTH_M))) == 1


def test_a_normals_panel_shows_degrees() -> None:
    prediction_cam = NORMALS_CAM[:, ::-1]
    error_deg = np.full((H, W), np.degrees(np.arccos(0.8)))
    error_deg[0] = np.nan
    panel = normals_panel(RGB, NORMALS_CAM, prediction_cam, error_deg, "a", error_max_deg=60.0)
    shown = [
        RGB,
        colour_normals(NORMALS_CAM),
        colour_normals(prediction_cam),
        colour_error(error_deg, 60.0),
    ]
    lefts = [place[0] for picture in shown for place in places(panel, picture)]
    assert len(lefts) == 4 and lefts == sorted(lefts)
    assert (np.asarray(panel) == ERROR[-1]).all(axis=-1).any()  # only its colour bar has it


def test_rows_stack_without_overlap() -> None:
    red, blue = Image.new("RGB", (30, 10), (255, 0, 0)), Image.new("RGB", (20, 5), (0, 0, 255))
    sheet = np.asarray(stack_rows([red, blue]))
    assert sheet.shape == (15, 30, 3)
    assert (sheet[:10] == (255, 0, 0)).all() and (sheet[10:, :20] == (0, 0, 255)).all()
    assert (sheet[10:, 20:] == 255).all()
