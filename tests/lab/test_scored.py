"""One item of each benchmark by hand, beside the result files of the official scorers."""

import pytest
from lab_fixtures import text_of

from napo import lab
from napo.config.benchmarks import BENCHMARKS
from napo.lab.scored import contributions
from napo.stages import answers as stored
from napo.workspace.files import read_json


@pytest.mark.parametrize("name", ["vlind", "object_halbench", "amber", "mmhal"])
def test_the_items_sums_give_the_metrics_of_the_result_file(smoke, name):
    items = stored.items(smoke, "A1/seed-0", name)
    metrics = read_json(smoke.workspace.result("A1/seed-0") / f"{name}.json")["metrics"]
    shown = {}
    for place in range(len(items)):
        shown |= contributions(name, items, place).set_index("metric")["all items"].to_dict()
    for metric in BENCHMARKS[name].metrics:
        if metric.name in shown:  # else no item has a denominator
            value = float(shown[metric.name].rpartition("= ")[2])
            assert value == pytest.approx(metric.scale * metrics[metric.key]["value"], abs=0.06)


def test_an_item_of_each_task_is_shown_with_its_answer_and_what_was_read(smoke):
    said = "".join(text_of(lab.scored(smoke, smoke.workspace.result("base")).data).split())
    first = {"vlind": "0/a1", "object_halbench": "0", "mmhal": "0"}
    for name, id in first.items():
        mark = stored.marks(smoke, "base", name)[id]
        for text in (stored.answers(smoke, "base", name)[id], mark.read, mark.right):
            assert "".join(text.split()) in said, (name, text)
    assert "AMBERgenerative" in said and "AMBERdiscriminative" in said


def test_another_place_shows_another_item(smoke):
    folder = smoke.workspace.result("base")
    assert "0/a1" in text_of(lab.scored(smoke, folder).data)
    assert "1/a1" in text_of(lab.scored(smoke, folder, place=1).data)
