"""Label files: what is written is what is read, and the files say what they mean."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from e2eft.artifacts import ArtifactError
from e2eft.config import LabelConfig
from e2eft.images.npy import decode_npy, encode_npy
from e2eft.images.resize import fitted_size, resize_depth, resize_normals
from e2eft.labels.index import (
    KIND,
    blank_row,
    committed_parts,
    encode_index,
    index_schema,
    open_labels,
    part_path,
    read_label,
    verify_labels,
)
from e2eft.storage import LocalStore, StorageError
from e2eft.tasks import label_codec, label_codecs
from e2eft.tasks.depth.pictures import PREVIEW_SIDE_PX, preview
from tests.artifacts import write_artifact

DEPTH, NORMALS = label_codec("depth"), label_codec("normals")
UNIT = st.floats(0, 1, width=32)


def unit_normals(seed: int, height: int = 30, width: int = 40) -> np.ndarray:
    """float32 unit vectors, facing the camera."""
    vectors = np.random.default_rng(seed).normal(size=(height, width, 3))
    vectors[..., 2] = -np.abs(vectors[..., 2])
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def angles_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.degrees(2 * np.arcsin(np.linalg.norm(a - b, axis=-1) / 2))


@given(arrays.arrays(np.float32, (5, 7), elements=UNIT))
def test_depth_survives_to_a_sixteenth_bit(depth: np.ndarray) -> None:
    content = DEPTH.encode(depth, {})
    np.testing.assert_allclose(DEPTH.decode(content), depth, atol=0.501 / 65535)
    assert DEPTH.decode(content).dtype == np.float32


def test_a_depth_png_is_near_dark_and_describes_itself() -> None:
    content = DEPTH.encode(np.float32([[0, 0.5, 1]]), {"key": "a/ü 中.jpg", "model": "m@1"})
    picture = Image.open(io.BytesIO(content))
    assert picture.mode == "I;16"
    np.testing.assert_array_equal(np.asarray(picture), [[0, 32768, 65535]])
    text: dict[str, str] = picture.text  # type: ignore[attr-defined]
    assert text["key"] == "a/ü 中.jpg" and text["kind"] == "affine_depth"
    assert "65535" in text["encoding"] and "0 near" in text["convention"]


def test_normals_survive_in_marigolds_axes() -> None:
    normals = unit_normals(0)
    normals[3, 4] = np.nan
    content = NORMALS.encode(normals, {})
    back = NORMALS.decode(content)
    assert np.isnan(back[3, 4]).all() and np.isfinite(np.delete(back.reshape(-1, 3), 124, 0)).all()
    errors = angles_deg(normals, back)
    assert np.nanmean(errors) < 0.2 and np.nanmax(errors) < 0.45
    np.testing.assert_allclose(np.linalg.norm(back, axis=-1)[0], 1, atol=1e-6)
    facing, right, up = np.float32([[[0, 0, -1], [1, 0, 0], [0, -1, 0]]])[0]
    wall = NORMALS.encode(np.stack([facing, right, up])[None], {})
    colours = np.asarray(Image.open(io.BytesIO(wall)))[0]
    np.testing.assert_array_equal(colours, [[128, 128, 255], [255, 128, 128], [128, 255, 128]])


def test_arrays_survive_exactly() -> None:
    normals = unit_normals(1)
    normals[0, 0] = np.nan
    np.testing.assert_array_equal(decode_npy(encode_npy(normals)), normals)


def test_a_preview_is_small_and_coloured() -> None:
    depth = np.tile(np.linspace(0, 1, 3000, dtype=np.float32), (30, 1))
    picture = Image.open(io.BytesIO(preview(depth)))
    assert picture.size == (PREVIEW_SIDE_PX, 10)
    near, far = np.asarray(picture)[5, 20].astype(int), np.asarray(picture)[5, -20].astype(int)
    assert near[0] > near[2] + 50 and far[2] > far[0] + 50


@pytest.mark.parametrize(
    ("size", "longest", "expected"),
    [((480, 640), 768, (576, 768)), ((4000, 3000), 768, (768, 576)), ((5, 1000), 100, (1, 100)),
     ((480, 640), None, (480, 640)), ((37, 53), 53, (37, 53))],
)  # fmt: skip
def test_fitting_keeps_the_aspect(
    size: tuple[int, int], longest: int | None, expected: tuple[int, int]
) -> None:
    assert fitted_size(*size, longest) == expected


@settings(deadline=None)
@given(st.integers(0, 50), st.tuples(st.integers(8, 90), st.integers(8, 90)))
def test_resizing_is_what_torch_calls_antialiased_bilinear(
    seed: int, size: tuple[int, int]
) -> None:
    import torch
    from torch.nn import functional

    depth = np.random.default_rng(seed).uniform(size=(30, 40)).astype(np.float32)
    expected = functional.interpolate(
        torch.from_numpy(depth)[None, None], size, mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(resize_depth(depth, size), expected[0, 0], atol=1e-5)


def test_resized_normals_are_unit_and_unknown_ones_do_not_spread() -> None:
    normals = unit_normals(2)
    normals[:, :10] = np.nan
    for size in ((60, 80), (15, 20)):
        resized = resize_normals(normals, size)
        length = np.linalg.norm(resized, axis=-1)
        assert resized.dtype == np.float32
        assert np.isnan(length[:, : size[1] // 4 - 1]).all()
        np.testing.assert_allclose(length[:, size[1] // 4 :], 1, atol=1e-5)
    plane = np.tile(np.float32([0.6, 0, -0.8]), (9, 9, 1))
    assert angles_deg(resize_normals(plane, (31, 17)), plane[0, 0]).max() < 1e-3


def planned(index: int) -> dict[str, Any]:
    return {"index": index, "part": index // 2, "key": f"{index}.jpg", "uri": f"u/{index}.jpg"}


def write_labels(folder: Path) -> LocalStore:
    """Four images in two parts; the last one was rejected."""
    store = LocalStore(folder)
    config = LabelConfig(model="m", images="i", out=str(folder), task="depth")
    rows: list[dict[str, Any]] = []
    pngs: dict[str, bytes] = {}
    for index in range(4):
        row = blank_row(planned(index))
        if index == 3:
            row |= {"status": "rejected", "reason": "too_small", "detail": "1 x 1"}
        else:
            png = DEPTH.encode(np.full((4, 6), index / 4, np.float32), {})
            path = f"depth/{index}.jpg.png"
            pngs[path] = png
            digest = __import__("hashlib").sha256(png).hexdigest()
            row |= {"status": "ok", "depth_path": path, "label_sha256": digest}
        rows.append(row)
    files = {
        part_path(part): encode_index(pa.Table.from_pylist(rows[2 * part : 2 * part + 2][::-1]))
        for part in (1, 0)
    }
    counts, details = {"planned": 4}, {"task": "depth"}
    write_artifact(store, KIND, config, files=files, counts=counts, details=details, unlisted=pngs)
    return store


def test_an_index_is_read_in_order_and_finds_labels_by_key(tmp_path: Path) -> None:
    store = write_labels(tmp_path)
    index = open_labels(str(tmp_path))
    assert (index.task, committed_parts(store)) == ("depth", {0, 1})
    assert [row["key"] for row in index.rows()] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert set(index.by_key()) == {"0.jpg", "1.jpg", "2.jpg"}
    label = index.read(index.by_key()["2.jpg"])
    np.testing.assert_allclose(label, np.full((4, 6), 0.5), atol=1e-5)
    assert verify_labels(index) == []


def test_damage_and_loss_are_found(tmp_path: Path) -> None:
    store = write_labels(tmp_path)
    store.write("depth/0.jpg.png", b"changed")
    store.delete("depth/1.jpg.png")
    assert verify_labels(open_labels(str(tmp_path))) == ["depth/0.jpg.png", "depth/1.jpg.png"]


def test_a_rejected_image_has_no_label_and_says_why(tmp_path: Path) -> None:
    write_labels(tmp_path)
    index = open_labels(str(tmp_path))
    row = list(index.rows())[3]
    with pytest.raises(ArtifactError, match=r"3\.jpg.*too_small \(1 x 1\)"):
        index.read(row)


def test_no_text_of_the_index_is_null(tmp_path: Path) -> None:
    row = blank_row(planned(0))
    table = pa.Table.from_pylist([row], index_schema())
    assert all(column.null_count == 0 for column in table.columns)
    assert {value for value in row.values() if isinstance(value, str)} == {"", "0.jpg", "u/0.jpg"}
    assert not any(math.isnan(value) for value in row.values() if isinstance(value, float))


def test_the_columns_of_the_index_keep_their_order() -> None:
    names = index_schema().names
    at = names.index("source_sha256") + 1
    assert names[:at] == [
        "index", "part", "key", "uri", "status", "reason", "detail", "width", "height",
        "label_width", "label_height", "processing_width", "processing_height",
        "exif_orientation", "mode", "source_sha256",
    ]  # fmt: skip
    assert names[at : at + 2] == ["depth_path", "normals_path"]
    assert names[-5:] == ["npy_path", "preview_path", "label_sha256", "npy_sha256", "seconds"]
    assert len(names) == at + len(label_codecs()) + 5


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    config = LabelConfig(model="m", images="i", out=str(tmp_path), task="depth")
    newer = {"label_schema_version": 99}
    write_artifact(store, KIND, config, files={}, counts={}, details=newer)
    with pytest.raises(ArtifactError, match=r"schema 99.*upgrade"):
        open_labels(str(tmp_path))


def test_reading_labels_needs_neither_torch_nor_ray() -> None:
    import subprocess
    import sys

    script = (
        "import sys, e2eft.labels.index, e2eft.label.chunks, e2eft.label.graph, e2eft.tasks\n"
        "e2eft.tasks.label_codecs()\n"
        "heavy = {'torch', 'ray', 'diffusers', 'mlflow', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_reading_labels_draws_no_pictures(tmp_path: Path) -> None:
    import subprocess
    import sys

    write_labels(tmp_path)
    script = (
        "import sys, e2eft.labels\n"
        "labels = e2eft.labels.open_labels(sys.argv[1])\n"
        "assert labels.read(labels.by_key()['1.jpg']).shape == (4, 6)\n"
        "sys.exit(str([name for name in sys.modules if name.startswith('e2eft.views')] or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert done.stderr.strip() == ""


def test_a_label_that_is_damaged_or_of_another_kind_is_no_storage_trouble(tmp_path: Path) -> None:
    store, text = LocalStore(tmp_path), {"key": "0.jpg"}
    depth = DEPTH.encode(np.full((4, 5), 0.25, np.float32), text)
    normals, grey = NORMALS.encode(unit_normals(0, 4, 5), text), io.BytesIO()
    Image.new("L", (5, 4)).save(grey, "PNG")
    at = depth.index(b"IDAT") + 6
    flipped = depth[:at] + b"\xff" + depth[at + 1 :]
    pictures = [b"", depth[:8], depth[:-30], flipped, normals, grey.getvalue()]
    wrong = np.zeros((4, 5), np.int64), np.zeros((4, 5, 3)), np.zeros(3)
    row = blank_row(planned(0)) | {"status": "ok", "depth_path": "0.png"}
    store.write("0.png", depth)
    assert read_label(store, row, DEPTH)[0, 0] == pytest.approx(0.25, abs=1e-5)
    for path, contents in {"0.png": pictures, "0.npy": [b"", *map(encode_npy, wrong)]}.items():
        for content in contents:
            store.write(path, content)
            with pytest.raises(ValueError, match=r"\w") as error:
                npy_path = path if path.endswith("npy") else ""
                read_label(store, row | {"npy_path": npy_path}, DEPTH)
            assert not isinstance(error.value, StorageError), content
    store.write("1.png", depth)
    with pytest.raises(ValueError, match="is no label"):
        read_label(store, row | {"depth_path": "", "normals_path": "1.png"}, NORMALS)
