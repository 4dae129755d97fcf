"""Lists and tables of text, also as spreadsheets write them: byte-order marks, UTF-16, any line
end, quoted cells, semicolons or tabs in place of commas, empty cells and lines at the end, and a
first line such as `sep=;`. A line is a row, and a row with more than it should have is refused."""

from __future__ import annotations

import csv
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from e2eft.artifacts import sha256
from e2eft.datasets.reading.archives import read_uri
from e2eft.datasets.reading.numerals import number_of, whole_of
from e2eft.storage import StorageError

_DELIMITERS = "\t;,"
_DECLARED = re.compile(r'"?sep=(.)"?[;,\t ]*', re.IGNORECASE)
_TRUE, _FALSE = {"true", "1", "yes"}, {"false", "0", "no"}
_ZIP, _OLD_EXCEL, _EXCEL_MEMBER = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"xl/workbook"
Read = TypeVar("Read")


@dataclass(frozen=True)
class Line:
    """A line of a list that is not blank.

    where: what the list was given by, its URI and the line's number, for messages.
    """

    where: str
    text: str
    words: list[str]


@dataclass(frozen=True)
class Row:
    """A row of a table: its cells by heading. To read one that is not there, is blank or says
    something else raises ValueError, with the line and the column.

    where: as a `Line`'s.
    """

    where: str
    cells: dict[str, str]

    def text(self, column: str) -> str:
        return self._read(column, str)

    def whole(self, column: str) -> int:
        return self._read(column, whole_of)

    def number(self, column: str) -> float:
        return self._read(column, number_of)

    def truth(self, column: str) -> bool:
        return self._read(column, is_true)

    def _read(self, column: str, read: Callable[[str], Read]) -> Read:
        try:
            if not (text := self.cells.get(column)):
                raise ValueError("the cell is blank")
            return read(text)
        except ValueError as error:
            raise ValueError(f"{self.where}, column {column}: {error}") from None


def lines_of(content: bytes) -> list[str]:
    """The lines of a text file.

    Raises:
        ValueError: if it is none.
    """
    if content.startswith(_OLD_EXCEL) or (content.startswith(_ZIP) and _EXCEL_MEMBER in content):
        raise ValueError("it is an Excel file; save it as CSV")
    if content.startswith(_ZIP):
        raise ValueError("it is a zip file, or a spreadsheet's own; save it as CSV")
    is_utf16 = content.startswith((BOM_UTF16_LE, BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no text in UTF-8 ({error.reason} at byte {error.start})") from None
    if "\0" in text:
        raise ValueError("it is no text in UTF-8 (it has characters of code 0)")
    return text.splitlines()


def read_list(flag: str, uri: str) -> tuple[list[Line], str]:
    """The lines of a list, and the SHA-256 of the file.

    Args:
        flag: what the list was given by, for messages.

    Raises:
        ValueError: if the file, or a line's quotes, cannot be read.
    """
    lines, delimiter, digest = _read(flag, uri)
    found: list[Line] = []
    for number, line in enumerate(lines, start=1):
        where = f"{flag} {uri}, line {number}"
        try:
            words = words_of(line, delimiter)
        except ValueError as error:
            raise ValueError(f"{where}: {line.strip()!r}: {error}") from None
        if words:
            found.append(Line(where, line.strip(), words))
    return found, digest


def read_table(flag: str, uri: str, columns: Sequence[str]) -> list[Row]:
    """The rows of a table with a line of headings. Cells at a row's end may be left out, as some
    programs do with blank ones.

    Args:
        flag: as for `read_list`.
        columns: headings that must be there, once.

    Raises:
        ValueError: unless they are, or if the file cannot be read, or a row has more cells than
            there are headings.
    """
    lines, delimiter, _ = _read(flag, uri)
    rows = _rows(f"{flag} {uri}", lines, delimiter)
    _, headings = next(rows, ("", []))
    for column in columns:
        if (count := headings.count(column)) > 1:
            raise ValueError(f"{flag} {uri} has {count} columns {column!r}; leave one")
        if not count:
            there = ", ".join(headings[:6]) or "nothing"
            raise ValueError(f"{flag} {uri} has no column {column!r}; its columns are {there}, ...")
    found: list[Row] = []
    for where, cells in rows:
        if len(cells) > len(headings):
            raise ValueError(
                f"{where} has {len(cells)} cells under {len(headings)} headings; are these two "
                "rows? Put each on a line of its own"
            )
        found.append(Row(where, dict(zip(headings, cells, strict=False))))
    return found


def _rows(file: str, lines: list[str], delimiter: str | None) -> Iterator[tuple[str, list[str]]]:
    """Where each row is, and its cells, without those that are blank."""
    first = next(filter(str.strip, lines), "")
    delimiter = delimiter or max(",;\t", key=first.count)
    for number, line in enumerate(lines, start=1):
        where = f"{file}, line {number}"
        try:
            cells = _cells(line, delimiter)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        if cells:
            yield where, cells


def _read(flag: str, uri: str) -> tuple[list[str], str | None, str]:
    """The lines of a file, of which the one that declares the delimiter is blank; that delimiter;
    and the file's SHA-256."""
    try:
        content = read_uri(uri)
        lines = lines_of(content)
    except (StorageError, ValueError) as error:
        raise ValueError(f"{flag} {uri} cannot be read: {error}") from error
    declared = _DECLARED.fullmatch(lines[0]) if lines else None
    if declared is None:
        return lines, None, sha256(content)
    return ["", *lines[1:]], declared[1], sha256(content)


def words_of(line: str, delimiter: str | None = None) -> list[str]:
    """The words of a line, separated by the delimiter; without one by blanks, or, where there are
    none, as a spreadsheet does.

    Raises:
        ValueError: if a quote is not closed, or a quoted word has something beside it.
    """
    line = line.strip().rstrip(f"{_DELIMITERS} ")
    if delimiter is not None:
        return _words(line, delimiter)
    if '"' in line:
        return _words(line, f"{_DELIMITERS} ")
    words = line.split()
    if len(words) == 1:
        return _words(line, ";,")
    if all(word[-1] in ";," for word in words[:-1]):  # a blank after each
        return [bare for word in words if (bare := word.rstrip(";,"))]
    return words


def _words(line: str, delimiters: str) -> list[str]:
    """By the delimiter that gives most of them; empty ones are none."""
    rows: list[list[str]] = []
    for delimiter in delimiters:
        with suppress(ValueError):
            rows.append([cell for cell in _cells(line, delimiter) if cell])
    return max(rows, key=len) if rows else _cells(line, delimiters[0])  # which raises


def _cells(line: str, delimiter: str) -> list[str]:
    """Without the empty ones at the end."""
    reader = csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        cells = [cell.strip() for cell in next(reader, [])]
    except csv.Error as error:
        raise ValueError(
            f"its quotes cannot be read ({error}); a cell's quotes must open and close on one line"
        ) from None
    while cells and not cells[-1]:
        cells.pop()
    return cells


def is_true(text: str) -> bool:
    """A truth value as Python, a spreadsheet or a database writes it.

    Raises:
        ValueError: if it is none.
    """
    if (word := text.lower()) not in _TRUE | _FALSE:
        raise ValueError(f"{text!r} is neither True nor False")
    return word in _TRUE
