"""Lists and tables as spreadsheets write them are the lists and tables that went in."""

import codecs
import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2eft.datasets import open_source
from e2eft.datasets.hypersim import HypersimSource
from e2eft.datasets.listed import FrameEntry, Listing, read_listing
from e2eft.datasets.reading.tables import is_true, words_of
from tests.hypersim_files import STANDARD, HypersimRelease, make_frame

LINES = ("test/a_1/rgb.png test/a_1/depth.png 518.8", "test/b/rgb.png test/b/depth.png 721.5")
LINE_ENDS = ("\v", "\f", "\x85", "\u2028", "\u2029")
BOM, BOM_16 = codecs.BOM_UTF8, codecs.BOM_UTF16_LE


def cells(delimiter: str, quote: str = "", padding: str = "") -> str:
    rows = ([f"{quote}{word}{quote}" for word in line.split()] for line in LINES)
    return "\r\n".join(delimiter.join(row) + padding for row in rows)


SPREADSHEETS = {
    "a mark": BOM + "\n".join(LINES).encode(),
    "line ends of Windows": "\r\n".join([*LINES, "", ""]).encode(),
    "line ends of old Macs": "\r".join(LINES).encode(),
    "a mark and line ends": BOM + "\r\n".join(LINES).encode(),
    "16 bits": BOM_16 + cells("\t").encode("utf-16-le"),
    "tabs": cells("\t").encode(),
    "commas": cells(",").encode(),
    "semicolons": BOM + cells(";").encode(),
    "empty cells and lines": (cells(";", padding=";;") + "\r\n;;;;\r\n\r\n").encode(),
    "commas and blanks": cells(", ").encode(),
    "semicolons between blanks": cells(";  ", padding=" ;").encode(),
    "quotes": cells(",", '"').encode(),
    "quotes and blanks": cells(" ", '"').encode(),
    "quotes after blanks": cells(", ", '"').encode(),
    "a declared delimiter": BOM + f"sep=;;\r\n{cells(';')}".encode(),
    "a delimiter that is only declared": f"sep=|\n{cells('|')}".encode(),
    **{f"lines that end with {end!a}": end.join(LINES).encode() for end in LINE_ENDS},
}


def listing(content: bytes, folder: Path) -> Listing:
    (folder / "list.txt").write_bytes(content)
    return read_listing(
        str(folder / "list.txt"),
        lambda words: FrameEntry(words[0], (words[1],), tuple(words[2:])),
        "an image and its depth",
        "a.png b.png",
    )


@pytest.mark.parametrize("kind", SPREADSHEETS)
def test_a_list_from_a_spreadsheet_names_the_same_frames(kind: str, tmp_path: Path) -> None:
    plain = listing("\n".join(LINES).encode(), tmp_path)
    found = listing(SPREADSHEETS[kind], tmp_path)
    assert found.frames == plain.frames and found.listed == plain.listed == 2
    assert found.frames[0].image == "test/a_1/rgb.png" and found.frames[1].notes == ("721.5",)


def test_words_with_commas_among_blanks_stay_whole() -> None:
    assert words_of("a,1.png  b;2.png ") == ["a,1.png", "b;2.png"]
    assert words_of('"a b.png";c.png') == ["a b.png", "c.png"]
    assert words_of("corridor_01;;") == ["corridor_01"] and words_of(" ;; ") == []


@pytest.mark.parametrize("line", ['"a.png b.png', '"a.png"b.png c.png', '"a.png', "a.png\0 b.png"])
def test_a_line_whose_quotes_do_not_close_is_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 2: .*quotes|list\.txt cannot be read") as error:
        listing(f"{LINES[0]}\n{line}\n{LINES[1]}".encode(), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"\xff\xfea", b"a.png b.png\xe9\n", b"\x89PNG\r\n\x1a\n"])
