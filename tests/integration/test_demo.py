"""The demo at a small size, run twice, the notebook that reads what it leaves, and planted secrets
searched in all of that."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.planted import DemoRun, library_lines, run_demo
from tests.secret_search import Search

pytestmark = pytest.mark.deep

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK = REPOSITORY / "notebooks" / "one_step_is_enough.ipynb"


def test_demo_ends_with_a_summary_of_scores_and_places(demo: DemoRun) -> None:
    folder = demo.folder
    summary = demo.output.rsplit("=" * 78, 1)[1]
    for method in ("best constant", "one step, leading", "end-to-end fine-tuned"):
        assert method in summary
    assert f"{folder}/labels/gallery.html" in summary
    assert (folder / "labels" / "gallery.html").stat().st_size > 10_000
    assert (folder / "shards" / "indoor-train" / "contact_sheet.png").is_file()


def test_the_packaged_model_sees_with_trailing_spacing_only(demo: DemoRun) -> None:
    folder = demo.folder
    for family in ("indoor", "street"):
        error: dict[str, float] = {}
        for spacing in ("leading", "trailing"):
            scores = json.loads((folder / "scores" / f"one-step-{spacing}/scores.json").read_text())
            abs_rel = scores["domains"][f"synthetic-{family}"]["metrics"]["abs_rel"]
            error[spacing], error["constant"] = abs_rel["mean"], abs_rel["constant"]
        assert error["leading"] == pytest.approx(error["constant"], rel=0.03)
        assert error["trailing"] < 0.85 * error["constant"]


def test_it_prints_what_the_stages_say_and_nothing_of_a_library(demo: DemoRun) -> None:
    assert not library_lines(demo.output)
    leaked = ("E 1 2] core_worker.cc:2465: Actor", "(A pid=1) Traceback (most", "WARNING alembic")
    assert library_lines("\n".join(leaked)) == list(leaked)


def test_second_run_uses_what_is_committed(demo: DemoRun) -> None:
    folder = demo.folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("manifest.json")}
    output = run_demo(folder, demo.temporary)
    assert output.count("nothing to do") == output.count("$ python pipelines/")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_notebook_runs_on_the_demo(demo: DemoRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = demo.folder
    monkeypatch.setenv("E2EFT_DEMO", str(folder))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute()
    assert sum(cell.cell_type == "code" for cell in notebook.cells) == 9


@pytest.mark.slow
def test_a_demo_leaves_no_secret(demo: DemoRun, tmp_path: Path) -> None:
    search = demo.search.text("what it printed", demo.output)
    search.folder(demo.folder).folder(demo.temporary)
    assert list(demo.temporary.glob("e2eft-*/ray/session_*/logs/raylet.out"))
    assert {"mlflow.db", "shards", "runs"} <= {path.name for path in demo.folder.iterdir()}
    assert search.looked_at > 1000
    assert not search.finds
    # Where it is planted in what was searched, it is found.
    leaked = shutil.copy(demo.folder / "mlflow.db", tmp_path)
    with Path(leaked).open("ab") as file:
        file.write(search.secrets["AWS_SESSION_TOKEN"].encode())
    assert Search(search.secrets).folder(tmp_path).finds
