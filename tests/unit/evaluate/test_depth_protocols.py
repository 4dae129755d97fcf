"""Metrics against plain numpy in float64, and what each protocol does with each benchmark."""

import math
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from e2eft.config import EvaluateConfig
from e2eft.data.sample import Sample
from e2eft.evaluate.protocols import (
    LeastSquaresDepth,
    LeastSquaresDisparity,
    RansacLogDepth,
    protocol_of,
)
from e2eft.evaluate.protocols.depth import DepthProtocol, _nearest
from e2eft.evaluate.protocols.least_squares import LapisLeastSquaresDepth
from tests.scored_frames import make_frame

PROTOCOLS = (
    LeastSquaresDepth,
    LapisLeastSquaresDepth,
    LeastSquaresDisparity,
    RansacLogDepth,
)


def frame_of(source: str, depth_m: np.ndarray) -> Sample:
    height, width = depth_m.shape
    return Sample(
        key=f"{source}/0",
        source=source,
        scene="s",
        rgb=np.zeros((height, width, 3), np.uint8),
        depth_m=depth_m.astype(np.float32),
        normals_cam=np.full((height, width, 3), np.nan, np.float32),
        intrinsics_px=np.eye(3),
    )


def plain_errors(
    aligned: np.ndarray, truth: np.ndarray, scored: np.ndarray, eps: float = 0.0
) -> dict[str, float]:
    """The definitions, pixel lists in and numbers out."""
    a, d = aligned[scored].astype(np.float64), truth[scored].astype(np.float64)
    logs = np.log(a) - np.log(d)
    ratio = np.maximum(a / (d + eps), d / (a + eps))
    return {
        "abs_rel": np.mean(abs(a - d) / (d + eps)),
        "sq_rel": np.mean((a - d) ** 2 / d),
        "rmse": math.sqrt(np.mean((a - d) ** 2)),
        "rmse_log": math.sqrt(np.mean(logs**2)),
        "i_rmse": math.sqrt(np.mean((1 / a - 1 / d) ** 2)),
        "i_rmse_capped": math.sqrt(np.mean((1 / a.clip(0.08) - 1 / d.clip(0.08)) ** 2)),
        "log10": np.mean(abs(np.log10(a) - np.log10(d))),
        "silog": 100 * math.sqrt(np.mean(logs**2) - np.mean(logs) ** 2),
        **{f"delta{k}": np.mean(ratio < 1.25**k) for k in (1, 2, 3)},
    }


ADVERSARIAL: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "noisy": lambda rng, depth: depth / 90 + rng.normal(0, 0.02, depth.shape),
    "random": lambda rng, depth: rng.random(depth.shape),
    "nearly constant": lambda rng, depth: 0.5 + 1e-5 * depth,
    "one outlier": lambda rng, depth: np.where(np.arange(depth.size).reshape(depth.shape) == 9,
                                               1e4, depth / 90),
    "upside down": lambda rng, depth: 1 - depth / 90,
}  # fmt: skip


