import json
import shutil

from lab_fixtures import text_of

from napo import lab
from napo.stages.session import open_session
from napo.workspace.manifests import MANIFEST, finish


def stored(smoke, run, name):
    path = smoke.workspace.result(run) / f"{name}.answers.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def right(request, answer):
    """VLind-Bench: half 1 of each stage states what is true, half 2 what is false."""
    words = answer.lower().replace(".", "").replace(",", "").split()
    said = next((word for word in words if word in ("true", "false")), None)
    return said == ("true" if request.split("/")[1][1] == "1" else "false")


def verdicts(smoke, made):
    """For each item of VLind-Bench whether each run is right."""
    columns = [stored(smoke, run, "vlind") for run in made.runs.value]
    return [
        [right(e["id"], e["answer"]) for e in entries] for entries in zip(*columns, strict=True)
    ]


def test_the_first_item_is_about_the_picture_and_the_runs_do_not_agree_who_is_right(smoke):
    made = lab.answers(smoke)
    assert made.runs.value == ("base", "dpo/seed-0", "A1/seed-0")
    told, ids = verdicts(smoke, made), [entry["id"] for entry in stored(smoke, "base", "vlind")]
    divided = [place for place, correct in enumerate(told) if len(set(correct)) > 1]
    assert made.matches == divided
    first = next(at for at in divided if ids[at].split("/")[1][0] in "bd")
    said = "".join(text_of(made.static).split())
    assert f"vlind,item{ids[first]}" in said
    assert f"rightanswer{'True' if '1' in ids[first].split('/')[1] else 'False'}" in said
    for run, correct in zip(made.runs.value, told[first], strict=True):
        answer = stored(smoke, run, "vlind")[first]["answer"]
        verdict = "isright" if correct else "iswrong"
        assert f"{run}{verdict}" + "".join(answer.split()) in said


def test_fixed_are_items_that_the_first_run_got_wrong_and_broken_the_reverse(smoke):
    made = lab.answers(smoke, ["base", "A1"])
    made.wake()
    told = verdicts(smoke, made)
    for choice, pattern in (("fixed by", [False, True]), ("broken by", [True, False])):
        made.only.value = f"{choice} A1/seed-0"
        wanted = [place for place, correct in enumerate(told) if correct == pattern]
        assert made.matches == wanted
    fixed, broken = told.count([False, True]), told.count([True, False])
    tally = f"A1/seed-0: {fixed} answers of vlind fixed, {broken} broken, compared with base."
    assert tally in text_of(made.view.value) and tally in text_of(made.static)
    made.runs.value = ("base", "dpo/seed-0")
    assert made.only.value == "all items" and "fixed by dpo/seed-0" in made.only.options


def test_one_run_shows_its_answer_to_each_item_of_each_benchmark(smoke):
    made = lab.answers(smoke, ["base"])
    made.wake()
    assert made.only.options == ("all items",)
    for name in made.benchmark.options:
        made.benchmark.value = name
        entries = stored(smoke, "base", name)
        assert made.pages.count == len(entries)
        made.pages.page = len(entries) - 1
        said = "".join(text_of(made.view.value).split())
        assert f"item{entries[-1]['id']}" in said and "rightanswer" in said
        assert "".join(entries[-1]["answer"].split()) in said


def test_only_items_whose_answers_differ_are_left_when_asked_for(smoke):
    made = lab.answers(smoke)
    made.wake()
    made.only.value = "answers differ"
    columns = [[entry["answer"].strip() for entry in stored(smoke, run, "vlind")]
               for run in made.runs.value]  # fmt: skip
    differing = [at for at, told in enumerate(zip(*columns, strict=True)) if len(set(told)) > 1]
    assert made.matches == differing and made.pages.count == len(differing)
    made.search.value = "no such words"
    assert made.pages.count == 0 and "No item" in made.view.value
    made.only.value, made.search.value = "all items", "0/a2"
    assert made.matches[0] == 1


def test_missing_answers_and_answers_to_other_questions_are_said(smoke, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root, root)
    folder = root / "data" / "smoke" / "results" / "base"
    path = folder / "mmhal.answers.jsonl"
    path.write_text(path.read_text().replace('"id": "0"', '"id": "x"'))
    (folder / "amber.answers.jsonl").unlink()
    (folder / MANIFEST).unlink()
    finish(folder)
    made = lab.answers(open_session("smoke", str(root)), ["dpo", "base"])
    made.wake()
    made.benchmark.value = "mmhal"
    assert "holds answers to other questions" in made.message.value
    made.benchmark.value, made.only.value = "amber", "all items"
    assert made.message.value == "" and "base(not asked)" in text_of(made.view.value)
