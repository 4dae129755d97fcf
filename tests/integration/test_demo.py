"""The demo at a small size, run twice, and the notebook that reads what it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK = REPOSITORY / "notebooks" / "one_step_is_enough.ipynb"


def run_demo(folder: Path) -> str:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, str(REPOSITORY / "pipelines" / "demo.py"), "--quick", "--out"]
    done = subprocess.run(
        [*command, str(folder)], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, run_demo(folder)


def test_demo_ends_with_a_summary_of_scores_and_places(demo: tuple[Path, str]) -> None:
    folder, output = demo
    summary = output.rsplit("=" * 78, 1)[1]
    for method in ("best constant", "one step, leading", "end-to-end fine-tuned"):
        assert method in summary
    assert f"{folder}/labels/gallery.html" in summary
    assert (folder / "labels" / "gallery.html").stat().st_size > 10_000
    assert (folder / "shards" / "indoor-train" / "contact_sheet.png").is_file()


def test_the_packaged_model_sees_with_trailing_spacing_only(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    for family in ("indoor", "street"):
        error: dict[str, float] = {}
        for spacing in ("leading", "trailing"):
            scores = json.loads((folder / "scores" / f"one-step-{spacing}/scores.json").read_text())
            abs_rel = scores["domains"][f"synthetic-{family}"]["metrics"]["abs_rel"]
            error[spacing], error["constant"] = abs_rel["mean"], abs_rel["constant"]
        assert error["leading"] == pytest.approx(error["constant"], rel=0.03)
        assert error["trailing"] < 0.85 * error["constant"]


def test_second_run_uses_what_is_committed(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("manifest.json")}
    output = run_demo(folder)
    assert output.count("nothing to do") >= len(before) - 1
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_notebook_runs_on_the_demo(demo: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = demo
    monkeypatch.setenv("E2EFT_DEMO", str(folder))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute()
    assert sum(cell.cell_type == "code" for cell in notebook.cells) == 9
