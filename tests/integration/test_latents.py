"""Latents prepared by actors on a Ray cluster, and found half-way by another run."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2eft import prepare
from e2eft.artifacts import Artifact, verify
from e2eft.config import TrackingConfig
from e2eft.datasets.synthetic import SyntheticSource
from e2eft.prepare import PrepareConfig
from tests.local_ray import local_cluster

PARTS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with local_cluster():
        yield


def prepared(out: Path, actors: int) -> Artifact:
    source = SyntheticSource(
        family="indoor", num_scenes=1, frames_per_scene=PARTS, height=32, width=40,
        samples_per_pixel=1,
    )  # fmt: skip
    config = PrepareConfig(
        out=str(out),
        source=source,
        frames_per_part=1,
        latents_of="tiny-sd",
        latent_actors=actors,
        tracking=TrackingConfig(enabled=False),
    )
    return prepare.run(config)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.deep
@pytest.mark.slow
def test_latents_are_prepared_and_resumed(
    cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=r"--latent-actors 9 needs 1 CPU each"):
        prepared(tmp_path / "whole", actors=9)
    whole = prepared(tmp_path / "whole", actors=1)
    assert verify(whole) == []
    latents = [f"latents/part-{part:06d}.parquet" for part in range(PARTS)]
    assert [f.path for f in whole.files if f.path.startswith("latents/")] == latents

    # As a run leaves it that was killed while two actors were at work.
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    for record in (tmp_path / "half/latents").glob("*/part-00000[12].*.json"):
        record.unlink()
    for name in ("manifest.json", latents[2]):
        (tmp_path / "half" / name).unlink()
    resumed = prepared(tmp_path / "half", actors=2)
    assert "latents of 1 of 3 parts are there" in capfd.readouterr().out
    assert resumed.digest == whole.digest and verify(resumed) == []
