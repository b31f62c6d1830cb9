"""The habits of the notebooks: thin, typed, without outputs."""

import ast
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4).cells


def parameters(cells):
    return [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]


def test_it_is_committed_without_outputs(path):
    for cell in read(path):
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


def test_it_opens_with_a_title_and_its_claim(path):
    first = read(path)[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ") and "**Claim.**" in first.source


def test_it_has_one_parameters_cell_of_typed_literals_with_a_comment_each(path):
    (cell,) = parameters(read(path))
    for line in cell.source.splitlines():
        statement = ast.parse(line).body[0]
        assert isinstance(statement, ast.AnnAssign), line
        assert isinstance(statement.value, ast.Constant), line
        assert "  # " in line, line


def test_its_cells_are_short_and_define_nothing(path):
    for cell in read(path):
        if cell.cell_type != "code" or "parameters" in cell.metadata.get("tags", []):
            continue
        assert len(cell.source.splitlines()) <= 10
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda), cell.source


def test_a_figure_is_followed_by_a_reading_note(path):
    cells = read(path)
    for at, cell in enumerate(cells):
        if cell.cell_type == "code" and "figures." in cell.source and "save" not in cell.source:
            if cell.source.startswith("from "):
                continue
            later = [c for c in cells[at + 1 : at + 4] if c.cell_type == "markdown"]
            assert any(c.source.startswith("**Reading the ") for c in later), cell.source
