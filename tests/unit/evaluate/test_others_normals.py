"""Normals that another program wrote: what is one, and which file is it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from e2eft import evaluate
from e2eft.labels.trees import open_label_tree
from tests.labelling import scored_here
from tests.scored_frames import config_of, make_frame, write_array, write_shards

__all__ = ["scored_here"]

NOISE = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)
ROTATED = np.array([1, -1, -1], np.float32)
"""OpenCV's axes to right-up-viewer, and back."""


def facing(generator: np.random.Generator) -> np.ndarray:
    """Normals of a cluttered scene, right-up-viewer."""
    normals = generator.normal((0, 0.3, 0.8), 0.6, (24, 32, 3))
    return (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)


SIDEWAYS = np.tile(np.array([-0.6, 0, 0.8], np.float32), (24, 32, 1))
"""A wall whose (n + 1) / 2 is 1.05 long."""


@pytest.mark.parametrize(
    ("name", "stored", "said"),
    [
        ("x.npy", lambda n: (n + 1) / 2, r"lengths about 1\.\d+, .*stored as \(n \+ 1\) / 2\?"),
        (
            "x.npy",
            lambda n: np.concatenate([n[:3], SIDEWAYS[3:]]) / 2 + 0.5,
            r"lengths about 1\.05,",
        ),
        ("x.npy", lambda n: (n + 1) * 127.5, r"lengths about [23]\d\d, half of them"),
        ("x.npy", lambda n: n * np.float32(1e25), r"lengths about 1e\+25"),
        ("x.npy", lambda n: n * np.float64(1e300), r"lengths about inf"),
        (
            "x.png",
            lambda n: np.random.default_rng(1).integers(0, 256, n.shape, np.uint8),
            "lengths",
        ),
        ("x.png", lambda n: np.full(n.shape, 90, np.uint8), r"lengths about 0\.509"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_vectors_that_are_no_unit_normals_are_unreadable_and_say_what_they_look_like(
    tmp_path: Path, name: str, stored: Callable[[np.ndarray], np.ndarray], said: str
) -> None:
    write_array(tmp_path / name, stored(facing(np.random.default_rng(0))))
    tree = open_label_tree(str(tmp_path), "normals", "normals", "right-up-viewer", None)
    row = tree.label_rows(["x"])["x"]
    with pytest.raises(ValueError, match=rf"{name}: {said}"):
        tree.read(row)


@pytest.mark.filterwarnings("error")
def test_unit_normals_stay_what_they_are_and_those_without_length_are_unknown(
    tmp_path: Path,
) -> None:
    normals = facing(np.random.default_rng(0))
    normals[0, :8], normals[1, 0], normals[1, 1, 2] = 0, np.nan, np.inf
    normals[2, :20] *= 0.5
    write_array(tmp_path / "x.npy", normals)
    write_array(tmp_path / "walls.npy", SIDEWAYS * [-1, 1, 1])
    tree = open_label_tree(str(tmp_path), "normals", "normals", "right-up-viewer", None)
    rows = tree.label_rows(["x", "walls"])
    found = tree.read(rows["x"])
    unknown = np.isnan(found[..., 0])
    assert unknown[0, :8].all() and unknown[1, :2].all() and unknown.sum() == 10
    np.testing.assert_allclose(np.linalg.norm(found[~unknown], axis=-1), 1, atol=1e-6)
    np.testing.assert_allclose(found[3:], normals[3:] * ROTATED, atol=1e-6)
    np.testing.assert_allclose(tree.read(rows["walls"])[0, 0], [0.6, 0, -0.8], atol=1e-6)


def test_a_prediction_wins_over_the_image_that_lies_beside_it(
    tmp_path: Path, scored_here: None
) -> None:
    photographed = [replace(make_frame(n), key=f"test/{n:06d}_img") for n in range(3)]
    data = write_shards(tmp_path / "d", photographed, [3])
    for frame, stem in zip(photographed, ("000000_pred", "000001_img_pred", ""), strict=True):
        write_array(tmp_path / "tree" / f"{frame.key}.png", frame.rgb)
        if stem:
            normals = np.nan_to_num(frame.normals_cam, nan=0.57735) * ROTATED
            write_array(tmp_path / "tree/test" / f"{stem}.npy", normals)
    scores = evaluate.run(config_of(tmp_path / "s", "normals", [data]), [str(tmp_path / "tree")])
    rows = evaluate.read_table(scores)[1].to_pylist()
    assert [row["status"] for row in rows] == ["scored", "scored", "unreadable"]
    assert "000002_img.png: lengths about" in rows[2]["detail"]
    assert evaluate.primary_score(scores).value < 0.05
