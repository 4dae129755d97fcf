"""Pooled statistics against all pixels in one list, and against averages over images."""

from typing import Any

import numpy as np
import pytest

from e2eft.data.sample import Sample
from e2eft.evaluate.protocols import PerImageMean, PooledPixels
from e2eft.evaluate.protocols.pooling import (
    BIN_DEG,
    angle_histogram,
    histogram_median_deg,
    unpack_histogram,
)


def frame_and_prediction(number: int) -> tuple[Sample, np.ndarray]:
    """Images of very different sizes and difficulties."""
    rng = np.random.default_rng(number)
    height, width = (6, 8) if number % 3 else (30, 40)
    truth = rng.normal(0, 1, (height, width, 3))
    truth /= np.linalg.norm(truth, axis=-1, keepdims=True)
    prediction = truth + rng.normal(0, 0.05 + 0.2 * number, truth.shape)
    prediction /= np.linalg.norm(prediction, axis=-1, keepdims=True)
    truth[rng.random((height, width)) < 0.2] = np.nan
    sample = Sample(
        key=f"{number}",
        source="sintel-normals",
        scene="s",
        rgb=np.zeros((height, width, 3), np.uint8),
        depth_m=np.ones((height, width), np.float32),
        normals_cam=truth.astype(np.float32),
        intrinsics_px=np.eye(3),
    )
    return sample, prediction.astype(np.float32)


def rows_and_angles(protocol: Any, count: int = 7) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    rows, angles = [], []
    for number in range(count):
        sample, prediction = frame_and_prediction(number)
        scored = protocol.scored(sample)
        rows.append(protocol.errors(prediction, sample) | {"pixels": int(scored.sum())})
        pairs = sample.normals_cam[scored].astype(float), prediction[scored].astype(float)
        lengths = [np.linalg.norm(normals, axis=1) for normals in pairs]
        cosine = (pairs[0] * pairs[1]).sum(1) / (lengths[0] * lengths[1])
        angles.append(np.rad2deg(np.arccos(np.clip(cosine, -1, 1))))
    return rows, angles


def definitions(angles: np.ndarray) -> dict[str, float]:
    percent = {f"pct_{name}": 100 * np.mean(angles < float(name.replace("_", ".")))
               for name in ("5", "7_5", "11_25", "22_5", "30")}  # fmt: skip
    return percent | {
        "mean_deg": angles.mean(),
        "median_deg": float(np.median(angles)),
        "rmse_deg": np.sqrt((angles**2).mean()),
    }


def test_pooled_is_over_all_pixels_and_per_image_over_images() -> None:
    pooled_rows, angles = rows_and_angles(PooledPixels())
    pooled = PooledPixels().summarize(pooled_rows, "", 0)
    for name, value in definitions(np.concatenate(angles)).items():
        tolerance = BIN_DEG if name == "median_deg" else 1e-6 * value
        assert pooled[name]["mean"] == pytest.approx(value, abs=tolerance), name
    image_rows, _ = rows_and_angles(PerImageMean())
    averaged = PerImageMean().summarize(image_rows, "", 0)
    each = [definitions(values) for values in angles]
    for name in each[0]:
        expected = np.mean([numbers[name] for numbers in each])
        assert averaged[name]["mean"] == pytest.approx(expected, rel=1e-6), name
    assert abs(averaged["mean_deg"]["mean"] - pooled["mean_deg"]["mean"]) > 1


def test_neither_order_nor_the_bootstrap_moves_a_pooled_number() -> None:
    rows, _ = rows_and_angles(PooledPixels())
    forward = PooledPixels().summarize(rows, "", 0)
    backward = PooledPixels().summarize(rows[::-1], "", 100)
    for name, numbers in forward.items():
        assert backward[name]["mean"] == numbers["mean"], name
        assert backward[name]["low"] < numbers["mean"] < backward[name]["high"], name


def test_a_known_rotation_is_known_to_every_metric() -> None:
    sample, _ = frame_and_prediction(0)
    truth = np.nan_to_num(sample.normals_cam, nan=0.57735)
    axis = np.cross(truth, [0.3, 0.5, 0.8])
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    turned = np.cos(0.2) * truth + np.sin(0.2) * axis
    row = PooledPixels().errors(turned, sample) | {"pixels": 900}
    found = PooledPixels().summarize([row], "", 0)
    degrees = np.rad2deg(0.2)
    for name in ("mean_deg", "median_deg", "rmse_deg"):
        assert found[name]["mean"] == pytest.approx(degrees, abs=BIN_DEG)
    assert found["pct_11_25"]["mean"] == 0 and found["pct_22_5"]["mean"] == 100


def test_the_histogram_keeps_counts_and_its_median_is_a_hundredth_of_a_degree_off() -> None:
    rng = np.random.default_rng(1)
    angles = np.concatenate([rng.gamma(2, 6, 20_001).clip(0, 180), [0.0, 180.0]])
    counts = unpack_histogram(angle_histogram(angles))
    assert counts.sum() == len(angles) and counts[-1] >= 1 and counts[0] >= 1
    found = histogram_median_deg(counts.astype(float), BIN_DEG)
    assert float(found) == pytest.approx(np.median(angles), abs=BIN_DEG)


def test_benchmarks_are_known_by_number_and_size() -> None:
    assert PooledPixels().expected("sintel-normals") == 1064
    assert PooledPixels().processing_px("nyuv2-normals") == 0
    assert PerImageMean().processing_px("nyuv2-normals") == 640
    assert PerImageMean().expected("synthetic-indoor") is None
