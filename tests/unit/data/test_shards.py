import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from e2eft.artifacts import MANIFEST, ArtifactError, verify
from e2eft.data.sample import (
    MAX_DEPTH_M,
    MIN_DEPTH_M,
    Sample,
    unknown_depth,
    unknown_intrinsics,
    unknown_normals,
)
from e2eft.data.shards import (
    KIND,
    ROWS_PER_GROUP,
    SCHEMA,
    SHARD_SCHEMA_VERSION,
    decode_depth,
    decode_normals,
    decode_rgb,
    decode_row,
    encode_depth,
    encode_normals,
    encode_part,
    encode_rgb,
    encode_row,
    open_shards,
    part_path,
    require_modality,
)
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.prepare import PrepareConfig
from e2eft.storage import LocalStore
from tests.artifacts import begin
from tests.frames import analytic_frame, write_shards

DEPTH_TOLERANCE = 0.85e-4
NORMAL_TOLERANCE_DEG = 0.02


def round_trip_depth(depth_m: np.ndarray) -> np.ndarray:
    return decode_depth(encode_depth(depth_m), *depth_m.shape)


def worst_angle_deg(normals_cam: np.ndarray) -> float:
    """Largest angle that storing turns a unit vector by; exact where arccos has lost its digits."""
    made = decode_normals(encode_normals(normals_cam), *normals_cam.shape[:2]).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(made, axis=-1), 1, atol=1e-6)
    chord = np.linalg.norm(made - normals_cam, axis=-1)
    return float(np.degrees(2 * np.arcsin(chord / 2)).max())


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=12),
        elements=st.floats(np.float32(MIN_DEPTH_M), np.float32(MAX_DEPTH_M), width=32)  # type: ignore[arg-type]
        | st.sampled_from([np.nan, np.inf, np.float32(MIN_DEPTH_M), np.float32(MAX_DEPTH_M)]),
    )
)
def test_depth_is_kept_to_the_stated_precision(depth_m: np.ndarray) -> None:
    made = round_trip_depth(depth_m)
    assert made.dtype == np.float32
    # NaN and +inf compare equal to themselves here, and to nothing else.
    np.testing.assert_allclose(made, depth_m, rtol=DEPTH_TOLERANCE + 1e-6, atol=0)


def test_depth_precision_over_the_whole_range() -> None:
    depth_m = np.geomspace(MIN_DEPTH_M, MAX_DEPTH_M, 400_000).astype(np.float32).reshape(400, 1000)
    made = round_trip_depth(depth_m)
    error = np.abs(made.astype(np.float64) / depth_m - 1).max()
    # The bound is tight: the codes are as far apart as it says.
    assert 0.8e-4 < error < 0.86e-4
    assert (np.diff(made.ravel()) >= 0).all()
    ends = np.array([[MIN_DEPTH_M, MAX_DEPTH_M]], np.float32)
    np.testing.assert_allclose(round_trip_depth(ends), ends, rtol=1e-6)


def test_storing_twice_changes_nothing_more() -> None:
    frame = analytic_frame(3, sky=True)
    once = round_trip_depth(frame.depth_m)
    np.testing.assert_array_equal(round_trip_depth(once), once)
    assert encode_depth(once) == encode_depth(frame.depth_m)


@pytest.mark.parametrize("depth_m", [0.0, 0.00999, -1.0, 655.4, -np.inf])
def test_depth_that_cannot_be_stored_is_refused(depth_m: float) -> None:
    with pytest.raises(ValueError, match=r"is outside 0\.01 \.\. 655\.36 m"):
        encode_depth(np.array([[1.0, depth_m]], np.float32))


@given(
    hnp.arrays(np.float64, (5, 7, 3), elements=st.floats(-1, 1)).filter(
        lambda v: np.linalg.norm(v, axis=-1).min() > 1e-3
    )
)
def test_normals_are_kept_to_the_stated_precision(vectors: np.ndarray) -> None:
    assert worst_angle_deg(unit(vectors)) <= NORMAL_TOLERANCE_DEG