@pytest.mark.parametrize("source", ["eth3d", "synthetic-street"])
@pytest.mark.parametrize("kind", PROTOCOLS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("case", ADVERSARIAL)
def test_every_metric_equals_its_definition(
    kind: type[DepthProtocol], case: str, source: str
) -> None:
    rng = np.random.default_rng(7)
    depth = np.exp(rng.uniform(np.log(0.3), np.log(79), (24, 32)))
    depth[rng.random(depth.shape) < 0.1] = np.nan
    frame, protocol = frame_of(source, depth), kind(80.0)
    prediction = ADVERSARIAL[case](rng, np.nan_to_num(frame.depth_m, nan=3.0)).astype(np.float32)
    aligned, scored = protocol.aligned(prediction, frame), protocol.scored(frame)
    assert (scored == np.isfinite(frame.depth_m)).all()
    found = protocol.errors(prediction, frame)
    expected = plain_errors(aligned, frame.depth_m, scored, kind.ratio_eps_m)
    capped, missing = expected.pop("i_rmse_capped"), "i_rmse_capped"
    if source == "synthetic-street":
        missing = "i_rmse"
        expected["i_rmse_capped"], _ = capped, expected.pop("i_rmse")
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name
    assert math.isnan(found[missing]) and set(found) == set(protocol.metrics)


def test_a_pixel_that_is_clipped_to_nothing_decides_the_inverse_error_of_benchmarks_only() -> None:
    """ETH3D's published clip is at 1e-5 m, off by 1e5 1/m; of a range to 80 m 8 cm count."""
    depth = np.full((48, 64), 40.0)
    depth[::2] = 20.0
    depth[20, 20] = 0.2
    prediction = np.where(depth == 0.2, -5.0, depth)
    protocol, pixels = LeastSquaresDepth(80), depth.size
    street, eth3d = (
        protocol.errors(prediction, frame_of(source, depth))
        for source in ("synthetic-street", "eth3d")
    )
    assert math.isnan(street["i_rmse"]) and math.isnan(eth3d["i_rmse_capped"])
    expected = (1 / 0.08 - 1 / 0.2) / math.sqrt(pixels)
    assert street["i_rmse_capped"] == pytest.approx(expected, rel=1e-2)
    assert eth3d["i_rmse"] == pytest.approx((1e5 - 5) / math.sqrt(pixels), rel=1e-6)
    perfect = protocol.errors(depth, frame_of("synthetic-street", depth))
    assert perfect["i_rmse_capped"] == pytest.approx(0, abs=1e-6)
    assert street["abs_rel"] == eth3d["abs_rel"] and street["rmse_log"] == eth3d["rmse_log"]


@pytest.mark.parametrize(
    ("kind", "transform"),
    [
        (LeastSquaresDepth, lambda depth: depth),
        (LeastSquaresDisparity, lambda depth: 1 / depth),
        (RansacLogDepth, np.log1p),
    ],
)
def test_a_prediction_affine_in_the_protocols_space_is_perfect(
    kind: type[DepthProtocol], transform: Callable[[np.ndarray], np.ndarray]
) -> None:
    frame, protocol = make_frame(5, "synthetic-indoor"), kind(80.0)
    depth = np.where(protocol.scored(frame), frame.depth_m, 2.0).astype(np.float64)
    prediction = 3.7 * transform(depth) + 0.9
    found = protocol.errors(prediction, frame)
    assert found["delta1"] == 1 and found["abs_rel"] < 2e-5
    again = protocol.errors(prediction * 0.01 + 5, frame)
    assert again["abs_rel"] == pytest.approx(found["abs_rel"], abs=1e-6)


def test_a_prediction_off_by_a_known_factor_has_its_closed_form_score() -> None:
    """After the fit of y = x to +-10 % of 10 m, half the pixels are 10 % off each way."""
    depth = np.full((4, 6), 10.0)
    depth[:, 3:] = 20.0
    prediction = depth.copy()
    prediction[::2] *= 1.1
    prediction[1::2] *= 0.9
    frame, protocol = frame_of("synthetic-indoor", depth), LeastSquaresDepth(80.0)
    x, y = prediction.ravel(), depth.ravel()
    scale = np.cov(x, y, bias=True)[0, 1] / x.var()
    expected = np.mean(abs(scale * (x - x.mean()) + y.mean() - y) / y)
    assert protocol.errors(prediction, frame)["abs_rel"] == pytest.approx(expected, rel=1e-12)


def test_nyu_is_scored_in_eigens_window_and_range_by_one_protocol_only() -> None:
    depth = np.full((480, 640), 3.0)
    depth[0:240] = 0.05
    depth[300, 300] = 10.0
    frame = frame_of("nyuv2", depth)
    window = np.zeros((480, 640), bool)
    window[45:471, 41:601] = True
    assert (LeastSquaresDepth(80).scored(frame) == (window & (depth < 10))).all()
    assert (RansacLogDepth(80).scored(frame) == ((depth > 0.1) & (depth < 10))).all()
    with pytest.raises(ValueError, match=r"nyuv2/0 has 32 x 24 pixels.*640 x 480"):
        LeastSquaresDepth(80).view(frame_of("nyuv2", np.ones((24, 32))))


def test_kitti_is_scored_in_eigens_part_of_the_benchmark_crop() -> None:
    frame = frame_of("kitti-eigen", np.full((352, 1216), 20.0))
    rows, columns = np.nonzero(LeastSquaresDepth(80).scored(frame))
    assert (rows.min(), rows.max()) == (117, 320)
    assert (columns.min(), columns.max()) == (43, 1171)
    assert len(rows) == 230_316
    whole = frame_of("kitti-eigen", np.full((375, 1242), 20.0))
    assert LeastSquaresDepth(80).scored(whole).sum() == 251_354, "another score, of another name"
    far = frame_of("kitti-eigen", np.full((352, 1216), 90.0))
    assert not LeastSquaresDepth(80).scored(far).any()


def test_diodes_mask_decides_alone_or_its_edges_are_dropped() -> None:
    depth = np.full((20, 30), 0.4)
    depth[:, 15:] = 5.0
    depth[3, 3] = np.nan
    frame = frame_of("diode", depth)
    assert LeastSquaresDepth(80).scored(LeastSquaresDepth(80).view(frame)).sum() == depth.size - 1
    clipped = LeastSquaresDepth(80).aligned(frame.depth_m, frame)
    assert np.nanmin(clipped) == 0.6
    protocol = RansacLogDepth(80)
    scored = protocol.scored(protocol.view(frame))
    # In range on the right, and neither of the two columns at the edge.
    assert scored[:, 16:].all() and not scored[:, :16].any()


@pytest.mark.parametrize("source", ["nyuv2", "kitti-eigen", "scannet", "diode", "eth3d"])
def test_lapis_has_marigolds_rules_but_for_two_datasets_and_the_size_that_models_see(
    source: str,
) -> None:
    lapis, marigold = LapisLeastSquaresDepth(80), LeastSquaresDepth(80)
    assert lapis.processing_px(source) is None and lapis.expected(source) == marigold.expected(
        source
    )
    rules = lapis.rules_of(source)
    assert bool(rules.remark) == (source in ("diode", "eth3d"))
    assert rules.scored_size == ((1360, 2048) if source == "eth3d" else None)
    assert rules.sobel_limit_m == (0.3 if source == "diode" else None)
    same = {"processing_px": 0, "scored_size": None, "sobel_limit_m": None, "remark": ""}
    assert replace(rules, **same) == replace(marigold.rules_of(source), **same)
    assert lapis.rules("hypersim") is None


def test_lapis_drops_diodes_edges_but_has_no_range_beside_the_mask() -> None:
    depth = np.full((20, 30), 0.4)
    depth[:, 15:] = 5.0
    frame, protocol = frame_of("diode", depth), LapisLeastSquaresDepth(80)
    view = protocol.view(frame)
    expected = np.ones((20, 30), bool)
    expected[:, 14:16] = False
    assert (protocol.scored(view) == expected).all(), "0.4 m is nearer than DIODE's range"
    found = protocol.errors(1 - depth / 9, view)
    assert found["abs_rel"] == pytest.approx(0.25, rel=1e-6), "half are clipped to 0.6 m"


def test_lapis_scores_eth3d_smaller_and_all_else_as_marigold() -> None:
    rng = np.random.default_rng(3)
    nyu = frame_of("nyuv2", rng.uniform(1, 9, (480, 640)))
    prediction = (nyu.depth_m + rng.normal(0, 1, nyu.size)).astype(np.float32)
    lapis, marigold = LapisLeastSquaresDepth(80), LeastSquaresDepth(80)
    np.testing.assert_equal(lapis.errors(prediction, nyu), marigold.errors(prediction, nyu))
    rows = np.arange(4032.0)[:, None] + np.ones(6048)
    view = lapis.view(frame_of("eth3d", rows))
    assert view.size == (1360, 2048) and (view.depth_m[:3, 0] - 1 == [0, 2, 5]).all()
    aligned = lapis.aligned(3 * view.depth_m + 2, view)
    np.testing.assert_allclose(aligned, view.depth_m, rtol=1e-6)


def test_eth3d_is_fitted_on_some_columns_or_scored_smaller() -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(2, 30, (1360, 2040)).astype(np.float32)
    frame = frame_of("eth3d", np.where(rng.random(depth.shape) < 0.9, np.nan, depth))
    protocol = LeastSquaresDepth(80)
    prediction = (depth + rng.normal(0, 1, depth.shape)).astype(np.float32)
    scored = protocol.scored(frame)
    # As the reference code does it: three axes, of which nn.Upsample shrinks the last.
    shrink = torch.nn.Upsample(scale_factor=np.min(1024 / np.array(depth.shape)), mode="nearest")
    small = [
        shrink(torch.from_numpy(array.astype(np.float32))[None])[0].double().numpy()
        for array in (prediction, depth, scored)
    ]
    kept = small[2].astype(bool)
    assert kept.shape[0] == 1360 and kept.shape[1] < 1025
    scale, shift = np.polyfit(small[0][kept], small[1][kept], 1)
    expected = np.maximum(scale * prediction.astype(float) + shift, 1e-5)
    assert np.allclose(protocol.aligned(prediction, frame), expected, rtol=1e-6)
    small = RansacLogDepth(80).view(frame_of("eth3d", np.arange(4032.0)[:, None] + np.ones(6048)))
    assert small.size == (1360, 2048)
    assert (small.depth_m[:3, 0] - 1 == [0, 2, 5]).all()


def test_benchmarks_have_names_of_their_own_and_other_data_a_range() -> None:
    config = EvaluateConfig(out="s", task="depth", data=("x",), labels=("y",), max_depth_m=65.0)
    assert protocol_of(config, ["nyuv2", "diode"]).full_name == "least-squares-depth"
    assert protocol_of(config, ["nyuv2", "hypersim"]).full_name == "least-squares-depth to 65 m"
    named = config.model_copy(update={"protocol": "ransac-log-depth"})
    assert protocol_of(named, ["eth3d"]).full_name == "ransac-log-depth"


def test_edges_are_judged_where_the_truth_is_dense_only() -> None:
    depth = np.full((24, 32), 2.0)
    depth[8:16, 10:20] = 1.0
    protocol = LeastSquaresDepth(80)
    dense = protocol.errors(depth, frame_of("synthetic-indoor", depth))
    assert dense["boundary_f1"] == pytest.approx(1) and dense["see3"] == pytest.approx(0, abs=1e-9)
    sparse = protocol.errors(depth, frame_of("scannet", depth))
    assert np.isnan(sparse["boundary_f1"]) and np.isnan(sparse["see3"])
    assert replace(protocol) == protocol


@pytest.mark.parametrize(("old", "new", "apart"), [(4032, 1360, 15), (6048, 2048, 0)])
def test_eth3ds_smaller_truth_is_pytorchs_nearest_and_opencvs_but_for_some_rows(
    old: int, new: int, apart: int
) -> None:
    depth = np.broadcast_to(np.arange(old, dtype=np.float32)[:, None] + 1, (old, 4))
    size = new, 4
    ours = _nearest(frame_of("eth3d", depth), size).depth_m
    torchs = torch.nn.functional.interpolate(torch.tensor(depth)[None, None], size, mode="nearest")
    assert (ours == torchs[0, 0].numpy()).all()
    opencvs = cv2.resize(np.array(depth), size[::-1], interpolation=cv2.INTER_NEAREST)
    assert (ours[:, 0] - opencvs[:, 0]).tolist().count(1) == apart == (ours != opencvs).sum() / 4


def test_marigold_v2s_soft_edge_error_is_a_metric_of_log_depth_under_its_own_name() -> None:
    depth = np.full((24, 32), 8.0)
    depth[8:16, 10:20] = 1.0
    frame = frame_of("hypersim", depth)
    found = RansacLogDepth(65).errors((np.log(depth) - 0.3) / 2.5, frame)
    assert found["see3_log_fit"] == pytest.approx(0, abs=1e-5)
    sparse = RansacLogDepth(65).errors(np.log(depth), frame_of("scannet", depth))
    assert math.isnan(sparse["see3_log_fit"])
    assert "see3_log_fit" not in LeastSquaresDepth.metrics
