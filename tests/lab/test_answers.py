import json
import shutil

import pytest
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


def test_one_run_has_its_picture_question_and_answer(smoke):
    made = lab.answers(smoke, ["base"])
    assert not made.differing.value
    said = "".join(text_of(made.static).split())
    assert "vlind,item0/a1" in said
    assert "base" + "".join(stored(smoke, "base", "vlind")[0]["answer"].split()) in said


@pytest.mark.parametrize("name", ["vlind", "object_halbench", "amber", "mmhal"])
def test_every_benchmark_shows_its_items(smoke, name):
    made = lab.answers(smoke, ["base"])
    made.wake()
    made.benchmark.value = name
    entries = stored(smoke, "base", name)
    assert made.pages.count == len(entries)
    made.pages.page = len(entries) - 1
    assert f"item {entries[-1]['id']}" in text_of(made.view.value)
    assert "".join(entries[-1]["answer"].split()) in "".join(text_of(made.view.value).split())


def test_only_items_whose_answers_differ_are_left_when_asked_for(smoke):
    made = lab.answers(smoke)
    made.wake()
    made.differing.value = False
    assert made.pages.count == len(stored(smoke, "base", "vlind"))
    made.differing.value = True
    columns = [[entry["answer"].strip() for entry in stored(smoke, run, "vlind")]
               for run in made.runs.value]  # fmt: skip
    wanted = [at for at, told in enumerate(zip(*columns, strict=True)) if len(set(told)) > 1]
    assert made.matches == wanted and made.pages.count == len(wanted)
    made.runs.value = ("base",)
    assert made.pages.count == 0 and "No item" in made.view.value
    made.differing.value = False
    made.search.value = "0/a2"
    assert made.matches[0] == 1
    made.runs.value = ()
    assert "Choose a run" in made.view.value


def test_a_benchmark_and_a_runs_answers_are_read_once(smoke):
    made = lab.answers(smoke)
    made.wake()
    made.pages.page = 3
    made.search.value = "true"
    made.differing.value = True
    assert made.requests.cache_info().misses == 1 and made.answers_of.cache_info().misses == 3


def test_a_run_that_was_not_asked_a_benchmark_says_so(smoke, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root, root)
    folder = root / "data" / "smoke" / "results" / "base"
    (folder / "amber.answers.jsonl").unlink()
    (folder / MANIFEST).unlink()
    finish(folder)
    made = lab.answers(open_session("smoke", str(root)), ["dpo", "base"])
    made.wake()
    made.benchmark.value = "amber"
    assert "base(not asked)" in text_of(made.view.value)


def test_answers_to_other_questions_are_said_in_the_place_of_the_item(smoke, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(smoke.workspace.root, root)
    path = root / "data" / "smoke" / "results" / "base" / "mmhal.answers.jsonl"
    path.write_text(path.read_text().replace('"id": "0"', '"id": "x"'))
    (path.parent / MANIFEST).unlink()
    finish(path.parent)
    made = lab.answers(open_session("smoke", str(root)), ["base"])
    made.wake()
    made.benchmark.value = "mmhal"
    assert "holds answers to other questions" in made.message.value and made.view.value == ""
    made.benchmark.value = "vlind"
    assert made.message.value == "" and made.view.value
