"""What can be known before is said before anything is deleted, in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from e2eft import cli, prepare
from e2eft.artifacts import load_artifact, look, verify
from e2eft.artifacts.manifest import Artifact
from e2eft.config import TrackingConfig, TrainConfig
from e2eft.datasets.sintel import SintelSource
from e2eft.prepare import PrepareConfig, stage
from e2eft.storage import LocalStore, MissingError, open_store
from e2eft.tracking import check_tracking
from e2eft.tracking.connection import client_of
from e2eft.train import driver
from e2eft.train.driver import MODEL_KIND, OWNED
from tests.artifacts import contents, write_artifact
from tests.benchmark_files import measured_frame, sintel
from tests.frames import write_analytic_shards

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write_analytic_shards(str(tmp_path / "data"), 2, height=16, width=24).uri


def argv_of(data: str, out: Path, *more: str) -> list[str]:
    base = [] if "--base" in more else ["--base", "tiny-sd"]
    return ["tiny-depth", *base, "--data", data, "--out", str(out), *more]


def trained(out: Path, data: str, *more: str) -> Artifact:
    """A finished run, without training."""
    config = cli.parse("train", argv_of(data, out, *more))
    assert isinstance(config, TrainConfig)
    config, inputs = driver._with_inputs(driver._with_absolute_uris(config))
    with look(LocalStore(out), MODEL_KIND, config, inputs, OWNED).take() as claim:
        files = [claim.put("model/model_index.json", b"{}")]
        return claim.commit(files=files, counts={"optimizer_steps": 1}, parents=inputs)


def deleted_experiment(tmp_path: Path) -> list[str]:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = client_of(uri)
    client.delete_experiment(client.create_experiment("gone"))
    return ["--tracking-uri", uri, "--experiment", "gone"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (lambda _: ["--experiment", ""], "--experiment '': "),
        (deleted_experiment, "--experiment gone was deleted in MLflow at sqlite:///"),
        (lambda _: ["--tracking-uri", "sqlite:////proc/x.db"], "is no folder that can be written"),
        (lambda _: ["--tracking-uri", "sqlite:////proc/version"], "/proc is no folder that can be"),
        (lambda path: ["--tracking-uri", f"sqlite:///{path}/data/manifest.json/x.db"], "no folder"),
    ],
)
def test_mlflow_that_would_refuse_the_work_is_named_before_the_deletion(
    flags: Any, said: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    trained(out, data)
    before = contents(out)
    argv = argv_of(data, out, "--overwrite", "--seed", "7", *flags(tmp_path))
    capsys.readouterr()
    assert cli.run_stage("train", argv) == cli.STAGE_ERROR
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.startswith("train: ")
    assert len(printed.err.splitlines()) == 1
    assert contents(out) == before


def test_an_experiment_that_is_there_or_not_yet_is_fine(tmp_path: Path) -> None:
    for _ in range(2):
        check_tracking(TrackingConfig(tracking_uri=f"sqlite:///{tmp_path}/m.db", experiment="new"))


@pytest.mark.parametrize("lost", ["data", "base"])
def test_a_finished_run_is_found_when_what_it_was_made_from_is_gone(
    lost: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    base = Path(shutil.copytree(REPOSITORY / "e2eft/bases/tiny-sd", tmp_path / "base"))
    more = ["--base", "base", "--no-tracking"]
    made = trained(tmp_path / "out", data, *more)
    shutil.rmtree(base if lost == "base" else data)
    assert cli.run_stage("train", argv_of(data, tmp_path / "out", *more)) == 0
    assert "already trained" in capsys.readouterr().out
    # But not as something else, and not without anything that is finished.
    assert cli.run_stage("train", argv_of(data, tmp_path / "out", *more, "--seed", "3")) == 1
    assert "--seed 0 -> 3" in capsys.readouterr().err
    (tmp_path / "out/manifest.json").unlink()
    assert cli.run_stage("train", argv_of(data, tmp_path / "out", *more)) == 1
    assert (data if lost == "data" else "model 'base' is not there") in capsys.readouterr().err
    assert made.uri == str(tmp_path / "out")


@pytest.mark.parametrize("by", ["other shards", "no shards", "no truth"])
def test_what_has_come_in_the_place_of_the_data_is_not_nothing(
    by: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "out", data, "--no-tracking")
    shutil.rmtree(data)
    if by == "no shards":
        Path(data).mkdir()
        (Path(data) / "note.txt").touch()
    else:
        store = write_analytic_shards(data, 3, height=16, width=24).store
        if by == "no truth":
            manifest = json.loads(store.read("manifest.json"))
            manifest["details"]["truth"] = ["normals"]
            store.write("manifest.json", json.dumps(manifest).encode())
    assert cli.run_stage("train", argv_of(data, tmp_path / "out", "--no-tracking")) == 1
    said = capsys.readouterr().err
    assert ("has no manifest.json" if by == "no shards" else "holds something else") in said


def something_else(folder: Path) -> str:
    folder.mkdir()
    (folder / "model_index.json").write_text(
        '{"_class_name": "StableDiffusionInstructPix2PixPipeline"}'
    )
    return f"model '{folder}' is an InstructPix2Pix model"


def without_a_tensor(folder: Path) -> str:
    shutil.copytree(REPOSITORY / "e2eft/bases/shared", folder)
    shutil.copytree(REPOSITORY / "e2eft/bases/tiny-marigold-depth", folder, dirs_exist_ok=True)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["conv_in.bias"]
    save_file(tensors, weights)
    return "the weights in unet/ lack conv_in.bias, other than unet/config.json says; copy both"


@pytest.mark.parametrize("stage", ["label", "evaluate", "train"])
@pytest.mark.parametrize("spoil", [something_else, without_a_tensor])
def test_a_model_that_is_not_taken_deletes_nothing(
    spoil: Any, stage: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = tmp_path / "model", tmp_path / "out"
    wanted = spoil(model)
    recipe, flag, source, changed = {
        "label": ("depth", "--model", "--images", "--images-per-part"),
        "evaluate": ("synthetic-depth", "--model", "--data", "--bootstrap"),
        "train": ("tiny-depth", "--base", "--data", "--max-steps"),
    }[stage]
    argv = [recipe, flag, str(model), source, data, "--out", str(out), "--no-tracking"]
    kind = {"label": "labels", "evaluate": "scores", "train": "model"}[stage]
    made = cli.parse(stage, [*argv, changed, "7"])
    write_artifact(LocalStore(out), kind, made, files={"a": b"1"}, counts={"b": 1})
    before = contents(out)
    assert cli.run_stage(stage, [*argv, "--overwrite"]) == cli.STAGE_ERROR
    said = capsys.readouterr().err
    assert said.startswith(f"{stage}: model '{model}'") and wanted in said
    assert len(said.splitlines()) == 1 and contents(out) == before


@pytest.mark.parametrize("content", ["junk", "other", "cut"])
def test_a_tar_file_is_looked_into_before_it_replaces_anything(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "_require_room", lambda _: None)
    root = tmp_path / "training.tar"
    frames = {("alley_1", n): measured_frame(n, 48, 64) for n in range(3)}
    whole = sintel(frames).tar()
    broken = {"junk": b"no tar file" * 1000, "cut": whole[: len(whole) // 2]}
    (tmp_path / "empty").mkdir()
    if content == "other":
        subprocess.run(["tar", "-cf", str(root), "-C", str(tmp_path), "empty"], check=True)
    else:
        root.write_bytes(broken[content])
    out = LocalStore(tmp_path / "out")
    config = PrepareConfig(
        out=out.uri, source=SintelSource(root=str(root)), tracking=TrackingConfig(enabled=False)
    )
    write_artifact(out, "shards", config.model_copy(update={"frames_per_part": 7}),
                   files={"data/part-000000.parquet": b"rows"}, counts={"frames": 1})  # fmt: skip
    before = contents(out.folder)
    with pytest.raises(ValueError, match=r"training\.tar"):
        prepare.run(config.model_copy(update={"overwrite": True}))
    assert contents(out.folder) == before and verify(load_artifact(out.uri)) == []


@pytest.mark.parametrize("out", ["file/x", "/dev/null/x", "/proc/xyz/x"])
def test_a_place_that_cannot_be_written_is_not_blamed_on_the_kind_of_store(
    out: str, data: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    config = cli.parse("train", argv_of(data, tmp_path / out))
    assert isinstance(config, TrainConfig)
    place = look(open_store(str(tmp_path / out)), MODEL_KIND, config, (), OWNED)
    with pytest.raises(ValueError, match="cannot write ") as error:
        place.take()
    assert "--single-writer" not in str(error.value)


def test_output_that_nobody_reads_is_one_line(data: str, tmp_path: Path) -> None:
    trained(tmp_path / "out", data, "--no-tracking")
    argv = [str(REPOSITORY / "pipelines/train.py"), *argv_of(data, tmp_path / "out")]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, *argv, "--no-tracking"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.returncode == cli.STAGE_ERROR
    (line,) = [line for line in done.stderr.splitlines() if "arning" not in line]
    assert line.startswith("train: nobody reads its output any more; run the same command again")
    with pytest.raises(MissingError):
        LocalStore(tmp_path / "out").read("model/none")