def test_normals_at_the_poles_edges_and_folds_of_the_octahedron() -> None:
    axes = np.concatenate([np.eye(3), -np.eye(3)])
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
    angles = np.linspace(0, 2 * np.pi, 3601)
    equator = np.stack([np.cos(angles), np.sin(angles), 0 * angles], -1)
    tiny = np.array([0, 1e-7, -1e-7, 1e-4, -1e-4])
    around = (equator[:, None] + tiny[:, None] * np.array([0, 0, 1])).reshape(-1, 3)
    poles = np.stack([np.cos(angles) * 1e-4, np.sin(angles) * 1e-4, 1 + 0 * angles], -1)
    folds = np.concatenate([np.roll(equator, shift, axis=-1) for shift in range(3)])
    vectors = np.concatenate([axes, signs, around, poles, -poles, folds])
    assert worst_angle_deg(unit(vectors)[None]) <= NORMAL_TOLERANCE_DEG


def test_normals_over_the_whole_sphere() -> None:
    vectors = np.random.default_rng(0).normal(size=(300, 1000, 3))
    worst = worst_angle_deg(unit(vectors))
    # 16 bits, not fewer: 12 would give 0.057 degrees.
    assert 0.001 < worst <= 0.004


def test_the_commonest_normal_is_exact_and_unknown_stays_unknown() -> None:
    normals_cam = np.full((3, 4, 3), np.nan, np.float32)
    normals_cam[1] = [0, 0, -1]
    normals_cam[2, 0, 0] = 1.0
    made = decode_normals(encode_normals(normals_cam), 3, 4)
    np.testing.assert_allclose(made[1], normals_cam[1], atol=1e-7)
    # A vector of which one component is known is not known.
    assert np.isnan(made[[0, 2]]).all()


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_colours_are_exact(rgb: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_rgb(encode_rgb(rgb)), rgb)


def assert_same_frame(made: Sample, sample: Sample) -> None:
    assert (made.key, made.source, made.scene) == (sample.key, sample.source, sample.scene)
    np.testing.assert_array_equal(made.rgb, sample.rgb)
    np.testing.assert_array_equal(made.intrinsics_px, sample.intrinsics_px)
    np.testing.assert_allclose(made.depth_m, sample.depth_m, rtol=1e-4, atol=0)
    np.testing.assert_allclose(made.normals_cam, sample.normals_cam, atol=1e-4)


@pytest.mark.parametrize("sky", [False, True])
def test_a_row_holds_its_frame(sky: bool) -> None:
    sample = analytic_frame(5, 37, 53, sky=sky)
    assert_same_frame(decode_row(encode_row(sample)), sample)


def test_a_non_contiguous_frame_is_stored_like_its_copy() -> None:
    sample = analytic_frame(5)
    mirrored = replace(sample, rgb=sample.rgb[:, ::-1], depth_m=sample.depth_m[:, ::-1])
    copied = replace(sample, rgb=mirrored.rgb.copy(), depth_m=mirrored.depth_m.copy())
    assert encode_row(mirrored) == encode_row(copied)


def test_a_row_of_a_newer_schema_is_refused() -> None:
    row = encode_row(analytic_frame(5)) | {"schema_version": SHARD_SCHEMA_VERSION + 1}
    with pytest.raises(ArtifactError, match=r"'analytic/frame-0005' has shard schema 2.*upgrade"):
        decode_row(row)


def test_equal_rows_give_equal_bytes() -> None:
    parts = [encode_part([encode_row(analytic_frame(n)) for n in range(5)]) for _ in range(2)]
    assert parts[0] == parts[1]
    assert parts[0] != encode_part([encode_row(analytic_frame(n)) for n in range(1, 6)])


def test_a_part_is_plain_parquet_with_small_row_groups() -> None:
    rows = [encode_row(analytic_frame(n)) for n in range(2 * ROWS_PER_GROUP + 1)]
    file = pq.ParquetFile(io.BytesIO(encode_part(rows)))
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [ROWS_PER_GROUP, ROWS_PER_GROUP, 1]
    assert file.schema_arrow.equals(SCHEMA) and file.schema_arrow.metadata == SCHEMA.metadata
    assert file.read().column("key").to_pylist() == [row["key"] for row in rows]


