"""Fixtures of several modules."""

import pytest

from e2eft.config import TrackingConfig


@pytest.fixture(scope="session")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> TrackingConfig:
    """A database for runs and models; MLflow takes long to make one."""
    return TrackingConfig(tracking_uri=f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/runs.db")
