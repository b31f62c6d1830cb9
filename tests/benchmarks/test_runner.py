"""The runner, with a random model on the icon world's smallest benchmarks."""

import json
import math
from types import SimpleNamespace

import engine_fixtures
import pandas as pd
import pytest

from napo.benchmarks import Request, module, runner
from napo.config.benchmarks import BENCHMARKS, Ratio
from napo.config.profile import Decoding, Evaluation
from napo.errors import NapoError
from napo.icon_world.judge import judge_by_truth


@pytest.fixture(scope="module")
def engine():
    processor = engine_fixtures.processor()
    return engine_fixtures.model(processor), processor


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(runner, "CHUNK", 4)


def evaluate(engine, made, out, dry_run=False, **changes):
    settings = {"decoding": Decoding(max_new_tokens=4), "batch_size": 8, **changes}
    return runner.evaluate_run(
        *engine,
        made,
        out,
        settings=Evaluation(**settings),
        run="A1/seed-0",
        seed=0,
        fingerprints={"evaluated": "abc"},
        judge=judge_by_truth,
        dry_run=dry_run,
    )


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def done(engine, made, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "CHUNK", 4)
        evaluate(engine, made, out)
    return out


def test_every_benchmark_leaves_its_answers_items_and_numbers(done, made):
    endings = (".answers.jsonl", ".items.csv", ".json")
    assert set(content(done)) == {name + end for name in BENCHMARKS for end in endings}
    for name in BENCHMARKS:
        scorer = module(name)
        asked = scorer.requests(scorer.load(made / name))
        lines = (done / f"{name}.answers.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        assert [entry["id"] for entry in entries] == [request.id for request in asked]
        assert set(entries[0]) == {"id", "answer", "tokens", "cut"}
        result = json.loads((done / f"{name}.json").read_text())
        assert result["answers"]["count"] == len(asked)
        assert set(BENCHMARKS[name].ratios) <= set(result["metrics"])


def test_degenerate_answers_are_counted_for_each_reason_and_once_together():
    answers = [("Assistant: ", 1, False), ("a b c A, b c", 6, True), ("a b a b a b", 6, False),
               ("A dog.", 2, True), ("A dog.", 3, False)]  # fmt: skip
    entries = [{"answer": text, "tokens": n, "cut": cut} for text, n, cut in answers]
    assert runner.counts(entries) == {
        "count": 5, "mean_tokens": 3.6, "empty": 1, "cut": 2, "repeated": 1, "degenerate": 3,
        "degenerate_share": 0.6,
    }  # fmt: skip


def test_ambers_two_tasks_are_counted_apart(done):
    counts = json.loads((done / "amber.json").read_text())["answers"]
    tasks = counts["tasks"]
    assert [tasks[name]["count"] for name in ("generative", "discriminative")] == [3, 4]
    assert counts["degenerate"] == sum(task["degenerate"] for task in tasks.values())
    assert "tasks" not in json.loads((done / "vlind.json").read_text())["answers"]


@pytest.mark.kind("an unreadable reply counts as an answer")
@pytest.mark.parametrize("name", ["vlind", "amber", "mmhal"])
def test_a_result_has_official_and_lenient_scores_side_by_side(
    engine, made, tmp_path, monkeypatch, name, result
):
    texts = {"vlind": "**True**", "amber": "Yes, it is there", "mmhal": "A cow."}

    def entries(model, processor, requests, *_):
        return [{"id": r.id, "answer": texts[name], "tokens": 4, "cut": False} for r in requests]

    monkeypatch.setattr(runner, "answer", entries)
    judge = {"judge": lambda item, answer: "**Rating:** 6"}
    settings = Evaluation(benchmarks=(name,))
    options = {"settings": settings, "run": "base", "seed": 0, "fingerprints": {}, **judge}
    runner.evaluate_run(*silent(engine), made, tmp_path, **options)
    content = json.loads((tmp_path / f"{name}.json").read_text())
    unreadable = content["answers"]["unreadable"]
    assert unreadable == content["lenient"]["differing"] == content["lenient"]["texts"] > 0
    assert content["lenient"]["unreadable"] == 0
    key = {"vlind": "d_true", "amber": "d_Accuracy", "mmhal": "score"}[name]
    official, lenient = content["metrics"], content["lenient"]["metrics"]
    assert official[key]["value"] == 0 and lenient[key]["value"] > 0
    assert lenient.keys() == official.keys()
    values = f"{key} official {official[key]['value']}, lenient {lenient[key]['value']}"
    result(f"{texts[name]}: {unreadable} unreadable, {values}")


def test_a_result_names_what_made_it(done):
    result = json.loads((done / "mmhal.json").read_text())
    assert (result["benchmark"], result["run"], result["seed"]) == ("mmhal", "A1/seed-0", 0)
    assert result["fingerprints"] == {"evaluated": "abc"} and "torch" in result["versions"]
    assert result["settings"]["judge"] == "rule"
    assert result["settings"]["decoding"] == {
        **Decoding(max_new_tokens=4).model_dump(),
        "eos_token_id": [2],
        "pad_token_id": 0,
        "suppress_tokens": [0, 1, 3, 4],
    }
    settings = json.loads((done / "amber.json").read_text())["settings"]
    assert (settings["extractor"], settings["similarity"]) == ("vocabulary", "identity")
    settings = json.loads((done / "vlind.json").read_text())["settings"]
    assert (settings["vlind_image"], settings["vote_threshold"]) == ("best", 2)


@pytest.mark.parametrize(("kept", "temperature"), [(0.2, 0.0), (0.5, 1.0), (0.95, 1.0)])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    engine, made, tmp_path, kept, temperature
):
    decoding = Decoding(max_new_tokens=4, temperature=temperature)
    changes = {"benchmarks": ("vlind", "amber"), "decoding": decoding}
    evaluate(engine, made, tmp_path, **changes)
    before = content(tmp_path)
    path = tmp_path / "vlind.answers.jsonl"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])  # cut inside a line
    for name in ("vlind.json", "vlind.items.csv", "amber.json", "amber.answers.jsonl"):
        (tmp_path / name).unlink()
    evaluate(engine, made, tmp_path, **changes)
    assert content(tmp_path) == before