def test_datasets_sees_an_image() -> None:
    """What Hugging Face `datasets` looks for, so that the hub shows pictures.

    Its `Features.from_arrow_schema` takes a field for an image if the metadata says so and the
    field equals its own: a nullable struct of bytes and path.
    """
    metadata = SCHEMA.metadata
    assert metadata is not None
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features["rgb"] == {"_type": "Image"}
    own = pa.field("rgb", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    assert SCHEMA.field("rgb") == own
    cell = encode_row(analytic_frame(5))["rgb"]
    assert cell["path"] == "analytic/frame-0005.webp"
    assert Image.open(io.BytesIO(cell["bytes"])).size == (80, 64)


def test_an_index_finds_every_row_by_its_number(tmp_path: Path) -> None:
    samples = [analytic_frame(number, 16, 24) for number in range(23)]
    artifact = write_shards(str(tmp_path / "out"), samples, frames_per_part=10)
    shards = open_shards(str(tmp_path / "out"))
    assert len(shards) == 23 and shards.rows_of_part == (10, 10, 3)
    assert shards.part_paths == [part_path(part) for part in range(3)]
    for number, sample in enumerate(samples):
        part, group, offset = shards.locate(number)
        rows = shards.read_group(part, group)
        assert len(rows) <= ROWS_PER_GROUP
        assert_same_frame(decode_row(rows[offset]), sample)
    assert shards.locate(9) == (0, 1, 1) and shards.locate(10) == (1, 0, 0)
    assert verify(artifact) == []


def test_shards_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "out")
    store = LocalStore(tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        open_shards(uri)
    config = PrepareConfig(out=uri, source=SyntheticSource(family="indoor"))
    begin(store, KIND, config).release("failed")
    with pytest.raises(ArtifactError, match="run it again"):
        open_shards(uri)
    store.delete_many([path for path, _ in store.list()])
    write_shards(uri, [analytic_frame(0, 16, 24)])
    whole = json.loads(store.read(MANIFEST))
    for details, message in (
        ({"shard_schema_version": 2}, "has shard schema 2, this program reads up to 1; upgrade"),
        ({"rows_of_part": [0]}, "holds no frames"),
    ):
        changed = whole | {"details": whole["details"] | details}
        store.write(MANIFEST, json.dumps(changed).encode())
        with pytest.raises(ArtifactError, match=message):
            open_shards(uri)
    store.write(MANIFEST, json.dumps(whole | {"kind": "labels"}).encode())
    with pytest.raises(ArtifactError, match="is a 'labels' artifact; expected shards"):
        open_shards(uri)


@pytest.mark.parametrize("column", ["rgb", "depth", "normals", "intrinsics_px"])
def test_a_part_without_one_of_its_columns_is_refused(column: str, tmp_path: Path) -> None:
    """It must not be taken for a column that nobody asked for."""
    shards = open_shards(write_shards(str(tmp_path), [analytic_frame(0)]).uri)
    path = tmp_path / part_path(0)
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with pytest.raises(ArtifactError, match=f"part-000000.parquet has no column {column}"):
        shards.read_group(0, 0)
    assert column not in shards.read_group(0, 0, frozenset({column}))[0]


def test_frames_of_one_truth_and_without_a_camera_are_kept(tmp_path: Path) -> None:
    frame = replace(analytic_frame(3), intrinsics_px=unknown_intrinsics())
    depth_only = replace(frame, normals_cam=unknown_normals(*frame.size))
    normals_only = replace(frame, depth_m=unknown_depth(*frame.size))
    content = encode_part([encode_row(depth_only), encode_row(normals_only)])
    rows = pq.read_table(io.BytesIO(content)).to_pylist()
    for row, written in zip(rows, (depth_only, normals_only), strict=True):
        read = decode_row(row)
        assert np.isnan(read.intrinsics_px).all()
        for name in ("depth_m", "normals_cam"):
            array = getattr(read, name)
            assert array.flags.writeable and array.dtype == np.float32
            expected = np.isnan(getattr(written, name))
            np.testing.assert_array_equal(np.isnan(array), expected)
    known = np.isfinite(frame.depth_m)
    np.testing.assert_allclose(
        decode_row(rows[0]).depth_m[known], frame.depth_m[known], rtol=1e-4
    )  # fmt: skip


def test_shards_without_the_tasks_truth_are_not_trained_on(tmp_path: Path) -> None:
    write_shards(str(tmp_path), [analytic_frame(0)])
    shards = open_shards(str(tmp_path))
    for task in ("depth", "normals"):
        require_modality(shards, task)  # older ones do not say
    details = shards.artifact.details | {"truth": ["depth"]}
    shards = replace(shards, artifact=replace(shards.artifact, details=details))
    require_modality(shards, "depth")
    with pytest.raises(ArtifactError, match="no normals to train on: its frames have depth only"):
        require_modality(shards, "normals")
