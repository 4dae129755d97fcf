"""What reading labels takes: numpy, Pillow and pyarrow, and nothing else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.scored_frames import write_labels

READER = """
import importlib.abc, sys
from importlib.metadata import packages_distributions

absent = set(packages_distributions()) - {"e2eft", "numpy", "PIL", "pyarrow"}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())

from e2eft.labels import open_labels

labels = open_labels(sys.argv[1])
for key, row in labels.by_key().items():
    label = labels.read(row)
    print(key, *label.shape, float(label[1, 2].sum()))
"""


@pytest.mark.parametrize("npy", [False, True])
@pytest.mark.parametrize(
    ("task", "label"),
    [
        ("depth", np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)),
        ("normals", np.broadcast_to(np.float32([0, 0, -1]), (8, 8, 3))),
    ],
)
def test_labels_are_read_without_any_other_package(
    task: str, label: np.ndarray, npy: bool, tmp_path: Path
) -> None:
    write_labels(tmp_path / "labels", task, {"a/b.jpg": label, "c.jpg": "decode_corrupt"}, npy=npy)
    command = [sys.executable, "-c", READER, str(tmp_path / "labels")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    key, *shape, total = done.stdout.split()
    assert key == "a/b.jpg" and tuple(map(int, shape)) == label.shape
    assert float(total) == pytest.approx(float(label[1, 2].sum()), abs=0.01)
