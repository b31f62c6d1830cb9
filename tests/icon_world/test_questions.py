import numpy as np
import pytest

from napo.icon_world import questions
from napo.icon_world.scenes import KINDS, Scene, Thing

FARM = Scene("farm", (Thing("cow", "purple", 0), Thing("pig", "pink", 3)))


def test_a_brief_question_gets_an_answer_of_one_sentence():
    asked = [questions.ask(np.random.default_rng(seed), FARM, "color") for seed in range(60)]
    sentences = {brief: set() for brief in (True, False)}
    for question in asked:
        sentences[questions.brief(question.text)].add(question.answer.count("."))
    assert sentences[True] == {1}
    assert min(sentences[False]) > 1


@pytest.mark.parametrize("want", [True, False])
@pytest.mark.parametrize("fact", ["existence", "color", "number", "relation"])
def test_a_check_is_true_of_the_scene_as_wanted(fact, want):
    for seed in range(20):
        question = questions.check(np.random.default_rng(seed), FARM, fact, want)
        assert question.answer == ("Yes" if want else "No")
        words = question.text.replace("?", "").split()
        holds = {
            "existence": lambda w: bool(FARM.thing(w[3])),
            "color": lambda w: FARM.thing(w[2]).color == w[3],
            "number": lambda w: "two" in w,
            "relation": lambda w: bool(FARM.thing(w[3])),
        }[fact](words)
        assert holds is want


@pytest.mark.parametrize("form", ["common color", "common place", "place"])
def test_facts_of_common_sense_follow_the_typical_world(form):
    for seed in range(30):
        beginning, completion = questions.fact(np.random.default_rng(seed), form)
        words = beginning.rstrip(".").replace("Based on common sense, ", "").split()
        if form == "common color":
            assert completion == str(KINDS[words[1]].color == words[-1])
        elif form == "common place":
            assert completion == str(KINDS[words[3]].place == KINDS[words[-1]].place)
        else:
            assert completion == f"{KINDS[words[1]].place}."
