"""Latents prepared by actors on a Ray cluster, found half-way by another run, and trained on."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2eft import cli, prepare
from e2eft.artifacts import Artifact, verify
from e2eft.config import PrepareConfig, SyntheticSource, TrackingConfig
from e2eft.data.shards import open_shards
from e2eft.train import driver
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


def train(data: str, out: Path, base: str) -> None:
    argv = f"tiny-normals --base {base} --data {data} --out {out} --batch 2 --micro-batch 2"
    argv += " --num-workers 1 --max-steps 1 --panel-frames 0 --no-tracking"
    config = cli.parse("train", argv.split())
    driver.run(config)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
@pytest.mark.deep
@pytest.mark.slow
def test_latents_are_prepared_resumed_and_trained_on(
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

    digest = open_shards(whole.uri).artifact.details["rgb_latents"]["vae_digest"][:12]
    train(whole.uri, tmp_path / "model", "tiny-marigold-depth")
    said = f"using cached RGB latents of tiny-sd (VAE {digest})"
    assert said in capfd.readouterr().out
