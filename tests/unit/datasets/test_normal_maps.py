"""Images with normals read back from DSINE's and Marigold's evaluation folders."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft.data.sample import RejectedFrame, Sample, SampleError, check_sample, count_away
from e2eft.datasets import FrameSource, open_source
from e2eft.datasets.normal_maps import NormalMapSet, NormalMapSource
from e2eft.datasets.reading.normal_maps import DSINE_ENDINGS
from e2eft.storage import LocalStore
from tests import normal_map_files
from tests.benchmark_files import BenchmarkFiles, encoded, npy
from tests.normal_map_files import REGION, exr_normals, known_frame, oasis_normals

STEMS: dict[NormalMapSet, tuple[str, str]] = {
    "nyuv2": ("test/000000", "test/000001"),
    "scannet": ("scene0532_00/000000", "scene0532_01/000010"),
    "ibims-1": ("ibims/corridor_01", "ibims/corridor_02"),
    "sintel": ("alley_1/frame_0001", "alley_1/frame_0002"),
    "oasis": ("val/100277_DT", "val/99660_DT"),
}
SCENES: dict[NormalMapSet, tuple[str, str]] = {
    "nyuv2": ("test/000000_img", "test/000001_img"),
    "scannet": ("scene0532", "scene0532"),
    "ibims-1": ("corridor", "corridor"),
    "sintel": ("alley_1", "alley_1"),
    "oasis": ("val/100277_DT_img", "val/99660_DT_img"),
}
FRAMES = (known_frame(1), known_frame(2))
THREE_SURFACES = np.array([[[0, 0, -1], [0, -1, 0], [-1, 0, 0]]], np.float32)
"""A wall seen head-on, a floor, a wall to the right: OpenCV axes."""


def layout_of(dataset: NormalMapSet, kind: str) -> BenchmarkFiles:
    frames = dict(zip(STEMS[dataset], FRAMES, strict=True))
    if kind == "marigold":
        return normal_map_files.marigold(frames)
    return normal_map_files.dsine(frames, DSINE_ENDINGS[dataset])


def opened(
    made: BenchmarkFiles, dataset: NormalMapSet, folder: Path, *, tar: bool = False,
    listed: bool = True,
) -> FrameSource:  # fmt: skip
    folder.mkdir(exist_ok=True)
    root = made.write_tar(folder / "x.tar") if tar else made.write_folder(folder / "x")
    frame_list = made.write_list(folder / "list.txt") if listed else None
    config = NormalMapSource(dataset=dataset, root=root, frame_list=frame_list)
    source = open_source(config, LocalStore(folder / "index"))
    source.check_present()
    source.write_index()
    return source


def decoded(source: FrameSource) -> list[Sample | RejectedFrame]:
    return list(source.decode(range(len(source))))


def only_sample(made: BenchmarkFiles, dataset: NormalMapSet, folder: Path) -> Sample:
    (sample,) = decoded(opened(made, dataset, folder))
    assert isinstance(sample, Sample), sample
    return sample


def errors_deg(sample: Sample, truth: np.ndarray, known: np.ndarray) -> np.ndarray:
    cosine = (sample.normals_cam[known].astype(np.float64) * truth[known]).sum(-1)
    return np.degrees(np.arccos(cosine.clip(-1, 1)))


@pytest.mark.parametrize("tar", [False, True], ids=["folder", "tar"])
@pytest.mark.parametrize("listed", [False, True], ids=["found", "listed"])
@pytest.mark.parametrize("kind", ["dsine", "marigold"])
@pytest.mark.parametrize("dataset", list(STEMS))
def test_the_truth_comes_back(
    dataset: NormalMapSet, kind: str, listed: bool, tar: bool, tmp_path: Path
) -> None:
    source = opened(layout_of(dataset, kind), dataset, tmp_path, tar=tar, listed=listed)
    assert source.dataset.name == f"{dataset}-normals" and len(source) == 2
    for number, (sample, truth) in enumerate(zip(decoded(source), FRAMES, strict=True)):
        assert isinstance(sample, Sample) and check_sample(sample, source.dataset.modalities)
        assert (sample.key, sample.source) == (f"{STEMS[dataset][number]}_img", source.dataset.name)
        assert sample.scene == SCENES[dataset][number]
        np.testing.assert_array_equal(sample.rgb, truth.rgb)
        assert np.isnan(sample.depth_m).all() and sample.depth_m.shape == sample.size
        known = np.isfinite(truth.normals_cam).all(-1)
        if (dataset, kind) == ("oasis", "dsine"):
            top, bottom, left, right = REGION
            known[:top] = known[bottom + 1 :] = False
            known[:, :left] = known[:, right + 1 :] = False
            assert known[bottom].any() and known[:, right].any(), "the region's last row counts"
        np.testing.assert_array_equal(np.isfinite(sample.normals_cam).all(-1), known)
        eight_bits = kind == "dsine" and DSINE_ENDINGS[dataset] == ".png"
        assert errors_deg(sample, truth.normals_cam, known).max() < (0.5 if eight_bits else 0.05)
        if kind == "dsine":
            np.testing.assert_allclose(sample.intrinsics_px, truth.intrinsics_px, rtol=1e-6)
        else:
            assert np.isnan(sample.intrinsics_px).all()


@pytest.mark.parametrize(
    ("dataset", "name", "content"),
    [
        # Left, up, towards the viewer, as (v + 1) / 2 * 255: the values of DSINE's PNGs.
        ("nyuv2", ".png", encoded(np.array(
            [[[128, 128, 255], [128, 255, 128], [255, 128, 128]]], np.uint8))),
        ("sintel", ".exr", exr_normals(np.array(
            [[[0, 0, 1], [0, 1, 0], [1, 0, 0]]], np.float32))),
        ("oasis", ".pkl", pickle.dumps({
            "min_y": 0, "max_y": 0, "min_x": 0, "max_x": 2,
            "normal": np.array([[[0, 0, 1], [0, -1, 0], [-1, 0, 0]]], np.float64)})),
        ("oasis", ".npy", npy(np.array(
            [[[0, 0, 1], [0, 1, 0], [-1, 0, 0]]], np.float32))),
    ],
)  # fmt: skip
def test_axes_by_hand(dataset: NormalMapSet, name: str, content: bytes, tmp_path: Path) -> None:
    image = encoded(np.zeros((1, 3, 3), np.uint8))
    made = BenchmarkFiles({"a/x_img.png": image, f"a/x_normal{name}": content}, ["a/x_img.png"])
    sample = only_sample(made, dataset, tmp_path)
    np.testing.assert_allclose(sample.normals_cam, THREE_SURFACES, atol=0.01)


def test_a_channel_of_zero_is_a_direction_and_three_are_none(tmp_path: Path) -> None:
    codes = np.array([[[0, 128, 128], [128, 0, 128], [0, 0, 0]]], np.uint8)
    files = {
        "a/x_img.png": encoded(np.zeros((1, 3, 3), np.uint8)),
        "a/x_normal.png": encoded(codes),
    }
    sample = only_sample(BenchmarkFiles(files, ["a/x_img.png"]), "scannet", tmp_path)
    expected = [[1, 0, 0], [0, 1, 0], [np.nan] * 3]
    np.testing.assert_allclose(sample.normals_cam[0], expected, atol=0.01)


def test_vectors_that_are_not_of_unit_length_are_made_so_and_short_ones_are_unknown(
    tmp_path: Path,
) -> None:
    vectors = np.array(
        [[[0, 0, 0.6], [0, 0, 0.4], [0, 0, 0], [np.nan, 0, 1], [0, 0, 2], *[[0, 0, 1.05]] * 3]]
    )
    image = encoded(np.zeros((1, 8, 3), np.uint8))
    files = {"a/x_img.png": image, "a/x_normal.exr": exr_normals(vectors)}
    sample = only_sample(BenchmarkFiles(files, ["a/x_img.png"]), "sintel", tmp_path)
    expected = np.full((8, 3), np.nan)
    expected[[0, 4, 5, 6, 7]] = [0, 0, -1]
    # The writer makes NaN into 0, which leaves a vector of length 1.
    expected[3] = [0, 0, -1]
    np.testing.assert_allclose(sample.normals_cam[0], expected, atol=1e-6)


def test_nan_and_zero_of_an_array_are_unknown(tmp_path: Path) -> None:
    vectors = np.array([[[0, 0, 0.95], [0, 0, 0], [np.nan, 0, 1]]], np.float16)
    image = encoded(np.zeros((1, 3, 3), np.uint8))
    files = {"x_img.png": image, "x_normal.npy": npy(vectors)}
    sample = only_sample(
        BenchmarkFiles(files, ["x_img.png x_normal.npy"]), "nyuv2", tmp_path
    )  # fmt: skip
    np.testing.assert_allclose(sample.normals_cam[0], [[0, 0, -1], [np.nan] * 3, [np.nan] * 3])


def test_a_frame_without_any_normal_breaks_its_promise(tmp_path: Path) -> None:
    frame = known_frame(1)
    frame.normals_cam[:] = np.nan
    made = normal_map_files.dsine({"val/1": frame}, ".pkl")
    source = opened(made, "oasis", tmp_path)
    (sample,) = decoded(source)
    assert isinstance(sample, Sample)
    with pytest.raises(SampleError, match="no_valid_normal"):
        check_sample(sample, source.dataset.modalities)


@pytest.mark.parametrize(("dataset", "ending"), [("ibims-1", ".exr"), ("oasis", ".pkl")])
def test_normals_that_face_away_are_kept_as_they_are_published(
    dataset: NormalMapSet, ending: str, tmp_path: Path
) -> None:
    """Every other evaluation scores them, be they all of a frame's."""
    frame = known_frame(1)
    frame.normals_cam[:] *= -1
    source = opened(normal_map_files.dsine({"test/0": frame}, ending), dataset, tmp_path)
    (sample,) = decoded(source)
    assert isinstance(sample, Sample) and check_sample(sample, source.dataset.modalities) is sample
    known = np.isfinite(sample.normals_cam).all(-1)
    assert count_away(sample) == known.sum() > 0
    assert errors_deg(sample, frame.normals_cam, known).max() < 0.05


