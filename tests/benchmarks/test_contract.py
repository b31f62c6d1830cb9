"""The contract of a benchmark's module, kept by all four, on the icon world's small editions."""

import pytest

from napo.benchmarks import checked_answers, marks, module, options, readings
from napo.benchmarks.judges import RuleJudge
from napo.config.benchmarks import BENCHMARKS
from napo.config.profile import Evaluation
from napo.errors import NapoError

NAMES = ("vlind", "object_halbench", "amber", "mmhal")
JUDGE = RuleJudge(lambda item, answer: "Rating: 3")


@pytest.mark.parametrize("name", NAMES)
def test_metrics_and_items_have_the_keys_and_columns_of_the_entry(folder, name):
    scorer, chosen = module(name), options(name, Evaluation(), JUDGE)
    benchmark = scorer.load(folder / name)
    answers = {r.id: "A cow is here." for r in scorer.requests(benchmark, **chosen.asking)}
    metrics, items = scorer.evaluate(benchmark, answers, **chosen.scoring)
    ratios = BENCHMARKS[name].ratios
    assert set(ratios) <= set(metrics)
    assert {column for r in ratios.values() for column in (r.numerator, r.denominator)} <= set(
        items
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_answer_is_named(folder, name):
    scorer, chosen = module(name), options(name, Evaluation(), JUDGE)
    benchmark = scorer.load(folder / name)
    first, *rest = scorer.requests(benchmark, **chosen.asking)
    with pytest.raises(NapoError, match=rf"1 ids have no answer \({first.id}\)"):
        scorer.evaluate(benchmark, {r.id: "" for r in rest}, **chosen.scoring)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_of_another_size_than_the_official_one_is_refused(folder, name):
    (folder / name / "benchmark.json").unlink()
    with pytest.raises(NapoError, match=r"where .*(302|300|1004|96).* are expected"):
        module(name).load(folder / name)


@pytest.mark.kind("a missing file is a number")
@pytest.mark.parametrize("name", ["vlind", "amber", "mmhal"])
def test_a_missing_image_is_named_with_its_requests(folder, name):
    next((folder / name).rglob("*.jpg")).unlink()
    with pytest.raises(NapoError, match=r"ids have no image \(.*the first is .*\.jpg"):
        module(name).requests(module(name).load(folder / name))


def test_answers_of_other_requests_and_repeated_ids_are_named():
    with pytest.raises(NapoError, match=r"1 ids belong to no request \(c\)"):
        checked_answers({"a": "", "c": ""}, ["a"], "X")
    with pytest.raises(NapoError, match=r"1 ids appear twice \(a\)"):
        checked_answers({"a": ""}, ["a", "a"], "X")


TEXTS = {"vlind": "**True**", "object_halbench": "A cow.", "amber": "Yes.", "mmhal": "A cow."}
OFFICIAL = {"vlind": "True", "object_halbench": "A cow.", "amber": "Yes", "mmhal": "A cow."}


@pytest.mark.kind("an unreadable reply counts as an answer")
@pytest.mark.parametrize("name", NAMES)
def test_lenient_scores_are_the_official_scores_of_texts_in_the_official_form(folder, name):
    scorer, chosen = module(name), options(name, Evaluation(), JUDGE)
    scoring = dict(chosen.scoring)
    benchmark = scorer.load(folder / name)
    requests = scorer.requests(benchmark, **chosen.asking)
    loose = {r.id: TEXTS[name] if r.task != "generative" else "A cow." for r in requests}
    strict = {r.id: OFFICIAL[name] if r.task != "generative" else "A cow." for r in requests}
    expected, _ = scorer.evaluate(benchmark, strict, **scoring)
    if name == "mmhal":
        scoring["judge"] = RuleJudge(lambda item, answer: "**Rating:** 3")
    official, _ = scorer.evaluate(benchmark, loose, **scoring)
    again, _ = scorer.evaluate(benchmark, loose, **scoring, lenient=True)
    both = readings(name, benchmark, loose, scoring)
    assert again == expected
    assert (official != expected) == any(reading.official is None for reading in both)
    assert all(reading.differs for reading in both)
    assert len(both) == {"vlind": len(requests), "object_halbench": 0, "amber": 4, "mmhal": 8}[name]


def test_a_module_without_readers_reads_nothing(monkeypatch):
    monkeypatch.delattr("napo.benchmarks.vlind.readings")
    assert readings("vlind", None, {"1": ""}, {}) == []


@pytest.mark.parametrize("name", NAMES)
def test_as_many_answers_are_marked_right_as_the_official_scorer_counts(folder, name):
    scorer, chosen = module(name), options(name, Evaluation(), JUDGE)
    benchmark = scorer.load(folder / name)
    requests = scorer.requests(benchmark, **chosen.asking)
    answers = {r.id: OFFICIAL[name] if r.task != "generative" else "A cow." for r in requests}
    _, items = scorer.evaluate(benchmark, answers, **chosen.scoring)
    marked = marks(name, benchmark, answers, items, chosen.scoring)
    assert list(marked) == [request.id for request in requests]
    assert {mark.item for mark in marked.values()} == set(range(len(items)))
    counted = {
        "vlind": lambda: len(requests) / 2,  # of each two statements one is true
        "object_halbench": lambda: len(items) - items["has_hallucination"].sum(),
        "amber": lambda: items["one"].sum() - items["has_hallucination"].sum()
        + items["right"].sum(),
        "mmhal": lambda: len(items) - items["hallucination"].sum(),
    }[name]()  # fmt: skip
    assert sum(mark.correct for mark in marked.values()) == counted
    one = requests[-1].id
    alone = marks(name, benchmark, {one: answers[one]}, items, chosen.scoring)
    assert alone == {one: marked[one]}
