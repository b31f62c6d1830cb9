import json
import shutil

from lab_fixtures import text_of

from napo import lab
from napo.stages.session import open_session
from napo.workspace.manifests import MANIFEST, finish


def stored(smoke, run, name):
    path = smoke.workspace.result(run) / f"{name}.answers.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_first_item_is_one_that_the_runs_answer_differently(smoke):
    made = lab.answers(smoke)
    assert made.runs.value == ("base", "dpo/seed-0", "A1/seed-0") and made.differing.value
    said = "".join(text_of(made.static).split())
    first = made.matches[0]
    answers = [stored(smoke, run, "vlind")[first]["answer"] for run in made.runs.value]
    assert len(set(answers)) > 1
    for run, answer in zip(made.runs.value, answers, strict=True):
        assert run + "".join(answer.split()) in said
    assert f"vlind,item{stored(smoke, 'base', 'vlind')[first]['id']}" in said


def test_one_run_shows_its_answer_to_each_item_of_each_benchmark(smoke):
    made = lab.answers(smoke, ["base"])
    made.wake()
    assert not made.differing.value
    for name in made.benchmark.options:
        made.benchmark.value = name
        entries = stored(smoke, "base", name)
        assert made.pages.count == len(entries)
        made.pages.page = len(entries) - 1
        said = "".join(text_of(made.view.value).split())
        assert f"item{entries[-1]['id']}" in said
        assert "base" + "".join(entries[-1]["answer"].split()) in said


def test_only_items_whose_answers_differ_are_left_when_asked_for(smoke):
    made = lab.answers(smoke)
    made.wake()
    columns = [[entry["answer"].strip() for entry in stored(smoke, run, "vlind")]
               for run in made.runs.value]  # fmt: skip
    differing = [at for at, told in enumerate(zip(*columns, strict=True)) if len(set(told)) > 1]
    assert made.matches == differing and made.pages.count == len(differing)
    made.runs.value = ("base",)
    assert made.pages.count == 0 and "No item" in made.view.value
    made.differing.value = False
    made.search.value = "0/a2"
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
    made.benchmark.value = "amber"
    assert made.message.value == "" and "base(not asked)" in text_of(made.view.value)