def broken(annotation: dict[str, Any], **changed: Any) -> bytes:
    return pickle.dumps({k: v for k, v in (annotation | changed).items() if v is not None})


NOISE = np.random.default_rng(0).integers(0, 256, (60, 84, 3), np.uint8)
ANNOTATION = pickle.loads(oasis_normals(np.zeros((60, 84, 3))))


@pytest.mark.parametrize(
    ("dataset", "content", "reason"),
    [
        ("nyuv2", b"\x89PNG\r\n\x1a\n and no more", "corrupt_file"),
        ("nyuv2", encoded(np.zeros((60, 80, 3), np.uint8)), "wrong_shape"),
        ("nyuv2", encoded(np.zeros((60, 84), np.uint8)), "wrong_shape"),
        ("nyuv2", encoded(np.zeros((60, 84), np.uint16)), "wrong_shape"),
        ("sintel", exr_normals(np.zeros((60, 84, 3)))[:-40], "corrupt_file"),
        ("sintel", exr_normals(np.zeros((60, 84, 3)))[:200], "corrupt_file"),
        ("sintel", b"", "corrupt_file"),
        ("sintel", exr_normals(np.zeros((59, 84, 3))), "wrong_shape"),
        ("oasis", oasis_normals(np.zeros((60, 84, 3)))[:-50], "corrupt_file"),
        ("oasis", b"not a pickle", "corrupt_file"),
        ("oasis", pickle.dumps([1, 2]), "corrupt_file"),
        ("oasis", broken(ANNOTATION, min_y=None), "corrupt_file"),
        ("oasis", broken(ANNOTATION, min_y=float("inf")), "corrupt_file"),
        ("oasis", broken(ANNOTATION, max_x=71), "wrong_shape"),
        ("oasis", broken(ANNOTATION, max_y=60), "wrong_shape"),
        # A region that fits its numbers, and would be laid in from the other side.
        (
            "oasis",
            broken(ANNOTATION, min_y=-9, max_y=-5, normal=np.ones((5, 68, 3))),
            "wrong_shape",
        ),
        ("oasis", pickle.dumps(Path("x")), "unsafe_pickle"),
        ("nyuv2", encoded(NOISE), "normals_not_unit"),
        ("sintel", exr_normals(known_frame(1).normals_cam * 255), "normals_not_unit"),
        ("oasis", oasis_normals(NOISE / 255), "normals_not_unit"),
    ],
)
def test_broken_normals_cost_their_frame_only(
    dataset: NormalMapSet, content: bytes, reason: str, tmp_path: Path
) -> None:
    made = layout_of(dataset, "dsine")
    stem, _ = STEMS[dataset]
    made.files[f"{stem}_normal{DSINE_ENDINGS[dataset]}"] = content
    reject, sample = decoded(opened(made, dataset, tmp_path))
    assert isinstance(reject, RejectedFrame) and isinstance(sample, Sample)
    assert (reject.key, reject.reason) == (f"{stem}_img", reason)


