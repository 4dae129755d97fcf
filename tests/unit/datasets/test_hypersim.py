"""Hypersim's raw layout read back: the truth within half floats' rounding, and every known trap."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from e2eft.data.sample import RejectedFrame, Sample, check_sample
from e2eft.data.transforms import resize_sample
from e2eft.datasets import open_source
from e2eft.datasets.hypersim import HypersimSource
from e2eft.datasets.reading.hypersim import HypersimFrames, tone_map, unit_intrinsics
from e2eft.geometry.camera import pixel_rays
from tests.hypersim_files import (
    HEIGHT,
    STANDARD,
    TILTED,
    WIDTH,
    HypersimFrame,
    HypersimRelease,
    encode,
    intrinsics_of,
    make_frame,
    path_of,
)

HALF = 2.0**-11
"""Relative rounding of a half float."""
PLAIN, LEANING = "ai_001_001", "ai_037_002"


def release() -> tuple[HypersimRelease, dict[str, HypersimFrame]]:
    """Two scenes, one with a tilted lens: their frames by key."""
    made = HypersimRelease(cameras={PLAIN: STANDARD, LEANING: TILTED})
    frames: dict[str, HypersimFrame] = {}
    for scene, camera, number in (
        (PLAIN, "cam_00", 0), (PLAIN, "cam_00", 2), (PLAIN, "cam_01", 0), (LEANING, "cam_00", 17),
    ):  # fmt: skip
        frame = make_frame(number + len(frames), made.cameras[scene])
        frames[f"hypersim/{scene}/{camera}/frame-{number:04d}"] = frame
        made.add(scene, camera, number, frame)
    made.exclude(PLAIN, "cam_00", 1)
    made.add("ai_003_001", "cam_00", 0, make_frame(9, STANDARD), split="val")
    made.cameras["ai_003_001"] = STANDARD
    return made, frames


def source_of(made: HypersimRelease, folder: Path, layout: str = "folders", **fields: Any) -> Any:
    split, cameras = made.write_tables(folder)
    root = made.write_zips(folder / "z") if layout == "zips" else made.write_folders(folder / "f")
    known = {"root": str(root), "split_csv": str(split), "camera_csv": str(cameras)}
    return open_source(HypersimSource(**known | fields))


def samples_of(source: HypersimFrames) -> list[Sample | RejectedFrame]:
    return list(source.decode(range(len(source))))


def only_sample(source: HypersimFrames) -> Sample:
    (sample,) = samples_of(source)
    assert isinstance(sample, Sample), sample
    return check_sample(sample)


def one_frame(folder: Path, frame: HypersimFrame, **fields: Any) -> HypersimFrames:
    made = HypersimRelease(cameras={PLAIN: STANDARD})
    made.add(PLAIN, "cam_00", 0, frame)
    return source_of(made, folder, **fields)


@pytest.mark.parametrize("layout", ["folders", "zips"])
def test_the_truth_comes_back(layout: str, tmp_path: Path) -> None:
    made, frames = release()
    source = source_of(made, tmp_path, layout)
    samples = samples_of(source)
    assert [sample.key for sample in samples] == list(frames)
    for sample in samples:
        assert isinstance(sample, Sample)
        check_sample(sample)
        truth = frames[sample.key]
        np.testing.assert_allclose(sample.intrinsics_px, truth.intrinsics_px, atol=1e-9)
        np.testing.assert_allclose(sample.depth_m, truth.depth_m, rtol=HALF * 1.01)
        cosine = (sample.normals_cam * truth.normals_cam).sum(-1)
        assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 0.1
        assert sample.source == "hypersim" and sample.scene in sample.key
    assert max(float(s.depth_m.max()) for s in samples if isinstance(s, Sample)) > 300


def test_folders_and_zips_give_the_same_samples(tmp_path: Path) -> None:
    made, _ = release()
    pairs = [samples_of(source_of(made, tmp_path, layout)) for layout in ("folders", "zips")]
    for one, other in zip(*pairs, strict=True):
        assert isinstance(one, Sample) and isinstance(other, Sample)
        for name in ("rgb", "depth_m", "normals_cam", "intrinsics_px"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_tilted_lens_has_rays_that_no_focal_length_gives() -> None:
    intrinsics = np.diag([WIDTH, HEIGHT, 1.0]) @ unit_intrinsics(TILTED)
    np.testing.assert_allclose(intrinsics, intrinsics_of(TILTED), atol=1e-9)
    rays = pixel_rays(intrinsics, HEIGHT, WIDTH)
    column, row = 5, 40
    u, v = (column + 0.5) / WIDTH * 2 - 1, 1 - (row + 0.5) / HEIGHT * 2
    x, y, z = TILTED @ [u, v, 1]
    np.testing.assert_allclose(rays[row, column], [x / -z, -y / -z, 1], atol=1e-12)
    assert abs(intrinsics[2, 1]) > 1e-4, "this lens is not tilted"


def test_marigolds_focal_length_is_offered_and_wrong_for_a_tilted_lens(tmp_path: Path) -> None:
    made, frames = release()
    source = source_of(made, tmp_path, intrinsics="marigold", camera_csv=None)
    for sample in samples_of(source):
        assert isinstance(sample, Sample)
        focal = 886.81 * WIDTH / 1024
        expected = [[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]]
        np.testing.assert_allclose(sample.intrinsics_px, expected)
        off = np.abs(sample.depth_m / frames[sample.key].depth_m - 1).max()
        assert (off > 0.02) == (LEANING in sample.key)


def test_no_entity_means_unknown(tmp_path: Path) -> None:
    frame = make_frame(1, STANDARD)
    frame.files["render_entity_id"][:5, :7] = -1
    sample = only_sample(one_frame(tmp_path, frame))
    unknown = np.zeros((HEIGHT, WIDTH), bool)
    unknown[:5, :7] = True
    np.testing.assert_array_equal(np.isnan(sample.depth_m), unknown)
    np.testing.assert_array_equal(np.isnan(sample.normals_cam).any(-1), unknown)


def test_normals_inside_out_too_long_zero_or_unknown(tmp_path: Path) -> None:
    frame = make_frame(2, STANDARD)
    written = frame.files["normal_cam"]
    written[10:20] *= -1
    written[20:30] *= 3
    written[30, :10], written[31, :10] = 0, np.nan
    sample = only_sample(one_frame(tmp_path, frame))
    unknown = np.isnan(sample.normals_cam).any(-1)
    assert unknown.sum() == 20 and unknown[30:32, :10].all()
    cosine = (sample.normals_cam * frame.normals_cam).sum(-1)[~unknown]
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 0.1
    assert not np.isnan(sample.depth_m).any()


def test_depth_unknown_too_near_and_beyond_what_can_be_stored(tmp_path: Path) -> None:
    frame = make_frame(3, STANDARD)
    frame.files["depth_meters"][0, :4] = [np.nan, 0.0, 4000.0, np.inf]
    sample = only_sample(one_frame(tmp_path, frame))
    assert np.isnan(sample.depth_m[0, :2]).all() and np.isposinf(sample.depth_m[0, 2:4]).all()


def test_tone_mapping_puts_the_90th_percentile_of_brightness_at_four_fifths() -> None:
    rng = np.random.default_rng(0)
    radiance = rng.gamma(1.0, 2.0, (60, 80, 3)).astype(np.float32)
    known = np.ones((60, 80), bool)
    known[:, :20] = False
    radiance[:, :20] *= 50  # what shows nothing does not count
    picture = tone_map(radiance, known)
    brightness = radiance[:, 20:] @ np.array([0.3, 0.59, 0.11])
    level = np.percentile(brightness, 90)
    expected = np.clip(radiance / level * 0.8**2.2, 0, 1) ** (1 / 2.2) * 255
    assert picture.dtype == np.uint8
    # The dataset's script truncates.
    assert np.abs(picture - np.floor(expected)).max() <= 1
    assert (picture == np.floor(expected)).mean() > 0.99
    grey = np.full((4, 4, 3), level, np.float32)
    assert int(tone_map(grey, np.ones((4, 4), bool))[0, 0, 0]) in (203, 204)


def test_tone_mapping_of_what_is_black_blank_or_not_finite() -> None:
    everything, nothing = np.ones((4, 4), bool), np.zeros((4, 4), bool)
    black = np.full((4, 4, 3), 1e-5, np.float32)
    assert not tone_map(black, everything).any()
    assert (tone_map(np.ones((4, 4, 3), np.float32), nothing) == 255).all()
    broken = np.full((4, 4, 3), 0.5, np.float32)
    broken[0, 0], broken[0, 1] = np.nan, np.inf
    picture = tone_map(broken, everything)
    assert not picture[0, 0].any() and (picture[0, 1] == 255).all()
    assert len(np.unique(picture[1:])) == 1


def test_a_split_is_what_the_table_says(tmp_path: Path) -> None:
    made, frames = release()
    assert len(source_of(made, tmp_path)) == len(frames) == 4
    (validation,) = samples_of(source_of(made, tmp_path, split="val"))
    assert validation.key == "hypersim/ai_003_001/cam_00/frame-0000"
    chosen = source_of(made, tmp_path, scenes=(LEANING,))
    assert [sample.key for sample in samples_of(chosen)] == list(frames)[3:]


def test_marigolds_list_keeps_its_frames_only(tmp_path: Path) -> None:
    made, frames = release()
    lines = [
        "ai_001_001/rgb_cam_00_fr0002.png ai_001_001/depth_plane_cam_00_fr0002.png",
        "ai_037_002/rgb_cam_00_fr0017.png ai_037_002/depth_plane_cam_00_fr0017.png",
    ]
    kept = tmp_path / "kept.txt"
    kept.write_text("\n".join(lines))  # published without a final newline
    source = source_of(made, tmp_path, keep_list=str(kept))
    assert [sample.key for sample in samples_of(source)] == [list(frames)[1], list(frames)[3]]
    for line, said in (
        ("hello", "'hello' names no frame"),
        ("".join(lines), "names more than one frame"),  # no line's end between them
        (" ".join(lines), "names more than one frame"),
        (lines[0].replace("plane_cam_00", "plane_cam_01"), "names more than one frame"),
        (lines[0].replace("ai_001_001/depth", "ai_01_001/depth"), "names no frame"),
        (lines[0].replace("0002", "00021"), "names no frame"),
    ):
        kept.write_text(f"ai_001_001/rgb_cam_00_fr0002.png\n{line}\n")
        with pytest.raises(ValueError, match=rf"^--keep-list .*kept.txt, line 2: .*{said}"):
            len(source_of(made, tmp_path, keep_list=str(kept)))
    kept.write_text("ai_055_001/rgb_cam_00_fr0002.png\n")
    with pytest.raises(ValueError, match=r"no frame of the split 'train'"):
        source_of(made, tmp_path, keep_list=str(kept)).check_present()


@pytest.mark.parametrize("layout", ["folders", "zips"])
def test_a_broken_frame_is_rejected_and_the_others_read(layout: str, tmp_path: Path) -> None:
    made, frames = release()
    del made.files[path_of(PLAIN, "cam_00", 0, "normal_cam")]
    made.files[path_of(PLAIN, "cam_00", 2, "color")] = b"\x89HDF\r\n\x1a\n and no more"
    short = frames["hypersim/ai_001_001/cam_01/frame-0000"].files["depth_meters"][:40]
    made.files[path_of(PLAIN, "cam_01", 0, "depth_meters")] = encode(short)
    rejects = samples_of(source_of(made, tmp_path, layout))
    assert isinstance(rejects.pop(), Sample)
    assert [r.reason for r in rejects if isinstance(r, RejectedFrame)] == [
        "missing_file", "corrupt_file", "wrong_shape",
    ]  # fmt: skip
    assert [reject.key for reject in rejects] == list(frames)[:3]
    for reject, named in zip(rejects, ("normal_cam", "color", "depth_meters"), strict=True):
        assert isinstance(reject, RejectedFrame) and named in reject.detail


def hdf5(name: str, **how: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset(name, **how)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        hdf5("dataset/inside", data=0),
        hdf5("dataset", data=h5py.Empty("f4")),
        hdf5("dataset", data=np.zeros((60, 84), "S1")),
        # Chunks that are not written take no place.
        hdf5("dataset", shape=(10**6, 10**7), dtype="f4", chunks=(9, 9)),
        hdf5("dataset", shape=(10**6, 10**7, 3), dtype="f4", chunks=(9, 9, 3)),
    ],
)
def test_a_file_that_holds_no_picture_costs_its_frame_only(content: bytes, tmp_path: Path) -> None:
    made, frames = release()
    made.files[path_of(PLAIN, "cam_00", 0, "color")] = content
    made.files[path_of(PLAIN, "cam_00", 2, "depth_meters")] = content
    *rejects, third, fourth = samples_of(source_of(made, tmp_path))
    assert [reject.key for reject in rejects] == list(frames)[:2]
    for reject, named in zip(rejects, ("color", "depth_meters"), strict=True):
        assert isinstance(reject, RejectedFrame) and named in reject.detail
        assert reject.reason in ("corrupt_file", "wrong_shape")
    assert isinstance(third, Sample) and isinstance(fourth, Sample)


def test_a_damaged_member_of_a_zip_is_noticed(tmp_path: Path) -> None:
    frame = make_frame(4, STANDARD)
    source = one_frame(tmp_path, frame, layout="zips")
    path = tmp_path / "z" / f"{PLAIN}.zip"
    content = bytearray(path.read_bytes())
    payload = encode(frame.files["depth_meters"])
    at = content.find(payload) + len(payload) // 2
    content[at] ^= 0xFF
    path.write_bytes(bytes(content))
    (reject,) = samples_of(source)
    assert isinstance(reject, RejectedFrame) and reject.reason == "corrupt_file"
    assert f"{PLAIN}.zip" in reject.detail and "checksum" in reject.detail


def test_a_zip_cut_short_names_itself(tmp_path: Path) -> None:
    source = one_frame(tmp_path, make_frame(4, STANDARD), layout="zips")
    path = tmp_path / "z" / f"{PLAIN}.zip"
    path.write_bytes(path.read_bytes()[:-40])
    (reject,) = samples_of(source)
    assert isinstance(reject, RejectedFrame) and reject.reason == "corrupt_file"
    assert f"{PLAIN}.zip" in reject.detail and "download it again" in reject.detail


def test_what_is_not_there_is_named_with_what_was_found(tmp_path: Path) -> None:
    made, _ = release()
    source = source_of(made, tmp_path)
    config = source.config
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "scenes").mkdir(parents=True)
    for root, found in (("empty", "nothing"), ("other", "scenes"), ("nowhere", "nothing")):
        with pytest.raises(
            ValueError, match=rf"none of the 2 scenes: .* ai_001_001\.zip, found {found}"
        ):
            open_source(config.model_copy(update={"root": str(tmp_path / root)})).check_present()
    made.files = {p: c for p, c in made.files.items() if not p.startswith(LEANING)}
    with pytest.raises(ValueError, match=rf"lacks 1 of 2 scenes, the first is {LEANING}.*--scene"):
        source_of(made, tmp_path / "half").check_present()
    with pytest.raises(ValueError, match=r"--scene ai_009_009 has no frame in the split 'train'"):
        source_of(made, tmp_path, scenes=("ai_009_009",)).check_present()


def test_tables_of_the_wrong_kind_are_named(tmp_path: Path) -> None:
    made, _ = release()
    source = source_of(made, tmp_path)
    config = source.config
    swapped = replace_field(config, split_csv=config.camera_csv)
    with pytest.raises(ValueError, match=r"cameras.csv has no column 'camera_name'"):
        open_source(swapped).check_present()
    blind = open_source(replace_field(config, camera_csv=None))
    with pytest.raises(ValueError, match=r"--camera-csv is missing.*--intrinsics marigold"):
        blind.check_present()
    with pytest.raises(ValueError, match=r"nowhere.csv is not there"):
        open_source(replace_field(config, split_csv=str(tmp_path / "nowhere.csv"))).check_present()


def test_a_camera_that_is_no_matrix_is_named(tmp_path: Path) -> None:
    made, _ = release()
    made.cameras[LEANING] = np.zeros((3, 3))
    with pytest.raises(ValueError, match=rf"cameras.csv, line 3, scene {LEANING}: Singular"):
        source_of(made, tmp_path).check_present()


def replace_field(config: HypersimSource, **fields: Any) -> HypersimSource:
    return HypersimSource(**config.model_dump() | fields)


def test_a_scene_without_a_camera_is_rejected(tmp_path: Path) -> None:
    made, _ = release()
    del made.cameras[LEANING]
    *_, reject = samples_of(source_of(made, tmp_path))
    assert isinstance(reject, RejectedFrame) and reject.reason == "unknown_camera"
    assert LEANING in reject.detail


def test_provenance_follows_the_tables(tmp_path: Path) -> None:
    made, _ = release()
    before = source_of(made, tmp_path).provenance()
    assert set(before) == {"split", "split_sha256", "camera_sha256"}
    assert before["split"] == "train"
    assert source_of(made, tmp_path).provenance() == before
    made.cameras[PLAIN] = TILTED
    after = source_of(made, tmp_path).provenance()
    assert after["camera_sha256"] != before["camera_sha256"]
    assert after["split_sha256"] == before["split_sha256"]


def test_the_sources_place_is_not_part_of_its_identity(tmp_path: Path) -> None:
    made, _ = release()
    config = source_of(made, tmp_path).config
    moved = replace_field(config, root="s3://bucket/hypersim")
    assert moved.digest() == config.digest()
    assert replace_field(config, split="val").digest() != config.digest()


def test_the_flipped_camera_of_a_tilted_lens_sees_the_mirrored_point(tmp_path: Path) -> None:
    from e2eft.data.batches import flip_sample

    made, _ = release()
    sample = samples_of(source_of(made, tmp_path, scenes=(LEANING,)))[0]
    assert isinstance(sample, Sample)
    rays = pixel_rays(sample.intrinsics_px, HEIGHT, WIDTH)
    mirrored = pixel_rays(flip_sample(sample).intrinsics_px, HEIGHT, WIDTH)
    np.testing.assert_allclose(mirrored, rays[:, ::-1] * [-1, 1, 1], atol=1e-12)
    check_sample(replace(flip_sample(sample), rgb=np.ascontiguousarray(sample.rgb[:, ::-1])))


def test_files_of_the_release_are_what_the_reader_expects() -> None:
    import h5py

    with h5py.File(io.BytesIO(encode(np.zeros((48, 64), np.float16)))) as file:
        assert list(file) == ["dataset"]
        assert file["dataset"].compression == "gzip" and file["dataset"].compression_opts == 9


def test_frames_are_resized_on_request_and_say_so_in_their_identity(tmp_path: Path) -> None:
    made, _ = release()
    size = (HEIGHT * 5 // 8 // 8 * 8, WIDTH * 5 // 8 // 8 * 8)
    plain = samples_of(source_of(made, tmp_path / "a"))
    small = source_of(made, tmp_path / "b", height=size[0], width=size[1])
    for native, resized in zip(plain, samples_of(small), strict=True):
        assert isinstance(native, Sample) and isinstance(resized, Sample)
        wanted = resize_sample(native, size)
        assert check_sample(resized).size == size and resized.key == native.key
        np.testing.assert_array_equal(resized.depth_m, wanted.depth_m)
        np.testing.assert_array_equal(resized.intrinsics_px, wanted.intrinsics_px)
    assert small.config.digest() != source_of(made, tmp_path / "c").config.digest()


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"height": 480}, "--height 480 and --width None"), ({"height": 480, "width": 636}, "640")],
)
def test_a_size_that_cannot_be_is_refused(fields: dict[str, int], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        HypersimSource.model_validate({"root": "r", "split_csv": "s", **fields})
