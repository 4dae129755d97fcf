"""Settings of every test."""

import gc
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import tests.shapes  # noqa: F401  (by its name below)

CHECKED = (
    "e2eft.geometry", "e2eft.metrics", "e2eft.tasks", "e2eft.data.batch", "e2eft.data.transforms",
    "e2eft.data.sample", "e2eft.images.resize", "e2eft.model.normalization",
)  # fmt: skip
"""Modules whose annotations of shapes and types are checked at every call, in this process."""
install_import_hook(CHECKED, "tests.shapes.checked")

# A deadline measures the machine, not the code.
settings.register_profile("e2eft", deadline=None)
settings.load_profile("e2eft")

LONGEST = (
    "test_training.py", "test_demo.py", "test_chaos.py", "test_frozen.py", "test_zero_stages.py"
)  # fmt: skip
"""Files that begin first, so that of two processes none has a long one left at the end."""


def pytest_configure() -> None:
    """Modules of tests import all there is, and none of it ever goes (`e2eft.imports`)."""
    gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = {item: Path(item.path).name for item in items}
    items.sort(key=lambda item: (*LONGEST, names[item]).index(names[item]))
