"""What a summary says of rows: whatever their order, and of metrics that few images have."""

import json
import math
from typing import Any

import numpy as np
import pytest

from e2eft.evaluate.protocols import LeastSquaresDepth, PooledPixels, ScoringProtocol
from e2eft.evaluate.protocols.pooling import angle_histogram
from e2eft.evaluate.report import write_report
from e2eft.evaluate.scores import NOT_APPLICABLE, SCORED, empty_row, summarize
from e2eft.evaluate.tables import _difference
from e2eft.metrics.bootstrap import weighted_mean_interval


def rows_of(protocol: ScoringProtocol, count: int) -> list[dict[str, Any]]:
    """Rows of `count` images with random scores, of two domains in turns."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(count):
        row = empty_row(protocol) | {"key": f"{number:03d}", "domain": "ab"[number % 2]}
        row |= {"status": SCORED, "pixels": 7 + number, "dataset": "d"}
        for prefix in ("", "constant_"):
            row |= {prefix + name: generator.random() for name in protocol.metrics}
            if "histogram" in protocol.statistics:
                row[prefix + "histogram"] = angle_histogram(generator.random(7 + number) * 90)
        rows.append(row)
    return rows


def report_of(rows: list[dict[str, Any]], protocol: ScoringProtocol) -> str:
    summary = summarize(rows, protocol, 20) | {"data": [], "labels": []}
    return write_report(json.loads(json.dumps(summary)), protocol, [])


@pytest.mark.parametrize("protocol", [LeastSquaresDepth(80), PooledPixels()])
def test_no_number_depends_on_the_order_of_the_images(protocol: ScoringProtocol) -> None:
    rows = rows_of(protocol, 33)
    assert summarize(rows, protocol, 50) == summarize(rows[::-1], protocol, 50)


def test_a_metric_says_on_how_many_images_it_is_defined() -> None:
    protocol = LeastSquaresDepth(80)
    rows = rows_of(protocol, 6)
    for row in rows[1:]:
        row["boundary_f1"] = float("nan")
    metrics = summarize(rows, protocol, 20)["overall"]["metrics"]
    assert (metrics["abs_rel"]["images"], metrics["boundary_f1"]["images"]) == (6, 1)
    assert "boundary_f1" not in summarize(rows, protocol, 20)["domains"]["b"]["metrics"]
    (line,) = (x for x in report_of(rows, protocol).splitlines() if x.startswith("| boundary_f1"))
    cells = [cell.strip() for cell in line.split("|")]
    found = f"**{rows[0]['boundary_f1']:.4f}** (one image has no interval)"
    assert cells[2] == f"{found} (1 of 3 images)" and cells[6] == f"{found} (1 of 6 images)"
    assert cells[4] == "–" and "– where there are none" in report_of(rows, protocol)
    assert "– where there are none" not in report_of(rows_of(protocol, 6), protocol)


@pytest.mark.parametrize("protocol", [LeastSquaresDepth(80), PooledPixels()])
def test_one_image_has_no_interval(protocol: ScoringProtocol) -> None:
    metrics = summarize(rows_of(protocol, 1), protocol, 50)["overall"]["metrics"]
    assert all(not {"low", "high"} & numbers.keys() for numbers in metrics.values())
    assert metrics["median_deg" if protocol.task == "normals" else "rmse"]["mean"] > 0
    assert "(one image has no interval)" in report_of(rows_of(protocol, 1), protocol)
    mean, low, high = weighted_mean_interval(np.array([0.5]), np.ones(1), 20)
    assert mean == 0.5 and math.isnan(low) and math.isnan(high)
    assert _difference(mean, low, high) == "+0.5000 (one image has no interval)"


def test_a_frame_with_nothing_to_score_is_listed() -> None:
    protocol = LeastSquaresDepth(80)
    rows = rows_of(protocol, 3)
    rows[1] |= {"status": NOT_APPLICABLE, "detail": "no pixel in the protocol's range"}
    assert "- `001`: nothing_to_score, no pixel in the protocol's range" in report_of(
        rows, protocol
    )
