"""Tables 1 to 4: the paper's numbers whole, ours beside them, never mixed."""

import math
import re
import shutil
import subprocess

import pandas as pd
import pytest
from results_fixtures import DECODING, drawn, items, write

from napo.config.benchmarks import metrics
from napo.config.variants import VARIANTS
from napo.errors import NapoError
from napo.results.collect import Results, collect
from napo.results.tables import SYMBOLS, Table, published, table, tables
from napo.results.tex import tex

NOTHING = Results(None, {})
ROWS = {1: 23, 2: 7, 3: 3, 4: 4}
SMALL = [metric.name for metric in metrics()[:4]]

# The paper's numbers a second time, copied out by column: a slip in one place shows.
BY_COLUMN = {
    2: [
        [58.9, 50.0, 43.4, 40.4, 44.7, 62.3, 55.3],
        [44.0, 38.2, 32.2, 36.4, 29.9, 31.4, 28.5],
        [25.7, 27.7, 29.0, 28.0, 28.3, 26.3, 27.7],
        [6.2, 8.0, 8.3, 6.4, 6.8, 7.6, 7.4],
    ],
    3: [[58.9, 39.4, 51.3], [44.0, 25.4, 40.9], [25.7, 32.0, 28.3], [6.2, 8.5, 7.2]],
    4: [
        [34.8, 40.4, 62.3, 52.3],
        [22.2, 36.4, 41.4, 29.5],
        [28.7, 28.0, 26.3, 28.7],
        [7.1, 6.4, 7.6, 7.8],
    ],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    variants = {"base": 0.3, "dpo": 0.5, "A1": 0.8, "VB1": 0.6}
    return collect(drawn(tmp_path_factory.mktemp("results"), variants), list(VARIANTS), (0, 1, 2))


# --- the published numbers


@pytest.mark.parametrize("number", ROWS)
def test_every_row_of_the_paper_is_there_with_its_source(number):
    paper = published(number)
    wanted = [f"Table {number}, row {at}" for at in range(1, ROWS[number] + 1)]
    assert list(paper["source"]) == wanted
    names = [metric.name for metric in metrics()] if number == 1 else SMALL
    assert [name for name in paper if name in {m.name for m in metrics()}] == names


@pytest.mark.parametrize("number", BY_COLUMN)
def test_the_small_tables_hold_the_papers_numbers(number):
    assert published(number)[SMALL].T.to_numpy().tolist() == BY_COLUMN[number]


def test_the_rows_that_the_paper_trained_itself_hold_its_numbers():
    paper = published(1).set_index(["model", "variant"])
    names = [metric.name for metric in metrics()]
    wanted = {
        ("7B", "base"): [0.0, 0.0, 53.6, 25.2, 7.8, 51.0, 36.4, 4.2, 2.11, 0.54],
        ("7B", "dpo"): [39.4, 25.4, 32.0, 8.5, 4.9, 52.0, 23.4, 1.6, 3.23, 0.38],
        ("7B", "mdpo"): [0.3, 0.4, 35.3, 10.5, 4.2, 53.1, 22.4, 2.2, 3.28, 0.42],
        ("7B", "A1"): [58.9, 44.0, 25.7, 6.2, 4.0, 54.1, 20.7, 1.4, 3.31, 0.35],
        ("13B", "base"): [31.5, 20.9, 53.3, 14.5, 8.5, 50.9, 37.6, 4.2, 3.03, 0.47],
        ("13B", "dpo"): [37.1, 21.2, 25.8, 6.3, 3.3, 50.5, 19.9, 1.3, 3.39, 0.35],
        ("13B", "mdpo"): [32.8, 16.9, 30.3, 9.1, 3.4, 52.6, 18.1, 1.4, 3.72, 0.30],
        ("13B", "A1"): [42.1, 25.1, 23.7, 5.9, 3.5, 55.7, 19.0, 1.2, 3.55, 0.33],
    }
    assert {key: paper.loc[key, names].to_list() for key in wanted} == wanted


def test_the_borrowed_rows_add_up_to_the_papers_sums():
    paper = published(1)
    borrowed = paper[paper["variant"] == ""]
    sums = {  # added up from the paper's text, not from the file
        "VLind CB": 176.9, "VLind LP": 131.8, "ObjHal CHAIRs": 404.3, "ObjHal CHAIRi": 180.5,
        "AMBER CHAIR": 58.5, "AMBER Cover": 519.3, "AMBER Hal": 283.9, "AMBER Cog": 28.6,
        "MMHal Score": 36.81, "MMHal Hal": 7.41,
    }  # fmt: skip
    assert len(borrowed) == 15
    assert borrowed[list(sums)].sum().to_dict() == pytest.approx(sums)


@pytest.mark.parametrize("number", ROWS)
def test_every_cb_is_a_number_of_302_instances(number):
    # What tells that CB is the raw accuracy of VLind-Bench's 302 instances.
    grid = {round(100 * count / 302, 1) for count in range(303)}
    assert set(published(number)["VLind CB"].dropna()) <= grid


@pytest.mark.parametrize("number", ROWS)
def test_rows_name_variants_that_exist_and_notes_have_symbols_enough(number):
    paper = published(number)
    assert set(paper["variant"]) <= {"", "base", *VARIANTS}
    assert set(paper["flag"]) <= {"", *SMALL}
    assert len(set(paper["note"]) - {""}) <= len(SYMBOLS)
    assert (paper.loc[paper["flag"] != "", "note"] != "").all()


def test_the_same_run_has_the_same_numbers_in_all_tables_but_for_the_flagged_cell():
    found = {}
    for number in ROWS:
        paper = published(number)
        for _, row in paper[(paper["model"] == "7B") & (paper["variant"] != "")].iterrows():
            for name in SMALL:
                cell = (row[name], row["flag"] == name)
                found.setdefault((row["variant"], name), set()).add(cell)
    differing = {key: cells for key, cells in found.items() if len(cells) > 1}
    assert differing == {("VB1", "VLind LP"): {(31.4, True), (41.4, True)}}


# --- ours beside them


@pytest.mark.parametrize("number", ROWS)
def test_without_runs_our_columns_say_not_run_and_published_stay(number):
    made = table(number, NOTHING)
    paper = published(number)
    ours = made.frame.xs("ours", axis=1, level=1)
    mapped = ((paper["variant"] != "") & (paper["model"] == "7B")).to_numpy()
    assert (ours[mapped] == "not run").all(axis=None)
    assert (ours[~mapped] == "–").all(axis=None)
    assert len(made.frame) == ROWS[number] and not made.long["ran"].any()
    printed = made.frame.xs("published", axis=1, level=1).to_numpy().ravel()
    numbers = [float(text.split()[0]) if text != "–" else math.nan for text in printed]
    assert pd.Series(numbers).equals(made.long["published"])


def test_our_numbers_stand_beside_the_published_ones(results):
    made = table(2, results)
    row = made.frame.loc["A1: full method"]
    found = results.estimate("A1", metrics()[1])
    assert row["VLind LP ↑", "published"] == "44.0"
    assert row["VLind LP ↑", "ours"] == f"{found.value:.1f} ± {found.sd:.1f}"
    cell = row["VLind LP ↑", "ours − our base"]
    assert re.fullmatch(r"\+[\d.]+ \[\+[\d.]+, \+[\d.]+\]", cell)
    long = made.long.set_index(["variant", "metric"]).loc[("A1", "VLind LP")]
    assert (long["published"], long["ours"], long["seeds"]) == (44.0, found.value, 3)
    assert long["ours_low"] < long["ours"] < long["ours_high"]


def test_at_the_tiny_scale_nothing_is_subtracted_from_published_numbers(results):
    base = table(1, results).frame.loc["7B"].filter(like="LLaVA", axis=0).iloc[0]
    assert base["VLind LP ↑", "ours"] not in ("–", "not run")
    assert base["VLind LP ↑", "ours − our base"] == "–"
    kinds = set(table(1, results).frame.columns.get_level_values(1))
    assert kinds == {"published", "ours", "ours − our base"}


def test_at_the_papers_scale_the_difference_is_ours_minus_published(results):
    cell = table(2, results, scale="paper").frame.loc["A1: full method"]
    found = results.estimate("A1", metrics()[1])
    change = float(cell["VLind LP ↑", "ours − published"].split()[0].replace("−", "-"))
    assert change == pytest.approx(found.value - 44.0, abs=0.051)


def test_our_13b_runs_stand_beside_the_13b_rows_only(results):
    frame = table(1, results, model="13B").frame
    ours = frame.xs("ours", axis=1, level=1)
    assert (ours.loc["7B"] == "–").all(axis=None)
    assert (ours.loc["13B"] != "–").all(axis=None)


def test_the_doubtful_cell_is_marked_in_both_tables_with_both_numbers_in_the_note(results):
    for number, printed in ((2, "31.4 †"), (4, "41.4 †")):
        made = table(number, results)
        assert printed in made.frame["VLind LP ↑", "published"].to_list()
        note = next(note for note in made.notes if note.startswith("†"))
        assert "31.4" in note and "41.4" in note
        assert made.long["doubtful"].sum() == 1


def test_borrowed_rows_are_marked_and_explained(results):
    made = table(1, results)
    rows = [name for _, name in made.frame.index]
    assert "+ OPERA †" in rows and "+ DPO with RLAIF-V" in rows
    assert any(note.startswith("† Taken over from another paper") for note in made.notes)


def test_notes_name_extractor_similarity_judge_and_decoding(results):
    notes = "\n".join(table(1, results).notes)
    for said in ("extractor vocabulary", "similarity identity", "judge rule", "greedy",
                 "at most 48 new tokens", "gpt-4-0613", "d_macro", "CHAIRs_refine"):  # fmt: skip
        assert said in notes


def test_runs_scored_in_different_ways_are_named(tmp_path):
    made = {"mmhal": items("mmhal", 0.5, 0)}
    write(tmp_path, "base", 0, made)
    other = {"judge": "openai", "judge_model": "m", "answered_by": ["m-1", "m-2"]}
    write(tmp_path, "A1/seed-0", 0, made, settings={**other, "decoding": DECODING})
    notes = "\n".join(table(1, collect(tmp_path, ["A1"], [0])).notes)
    assert "MMHal-Bench, ours, NOT all scored alike: judge rule" in notes
    assert "judge openai, judge model m, answered by m-1 and m-2" in notes
    assert "(A1/seed-0)" in notes


def test_an_unknown_table_is_refused():
    with pytest.raises(NapoError, match="no Table 5"):
        table(5, NOTHING)


# --- files


def test_a_table_is_written_as_csv_markdown_and_tex_and_twice_the_same(results, tmp_path):
    for folder in ("one", "two"):
        paths = table(3, results).write(tmp_path / folder)
        assert sorted(path.name for path in paths) == ["table3.csv", "table3.md", "table3.tex"]
    for name in ("table3.csv", "table3.md", "table3.tex"):
        one, two = ((tmp_path / folder / name).read_bytes() for folder in ("one", "two"))
        assert one == two and one
    assert len(pd.read_csv(tmp_path / "one/table3.csv")) == 3 * len(SMALL)


def test_markdown_has_as_many_cells_in_every_line(results):
    lines = [line for line in table(1, results).markdown().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + ROWS[1]
    assert {line.count("|") for line in lines} == {1 + 1 + 30}


def test_latex_prints_characters_that_mean_something_to_it():
    assert tex("50 % & a_b #1 {x} ~^ \\") == (
        r"50 \% \& a\_b \#1 \{x\} \textasciitilde{}\textasciicircum{} \textbackslash{}"
    )
    assert tex('"not run" γ ±') == r"``not run'' $\gamma$ $\pm$"


@pytest.mark.parametrize("scale", ["tiny", "paper"])
def test_tex_holds_ascii_only_and_every_number_of_the_paper(results, scale):
    for number, made in tables(results, scale=scale).items():
        text = made.latex()
        assert text.isascii()
        for name in SMALL:
            for printed in published(number)[name].dropna():
                assert f"{printed:.1f}" in text
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}")
        assert text.count(r"\label") == 1


def test_tex_compiles(results, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed")
    tricky = Table(9, r"50 % & \x_{y}", table(2, NOTHING).frame, pd.DataFrame(), ("#$~^",))
    made = [*tables(results).values(), tricky]
    body = "\n".join(one.latex() for one in made)
    packages = r"\usepackage{booktabs,graphicx,amssymb}"
    document = rf"\documentclass{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
