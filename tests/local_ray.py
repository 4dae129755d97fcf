"""A local cluster as the stages start it, in the process of a test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from e2eft.cluster import connect, local_environment

Access = dict[str, str]
"""What another process needs in its environment to join a local cluster: address and token."""


@contextmanager
def local_cluster(cpus: int = 4, **environment: str) -> Iterator[Access]:
    """A cluster of this process, to whose environment `environment` is added before it starts."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("E2EFT_LOCAL_CPUS", str(cpus))
        connect()
        joining = {k: v for k, v in local_environment().items() if k.startswith("RAY_")}
        try:
            yield joining | {
                "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
                "RAY_AUTH_MODE": "token",
            }
        finally:
            ray.shutdown()


def joined(access: Access) -> dict[str, str]:
    """The environment of another driver on the cluster of this process."""
    return os.environ | access
