import pickle

import pytest

from e2eft.errors import (
    ConflictError,
    DamagedError,
    DeniedError,
    E2eftError,
    MissingError,
    StorageError,
    UnreachableError,
    as_json,
    from_json,
)
from e2eft.images.reasons import ImageError

KINDS = [MissingError, DeniedError, UnreachableError, ConflictError, DamagedError, StorageError]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_survives_as_data_and_as_a_pickle(kind: type[StorageError]) -> None:
    error = kind("s3://bucket/x: its text")
    for back in (from_json(as_json(error)), pickle.loads(pickle.dumps(error))):
        assert type(back) is kind and str(back) == str(error)


def test_what_an_error_knows_besides_its_text_survives() -> None:
    back = from_json(as_json(ImageError("too_small", "4 x 4 pixels")))
    assert isinstance(back, ImageError)
    assert (back.reason, back.detail) == ("too_small", "4 x 4 pixels")
    assert str(back) == "too_small: 4 x 4 pixels"


@pytest.mark.parametrize("kind", ["os:system", "e2eft.errors:as_json", "e2eft.gone:X", "nothing"])
def test_data_cannot_name_anything_but_an_error_of_this_project(kind: str) -> None:
    assert type(from_json({"kind": kind, "args": ["text"]})) is E2eftError
