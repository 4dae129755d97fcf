"""A third task is its package and one line of the registry: nothing else asks which task it is."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from e2eft import label
from e2eft.artifacts import Artifact
from e2eft.config import TASK_NAMES
from e2eft.evaluate.protocols import protocols_of
from e2eft.labels.index import (
    blank_row,
    encode_index,
    index_schema,
    open_labels,
    part_path,
    read_index,
    verify_labels,
)
from e2eft.labels.trees import LabelTree
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import find_model
from e2eft.serve import GeometryModel, columns
from e2eft.storage import LocalStore
from e2eft.tasks import TASKS, get_task, label_codec
from e2eft.tasks.base import GeometryTask
from tests.corpora import write_plain_corpus
from tests.labelling import label_config, without_cluster, write_model

__all__ = ["without_cluster"]
TOY = "shading"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(TASKS, TOY, "tests.toy_task")
    return TOY


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that does not say of which task it is."""
    return write_model(tmp_path_factory.mktemp("model"), "image")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_plain_corpus(tmp_path / "images", 3)


@pytest.fixture
def labelled(
    toy: str, model: Path, images: Path, tmp_path: Path, without_cluster: None
) -> Artifact:
    config = label_config(images, tmp_path / "out", model, save_npy=True)
    return label.run(config.model_copy(update={"task": toy}))


def test_the_command_line_knows_the_registered_tasks() -> None:
    assert tuple(TASKS) == TASK_NAMES


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_it_is_labelled_indexed_read_and_shown(toy: str, labelled: Artifact) -> None:
    index, codec = open_labels(labelled.uri), label_codec(toy)
    assert (index.task, index.kind) == (toy, "shading")
    assert labelled.details["convention"] == "0 dark, 1 bright"
    assert labelled.details["target"] == get_task(toy).target
    rows = list(index.rows())
    assert len(rows) == 3 and verify_labels(index) == []
    for row in rows:
        assert row["shading_path"] == codec.path(row["key"]) == f"shading/{row['key']}.png"
        assert row["npy_path"] == f"npy/{row['key']}.shading.npy"
        assert row["depth_path"] == row["normals_path"] == row["preview_path"] == ""
        exact, picture = index.read(row), index.read(row | {"npy_path": ""})
        assert exact.dtype == np.float32 and exact.shape == (48, 64) and exact.std() > 0
        np.testing.assert_allclose(picture, exact, atol=0.51 / 255)
    page = labelled.store.read("gallery.html").decode()
    assert page.count('data-label="shading"') == 3 and page.count("dark to bright") == 3
    assert 'value="brightness"' in page and "<td>0 dark, 1 bright</td>" in page


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_its_files_are_the_jobs_own_and_are_deleted_with_it(
    toy: str, labelled: Artifact, model: Path, images: Path
) -> None:
    mine = [row["shading_path"] for row in open_labels(labelled.uri).rows()]
    labelled.store.write("shading/a users.png", b"kept")
    again = label_config(images, labelled.uri, model, overwrite=True)
    made = label.run(again)
    assert made.details["task"] == "depth"
    assert not any(made.store.exists(path) for path in mine)
    assert made.store.exists("shading/a users.png")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_it_is_served_under_its_name(
    toy: str, labelled: Artifact, model: Path, images: Path
) -> None:
    served = GeometryModel()
    served.estimator = load_estimator(find_model(str(model)))
    served.estimator.card = replace(served.estimator.card, task=toy)
    served.task = get_task(toy)
    rows = list(open_labels(labelled.uri).rows())
    contents = [(images / row["key"]).read_bytes() for row in rows]
    answers = served.predict(None, pd.DataFrame({"image": [*contents, b"none"]}))
    assert list(answers.columns) == columns() == [*TASK_NAMES, toy, "meta", "error_code"]
    for row, (_, answer) in zip(rows, answers.iterrows(), strict=False):
        assert (answer["depth"], answer["normals"], answer["error_code"]) == (b"", b"", "")
        assert json.loads(answer["meta"])["encoding"] == "linear uint8"
        shading = label_codec(toy).decode(answer[toy])
        wanted = open_labels(labelled.uri).read(row | {"npy_path": ""})
        np.testing.assert_allclose(shading, wanted, atol=1.01 / 255)
    assert answers[toy].iloc[-1] == b"" and answers["error_code"].iloc[-1]


def test_an_index_from_before_it_is_read_as_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, before = LocalStore(tmp_path), index_schema().names
    row = blank_row({"index": 0, "part": 0, "key": "a", "uri": "a"}) | {"depth_path": "depth/a.png"}
    store.write(part_path(0), encode_index(pa.Table.from_pylist([row])))
    store.write(part_path(1), encode_index(index_schema().empty_table()))
    monkeypatch.setitem(TASKS, TOY, "tests.toy_task")
    table = read_index(store)
    at = before.index("npy_path")
    assert table.schema.names == [*before[:at], "shading_path", *before[at:]]
    assert table.to_pylist() == [row | {"shading_path": ""}]


def test_an_index_that_lacks_another_column_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    table = index_schema().empty_table().drop_columns(["width"])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    store.write(part_path(0), sink.getvalue().to_pybytes())
    with pytest.raises(ValueError, match="width"):
        read_index(store)


def test_labels_that_another_program_wrote_are_read(toy: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((4, 5), 0.25))
    tree = LabelTree(LocalStore(tmp_path), toy, label_codec(toy).kind_of_others("depth"))
    (row,) = tree.label_rows(["a"]).values()
    assert tree.kind == "shading" and tree.read(row).tolist() == [[0.25] * 5] * 4


def test_what_it_has_not_is_said(toy: str) -> None:
    with pytest.raises(ValueError, match="no protocol scores shading"):
        protocols_of(toy)
    assert isinstance(get_task(toy), GeometryTask)
