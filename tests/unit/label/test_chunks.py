"""The CPU halves of labelling, without a model."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft.artifacts import Writer
from e2eft.corpora.corpus import survey
from e2eft.label import chunks
from e2eft.label.chunks import Item, Work, decode_part, from_table, to_table, write_chunk
from e2eft.labels.index import read_label
from e2eft.storage import LocalStore
from e2eft.tasks import label_codec
from tests.corpora import coloured, write_plain_corpus


def work(folder: Path, **changes: Any) -> Work:
    fields: dict[str, Any] = {
        "images_uri": str(folder / "images"), "writer": Writer(str(folder / "out"), "claim", 1),
        "task": "depth",
        "target": "t", "model": "m@1", "longest_px": 32, "max_pixels": 10**6, "batch_size": 2,
        "seed": 0, "save_npy": True, "save_previews": True,
    }  # fmt: skip
    return Work(**fields | changes)


def planned(folder: Path) -> list[dict[str, Any]]:
    return survey(str(folder / "images"), 100).plan.to_pylist()


def test_chunks_are_batches_of_one_size(tmp_path: Path) -> None:
    folder = write_plain_corpus(tmp_path / "images", 5)
    for number in (10, 11):
        coloured(number, 64, 48).save(folder / f"{number:03d}.png")
    (folder / "z.png").write_bytes(b"no image")
    got = list(decode_part(planned(tmp_path), work(tmp_path)))
    assert [[item.row["key"] for item in items] for items in got] == [
        ["000.png", "001.png"], ["002.png", "003.png"], ["010.png", "011.png"], ["004.png"],
        ["z.png"],
    ]  # fmt: skip
    shapes = [{item.array.shape for item in items if item.array is not None} for items in got]
    assert shapes == [{(24, 32, 3)}, {(24, 32, 3)}, {(32, 24, 3)}, {(24, 32, 3)}, set()]
    assert got[-1][0].row["reason"] == "decode_unsupported"
    assert len({item.seed for items in got[:-1] for item in items}) == 7


def test_incomplete_batches_go_on_when_memory_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plain_corpus(tmp_path / "images", 5)
    monkeypatch.setattr(chunks, "HELD_BYTES", 24 * 32 * 3)
    got = list(decode_part(planned(tmp_path), work(tmp_path, batch_size=5)))
    assert [len(items) for items in got] == [2, 2, 1]


def test_files_are_read_ahead_by_their_bytes_and_a_large_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "AHEAD_BYTES", 100)
    names = ("a", "b", "c", "huge", "d", "unknown", "e")
    sizes = (40, 50, 20, 10**12, 90, -1, 5)
    rows = [{"key": k, "size_bytes": s} for k, s in zip(names, sizes, strict=True)]
    begun: list[str] = []

    def read(_: Any, row: dict[str, Any], __: int) -> bytes:
        return b""

    class Pool(ThreadPoolExecutor):
        def submit(self, fn: Any, row: Any) -> Any:  # type: ignore[override]
            begun.append(row["key"])
            return super().submit(fn, row)

    monkeypatch.setattr(chunks, "read_image", read)
    monkeypatch.setattr(chunks, "ThreadPoolExecutor", Pool)
    seen = {
        row["key"]: "".join(key[0] for key in begun)
        for row, _ in chunks._read_ahead(LocalStore(tmp_path), rows, 10)
    }
    # `huge` is not read at all, `unknown` may be as large as any.
    assert seen == {
        "a": "ab", "b": "abch", "c": "abch", "huge": "abchd", "d": "abchd", "unknown": "abchdu",
        "e": "abchdue",
    }  # fmt: skip


def test_native_size_keeps_every_pixel(tmp_path: Path) -> None:
    write_plain_corpus(tmp_path / "images", 1, 37, 53)
    ((item,),) = decode_part(planned(tmp_path), work(tmp_path, longest_px=None))
    np.testing.assert_array_equal(item.array, np.asarray(coloured(0, 37, 53)))


def test_chunks_survive_a_table(tmp_path: Path) -> None:
    write_plain_corpus(tmp_path / "images", 3)
    got = list(decode_part(planned(tmp_path), work(tmp_path)))
    again = from_table(to_table(got))
    assert [[item.row for item in items] for items in again] == [
        [item.row for item in items] for items in got
    ]
    np.testing.assert_array_equal(again[0][1].array, got[0][1].array)


def predicted(folder: Path, prediction: np.ndarray, **changes: Any) -> Item:
    ((item,),) = decode_part(planned(folder), work(folder, **changes))
    return item.predicted(prediction, 0.5)


def test_a_prediction_comes_back_at_the_images_size(tmp_path: Path) -> None:
    write_plain_corpus(tmp_path / "images", 1)
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (24, 1))
    (row,) = write_chunk([predicted(tmp_path, ramp)], work(tmp_path))
    assert (row["label_height"], row["label_width"]) == (48, 64)
    assert (row["processing_height"], row["processing_width"]) == (24, 32)
    assert row["seconds"] > 0.5
    label = read_label(LocalStore(tmp_path / "out"), row, label_codec("depth"))
    assert label.shape == (48, 64)
    # Pixel centres: column 2i + 1/2 of the label is column i of the prediction, +- 1/4.
    np.testing.assert_allclose(label[24, 20:44], (np.arange(20, 44) - 0.5) / 2 / 31, atol=1e-6)


def test_normals_get_png_and_npy(tmp_path: Path) -> None:
    write_plain_corpus(tmp_path / "images", 1)
    tilted = np.tile(np.float32([0.6, 0, -0.8]), (24, 32, 1))
    options: dict[str, Any] = {"task": "normals", "save_npy": False}
    (row,) = write_chunk([predicted(tmp_path, tilted, **options)], work(tmp_path, **options))
    assert row["npy_path"] == "npy/000.png.normals.npy"
    assert row["normals_path"] == "normals/000.png.png"
    assert row["depth_path"] == row["preview_path"] == ""
    store, codec = LocalStore(tmp_path / "out"), label_codec("normals")
    np.testing.assert_allclose(read_label(store, row, codec)[5, 5], [0.6, 0, -0.8], atol=1e-6)
    from_png = read_label(store, row | {"npy_path": ""}, codec)
    np.testing.assert_allclose(from_png[5, 5], [0.6, 0, -0.8], atol=6e-3)


def test_a_prediction_that_is_not_finite_is_no_label(tmp_path: Path) -> None:
    write_plain_corpus(tmp_path / "images", 1)
    broken = np.full((24, 32), 0.5, np.float32)
    broken[3, 4] = np.nan
    (row,) = write_chunk([predicted(tmp_path, broken)], work(tmp_path))
    assert (row["status"], row["reason"]) == ("rejected", "model_nan")
    assert not (tmp_path / "out").exists()
