"""What a pickle may hold, and that nothing in it is run."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2eft.data.sample import SampleError
from e2eft.datasets.reading.pickles import load_arrays


class Runs:
    """Pickled as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_of_them_are_read(protocol: int) -> None:
    written = {
        "min_y": 3,
        "scalar": np.int64(7),
        "normal": np.arange(12, dtype=np.float64).reshape(2, 2, 3),
        "mask": [np.array([True, False]), ("text", b"bytes", None, 1.5)],
        "columns": np.asfortranarray(np.arange(6, dtype=">f4").reshape(2, 3)),
    }
    read = load_arrays(pickle.dumps(written, protocol=protocol), "x.pkl")
    assert (read["min_y"], read["scalar"]) == (3, 7)
    np.testing.assert_array_equal(read["normal"], written["normal"])
    np.testing.assert_array_equal(read["mask"][0], [True, False])
    assert read["mask"][1] == ("text", b"bytes", None, 1.5)
    np.testing.assert_array_equal(read["columns"], written["columns"])


def test_arrays_of_older_numpy_are_read() -> None:
    content = pickle.dumps(np.arange(3.0), protocol=2)
    older = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert older != content
    np.testing.assert_array_equal(load_arrays(older, "x.pkl"), [0, 1, 2])


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_else_is_called(protocol: int, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for call in (
        Runs(trace.touch),
        Runs(eval, f"open({str(trace)!r}, 'w')"),
        Runs(__import__, "os"),
        Runs(np.save, str(trace), np.zeros(1)),
    ):
        content = pickle.dumps({"normal": np.zeros(2), "x": call}, protocol=protocol)
        with pytest.raises(SampleError, match=r"^unsafe_pickle: x\.pkl: it names .*; refused"):
            load_arrays(content, "x.pkl")
    assert not trace.exists() and not trace.with_suffix(".npy").exists()


def test_what_is_no_pickle_is_corrupt() -> None:
    whole = pickle.dumps({"normal": np.zeros(50)})
    for content in (b"", b"\x80", b"hello", whole[:-9], whole[20:]):
        with pytest.raises(SampleError, match=r"^corrupt_file: x\.pkl: "):
            load_arrays(content, "x.pkl")
