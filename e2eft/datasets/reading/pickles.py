"""Pickles of published datasets, read without running what they say.

A pickle is a program. Only what arrays, and containers of them, are made of is admitted by name;
anything else is refused before it is called.
"""

import io
import pickle
from typing import Any

from e2eft.data.sample import SampleError

_ARRAY_PARTS = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    *(
        (module, name)
        for package in ("numpy.core", "numpy._core")
        for module, name in (
            (f"{package}.multiarray", "_reconstruct"),
            (f"{package}.multiarray", "scalar"),
            (f"{package}.numeric", "_frombuffer"),
        )
    ),
    # How protocol 2 and older spell bytes.
    ("_codecs", "encode"),
}


class _RefusedError(pickle.UnpicklingError):
    """A name in a pickle that no array needs."""


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ARRAY_PARTS:
            raise _RefusedError(f"it names {module}.{name}")
        # Where numpy of today has what older releases named.
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load_arrays(content: bytes, path: str) -> Any:
    """Dictionaries, lists, tuples, strings, numbers and numpy arrays, out of a pickle.

    Raises:
        SampleError: `unsafe_pickle` if it names anything else, `corrupt_file` if it cannot be read.
    """
    try:
        return _ArrayUnpickler(io.BytesIO(content), encoding="latin1").load()
    except _RefusedError as error:
        raise SampleError("unsafe_pickle", f"{path}: {error}; refused") from error
    # What a damaged pickle raises depends on where it is damaged.
    except Exception as error:
        raise SampleError("corrupt_file", f"{path}: {type(error).__name__}: {error}") from error
