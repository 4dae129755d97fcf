import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from e2eft.data.modalities import ANNOTATED_NORMALS, DEPTH, Modalities
from e2eft.data.sample import (
    MAX_DEPTH_M,
    MIN_DEPTH_M,
    Sample,
    SampleError,
    check_sample,
    count_away,
    unknown_depth,
    unknown_intrinsics,
    unknown_normals,
)
from tests.frames import analytic_frame


@pytest.fixture
def sample() -> Sample:
    return analytic_frame(0, sky=True)


def changed(sample: Sample, name: str, value: Any, where: Any = ...) -> Sample:
    array = getattr(sample, name).copy()
    array[where] = value
    return replace(sample, **{name: array})


def test_a_rendered_frame_passes_as_it_is(sample: Sample) -> None:
    assert check_sample(sample) is sample
    assert sample.size == (64, 80)
    assert np.isposinf(sample.depth_m).any()


@pytest.mark.parametrize("depth_m", [MIN_DEPTH_M, MAX_DEPTH_M, np.nan, np.inf])
def test_the_ends_of_the_range_unknown_and_sky_pass(sample: Sample, depth_m: float) -> None:
    check_sample(changed(sample, "depth_m", depth_m, (0, 0)))


def test_unknown_normals_pass_also_everywhere(sample: Sample) -> None:
    check_sample(changed(sample, "normals_cam", np.nan))


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        (lambda s: replace(s, depth_m=s.depth_m[:-1]), "wrong_shape", r"depth_m is \(63, 80\)"),
        (lambda s: replace(s, normals_cam=s.normals_cam[..., :2]), "wrong_shape", "normals_cam"),
        (lambda s: replace(s, intrinsics_px=np.eye(4)), "wrong_shape", "intrinsics_px"),
        (lambda s: replace(s, rgb=s.rgb[..., :1]), "wrong_shape", r"rgb is \(64, 80, 1\)"),
        (lambda s: replace(s, rgb=s.rgb / 255), "wrong_dtype", "rgb is float64, expected uint8"),
        (lambda s: replace(s, depth_m=s.depth_m.astype(np.float64)), "wrong_dtype", "depth_m"),
        (lambda s: changed(s, "depth_m", np.nan), "no_valid_depth", "no pixel"),
        (lambda s: changed(s, "depth_m", np.inf), "no_valid_depth", "no pixel"),
        (lambda s: changed(s, "intrinsics_px", np.nan, (0, 2)), "camera_half_known", "all NaN"),
        (lambda s: changed(s, "intrinsics_px", np.inf), "camera_half_known", "all NaN"),
        (lambda s: changed(s, "intrinsics_px", 0), "camera_without_rays", r"\[0.0, 0.0, 0.0\]"),
        (lambda s: changed(s, "intrinsics_px", 0, (1, 1)), "camera_without_rays", "no ray"),
        (lambda s: changed(s, "intrinsics_px", 1e-20, (0, 0)), "camera_without_rays", "no ray"),
        (lambda s: changed(s, "depth_m", 0.009, (9, 9)), "depth_out_of_range", "0.009"),
        (lambda s: changed(s, "depth_m", 656.0, (9, 9)), "depth_out_of_range", "656"),
        (lambda s: changed(s, "depth_m", -1.0, (9, 9)), "depth_out_of_range", "-1"),
        (lambda s: changed(s, "depth_m", -np.inf, (9, 9)), "depth_out_of_range", "allowed"),
        (lambda s: changed(s, "normals_cam", [0, 0, -1.01], (40, 9)), "normals_not_unit", "1e-3"),
        (lambda s: changed(s, "normals_cam", [0, 0, 0], (40, 9)), "normals_not_unit", "1e-3"),
        (lambda s: changed(s, "normals_cam", [0, 0, 1], (40, 9)), "normals_face_away", "0.0"),
    ],
)
def test_what_breaks_the_contract_is_named(
    sample: Sample, change: Any, reason: str, detail: str
) -> None:
    with pytest.raises(SampleError, match=rf"^{reason}: .*{detail}") as error:
        check_sample(change(sample))
    assert error.value.reason == reason


def test_facing_is_judged_along_each_pixels_own_ray(sample: Sample) -> None:
    """At the image's edge a surface may face away from the optical axis and still be seen."""
    _, width = sample.size
    (fx, _, cx), (_, fy, cy), _ = sample.intrinsics_px
    ray = np.array([(width - 0.5 - cx) / fx, (0.5 - cy) / fy, 1.0])
    grazing = np.array([-1.0, 0.0, 0.0])
    assert grazing @ ray < -0.1
    check_sample(changed(sample, "normals_cam", grazing, (0, width - 1)))
    with pytest.raises(SampleError, match="normals_face_away"):
        check_sample(changed(sample, "normals_cam", grazing, (0, 0)))


def test_the_error_crosses_processes() -> None:
    error = pickle.loads(pickle.dumps(SampleError("wrong_shape", "rgb is flat")))
    assert (error.reason, error.detail) == ("wrong_shape", "rgb is flat")


def test_a_data_set_promises_what_its_frames_have(sample: Sample) -> None:
    normals_only = replace(sample, depth_m=unknown_depth(*sample.size))
    depth_only = replace(sample, normals_cam=unknown_normals(*sample.size))
    assert check_sample(normals_only, ANNOTATED_NORMALS) is normals_only
    assert check_sample(depth_only, DEPTH) is depth_only
    with pytest.raises(SampleError, match="no_valid_depth"):
        check_sample(normals_only)
    with pytest.raises(SampleError, match="no_valid_normal"):
        check_sample(depth_only, ANNOTATED_NORMALS)
    with pytest.raises(SampleError, match="no_valid_depth"):
        check_sample(normals_only, Modalities(depth=True, normals=True))


def test_what_is_unknown_throughout_takes_no_memory() -> None:
    for array in (unknown_depth(4000, 6000), unknown_normals(4000, 6000)):
        assert array.dtype == np.float32 and np.isnan(array[::999, ::999]).all()
        assert array.base is not None and set(array.strides) == {0}


def test_an_unknown_camera_passes_and_its_normals_cannot_be_judged(sample: Sample) -> None:
    away = changed(sample, "normals_cam", [0, 0, 1], (40, 9))
    with pytest.raises(SampleError, match="normals_face_away"):
        check_sample(away)
    check_sample(replace(away, intrinsics_px=unknown_intrinsics()))


def test_annotated_normals_may_face_away_and_are_counted(sample: Sample) -> None:
    away = changed(sample, "normals_cam", [0, 0, 1], np.s_[40, 8:11])
    assert check_sample(away, replace(ANNOTATED_NORMALS, depth=True)) is away
    assert (count_away(sample), count_away(away), count_away(away, stride=4)) == (0, 3, 1)
    assert count_away(replace(away, intrinsics_px=unknown_intrinsics())) == 0
    with pytest.raises(SampleError, match="normals_face_away"):
        check_sample(away)
