"""The notebooks in examples/ run from the first cell to the last, as they stand."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900  # of one cell, on a busy machine


@pytest.mark.slow
@pytest.mark.parametrize("notebook", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda path: path.stem)
@pytest.mark.filterwarnings("default")  # of Jupyter's own
def test_runs_as_it_stands(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    read = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    done = nbclient.NotebookClient(
        read, timeout=TIMEOUT_S, kernel_name="python3", resources=resources
    ).execute()
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in code if cell.source.count("\n") < 2)
    table = next(output for cell in code for output in cell.outputs if "text/html" in output.get("data", {}))
    assert "predicted_latency" in table["data"]["text/html"]
    assert (tmp_path / "digits.onnx").stat().st_size > 1000


@pytest.mark.parametrize("notebook", sorted((ROOT / "examples").glob("*.ipynb")), ids=lambda path: path.stem)
def test_its_code_is_python_of_few_lines(notebook: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    cells = [cell.source for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    compile("\n".join(cells), str(notebook), "exec")
    assert sum(len(cell.splitlines()) for cell in cells) <= 15
