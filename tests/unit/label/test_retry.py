"""Rejected images that are fine by now: `--retry` adds their labels in a new generation."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from e2eft import label
from e2eft.artifacts import GENERATION, Artifact, load_artifact, verify
from e2eft.config import LabelConfig
from e2eft.label import graph
from e2eft.labels.index import open_labels, verify_labels
from tests.artifacts import contents
from tests.corpora import coloured, write_plain_corpus
from tests.labelling import label_config, run_graph_in_process, without_cluster, write_model

__all__ = ["without_cluster"]
pytestmark = pytest.mark.usefixtures("without_cluster")


@pytest.fixture(scope="module")
def depth_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("depth"), "depth")


def labelled_while(
    config: LabelConfig, do: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> Artifact:
    """Labels a corpus of which something changes after it was listed."""

    def changing(*arguments: Any) -> Iterator[tuple[int, pa.Table]]:
        do()
        yield from run_graph_in_process(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(graph, "run_graph", changing)
        return label.run(config)


@pytest.fixture
def broken(
    depth_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[LabelConfig, Artifact]:
    """Six images: one was away, one had changed, one is none."""
    images = write_plain_corpus(tmp_path / "images", 5)
    (images / "text.png").write_bytes(b"no image")
    config = label_config(images, tmp_path / "out", depth_model, gallery_images=2)

    def change() -> None:
        (images / "001.png").rename(tmp_path / "away.png")
        coloured(77, 32, 40).save(images / "003.png")

    return config, labelled_while(config, change, monkeypatch)


def reasons(config: LabelConfig) -> dict[str, str]:
    rows = open_labels(config.out).rows()
    return {row["key"]: row["reason"] for row in rows if row["reason"]}


def retrying(config: LabelConfig) -> LabelConfig:
    return config.model_copy(update={"retry": True})


def test_what_is_fine_by_now_gets_its_label_in_a_new_generation(
    broken: tuple[LabelConfig, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, first = broken
    gone = {"001.png": "read_missing", "003.png": "source_changed"}
    assert reasons(config) == gone | {"text.png": "decode_unsupported"}
    capsys.readouterr()
    assert label.run(config) == first
    hint = "rejected images that may be fine by now (1 read_missing, 1 source_changed): --retry"
    assert hint in capsys.readouterr().out

    (tmp_path / "away.png").rename(tmp_path / "images/001.png")
    before = contents(tmp_path / "out")
    second = label.run(retrying(config))
    assert "2 of 2 images that were tried again have a label" in capsys.readouterr().out
    after = contents(tmp_path / "out")
    kept = [name for name in before if not name.startswith("_epochs/")]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}

    assert second.generation == 2 and load_artifact(config.out) == second
    assert second.counts == {"planned": 6, "ok": 5, "ok_degraded": 0, "rejected": 1}
    assert second.details["reject_reasons"] == {"decode_unsupported": 1}
    roles = {parent.role: parent.digest for parent in second.parents}
    assert roles[GENERATION] == first.digest
    assert reasons(config) == {"text.png": "decode_unsupported"}
    index = open_labels(config.out)
    assert [row["index"] for row in index.rows()] == list(range(6))
    assert index.read(index.by_key()["003.png"]).shape == (32, 40)
    assert verify(second) == [] and verify_labels(index) == []
    page = second.store.read(second.path("gallery.html")).decode()
    assert "read_missing" not in page and "decode_unsupported" in page

    # A reader that holds the first generation still has what that says.
    assert [row["reason"] for row in type(index)(first).rows()].count("") == 3
    assert label.run(config) == label.run(retrying(config)) == second
    said = capsys.readouterr().out
    # What was read again as it was then has not changed since.
    assert "--retry tries them again" not in said and "since they were labelled" not in said


def test_an_image_that_was_tried_again_is_shown_and_one_that_changed_since_is_not(
    broken: tuple[LabelConfig, Artifact], tmp_path: Path
) -> None:
    config, _ = broken
    config = config.model_copy(update={"gallery_images": 9})
    coloured(78, 32, 40).save(tmp_path / "images/004.png")  # after it was labelled
    second = label.run(retrying(config))
    page = second.store.read(second.path("gallery.html")).decode()
    shown = [number for number in range(5) if f"depth of {number:03d}.png" in page]
    assert shown == [0, 2, 3]


def test_what_is_not_fine_yet_stays_rejected_and_a_further_try_adds_nothing(
    broken: tuple[LabelConfig, Artifact], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, first = broken
    (tmp_path / "images/003.png").unlink()
    (tmp_path / "images/003.png").mkdir()  # which can be read as little as one that is gone
    first_index = reasons(config)
    second = label.run(retrying(config))
    assert "0 of 2 images that were tried again have a label" in capsys.readouterr().out
    assert first_index["003.png"] == "source_changed"
    assert reasons(config)["003.png"] == "read_failed" and second.generation == 2
    assert label.run(retrying(config)) == second
    assert not (tmp_path / "out/manifest-3.json").exists()
    assert first.counts == second.counts


def test_a_retry_that_was_killed_is_made_again(
    broken: tuple[LabelConfig, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, first = broken
    (tmp_path / "away.png").rename(tmp_path / "images/001.png")

    def killed(*arguments: Any) -> Iterator[tuple[int, pa.Table]]:
        yield next(run_graph_in_process(*arguments))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(graph, "run_graph", killed)
        label.run(retrying(config))
    assert label.run(config) == first
    second = label.run(retrying(config))
    assert second.counts["ok"] == 5 and verify_labels(open_labels(config.out)) == []


def test_labels_are_overwritten_with_their_generations(
    broken: tuple[LabelConfig, Artifact], tmp_path: Path
) -> None:
    config, _ = broken
    (tmp_path / "away.png").rename(tmp_path / "images/001.png")
    label.run(retrying(config))
    other = config.model_copy(update={"processing_size": 32, "overwrite": True})
    assert label.run(other).generation == 1
    left = {name for name in contents(tmp_path / "out") if "manifest" in name or "retr" in name}
    assert left <= {"manifest.json", "retried"}
