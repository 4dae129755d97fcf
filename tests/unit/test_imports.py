"""Imports without the collector, which is on again afterwards, and only if it was on."""

import gc

import pytest

from e2eft.imports import uncollected


def test_the_collector_is_as_it_was() -> None:
    assert gc.isenabled()
    with pytest.raises(ImportError), uncollected():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected(), uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
