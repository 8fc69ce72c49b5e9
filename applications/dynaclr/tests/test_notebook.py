"""The quick start as a notebook: kept without outputs, and run as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import anndata
import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

EXAMPLES = Path(__file__).parents[1] / "examples"


def cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_kept_without_outputs(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    for cell in cells(path):
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the client; what cells warn of is in their outputs
def test_quickstart_runs(tmp_path):
    shutil.copytree(EXAMPLES, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "quickstart"
    notebook = nbformat.read(folder / "quickstart.ipynb", as_version=4)
    # The kernel "python3" of the client is the interpreter that runs this test.
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()
    shown = [output.get("data", {}) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in data for data in shown) == 2
    (table,) = [text for data in shown if "| quick start |" in (text := data.get("text/markdown", ""))]
    probe = float(table.split("| quick start |")[1].split()[0])
    assert 0.5 < probe <= 1
    assert anndata.read_zarr(folder / "embeddings.zarr").n_obs > 300
