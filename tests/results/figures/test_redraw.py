"""Figures drawn again from stored data."""

import pytest
from results_fixtures import margin_frame

from napo.errors import NapoError
from napo.results import figures
from napo.results.figures.redraw import redraw


def test_redrawn_figures_have_the_notebooks_bytes(tmp_path):
    margins, curves = margin_frame(), figures.loss_curves()
    figures.save(figures.fig3(curves), tmp_path, "fig3", curves)
    figures.save(figures.fig4(margins), tmp_path, "fig4", margins)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    names = {path.name for path in redraw(tmp_path)}
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before == {name: after[name] for name in before}
    assert {"fig3.png", "fig4.svg", "fig3-column.pdf", "fig4-column.svg"} <= names <= set(after)


def test_without_stored_margins_only_fig3_is_drawn_and_fig4_names_its_notebook(tmp_path):
    assert {path.name.split(".")[0] for path in redraw(tmp_path)} == {"fig3", "fig3-column"}
    with pytest.raises(NapoError, match=r"fig4\.csv is missing; run notebooks/04"):
        redraw(tmp_path, ["fig4"])


def test_an_unknown_figure_is_refused(tmp_path):
    with pytest.raises(NapoError, match="Unknown figure 'fig5'"):
        redraw(tmp_path, ["fig5"])


@pytest.mark.parametrize("content", [b"", b"id,kind\na,b\n", b"\xff\xfe", b"id,margin_sum\na,x\n"])
def test_a_damaged_file_of_margins_is_refused(tmp_path, content):
    (tmp_path / "fig4.csv").write_bytes(content)
    with pytest.raises(NapoError, match="is not a table of margins"):
        redraw(tmp_path, ["fig4"])


@pytest.mark.kind("A. A report may only say what its runs had")
def test_margins_that_were_edited_are_not_drawn(tmp_path):
    figures.save(figures.fig4(margin_frame()), tmp_path, "fig4", margin_frame())
    text = (tmp_path / "fig4.csv").read_text()
    (tmp_path / "fig4.csv").write_text(text.replace("unbiased", "biased"))
    with pytest.raises(NapoError, match=r"fig4\.csv was changed after it was written"):
        redraw(tmp_path)


@pytest.mark.parametrize("content", ["[1]", "{", '{"files": 3}'])
def test_a_figure_with_a_damaged_record_is_drawn_again(tmp_path, content):
    record = tmp_path / "fig4.provenance.json"
    figures.save(figures.fig4(margin_frame()), tmp_path, "fig4", margin_frame())
    whole = record.read_text()
    record.write_text(content)
    redraw(tmp_path, ["fig4"])
    assert record.read_text() == whole
