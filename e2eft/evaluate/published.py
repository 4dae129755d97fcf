"""Published scores, as data: `published.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class PublishedTable:
    """Scores of one source under one protocol.

    scores: by method, then (dataset, metric), in our units: fractions, metres, degrees, percent.
    """

    protocol: str
    source: str
    metrics: tuple[str, ...]
    sets: tuple[str, ...]
    scores: dict[str, dict[tuple[str, str], float]]


@cache
def published_tables(protocol: str) -> tuple[PublishedTable, ...]:
    """What is known of a protocol, by its name."""
    text = files("e2eft.evaluate").joinpath("published.toml").read_text()
    tables = (_table(entry) for entry in tomllib.loads(text)["table"])
    return tuple(table for table in tables if table.protocol == protocol)


def _table(entry: dict[str, Any]) -> PublishedTable:
    cells = [(dataset, metric) for dataset in entry["sets"] for metric in entry["metrics"]]
    unit = 100 if entry.get("percent") else 1
    scores = {
        method: {
            cell: number / unit
            for cell, number in zip(cells, numbers, strict=True)
            if number != "-"
        }
        for method, numbers in entry["rows"].items()
    }
    fixed = (entry["protocol"], entry["source"], tuple(entry["metrics"]), tuple(entry["sets"]))
    return PublishedTable(*fixed, scores)
