"""Settings of every test."""

from pathlib import Path

import pytest
from hypothesis import settings

# A deadline measures the machine, not the code.
settings.register_profile("e2eft", deadline=None)
settings.load_profile("e2eft")

LONGEST = (
    "test_training.py", "test_demo.py", "test_chaos.py", "test_frozen.py", "test_zero_stages.py"
)  # fmt: skip
"""Files that begin first, so that of two processes none has a long one left at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    names = {item: Path(item.path).name for item in items}
    items.sort(key=lambda item: (*LONGEST, names[item]).index(names[item]))
