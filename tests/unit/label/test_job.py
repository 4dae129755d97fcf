"""A labelling job from beginning to end in one process, with a small random model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from e2eft import label
from e2eft.artifacts import ArtifactError
from e2eft.config import LabelConfig, SamplingConfig
from e2eft.corpora.corpus import CorpusError
from e2eft.label import graph
from e2eft.label.labeller import Labeller, ShippedModel
from e2eft.labels.index import committed_parts, open_labels, part_path
from e2eft.model.hub import ModelError
from e2eft.storage import LocalStore
from e2eft.tracking import RegisteredModel
from tests.corpora import coloured, write_plain_corpus
from tests.frames import analytic_frame, write_shards
from tests.labelling import label_config, run_graph_in_process, without_cluster, write_model

__all__ = ["without_cluster"]
pytestmark = pytest.mark.usefixtures("without_cluster")


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("depth"), "depth", initial="gaussian")


@pytest.fixture(scope="module")
def normals_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("normals"), "normals")


def labels_of(folder: Path) -> dict[str, np.ndarray]:
    index = open_labels(str(folder))
    return {key: index.read(row) for key, row in index.by_key().items()}


def test_normals_of_shards(normals_model: Path, tmp_path: Path) -> None:
    frames = [analytic_frame(number) for number in range(3)]
    shards = write_shards(str(tmp_path / "shards"), frames)
    config = label_config(tmp_path / "shards", tmp_path / "out", normals_model, task="normals")
    artifact = label.run(config)
    labels = labels_of(tmp_path / "out")
    assert set(labels) == {frame.key for frame in frames}
    for frame in frames:
        normals = labels[frame.key]
        assert normals.shape == frame.normals_cam.shape and normals.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-5)
    assert {parent.role: parent.digest for parent in artifact.parents}["images"] == shards.digest
    assert artifact.details["axes"].startswith("right-up-viewer")
    assert artifact.details["npy_axes"].startswith("opencv")
    assert artifact.details["model"]["card"]["task"] == "normals"
    assert f"normals of {frames[0].key}" in (tmp_path / "out" / "gallery.html").read_text()


def test_a_label_does_not_depend_on_its_batch(depth_model: Path, tmp_path: Path) -> None:
    images = write_plain_corpus(tmp_path / "images", 5)
    (images / "copy.png").write_bytes((images / "003.png").read_bytes())
    coloured(3).transpose(1).save(images / "other.png")
    for name, size in (("one", 1), ("many", 7)):
        config = label_config(images, tmp_path / name, depth_model, save_npy=True, batch_size=size)
        label.run(config.model_copy(update={"images_per_part": 2 if size == 1 else 100}))
    one, many = labels_of(tmp_path / "one"), labels_of(tmp_path / "many")
    for key, depth in one.items():
        np.testing.assert_allclose(depth, many[key], atol=1e-4)
    np.testing.assert_allclose(one["copy.png"], one["003.png"], atol=1e-4)
    assert np.abs(one["other.png"] - one["003.png"]).max() > 0.01
    other = label_config(images, tmp_path / "reseeded", depth_model, save_npy=True)
    label.run(other.model_copy(update={"sampling": SamplingConfig(seed=1)}))
    assert np.abs(labels_of(tmp_path / "reseeded")["003.png"] - one["003.png"]).max() > 0.01


def test_a_job_that_failed_half_way_goes_on(
    depth_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    images = write_plain_corpus(tmp_path / "images", 11)
    config = label_config(images, tmp_path / "out", depth_model)
    worked: list[int] = []

    def failing(*args: Any) -> Iterator[tuple[int, pa.Table]]:
        for number, rows in enumerate(run_graph_in_process(*args)):
            if number == 3:
                raise RuntimeError("the power went out")
            yield rows

    def counting(*args: Any) -> Iterator[tuple[int, pa.Table]]:
        for corpus, rows in run_graph_in_process(*args):
            worked.extend(rows["index"].to_pylist())
            yield corpus, rows

    monkeypatch.setattr(graph, "run_graph", failing)
    with pytest.raises(RuntimeError, match="power"):
        label.run(config)
    # Chunks of 3: after three of them the first part is whole, the second is not.
    assert committed_parts(LocalStore(tmp_path / "out")) == {0}
    with pytest.raises(ArtifactError, match="run it again"):
        open_labels(str(tmp_path / "out"))
    coloured(99).save(images / "000-new.png")

    monkeypatch.setattr(graph, "run_graph", counting)
    artifact = label.run(config)
    assert worked == [4, 5, 6, 7, 8, 9, 10]
    assert artifact.counts["ok"] == 11 and "000-new.png" not in labels_of(tmp_path / "out")
    assert "resuming" in capsys.readouterr().out

    worked.clear()
    assert label.run(config) == artifact and not worked
    assert "nothing to do" in capsys.readouterr().out

    for path in ("manifest.json", part_path(1)):
        (tmp_path / "out" / path).unlink()
    assert label.run(config).counts == artifact.counts
    assert worked == [4, 5, 6, 7]


def test_several_corpora_share_one_model_and_stay_apart(
    depth_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[LabelConfig] = []
    for number, images in enumerate((3, 5, 2)):
        folder = write_plain_corpus(tmp_path / f"images-{number}", images)
        configs.append(label_config(folder, tmp_path / f"out-{number}", depth_model, save_npy=True))
    (tmp_path / "images-2" / "bad.jpg").write_bytes(b"x")
    calls: list[list[int]] = []

    def counting(*args: Any) -> Iterator[tuple[int, pa.Table]]:
        calls.append([portion.stop - portion.start for portion in args[1]])
        # The corpora's chunks come back mixed.
        yield from sorted(run_graph_in_process(*args), key=lambda rows: len(rows[1]))

    monkeypatch.setattr(graph, "run_graph", counting)
    first = label.run(configs[0])
    artifacts = label.run_all(configs)
    assert calls == [[3], [4, 1, 3]]
    assert artifacts[0] == first
    assert [artifact.uri for artifact in artifacts] == [config.out for config in configs]
    assert [artifact.counts["ok"] for artifact in artifacts] == [3, 5, 2]
    assert [artifact.counts["rejected"] for artifact in artifacts] == [0, 0, 1]
    alone = label.run(configs[1].model_copy(update={"out": str(tmp_path / "alone")}))
    for key, depth in labels_of(tmp_path / "alone").items():
        np.testing.assert_array_equal(labels_of(tmp_path / "out-1")[key], depth)
    assert alone.parents == artifacts[1].parents


def test_another_configuration_is_refused_or_overwrites(depth_model: Path, tmp_path: Path) -> None:
    images = write_plain_corpus(tmp_path / "images", 2)
    config = label_config(images, tmp_path / "out", depth_model)
    label.run(config)
    resized = config.model_copy(update={"processing_size": 32})
    with pytest.raises(ArtifactError, match="--processing-size None -> 32"):
        label.run(resized)
    label.run(resized.model_copy(update={"overwrite": True}))
    index = open_labels(str(tmp_path / "out"))
    assert {row["processing_width"] for row in index.rows()} == {32}


def test_a_model_that_changes_under_a_job_is_noticed(tmp_path: Path) -> None:
    images = write_plain_corpus(tmp_path / "images", 2)
    model = write_model(tmp_path, "depth")
    config = label_config(images, tmp_path / "out", model)
    label.run(config)
    (tmp_path / "out" / "manifest.json").unlink()
    write_model(tmp_path, "depth", seed=1)
    with pytest.raises(ArtifactError, match=r"holds something else than .* when this was begun"):
        label.run(config)


def test_an_alias_is_resolved_once(
    depth_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(_: Any, name: str, folder: Path) -> RegisteredModel:
        asked.append(name)
        version = "7" if "@" in name else name.rpartition("/")[2]
        return RegisteredModel(f"models:/depth/{version}", "depth", version, depth_model)

    monkeypatch.setattr("e2eft.label.opening.download_model", download)
    images = write_plain_corpus(tmp_path / "images", 2)
    config = label_config(images, tmp_path / "out", "models:/depth@champion")
    artifact = label.run(config)
    (tmp_path / "out" / "manifest.json").unlink()
    assert label.run(config).parents == artifact.parents
    assert asked == ["models:/depth@champion", "models:/depth/7"]
    (parent,) = artifact.parents
    assert (parent.role, parent.uri) == ("model", "models:/depth/7")
    assert parent.digest == artifact.details["model"]["digest"]


def test_what_cannot_be_labelled_leaves_the_folder_free(
    depth_model: Path, tmp_path: Path
) -> None:  # fmt: skip
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    with pytest.raises(CorpusError, match="no images"):
        label.run(label_config(images, out, depth_model))
    with pytest.raises(ModelError, match="estimates depth, not normals"):
        label.run(label_config(images, out, depth_model, task="normals"))
    with pytest.raises(ModelError, match="plain image model"):
        label.run(label_config(images, out, "blank"))
    write_plain_corpus(images, 1)
    assert label.run(label_config(images, out, depth_model)).counts["ok"] == 1


def test_more_steps_than_the_model_has_timesteps_are_refused_before_anything_begins(
    depth_model: Path, tmp_path: Path
) -> None:
    images = write_plain_corpus(tmp_path / "images", 1)
    config = label_config(images, tmp_path / "out", depth_model)
    with pytest.raises(label.LabelError, match=r"^--steps 2000: the model .* has 1000 timesteps"):
        label.run(config.model_copy(update={"sampling": SamplingConfig(steps=2000)}))
    for size in (1, 7, 4097, 10_000_000):
        with pytest.raises(
            label.LabelError, match=rf"^--processing-size {size}: choose from 8 to 4"
        ):
            label.run(config.model_copy(update={"processing_size": size}))
    assert not (tmp_path / "out").exists()


def test_too_many_rejected_images_are_said_and_the_labels_stay(
    depth_model: Path, tmp_path: Path
) -> None:
    images = write_plain_corpus(tmp_path / "images", 3)
    (images / "bad.jpg").write_bytes(b"x")
    config = label_config(images, tmp_path / "out", depth_model)
    artifact = label.run(config)
    assert artifact.counts == {"planned": 4, "ok": 3, "ok_degraded": 0, "rejected": 1}
    assert artifact.details["reject_reasons"] == {"decode_unsupported": 1}
    said = label.too_many_rejected(config, artifact)
    assert said and said.startswith(
        "1 of 4 images were rejected (1 decode_unsupported), more than --max-reject-fraction 0.05;"
    )
    allowed = config.model_copy(update={"max_reject_fraction": 0.25})
    assert label.too_many_rejected(allowed, label.run(allowed)) is None


def test_finished_labels_say_what_has_come_since(
    depth_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_plain_corpus(tmp_path / "images", 4)
    config = label_config(images, tmp_path / "out", depth_model)
    artifact = label.run(config)
    capsys.readouterr()
    assert label.run(config) == artifact
    assert "since they were labelled" not in capsys.readouterr().out
    for number in (10, 11, 12):
        coloured(number).save(images / f"{number:03d}.png")
    (images / "000.png").unlink()
    coloured(5, 96, 96).save(images / "001.png")
    assert label.run(config) == artifact
    assert (
        f"{images}: 3 new, 1 gone, 1 changed in size since they were labelled; label the folder "
        "into another --out, or --overwrite to label all of it anew"
    ) in capsys.readouterr().out


def test_books_that_do_not_balance_are_not_committed(depth_model: Path, tmp_path: Path) -> None:
    images = write_plain_corpus(tmp_path / "images", 5)
    config = label_config(images, tmp_path / "out", depth_model)
    label.run(config)
    out = tmp_path / "out"
    (out / "manifest.json").unlink()
    (out / part_path(1)).write_bytes((out / part_path(0)).read_bytes())
    with pytest.raises(label.LabelError, match="5 images, 8 rows, 1 images missing"):
        label.run(config)


def test_sizes_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        label_config("i", "o", "m", native_size=True, processing_size=64)


def test_a_model_travels_or_must_be_here(depth_model: Path, tmp_path: Path) -> None:
    from e2eft.model.pinned import model_files
    from e2eft.model.source import find_model
    from e2eft.walk import digest_files

    source = find_model(str(depth_model))
    digest = digest_files(model_files(source))
    assert Labeller(ShippedModel(source, digest), "depth", SamplingConfig()).task.name == "depth"
    with pytest.raises(ModelError, match="missing or changed on the machine"):
        Labeller(ShippedModel(source, "another digest"), "depth", SamplingConfig())


def test_the_configuration_survives_json() -> None:
    config = label_config("i", "o", "m", processing_size=64)
    assert LabelConfig.model_validate_json(config.model_dump_json()) == config
    assert "max_reject_fraction" not in config.identity()
