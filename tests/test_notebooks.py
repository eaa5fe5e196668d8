"""The notebooks run from top to bottom on what ships with the package, and are no place for code."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
DRAWS = re.compile(r"plt\.subplots|contact_sheet\(|\.figure\b")
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@EACH
def test_notebook_defines_nothing_and_is_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = ast.parse("\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code"))
    defined = [n for n in ast.walk(code) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    assert not [node.name for node in defined]
    assert path.stat().st_size < 1.5e6


@EACH
def test_what_a_notebook_keeps_of_its_run_is_pictures_and_words(path):
    """No errors, no warnings, and nothing of the machine it ran on."""
    outputs = [output for cell in nbformat.read(path, as_version=4).cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert "site-packages" not in str(outputs)


@pytest.mark.slow
@EACH
def test_notebook_runs_and_draws(path, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a kernel inherits it, and would draw nothing under Agg
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        drawn = [{"image/png", "image/jpeg"} & set(output.get("data", {})) for output in cell.get("outputs", [])]
        assert any(drawn) or not DRAWS.search(cell.source), cell.source
