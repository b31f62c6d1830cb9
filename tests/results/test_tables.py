"""Tables 1 to 4 and the extra table: the paper's numbers complete, ours beside them."""

import math
import re

import pandas as pd
import pytest
from results_fixtures import DECODING, drawn, items, write

from napo.config.benchmarks import EXTRA, metrics
from napo.config.variants import VARIANTS
from napo.results.collect import Results, collect
from napo.results.tables import SYMBOLS, extra_table, published, table, tables

NOTHING = Results(None, {})
ROWS = {1: 23, 2: 7, 3: 3, 4: 4}
SMALL = [metric.name for metric in metrics()[:4]]
LP = metrics()[1]
ROWS_OF_EXTRA = {name: entry.row for name, entry in VARIANTS.items() if entry.row}

# Sums of the paper's columns, so that a slip in the files shows.
SUMS = {
    1: [419.0, 285.7, 684.0, 266.7, 98.1, 939.2, 481.4, 46.1, 62.43, 10.55],
    2: [355.0, 240.6, 192.7, 50.7],
    3: [149.6, 110.3, 86.0, 21.9],
    4: [189.8, 129.5, 111.7, 28.9],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    variants = {"base": 0.3, "dpo": 0.5, "A1": 0.8, "VB1": 0.6, "ropo": 0.9}
    return collect(drawn(tmp_path_factory.mktemp("results"), variants), list(VARIANTS), (0, 1, 2))


# --- the published numbers


@pytest.mark.parametrize("number", ROWS)
def test_published_rows_are_complete_with_the_papers_sums_and_name_their_source(number):
    paper = published(number)
    wanted = [f"Table {number}, row {at}" for at in range(1, ROWS[number] + 1)]
    assert list(paper["source"]) == wanted
    names = [metric.name for metric in metrics()] if number == 1 else SMALL
    assert [name for name in paper if name in {m.name for m in metrics()}] == names
    assert paper[names].sum().to_list() == pytest.approx(SUMS[number])


@pytest.mark.parametrize("number", ROWS)
def test_every_cb_is_a_count_of_302_instances(number):
    # This shows that CB is the raw accuracy over VLind-Bench's 302 instances.
    grid = {round(100 * count / 302, 1) for count in range(303)}
    assert set(published(number)["VLind CB"].dropna()) <= grid


@pytest.mark.parametrize("number", ROWS)
def test_published_rows_name_known_variants_and_have_enough_note_symbols(number):
    paper = published(number)
    assert set(paper["variant"]) <= {"", "base", *VARIANTS}
    assert set(paper["flag"]) <= {"", *SMALL}
    assert len(set(paper["note"]) - {""}) <= len(SYMBOLS)
    assert (paper.loc[paper["flag"] != "", "note"] != "").all()


def test_the_13b_base_lies_within_the_authors_own_ratios_and_the_7b_base_does_not():
    papers = [published(number) for number in ROWS]
    rows = pd.concat(papers)
    ratio = rows["ObjHal CHAIRs"] / rows["ObjHal CHAIRi"]
    own = ratio[~rows["variant"].isin(["", "base", "vcd"])]
    borrowed = ratio[rows["variant"].isin(["", "vcd"]) & (rows["row"] != "LLaVA-v1.5-13B")].dropna()
    base = rows["variant"] == "base"
    assert (round(own.min(), 1), round(own.max(), 1)) == (3.3, 4.4)
    assert sorted(borrowed.round(1))[-2:] == [2.3, 3.6]  # the last one is MDPO-10K
    assert own.min() < ratio[base & (rows["model"] == "13B")].item() < own.max()
    assert ratio[base & (rows["model"] == "7B")].item() < own.min()
    assert round(100 * 160 / 300, 1) == 53.3
    notes = papers[0].loc[papers[0]["row"] == "LLaVA-v1.5-13B", "note"]
    assert len(set(notes)) == 1 and "another extractor" not in notes.iloc[0]


def test_a_run_has_the_same_published_numbers_in_all_tables_but_one_flagged_cell():
    cells_of = {}
    for number in ROWS:
        paper = published(number)
        for _, row in paper[(paper["model"] == "7B") & (paper["variant"] != "")].iterrows():
            for name in SMALL:
                cell = (row[name], row["flag"] == name)
                cells_of.setdefault((row["variant"], name), set()).add(cell)
    differing = {key: cells for key, cells in cells_of.items() if len(cells) > 1}
    assert differing == {("VB1", "VLind LP"): {(31.4, True), (41.4, True)}}


# --- our numbers beside them


@pytest.mark.parametrize("number", ROWS)
def test_without_runs_ours_say_not_run_and_published_numbers_stay(number):
    empty, paper = table(number, NOTHING), published(number)
    ours = empty.frame.xs("ours", axis=1, level=1)
    has_variant = ((paper["variant"] != "") & (paper["model"] == "7B")).to_numpy()
    assert (ours[has_variant] == "not run").all(axis=None)
    assert (ours[~has_variant] == "–").all(axis=None)
    assert len(empty.frame) == ROWS[number] and not empty.long["ran"].any()
    printed = empty.frame.xs("published", axis=1, level=1).to_numpy().ravel()
    numbers = [float(text.split()[0]) if text != "–" else math.nan for text in printed]
    assert pd.Series(numbers).equals(empty.long["published"])


def test_our_numbers_stand_beside_the_published_ones(results):
    second = table(2, results)
    row = second.frame.loc["A1: full method"]
    estimate = results.estimate("A1", LP)
    assert row[LP.title, "published"] == "44.0"
    assert row[LP.title, "ours"] == f"{estimate.value:.1f} ± {estimate.sd:.1f}"
    cell = row[LP.title, "ours − our base"]
    assert re.fullmatch(r"\+[\d.]+ \[\+[\d.]+, \+[\d.]+\]", cell)
    long = second.long.set_index(["variant", "metric"]).loc[("A1", "VLind LP")]
    assert (long["published"], long["ours"], long["seeds"]) == (44.0, estimate.value, 3)
    assert long["ours_low"] < long["ours"] < long["ours_high"]


def test_at_the_papers_scale_the_difference_is_ours_minus_published(results):
    cell = table(2, results, scale="paper").frame.loc["A1: full method"]
    numbers = cell[LP.title, "ours − published"].replace("−", "-").replace("[", "").split()
    estimate = results.estimate("A1", LP)
    ends = [end - 44.0 for end in (estimate.value, estimate.low, estimate.high)]
    assert [float(number.strip(",]")) for number in numbers] == pytest.approx(ends, abs=0.051)


def test_our_13b_runs_stand_beside_the_13b_rows_only(results):
    ours = table(1, results, model="13B").frame.xs("ours", axis=1, level=1)
    assert (ours.loc["7B"] == "–").all(axis=None)
    assert (ours.loc["13B"] != "–").all(axis=None)


def test_a_variant_without_training_stands_in_its_row_beside_trained_ones(tmp_path):
    folder = drawn(tmp_path, {"base": 0.3, "vcd": 0.4, "dpo": 0.5})
    results = collect(folder, ["vcd", "dpo"], (0, 1, 2), tune="full")
    assert results.runs["vcd"] == ["vcd"] and len(results.runs["dpo"]) == 3
    first = table(1, results)
    row = first.frame.loc[("other methods, 7B", slice(None)), (LP.title, "ours")]
    (cell,) = row[row != "–"]
    assert cell == f"{results.estimate('vcd', LP).value:.1f}"  # one run has no spread
    assert first.long.set_index("row").loc["+ VCD", "variant"].eq("vcd").all()
    notes = "\n".join(first.notes)
    assert "(VCD, Leng et al. 2024; α = 1, β = 0.1, noise step 500): vcd." in notes
    assert "NOT all scored" not in notes
    assert "VCD" not in "\n".join(table(2, results).notes)


@pytest.mark.parametrize(("number", "cell"), [(2, "31.4 †"), (4, "41.4 †")])
def test_the_doubtful_cell_is_marked_and_its_note_has_both_numbers(results, number, cell):
    marked = table(number, results)
    assert cell in marked.frame[LP.title, "published"].to_list()
    note = next(note for note in marked.notes if note.startswith("†"))
    assert "31.4" in note and "41.4" in note
    assert marked.long["doubtful"].sum() == 1


def test_runs_scored_with_different_options_are_named(tmp_path):
    frames = {"mmhal": items("mmhal", 0.5, 0)}
    write(tmp_path, "base", 0, frames)
    other = {"judge": "openai", "judge_model": "m", "answered_by": ["m-1", "m-2"]}
    write(tmp_path, "A1/seed-0", 0, frames, settings={**other, "decoding": DECODING})
    notes = "\n".join(table(1, collect(tmp_path, ["A1"], [0])).notes)
    assert "MMHal-Bench, ours, NOT all scored with the same options: judge rule" in notes
    assert "judge openai, judge model m, answered by m-1 and m-2" in notes
    assert "(A1/seed-0)" in notes


# --- the extra table


def test_the_extra_table_shows_values_and_paired_differences_to_a1(results):
    extra = extra_table(results)
    ours, change = extra.frame[LP.title, "ours"], extra.frame[LP.title, "ours − A1"]
    assert ours[ROWS_OF_EXTRA["ropo"]].startswith(f"{results.estimate('ropo', LP).value:.1f} ± ")
    difference = results.difference("ropo", "A1", LP)
    assert change[ROWS_OF_EXTRA["ropo"]].startswith(f"{difference.value:+.1f} [")
    assert ours[ROWS_OF_EXTRA["ipo"]] == "not run" and change[ROWS_OF_EXTRA["ipo"]] == "–"
    assert change[ROWS_OF_EXTRA["A1"]] == "–"
    assert len(extra.long) == len(ROWS_OF_EXTRA) * len(metrics(EXTRA))
    row = extra.long.set_index(["variant", "metric"]).loc[("ropo", "VLind LP")]
    assert (row["minus_a1"], row["minus_a1_low"]) == (difference.value, difference.low)
    assert row["seeds"] == 3 and extra.heading.startswith("Extra. ")


# --- entries from outside the package


# --- files


def test_a_table_is_written_as_csv_markdown_and_tex_twice_with_the_same_bytes(results, tmp_path):
    for folder in ("one", "two"):
        paths = table(3, results).write(tmp_path / folder)
        assert sorted(path.name for path in paths) == ["table3.csv", "table3.md", "table3.tex"]
    for path in paths:
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes() != b""
    assert len(pd.read_csv(tmp_path / "one/table3.csv")) == 3 * len(SMALL)
    extra = extra_table(results).write(tmp_path)
    assert {path.stem for path in extra} == {"extra"}


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_tex_and_markdown_hold_every_number_that_the_paper_has_for_our_rows(results, scale):
    for number, printed in tables(results, scale=scale).items():
        text = printed.latex()
        assert text.isascii()
        paper = published(number).query("variant != '' and model == '7B'")
        for name in SMALL:
            for value in paper[name].dropna():
                assert f"{value:.1f}" in text and f"{value:.1f}" in printed.markdown()
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")