def test_missing_normals_and_a_broken_camera(tmp_path: Path) -> None:
    made = layout_of("scannet", "dsine")
    first, second = STEMS["scannet"]
    del made.files[f"{first}_normal.png"]
    made.files[f"{second}_intrins.npy"] = npy(np.full((3, 3), np.nan))
    assert [frame.reason for frame in decoded(opened(made, "scannet", tmp_path / "nan"))
            if isinstance(frame, RejectedFrame)] == ["missing_file", "wrong_shape"]  # fmt: skip
    made.files[f"{second}_intrins.npy"] = npy(np.full((3, 3), "0"))
    assert [frame.reason for frame in decoded(opened(made, "scannet", tmp_path / "text"))
            if isinstance(frame, RejectedFrame)] == ["missing_file", "corrupt_file"]  # fmt: skip
    made.files[f"{second}_intrins.npy"] = npy(np.eye(4))
    reasons = [
        frame.reason
        for frame in decoded(opened(made, "scannet", tmp_path))
        if isinstance(frame, RejectedFrame)
    ]
    assert reasons == ["missing_file", "wrong_shape"]


def test_an_array_that_would_have_to_be_unpickled_is_refused(tmp_path: Path) -> None:
    made = layout_of("nyuv2", "marigold")
    made.files["test/000000_normal.npy"] = npy(np.array([Path("x")], object))
    reject = decoded(opened(made, "nyuv2", tmp_path))[0]
    assert isinstance(reject, RejectedFrame) and reject.reason == "corrupt_file"