def silent(engine):
    """An engine whose model has its settings and cannot answer."""
    model, processor = engine
    return SimpleNamespace(generation_config=model.generation_config), processor


def test_a_finished_run_asks_the_model_nothing(engine, done, made):
    before = content(done)
    evaluate(silent(engine), made, done)
    assert content(done) == before


def test_a_dry_run_counts_what_a_paid_judge_would_get_and_keeps_the_answers(
    engine, made, tmp_path, monkeypatch
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # sending would fail
    paid = {"judge": "openai", "judge_model": "paid", "benchmarks": ("vlind", "mmhal")}
    unsent = evaluate(engine, made, tmp_path, dry_run=True, **paid)
    assert unsent.requests == 8 and unsent.tokens > 1000
    names = {path.name for path in tmp_path.iterdir()}
    assert "mmhal.answers.jsonl" in names and "vlind.json" in names and "mmhal.json" not in names
    assert evaluate(silent(engine), made, tmp_path, dry_run=True, **paid) == unsent


def test_answers_to_other_questions_are_refused(engine, made, tmp_path):
    evaluate(engine, made, tmp_path, benchmarks=("mmhal",))
    (tmp_path / "mmhal.answers.jsonl").rename(tmp_path / "vlind.answers.jsonl")
    with pytest.raises(NapoError, match=r"vlind\.answers\.jsonl holds answers to other questions"):
        evaluate(engine, made, tmp_path, benchmarks=("vlind",))


def test_a_missing_benchmark_stops_before_the_first_answer(engine, made, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/vlind").symlink_to(made / "vlind")
    with pytest.raises(NapoError, match="mmhal"):
        evaluate(engine, tmp_path / "benchmarks", tmp_path / "out", benchmarks=("vlind", "mmhal"))
    assert not (tmp_path / "out").exists()


def test_a_value_that_is_not_defined_is_null_and_json_stays_valid():
    items = pd.DataFrame({"top": [0, 0], "bottom": [0, 0], "one": [1, 1]})
    ratios = {"rate": Ratio("top", "bottom"), "share": Ratio("one", "one")}
    found = runner.with_intervals({"rate": math.nan, "share": 1.0, "count": 2}, items, ratios)
    assert found["rate"] == {"value": None, "low": None, "high": None, "n": 0}
    assert found["share"] == {"value": 1.0, "low": 1.0, "high": 1.0, "n": 2}
    assert found["count"] == {"value": 2, "low": None, "high": None, "n": 2}


def test_a_picture_that_does_not_decode_is_named(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(NapoError, match="image of 17/a1 cannot be used"):
        Request("17/a1", "What?", tmp_path / "x.jpg").open()
