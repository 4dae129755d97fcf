"""What the code of commit 43aca9f left: read, found done, refused to others, finished, served."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from torch import Tensor

from e2eft import cli, evaluate
from e2eft.artifacts import load_artifact, verify
from e2eft.data.sample import check_sample
from e2eft.data.shards import decode_row, open_shards
from e2eft.labels.index import open_labels, verify_labels
from e2eft.tasks import get_task, label_codec
from e2eft.tracking.records import record_on
from tests.frozen import (
    Frozen,
    frozen,
    frozen_place,
    logged_steps,
    only_run,
    ray_is_running,
    stop_ray,
    untouched,
    written,
)

__all__ = ["frozen", "frozen_place", "untouched"]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")

FINISHED = (
    *("shards/finished", "shards/second", "runs/finished"),
    *("labels/finished", "scores/finished"),
)
HALF_SHARDS = ("shards/half", "shards/half-latents")
HALF_RUNS = ("runs/half", "runs/half-averaged")
HALF_LABELS = ("labels/half", "labels/half-champion")
HALF_SCORES = ("scores/half", "scores/half-labelled")
HALF = (*HALF_SHARDS, *HALF_RUNS, *HALF_LABELS, *HALF_SCORES)
OTHER = {
    "shards": (("--seed", "7"), "seed"),
    "runs": (("--lr", "0.5"), "lr"),
    "labels": (("--steps", "3"), "steps"),
    "scores": (("--steps", "3"), "steps"),
}
"""Flags that make another configuration of each kind, and the field that differs."""


def first_and_deep(names: tuple[str, ...]) -> list[Any]:
    """The first in `make test`, the others in `make test-deep`."""
    return [names[0], *(pytest.param(name, marks=pytest.mark.deep) for name in names[1:])]


def test_finished_shards_are_read(untouched: Frozen) -> None:
    shards = open_shards(untouched.uri("shards/finished"))
    assert verify(shards.artifact) == [] and shards.artifact.counts["frames"] == len(shards) == 4
    assert shards.latents is not None and shards.latents.channels == 4
    for number in range(4):
        part, group, row = shards.locate(number)
        sample = check_sample(decode_row(shards.read_group(part, group)[row]))
        scene, frame = divmod(number, 2)
        assert sample.key == f"synthetic-indoor/seed-0001/scene-{scene:05d}/frame-{frame:03d}"
        assert sample.size == (32, 40) and np.isfinite(sample.depth_m).any()
        encoded = shards.read_group_with_latents(part, group)[row]
        latents = shards.latents.decode(encoded["latents"], 32, 40)
        assert latents.shape == (2, 4, 4, 5) and np.isfinite(latents).all()


def test_a_finished_run_gives_its_model(untouched: Frozen) -> None:
    artifact = load_artifact(untouched.uri("runs/finished"), "model")
    assert verify(artifact) == [] and artifact.counts["optimizer_steps"] == 12
    assert {parent.role for parent in artifact.parents} >= {"base", "data"}
    assert_estimates_depth(artifact.uri)


def assert_estimates_depth(run: str) -> None:
    from e2eft.config import SamplingConfig
    from e2eft.model.inference import PreparedImage, predict
    from e2eft.model.pretrained import load_estimator
    from e2eft.model.source import find_model

    estimator = load_estimator(find_model(run))
    assert estimator.card.task == "depth"
    rgb = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    image = PreparedImage(rgb, (32, 40), 0)
    (depth,) = predict(estimator, get_task("depth"), [image], SamplingConfig())
    assert np.isfinite(depth).all() and np.ptp(depth) > 0


def test_finished_labels_are_read(untouched: Frozen) -> None:
    index = open_labels(untouched.uri("labels/finished"))
    assert verify(index.artifact) == [] and verify_labels(index) == []
    rows = {row["key"]: row for row in index.rows()}
    assert rows.pop("torn.jpg")["reason"] == "decode_truncated" and len(rows) == 8
    for row in rows.values():
        depth = index.read(row)
        assert depth.shape == (row["height"], row["width"]) and np.ptp(depth) > 0


def test_finished_scores_are_read(untouched: Frozen) -> None:
    artifact, table = evaluate.read_table(untouched.uri("scores/finished"))
    found = evaluate.primary_score(artifact)
    assert verify(artifact) == [] and table.num_rows == artifact.counts["images"]
    assert found.metric_name == "abs_rel" and found.complete
    assert found.value == pytest.approx(np.mean(table["abs_rel"].to_numpy()))
    for labels in ("labels/00", "labels/01"):
        assert verify_labels(open_labels(f"{artifact.uri}/{labels}")) == []


@pytest.mark.parametrize("name", FINISHED)
def test_the_same_command_finds_finished_work_done(
    frozen: Frozen, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    stop_ray()
    before = written(frozen.folder(name))
    assert_is_done(frozen, name, capfd)
    after = written(frozen.folder(name))
    assert {path: after.get(path) for path in before} == before
    assert not ray_is_running(), "a cluster was started for nothing"


def done(name: str) -> int:
    """The exit code of a command that ends: of the labels' images more than 5 % are rejected."""
    return cli.TOO_MANY_REJECTED if name.startswith("labels/") else 0


