"""The first lines of the report: what they say follows from the numbers."""

from dataclasses import replace

import pytest
from results_fixtures import drawn, items, write

from napo.config.benchmarks import metrics
from napo.results import findings
from napo.results.claims import claims
from napo.results.collect import collect

LP = metrics(1)[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    variants = {"base": 0.3, "vcd": 0.35, "dpo": 0.5, "A1": 0.8, "A3": 0.8}
    folder = drawn(tmp_path_factory.mktemp("results"), variants)
    made = collect(folder, ["vcd", "dpo", "A1", "A3"], (0, 1, 2))
    return replace(made, settings={"rows": {"count": 1000}})


def test_what_ran_counts_variants_seeds_rows_and_items(results):
    text = findings.what_ran(results, ["vcd", "dpo", "A1", "A3", "LB1"], "Icon world")
    assert text.startswith(
        "Icon world: 4 of 5 variants, 3 of them trained on 1,000 rows with 3 seeds each; "
    )
    assert "VLind-Bench (60 items)" in text and text.endswith("Not run: LB1.")


def test_what_was_found_names_the_highest_lp_with_its_difference(results):
    first = findings.what_was_found(results, claims(results))[0]
    change = results.difference("A1", "base", LP)
    assert f"{results.estimate('A1', LP).value:.1f}, of Full method (A1)" in first
    assert f"+{change.value:.1f} [+{change.low:.1f}, +{change.high:.1f}] points" in first


def test_what_was_found_counts_where_the_full_method_is_better_than_dpo(results):
    frame = claims(results)
    _, full, same = findings.what_was_found(results, frame)
    rows = frame[(frame["variant"] == "A1") & (frame["other"] == "dpo")]
    better, worse = ((rows["answer"] == answer).sum() for answer in ("better", "worse"))
    assert (better, worse) != (0, 0)
    assert f"of 10 metrics, better on {better} (" in full
    assert f"not decided on {10 - better - worse or 'none'}." in full
    # A1 and A3 have the same items: nothing is decided. LB and VB did not run.
    assert same == (
        "NaPO against DPO on the same pairs (A1 over A3): of 4 comparisons, better on none, "
        "worse on none, not decided on 4."
    )


def test_what_is_open_counts_undecided_and_missing_comparisons(results):
    text = findings.what_is_open(claims(results))
    counts = claims(results)["answer"].value_counts()
    ran = len(claims(results)) - counts["not run"]
    assert text.startswith(f"{counts.get('not decided', 0)} of {ran} comparisons")
    assert f"; in {counts['the same']} more every item scores the same" in text
    assert text.endswith(f"; {counts['not run']} of {ran + counts['not run']} did not run.")


def test_published_numbers_compare_at_the_papers_scale_only():
    assert findings.beside_the_paper("tiny", "7B", "Icon world").startswith("No. ")
    assert findings.beside_the_paper("paper", "7B", "RLAIF-V").startswith("Yes, ")


def test_what_to_distrust_names_marked_rows_single_seeds_and_a_judge_that_is_a_rule(tmp_path):
    frames = {"mmhal": items("mmhal", 0.5, 0)}
    write(tmp_path, "base", 0, frames)
    answers = {"count": 10, "degenerate_share": 0.5, "unreadable": 0}
    write(tmp_path, "A1/seed-0", 0, frames, answers=answers)
    sentences = findings.what_to_distrust(collect(tmp_path, ["A1"], [0]), ["Fig. 4: not labelled."])
    assert sentences == [
        "Rows whose answers fell apart (△): A1.",
        "One seed only, so no spread over seeds is known: A1.",
        "MMHal-Bench was rated by a rule, not by GPT-4.",
        "Fig. 4: not labelled.",
    ]


def test_without_runs_the_sentences_say_so(tmp_path):
    results = collect(tmp_path, [], [0])
    frame = claims(results)
    assert findings.what_was_found(results, frame) == ["No comparison of the paper ran."]
    assert findings.what_is_open(frame).startswith("None of the comparisons")
    assert "The base did not run" in findings.what_to_distrust(results, [])[0]
