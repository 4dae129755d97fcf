"""Settings of every test."""

import pytest
from hypothesis import settings

# A deadline measures the machine, not the code.
settings.register_profile("e2eft", deadline=None)
settings.load_profile("e2eft")

SHARED = {
    "test_cluster.py": "cluster",
    "test_demo.py": "demo",
    "test_secrets.py::test_a_demo_leaves_no_secret": "demo",
    "test_secrets.py::test_jobs_on_a_cluster_leave_no_secret": "cluster",
    "test_services.py": "cluster",
    "test_training.py::test_what_cannot_be_placed_is_refused_and_leaves_the_folder_free": "cluster",
}
"""Tests that look at what is started once, by the process that shall run them all."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `--dist loadgroup`, before its own hook: a file is one process's, as are those that share
    something."""
    for item in items:
        file = item.path.name
        name = item.nodeid.rpartition("::")[2].partition("[")[0]
        group = SHARED.get(f"{file}::{name}") or SHARED.get(file) or item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))