def assert_is_done(frozen: Frozen, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert frozen.run(name) == done(name)
    said = capfd.readouterr().out
    assert "already" in said and "nothing to do" in said


def test_a_model_that_is_registered_is_not_registered_twice(
    frozen: Frozen, capfd: pytest.CaptureFixture[str]
) -> None:
    """But what its score was is noted anew, with the sampling, so that others can be compared."""
    from mlflow import MlflowClient

    assert frozen.run("scores/finished") == 0
    assert "version 1 is the champion already" in capfd.readouterr().out
    client = MlflowClient(tracking_uri=frozen.tracking_uri, registry_uri=frozen.tracking_uri)
    versions = client.search_model_versions(f"name = '{frozen.registered}'")
    champion = client.get_model_version_by_alias(frozen.registered, "champion")
    assert [version.version for version in versions] == [champion.version]
    (old,) = (text for tag, text in champion.tags.items() if tag.startswith("score."))
    found = evaluate.score_of(load_artifact(frozen.uri("scores/finished")))
    record = record_on(champion.tags, found.terms_digest)
    assert record is not None and record.value == float(old) == found.value
    assert record.content["terms"]["labelled"]["sampling"]["steps"] == 50


@pytest.mark.parametrize("name", [*FINISHED, *HALF])
def test_another_configuration_is_refused(
    untouched: Frozen, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = written(untouched.folder(name))
    flags, field = OTHER[name.split("/")[0]]
    assert untouched.run(name, *flags) == 1
    assert re.search(rf"\b{field}\b", capfd.readouterr().err)
    assert written(untouched.folder(name)) == before


@pytest.mark.parametrize("name", HALF)
def test_half_finished_work_is_not_taken_for_finished(untouched: Frozen, name: str) -> None:
    with pytest.raises(ValueError, match="not"):
        load_artifact(untouched.uri(name))


def committed(folder: Path) -> dict[str, tuple[int, bytes]]:
    """What a killed job left that is whole, of any kind but runs."""
    nested = sorted(folder.glob("labels/*"))
    paths = [path for labels in nested for path in (*labels_of(labels), labels / "manifest.json")]
    paths += labels_of(folder)
    for room, data in (("parts", "data"), ("latents", "latents")):
        for record in folder.glob(f"{room}/*.json"):
            paths += [record, folder / data / f"{record.stem}.parquet"]
    return written(folder, *(path.relative_to(folder).as_posix() for path in paths))


def labels_of(folder: Path) -> list[Path]:
    """The plan, the parts of the index, and the files that they commit."""
    index = sorted(folder.glob("index/*.parquet"))
    rows = [row for part in index for row in pq.read_table(part).to_pylist()]
    files = [folder / row[f"{kind}_path"] for row in rows for kind in ("depth", "npy")
             if row["status"] != "rejected"]  # fmt: skip
    return [*folder.glob("plan/*"), *index, *files]


def finish(frozen: Frozen, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Runs the command, which must keep every part that is there, unwritten; and once more."""
    kept = committed(frozen.folder(name))
    assert kept, "nothing was half-finished"
    assert frozen.run(name) == done(name)
    after = written(frozen.folder(name))
    changed = [path for path in kept if after.get(path) != kept[path]]
    assert not changed, "committed parts were made again"
    assert verify(load_artifact(frozen.uri(name))) == []
    assert_is_done(frozen, name, capfd)


@pytest.mark.deep
@pytest.mark.parametrize("name", HALF_SHARDS)
def test_half_finished_shards_are_finished(
    frozen: Frozen, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    finish(frozen, name, capfd)
    made, whole = open_shards(frozen.uri(name)), open_shards(frozen.uri("shards/finished"))
    assert len(made) == len(whole) and made.latents == whole.latents
    for number in range(len(whole)):
        part, group, row = whole.locate(number)
        ours, theirs = (index.read_group_with_latents(part, group)[row] for index in (made, whole))
        assert ours["key"] == theirs["key"]
        # Rendered perhaps by another processor.
        depth, wanted = decode_row(ours).depth_m, decode_row(theirs).depth_m
        assert np.isclose(depth, wanted, rtol=1e-3, equal_nan=True).mean() > 0.99


@pytest.mark.slow
@pytest.mark.parametrize("name", first_and_deep(HALF_RUNS))
def test_half_finished_runs_resume_from_their_checkpoint(
    frozen: Frozen, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert logged_steps(frozen, name) == [1]
    assert frozen.run(name) == 0
    wait_for("resuming from", capfd)
    steps = logged_steps(frozen, name)
    assert steps.count(1) == 1 and steps[-1] == 12, "it began anew"
    artifact = load_artifact(frozen.uri(name))
    assert verify(artifact) == [] and artifact.counts["optimizer_steps"] == 12
    assert only_run(frozen, name).info.status == "FINISHED"
    assert_estimates_depth(artifact.uri)
    if name == "runs/half":
        assert_same_weights(frozen, name, "runs/finished")
    assert_is_done(frozen, name, capfd)


def wait_for(text: str, capfd: pytest.CaptureFixture[str], timeout_s: float = 20.0) -> None:
    """What workers print comes to the driver when it pleases."""
    said, deadline = "", time.monotonic() + timeout_s
    while text not in (said := said + "".join(capfd.readouterr())):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def assert_same_weights(frozen: Frozen, name: str, undisturbed: str) -> None:
    """But for the rounding of another processor, which took them a hundredth of their way from the
    base model apart; another order of frames takes them all of it."""
    path = "unet/diffusion_pytorch_model.safetensors"
    made, wanted, base = (
        load_file(frozen.folder(folder) / path)
        for folder in (f"{name}/model", f"{undisturbed}/model", "base")
    )
    assert made.keys() == wanted.keys() == base.keys()
    taken = [key for key in wanted if base[key].shape == wanted[key].shape]
    assert len(taken) == len(wanted) - 1, "but for the widened conv_in"

    def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
        return sum(float((one[key] - other[key]).double().square().sum()) for key in taken) ** 0.5

    assert apart(made, wanted) < 0.03 * apart(wanted, base)


@pytest.mark.parametrize("name", first_and_deep(HALF_LABELS))
def test_half_finished_labels_are_finished(
    frozen: Frozen, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    finish(frozen, name, capfd)
    assert_same_labels(frozen, name)
    assert only_run(frozen, name).info.status == "FINISHED"


def assert_same_labels(frozen: Frozen, name: str) -> None:
    made, wanted = open_labels(frozen.uri(name)), open_labels(frozen.uri("labels/finished"))
    assert verify_labels(made) == []
    ours, theirs = made.by_key(), wanted.by_key()
    assert ours.keys() == theirs.keys()
    for key, row in theirs.items():
        np.testing.assert_allclose(made.read(ours[key]), wanted.read(row), atol=1e-3)


@pytest.mark.deep
@pytest.mark.parametrize("name", HALF_SCORES)
def test_half_finished_scores_are_finished(
    frozen: Frozen, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    finish(frozen, name, capfd)
    made, wanted = (
        evaluate.primary_score(load_artifact(frozen.uri(scores)))
        for scores in (name, "scores/finished")
    )
    assert made.value == pytest.approx(wanted.value, rel=1e-3)
    assert (made.protocol, made.data_digest) == (wanted.protocol, wanted.data_digest)


SERVE = """
import json, sys
import mlflow.pyfunc, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
images = [open(path, "rb").read() for path in sys.argv[3:]]
answers = model.predict(pandas.DataFrame({"image": images}), params={"steps": 50})
import e2eft
lines = [[row["error_code"], row["depth"].hex()] for _, row in answers.iterrows()]
json.dump({"code": e2eft.__file__, "answers": lines}, open(sys.argv[2], "w"))
"""


def test_the_registered_model_is_served_with_its_own_code(
    untouched: Frozen, tmp_path: Path
) -> None:
    keys = ["0.png", "1.png", "torn.jpg"]
    images = [str(untouched.folder("images") / key) for key in keys]
    command = [sys.executable, "-I", "-c", SERVE, f"models:/{untouched.registered}@champion"]
    done = subprocess.run(
        [*command, str(tmp_path / "answers"), *images],
        cwd=tmp_path,
        env=os.environ | {"MLFLOW_TRACKING_URI": untouched.tracking_uri},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, Any] = json.loads((tmp_path / "answers").read_text())
    assert Path(said["code"]).parents[1].name == "code", "not the source that was logged with it"
    assert [code for code, _ in said["answers"]] == ["", "", "decode_truncated"]
    labels = open_labels(untouched.uri("labels/finished"))
    rows = labels.by_key()
    for key, (_, png) in zip(keys[:2], said["answers"], strict=False):
        depth = label_codec("depth").decode(bytes.fromhex(png))
        np.testing.assert_allclose(depth, labels.read(rows[key]), atol=1e-3)


@pytest.mark.deep
def test_the_registered_model_labels_images(frozen: Frozen) -> None:
    name = "labels/half-champion"
    assert frozen.run(name, "--out", frozen.uri("labels/new")) == done(name)
    assert_same_labels(frozen, "labels/new")
    (model,) = [p for p in load_artifact(frozen.uri("labels/new")).parents if p.role == "model"]
    assert model.uri == f"models:/{frozen.registered}/1"