def test_a_list_that_is_no_text_is_named(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--list .*list\.txt cannot be read: .*no text") as error:
        listing(content, tmp_path)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> HypersimSource:
    """Three frames of two splits, and one that is excluded."""
    folder = tmp_path_factory.mktemp("published")
    made = HypersimRelease(cameras={"ai_001_001": STANDARD})
    for number, split in enumerate(("train", "test", "train")):
        made.add("ai_001_001", "cam_00", number, make_frame(1, STANDARD), split=split)
    made.exclude("ai_001_001", "cam_00", 3)
    split, cameras = map(str, made.write_tables(folder))
    root = made.write_folders(folder / "root")
    return HypersimSource(root=str(root), split_csv=split, camera_csv=cameras)


def edited(
    published: HypersimSource, folder: Path, edit: Callable[[str], str], mark: bytes = b""
) -> HypersimSource:
    """The same, the tables of which a spreadsheet has written anew."""
    names = ("split_csv", "camera_csv")
    for name in names:
        content = edit(Path(getattr(published, name)).read_text())
        (folder / name).write_bytes(mark + content.encode())
    return published.model_copy(update={name: str(folder / name) for name in names})


EDITS: dict[str, Any] = {
    "as published": lambda text: text,
    "capitals": lambda text: text.replace("True", "TRUE").replace("False", "FALSE"),
    "numbers": lambda text: text.replace("True", "1").replace("False", "0"),
    "line ends": lambda text: "\r\n".join(text.splitlines()) + "\r\n\r\n",
    "semicolons": lambda text: text.replace(",", ";"),
    "tabs and empty cells": lambda text: text.replace(",", "\t").replace("\n", "\t\t\n") + "\t\t\n",
    "quotes": lambda text: text.replace("ai_001_001", '"ai_001_001"'),
    "a declared delimiter": lambda text: "sep=;\r\n" + text.replace(",", ";"),
    "blank lines before and between": lambda text: "\n" + text.replace("\n", "\n\n"),
    # A program that leaves out empty cells at the end: excluded frames are of no split.
    "no empty cells": lambda text: text.replace("REMOVAL,", "REMOVAL"),
    **{f"lines that end with {end!a}": lambda text, end=end: text.replace("\n", end)
       for end in LINE_ENDS},
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_tables_from_a_spreadsheet_have_the_same_frames(
    edit: str, published: HypersimSource, tmp_path: Path
) -> None:
    for mark in (b"", BOM):
        source = open_source(edited(published, tmp_path, EDITS[edit], mark))
        source.check_present()
        assert [sample.key for sample in source.decode(range(len(source)))] == [
            f"hypersim/ai_001_001/cam_00/frame-{number:04d}" for number in (0, 2)
        ]


@pytest.mark.parametrize(
    ("edit", "fields", "said"),
    [
        (lambda text: text, {"split": "val"},
         r"--split val: .* no public frame of it; its splits are train \(2\), test \(1\)$"),
        (lambda text: text.replace("True", "VRAI"), {},
         r"--split-csv .*, line 2, column included_\w+: 'VRAI'"),
        (lambda text: text.replace("False", "True").replace("True", "False"), {},
         r"--split train: .* its splits are none$"),
        (lambda text: text.replace("cam_00,2", "cam_00,2.5"), {},
         r"line 4, column frame_id: '2\.5' is no whole"),
        (lambda text: text.replace("frame_id", "frame"), {}, r"has no column 'frame_id'"),
        (lambda text: "", {}, r"--split-csv .* no column 'scene_name'; its columns are nothing"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_meant_is_named(
    edit: Callable[[str], str],
    fields: dict[str, str],
    said: str,
    published: HypersimSource,
    tmp_path: Path,
) -> None:
    table = tmp_path / "split.csv"
    table.write_text(edit(Path(published.split_csv).read_text()))
    config = published.model_copy(update={"split_csv": str(table), **fields})
    with pytest.raises(ValueError, match=said) as error:
        open_source(config).check_present()
    assert "\n" not in str(error.value)


def test_truth_values_are_those_that_are_written() -> None:
    assert [is_true(text) for text in ("True", "TRUE", "1", "yes")] == [True] * 4
    assert [is_true(text) for text in ("False", "FALSE", "0", "no")] == [False] * 4


SPLIT = (
    "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"
)
ROW = "ai_001_001,cam_00,{},True,,train"
STANDARD_ROW = ",".join(map(str, STANDARD.ravel().tolist()))
CAMERAS = ",".join(["scene_name", *(f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3))])


def written(table: Path, *lines: str) -> str:
    table.write_text("\n".join(lines), newline="")
    return str(table)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([ROW.format(0), ROW.format(7), ROW.format("007")],
         r"line 4: hypersim/ai_001_001/cam_00/frame-0007 was named before"),
        ([ROW.format(0), ROW.format(0).replace("train", "val")], "line 3: .* was named before"),
        ([ROW.format(0).replace("True", "False"), ROW.format(0)], "line 3: .* was named before"),
        ([ROW.format(0) + ROW.format(1), ROW.format(2)], "line 2 has 11 cells under 6 headings"),
        ([f"{ROW.format(0)},{ROW.format(1)}"], "line 2 has 12 cells under 6 headings"),
        ([ROW.format(0), f'"{ROW.format(1)}', ROW.format(2), f'{ROW.format(3)}"'],
         "line 3: its quotes cannot be read"),
        (['ai_001_001,cam_00,0,True,"moved', 'twice",train'], "line 2: its quotes cannot be read"),
        ([ROW.format(0), "ai_001_001,cam_00,1,True"], r"line 3, column split_part\w+: .*blank"),
        ([ROW.format(0), "ai_001_001,cam_00"], "line 3, column frame_id: the cell is blank"),
        ([ROW.format(0).replace("ai_001_001", "")], "line 2, column scene_name: the cell is blank"),
        *(([ROW.format(0), ROW.format(number)],
           f"line 3, column frame_id: '{re.escape(number)}' is no whole number such as 17")
          for number in ("1.0", "1E+00", "0_5", "-1", "+1", "\u0665")),
    ],
)  # fmt: skip
def test_a_table_of_splits_that_does_not_say_one_thing_is_refused(
    lines: list[str], said: str, tmp_path: Path
) -> None:
    table = written(tmp_path / "split.csv", SPLIT, *lines)
    with pytest.raises(ValueError, match=rf"^--split-csv {re.escape(table)}, {said}") as error:
        len(open_source(HypersimSource(root="r", split_csv=table)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        *(([f"ai_001_001,{STANDARD_ROW}", f"ai_002_001,{STANDARD_ROW}".replace("-1.0", number)],
           f"line 3, column M_cam_from_uv_22: '{number}' is no number")
          for number in ("nan", "inf", "1e400", "-1_0", "0x1")),
        ([f"ai_001_001,{STANDARD_ROW}".replace(",0.0,", ",,", 1)],
         "line 2, column M_cam_from_uv_01: the cell is blank"),
        ([f"ai_001_001,{STANDARD_ROW}", f"ai_001_001,{STANDARD_ROW}".replace("-1.0", "-2.0")],
         "line 3: scene ai_001_001 was named before"),
        ([f"ai_001_001,{STANDARD_ROW}".replace("-1.0", "-1e-320")],
         "line 2, scene ai_001_001: M_cam_from_uv is no camera"),
    ],
)  # fmt: skip
def test_a_table_of_cameras_that_are_none_is_refused(
    lines: list[str], said: str, tmp_path: Path
) -> None:
    split = written(tmp_path / "split.csv", SPLIT, ROW.format(0))
    table = written(tmp_path / "cameras.csv", CAMERAS, *lines)
    with pytest.raises(ValueError, match=rf"^--camera-csv {re.escape(table)}, {said}") as error:
        source = HypersimSource(root=str(tmp_path), split_csv=split, camera_csv=table)
        open_source(source).check_present()
    assert "\n" not in str(error.value)


def test_two_columns_of_one_heading_are_named(tmp_path: Path) -> None:
    table = written(tmp_path / "s", f"{SPLIT},frame_id", f"{ROW.format(0)},1")
    with pytest.raises(ValueError, match=rf"^--split-csv {table} has 2 columns 'frame_id'"):
        len(open_source(HypersimSource(root="r", split_csv=table)))


def zipped(member: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr(member, "<workbook/>")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped("xl/workbook.xml"), "it is an Excel file; save it as CSV"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(500), "it is an Excel file; save it as CSV"),
        (zipped("content.xml"), "it is a zip file, or a spreadsheet's own; save it as CSV"),
        (SPLIT.encode("utf-16-le"), r"it is no text in UTF-8 \(it has characters of code 0\)"),
    ],
)
def test_a_spreadsheets_own_file_is_named_as_a_list_and_as_a_table(
    content: bytes, said: str, tmp_path: Path
) -> None:
    table = tmp_path / "split.csv"
    table.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^--split-csv .*split\.csv cannot be read: {said}$"):
        len(open_source(HypersimSource(root="r", split_csv=str(table))))
    with pytest.raises(ValueError, match=rf"^--list .*list\.txt cannot be read: {said}$"):
        listing(content, tmp_path)
