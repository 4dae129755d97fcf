"""What was published: from where, under which protocol, and how a report shows it."""

import json
import re
from collections import Counter
from typing import Any, get_args

import pytest

from e2eft.config import EvaluateConfig, ProtocolName
from e2eft.evaluate.protocols import PROTOCOLS, protocol_of
from e2eft.evaluate.published import neighbours, published_rows
from e2eft.evaluate.report import write_report
from e2eft.evaluate.scores import SCORED, empty_row, summarize

SOURCE = re.compile(r"arXiv \d{4}\.\d{5}(v\d+)?, Table \S+")


def methods_of(protocol: str) -> set[str]:
    return {row.method for row in published_rows() if row.protocol == protocol}


def test_every_published_row_says_its_paper_its_table_and_its_protocol() -> None:
    known = {*PROTOCOLS, *(other.name for other in neighbours())}
    assert [*get_args(ProtocolName)] == [kind.name for kind in PROTOCOLS.values()]
    for row in published_rows():
        assert SOURCE.match(row.source), f"{row.method}: {row.source!r}"
        assert row.protocol in known and len(row.basis) > 20 and row.scores, row.method
    ours = {kind.name for kind in PROTOCOLS.values() if not kind.is_published}
    assert {row.protocol for row in published_rows()} == known - ours, "a protocol has none"


def test_a_published_cell_is_one_of_its_protocols_and_is_there_once() -> None:
    cells = Counter((r.protocol, r.method, cell) for r in published_rows() for cell in r.scores)
    assert not [cell for cell, count in cells.items() if count > 1]
    for other in neighbours():
        assert other.resembles in PROTOCOLS and other.name not in PROTOCOLS and other.differs
    for row in published_rows():
        like = {other.name: other.resembles for other in neighbours()}
        kind = PROTOCOLS[like.get(row.protocol, row.protocol)]
        for dataset, metric in row.scores:
            assert kind.rules(dataset) and metric in kind.metrics


def test_what_was_published_is_known_in_our_units() -> None:
    scores = {(row.protocol, row.method): row.scores for row in published_rows()}
    ours = scores["least-squares-depth", "Marigold, end to end"]
    assert ours["nyuv2", "abs_rel"] == pytest.approx(0.052)
    assert ours["diode", "delta1"] == pytest.approx(0.779)
    assert scores["pooled-pixels", "DSINE"]["sintel-normals", "pct_11_25"] == 21.5
    lotus = scores["least-squares-disparity", "Lotus-D"]
    assert lotus["kitti-eigen", "abs_rel"] == pytest.approx(0.081)
    dpt = scores["least-squares-disparity", "DPT"]
    assert dpt == {
        ("scannet", "abs_rel"): pytest.approx(0.082),
        ("scannet", "delta1"): pytest.approx(0.934),
    }
    marigold = scores["per-image-mean", "Marigold v1-1"]
    assert marigold["ibims-1-normals", "mean_deg"] == 16.3


def test_rows_are_where_their_own_code_would_have_them() -> None:
    """Aligned in log space, in another space than a table's title says, or not known how."""
    assert methods_of("ransac-log-depth") == {
        "Pixel-Perfect Depth (512)",
        "Pixel-Perfect Depth (1024)",
        "Pixel-Perfect Depth (1024, MoGe-2)",
    }
    assert {"Lotus-D", "Lotus-G", "Lotus-2"} < methods_of("least-squares-disparity")
    assert methods_of("least-squares-depth-lapis") >= {"Lapis", "Pixel-Perfect Depth"}
    assert not any("DepthFM" in method for method in methods_of("least-squares-depth"))
    assert "Marigold V2" not in methods_of("pooled-pixels") | methods_of("per-image-mean")


def report_of(name: str, *domains: str) -> str:
    """Of one scored image of each dataset, all scores 0.5."""
    config = EvaluateConfig.model_validate(
        {
            "out": "o",
            "task": PROTOCOLS[name].task,
            "data": ("d",),
            "labels": ("l",),
            "protocol": name,
        }
    )
    protocol = protocol_of(config, domains)
    rows: list[dict[str, Any]] = [
        empty_row(protocol)
        | {"domain": domain, "status": SCORED, "pixels": 9}
        | dict.fromkeys(protocol.metrics, 0.5)
        for domain in domains
    ]
    summary = summarize(rows, protocol, 20) | {"data": [], "labels": []}
    return write_report(json.loads(json.dumps(summary)), protocol, [])


def test_a_report_does_not_set_marigold_v2s_scores_beside_pixel_perfect_depths() -> None:
    report = report_of("ransac-log-depth", "nyuv2", "eth3d")
    beside = report[report.index("## Beside published scores") :]
    rows = [line for line in beside.splitlines() if "| published: " in line]
    assert [row.split(" | ")[0] for row in rows] == [
        "| Pixel-Perfect Depth (512)",
        "| Pixel-Perfect Depth (1024)",
        "| Pixel-Perfect Depth (1024, MoGe-2)",
    ]
    assert rows[2] == (
        "| Pixel-Perfect Depth (1024, MoGe-2) | 0.0330 | 0.9820 | 0.0300 | 0.9910 | published: "
        "arXiv 2510.07316, Table in the README of its code at 427a86f |"
    )
    (apart,) = (line for line in beside.splitlines() if line.startswith("Not beside it"))
    assert "Marigold V2, FE2E, Lotus-2, InfiniDepth in arXiv 2609.08084, Table 1" in apart
    assert "ETH3D seen at 1008 x 672" in apart and "Eigen's window" in apart


def test_a_report_shows_the_methods_that_were_scored_on_its_data() -> None:
    diode, nyu = (report_of("least-squares-depth-lapis", name) for name in ("diode", "nyuv2"))
    assert "| Marigold v1-1 | 0.1010 | 0.9100 | published: arXiv 2608.30129, Table 1 |" in diode
    assert "| Lapis | 0.0380 | 0.9820 |" in nyu and "| Marigold v1-1" not in nyu
    assert "diode: unknown depth counts as 0" in diode
    disparity = "least-squares-disparity"
    lines = report_of(disparity, "scannet").splitlines()
    assert "| DPT | 0.0820 | 0.9340 | published: arXiv 2312.02145, Table 1 |" in lines
    lines = report_of(disparity, "nyuv2").splitlines()
    assert not [line for line in lines if line.startswith("| DPT")]
    assert sum(line.startswith("| **this run** |") for line in lines) == 1
    assert "## Beside published scores" not in report_of(disparity, "synthetic-indoor")
