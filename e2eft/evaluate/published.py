"""Published scores, as data: `published.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class PublishedRow:
    """Scores of one method, as one table of one paper prints them.

    protocol: under which they belong, and `basis` what says so.
    source: the paper and the table.
    scores: by (dataset, metric), in our units: fractions, metres, degrees, percent.
    """

    method: str
    protocol: str
    source: str
    basis: str
    scores: dict[tuple[str, str], float]


@dataclass(frozen=True)
class Neighbour:
    """A protocol that nothing here scores by, whose scores are easily taken for another's.

    resembles: the name of that other. differs: in what.
    """

    name: str
    resembles: str
    differs: str
    source: str
    methods: tuple[str, ...]


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Everything that is known, in the order of the file."""
    return tuple(row for table in _tables() for row in _rows(table))


@cache
def neighbours() -> tuple[Neighbour, ...]:
    return tuple(
        Neighbour(
            name=table["protocol"],
            resembles=table["resembles"],
            differs=table["differs"],
            source=table["source"],
            methods=tuple(table["rows"]),
        )
        for table in _tables()
        if "resembles" in table
    )


def _tables() -> list[dict[str, Any]]:
    text = files("e2eft.evaluate").joinpath("published.toml").read_text()
    return tomllib.loads(text)["table"]


def _rows(table: dict[str, Any]) -> list[PublishedRow]:
    cells = [(dataset, metric) for dataset in table["sets"] for metric in table["metrics"]]
    unit = 100 if table.get("percent") else 1
    said = {name: table[name] for name in ("protocol", "source", "basis")}
    return [
        PublishedRow(
            method,
            **said,
            scores={
                cell: number / unit
                for cell, number in zip(cells, numbers, strict=True)
                if number != "-"
            },
        )
        for method, numbers in table["rows"].items()
    ]
