"""The notes under the tables: marks of rows whose answers fell apart, and unreadable texts."""

import pytest
from results_fixtures import items, write

from napo.config.benchmarks import benchmarks_in
from napo.results.claims import claims, claims_to_read
from napo.results.collect import collect
from napo.results.notes import marked, marks, unreadable
from napo.results.tables import extra_table, table, tables

KIND = "degenerate answers look like better scores"


def answers(share, tasks=None):
    parts = {task: {"count": 10, "degenerate_share": s} for task, s in (tasks or {}).items()}
    counts = {"count": 10, "degenerate_share": share, "unreadable": 0}
    return {**counts, **({"tasks": parts} if parts else {})}


def run(folder, name, counts, benchmark="mmhal", **changes):
    """A finished run with these counts of answers to a benchmark."""
    frames = {benchmark: items(benchmark, 0.5, 0)}
    write(folder, name, 0, frames, answers=counts, **changes)


@pytest.mark.kind(KIND)
@pytest.mark.parametrize(
    ("base", "share", "text"),
    [
        (0.0, 0.10, "MMHal-Bench 10.0 % (base 0.0 %)"),
        (0.2, 0.30, "MMHal-Bench 30.0 % (base 20.0 %)"),
        (0.9, 0.99, ""),
        (0.0, 0.099, ""),
        (0.5, 0.1, ""),
    ],
)
def test_ten_points_more_than_the_base_mark_a_row(tmp_path, base, share, text, result):
    run(tmp_path, "base", answers(base))
    run(tmp_path, "A1/seed-0", answers(share))
    results = collect(tmp_path, ["A1"], [0])
    assert marks(results, "A1") == ({"△": text} if text else {})
    assert marks(results, "base") == {}
    result(f"base {base}, run {share}: {text or 'no mark'}")


@pytest.mark.kind(KIND)
def test_a_task_with_few_answers_of_a_benchmark_is_not_hidden_by_the_others(tmp_path, result):
    run(tmp_path, "base", answers(0, {"generative": 0, "discriminative": 0}), "amber")
    run(tmp_path, "A1/seed-0", answers(0.06, {"generative": 0.9, "discriminative": 0}), "amber")
    text = marks(collect(tmp_path, ["A1"], [0]), "A1")["△"]
    assert text == "AMBER generative 90.0 % (base 0.0 %)"
    result(text)


@pytest.mark.kind(KIND)
def test_descriptions_that_cover_ten_points_less_mark_a_row(tmp_path, result):
    frame = items("object_halbench", 1.0, 0)
    for name, recalled in (("base", 60), ("A1/seed-0", 54), ("VB1/seed-0", 55)):
        part = frame.assign(recalled=[1] * recalled + [0] * (60 - recalled))
        write(tmp_path, name, 0, {"object_halbench": part})
    results = collect(tmp_path, ["A1", "VB1"], [0])
    assert marks(results, "A1") == {"▽": "ObjHal recall 90.0 % (base 100.0 %)"}
    assert marks(results, "VB1") == {}
    result(marks(results, "A1")["▽"])


@pytest.mark.kind(KIND)
def test_marked_rows_are_marked_and_explained_in_every_form_of_a_table(tmp_path, result):
    run(tmp_path, "base", answers(0.01))
    run(tmp_path, "A1/seed-0", answers(0.935))
    results = collect(tmp_path, ["A1"], [0])
    text = "MMHal-Bench 93.5 % (base 1.0 %)"
    sheets = tables(results)
    del sheets[4]  # has no row of A1
    for sheet in (*sheets.values(), extra_table(results)):
        names = [name[-1] if isinstance(name, tuple) else name for name in sheet.frame.index]
        assert sum(name.endswith(" △") for name in names) == 1
        assert sum("△ Degenerate answers" in note and f"A1: {text}." in note
                   for note in sheet.notes) == 1  # fmt: skip
        assert f"A1: {text}." in sheet.markdown() and "`A1` △ |" in sheet.markdown()
        latex = sheet.latex()
        assert latex.count(r"$\triangle$") == 2  # its row, its note
        assert latex.isascii()
        rows = sheet.long[sheet.long["variant"] == "A1"]
        ran = rows[rows["degenerate"].notna()]
        assert set(rows["marks"]) <= {f"△ {text}", ""} and (rows["marks"] != "").any()
        assert set(ran["degenerate"]) <= {0.935} and set(ran["metric"].str[:5]) <= {"MMHal"}
    result(text)


def test_the_claims_about_a_marked_variant_say_so(tmp_path):
    run(tmp_path, "base", answers(0.0))
    run(tmp_path, "A1/seed-0", answers(0.5))
    run(tmp_path, "dpo/seed-0", answers(0.0))
    frame = claims(collect(tmp_path, ["A1", "dpo"], [0]))
    assert set(frame.loc[frame["variant"] == "A1", "marks"]) == {"△ A1"}
    assert set(frame.loc[frame["variant"] == "LB1", "marks"]) == {""}
    assert claims_to_read(frame).index[0].endswith("? (△ A1)")


def test_without_the_base_no_row_is_marked_and_a_note_says_so(tmp_path):
    run(tmp_path, "A1/seed-0", answers(0.935))
    results = collect(tmp_path, ["A1"], [0])
    assert marks(results, "A1") == {}
    [note] = marked(results, ["A1"])
    assert "the base did not run" in note
    assert note in table(1, results).notes and note not in table(4, results).notes


def test_a_base_without_the_benchmark_or_without_counts_marks_nothing(tmp_path):
    run(tmp_path, "base", answers(0.0), "vlind")
    run(tmp_path, "A1/seed-0", answers(0.9))
    run(tmp_path, "dpo/seed-0", {})  # as an earlier version wrote it
    results = collect(tmp_path, ["A1", "dpo"], [0])
    assert marks(results, "A1") == marks(results, "dpo") == {}
    assert marked(results, ["A1", "dpo"]) == []


@pytest.mark.kind("an unreadable reply counts as an answer")
@pytest.mark.parametrize(
    ("count", "differing", "sentence"),
    [
        (3, 2, "base 30.00 %. A lenient reader reads up to 20.00 % of a run's otherwise"),
        (3, 0, "base 30.00 %. A lenient reader reads none otherwise"),
        (0, 1, "none. A lenient reader reads up to 10.00 % of a run's otherwise"),
        (0, 0, ""),
    ],
)
def test_a_note_says_how_many_texts_were_unreadable(tmp_path, count, differing, sentence, result):
    lenient = {"texts": 10, "differing": differing, "unreadable": 0, "metrics": {}}
    run(tmp_path, "base", {**answers(0.0), "unreadable": count}, lenient=lenient)
    results = collect(tmp_path, [], [0])
    sentences = unreadable(results, benchmarks_in(1))
    assert len(sentences) == bool(sentence)
    assert sentence in "".join(sentences)
    assert all(text in table(1, results).notes for text in sentences)
    assert unreadable(results, benchmarks_in(2)) == []
    result("".join(sentences) or "no note")
