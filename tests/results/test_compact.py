"""The compact edition of a table: which rows and numbers it has, and how it looks everywhere."""

import math
import re

import pandas as pd
import pytest
from results_fixtures import drawn, items, write

from napo.config.benchmarks import Metric, metrics
from napo.results.collect import Estimate, collect
from napo.results.compact import (
    Cell,
    Label,
    compact,
    html,
    label,
    markdown,
    measured,
    with_best,
)
from napo.results.tables import extra_table, published, table

LP = ("VLind", "LP ↑")
UP, DOWN, NEITHER = (Metric("Mine X", "x", better=better) for better in (1, -1, 0))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    variants = {"base": 0.3, "dpo": 0.5, "A1": 0.8, "VB1": 0.6}
    folder = drawn(tmp_path_factory.mktemp("results"), variants)
    return collect(folder, ["A1", "VB1", "dpo"], (0, 1, 2))


def codes(frame, *, published=False):
    return [row.code for row in frame.index if row.published is published and not row.heading]


def test_rows_are_what_ran_the_base_first_then_in_the_papers_order(results):
    assert codes(table(1, results).compact) == ["base", "dpo", "A1"]
    assert codes(table(2, results).compact) == ["base", "A1", "VB1"]
    assert codes(extra_table(results).compact) == ["base", "A1"]
    assert "Not run here: A2, A3, LB1, LB2, VB2." in table(2, results).compact_notes


def test_a_cell_is_a_value_with_its_interval(results):
    metric = metrics(1)[1]
    estimate = results.estimate("A1", metric)
    cell = table(1, results).compact.loc[label("A1"), LP]
    assert cell.value == f"{estimate.value:.1f}" and cell.best
    assert cell.interval == f"[{estimate.low:.1f}, {estimate.high:.1f}]"


def test_a_value_without_an_interval_says_not_defined_and_no_value_says_undefined():
    nan = math.nan
    assert measured(Estimate(5.0, nan, nan, nan, 1), UP) == Cell("5.0", "[not defined]")
    assert measured(Estimate(nan, nan, nan, nan, 1), UP) == Cell("undefined")


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_at_the_tiny_scale_no_published_number_stands_in_a_cell_of_ours(results, number):
    frame = table(number, results).compact
    cells = frame.to_numpy().ravel()
    assert not [cell for cell in cells if cell.value and cell.published]
    (heading,) = [row.words for row in frame.index if row.heading]
    assert heading == "Published, LLaVA-1.5-7B: other data and model, not comparable"
    paper = published(number).query("variant != '' and model == '7B'")
    assert sorted(codes(frame, published=True)) == sorted(paper["variant"])


def test_at_the_papers_scale_the_published_number_stands_beside_ours(results):
    frame = table(2, results, scale="paper").compact
    assert frame.loc[label("A1"), LP].published == "44.0" and frame.loc[label("A1"), LP].value
    assert codes(frame, published=True) == ["A2", "A3", "LB1", "LB2", "VB2"]
    left = frame.loc[[row for row in frame.index if row.published]].to_numpy().ravel()
    assert not any(cell.best for cell in left)  # the best published number may be A1's
    (vb1,) = [row for row in frame.index if row.code == "VB1"]
    assert frame.loc[[vb1], [LP]].iloc[0, 0].published == "31.4 †"
    assert any("In parentheses" in note for note in table(2, results, scale="paper").compact_notes)


def test_runs_of_13b_compare_with_table_1_only(results):
    first = table(1, results, scale="paper", model="13B").compact
    assert first.loc[label("A1"), LP].published == "25.1"
    second = table(2, results, scale="paper", model="13B").compact
    assert second.loc[label("A1"), LP].published == ""
    (heading,) = [row.words for row in second.index if row.heading]
    assert heading == "Published, LLaVA-1.5-7B: another model, not comparable"


@pytest.mark.parametrize(
    ("metric", "texts", "best"),
    [
        (UP, ["1.0", "3.0", "2.0"], [False, True, False]),
        (DOWN, ["1.0", "3.0", "1.0"], [True, False, True]),  # equal texts are equally good
        (UP, ["undefined", "3.0", "–"], [False, False, False]),  # nothing to compare with
        (NEITHER, ["1.0", "3.0", "2.0"], [False, False, False]),
    ],
)
def test_the_best_of_a_column_follows_its_arrow(metric, texts, best):
    rows = with_best([[Cell(text)] for text in texts], [metric])
    assert [row[0].best for row in rows] == best


def test_a_note_to_a_published_row_stands_at_its_row_and_under_the_table(results):
    first = table(1, results)
    marked = {row.code: row.mark for row in first.compact.index if row.published}
    assert (marked["base"], marked["vcd"], marked["A1"]) == ("†", "‡", "")
    assert [note[0] for note in first.compact_notes[1:3]] == ["†", "‡"]


def test_html_has_a_cell_for_each_column_and_headings_span_all():
    columns = pd.MultiIndex.from_tuples([("VLind", "CB ↑"), LP])
    rows = [Label("<b>", "A1", "△"), Label("Published", heading=True)]
    cells = [[Cell("1.0", "[0.5, 1.5]", best=True), Cell("2", "", "3")], [Cell()] * 2]
    text = html(pd.DataFrame(cells, index=pd.Index(rows, dtype=object), columns=columns), "T & t")
    assert '<th colspan="3" scope="rowgroup"><span class="block">Published</span></th>' in text
    assert "<b>1.0</b><br><small>[0.5, 1.5]</small>" in text
    assert '2 <span class="published">(3)</span>' in text
    assert "&lt;b&gt; ·\N{NO-BREAK SPACE}<code>A1</code> △" in text and "T &amp; t" in text
    assert text.count("<td") - text.count("<td>&nbsp;") == 2


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_markdown_has_as_many_cells_in_every_line(results, scale):
    text = table(1, results, scale=scale).markdown()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {1 + 1 + 10}
    assert re.search(r"Full method · `A1` \| \*\*[\d.]+\*\*.*<br><sub>\[", text)


def test_a_table_in_which_nothing_ran_has_the_published_rows_only(tmp_path):
    write(tmp_path, "base", 0, {"mmhal": items("mmhal", 0.5, 0)})
    results = collect(tmp_path, [], [0])
    frame = table(2, results).compact
    assert codes(frame) == ["base"] and len(codes(frame, published=True)) == 7
    assert frame.iloc[0, 0].value == "–"
    empty = compact(results, ["A1"], metrics(2))
    assert empty.empty and markdown(empty).count("\n") == 2
