import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napo.icon_world import questions, rows, scenes, truth
from napo.icon_world.scenes import Scene, Thing
from napo.models.generate import Generated


@given(st.integers(0, 2**31 - 1), st.sampled_from([*rows.MIX, "check"]))
def test_every_chosen_answer_is_right_and_every_corrupted_one_wrong(seed, kind):
    rng = np.random.default_rng(seed)
    scene = scenes.sample(rng, p_typical=0.5, p_belongs=0.5)
    question = questions.ask(rng, scene, kind)
    assert truth.right(question.answer, question.to_dict(), scene)
    wrong = rows.corrupt(rng, question, scene)
    assert not truth.right(wrong, question.to_dict(), scene), wrong


def test_a_corrupted_answer_may_err_in_a_detail_only():
    scene = Scene("farm", (Thing("cow", "purple", 0), Thing("pig", "pink", 3)))
    text = "What color is the cow?"
    question = questions.Question("color", text, "", {"kind": "cow"})
    rng = np.random.default_rng(0)
    wrong = [rows.corrupt(rng, question, scene) for _ in range(50)]
    says_purple = [text for text in wrong if truth.answers(text, question.to_dict(), scene)]
    assert 5 < len(says_purple) < 45


def test_reworded_answers_are_right_and_differ_from_the_chosen_one(monkeypatch):
    for row in make_rows(monkeypatch, ""):
        text = rows.reword(row, np.random.default_rng(0))
        assert text != row["chosen"]
        assert truth.label_by_truth({**row, "reworded": text}, "reworded")[0] == "unbiased"


def make_rows(monkeypatch, answer):
    """Rows of a model that answers every prompt with this text."""

    def generate(model, processor, prompts, *args, **settings):
        return [Generated(answer, 3, False) for _ in prompts]

    monkeypatch.setattr(rows, "generate", generate)
    return rows.make_rows(None, None, count=60, seed=3, p_typical=0.5)


def test_rejected_is_the_models_own_error_or_the_truth_with_a_changed_fact(monkeypatch):
    wrong, silent = make_rows(monkeypatch, "Bananas sing."), make_rows(monkeypatch, "")
    assert {row["rejected"] for row in wrong} == {"Bananas sing."}
    assert {json.loads(row["truth"])["rejected_by"] for row in wrong} == {"model"}
    assert all(row["rejected"] not in ("", row["chosen"]) for row in silent)
    assert {json.loads(row["truth"])["rejected_by"] for row in silent} == {"rule"}
    assert [row["chosen"] for row in wrong] == [row["chosen"] for row in silent]
