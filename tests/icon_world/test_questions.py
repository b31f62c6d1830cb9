import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napo.icon_world import questions, rows, scenes, truth
from napo.icon_world.scenes import KINDS, Scene, Thing

FARM = Scene("farm", (Thing("cow", "purple", 0), Thing("pig", "pink", 3)))


@given(st.integers(0, 2**31 - 1), st.sampled_from([*rows.MIX, "check", "setting", "absent"]))
def test_every_true_answer_is_judged_right_and_every_corrupted_one_wrong(seed, kind):
    rng = np.random.default_rng(seed)
    scene = scenes.sample(rng, p_typical=0.5, p_belongs=0.5)
    question = questions.ask(rng, scene, kind)
    assert truth.right(question.answer, question.to_dict(), scene)
    if kind != "absent":  # no row asks for it
        wrong = rows.corrupt(rng, question.answer)
        assert not truth.right(wrong, question.to_dict(), scene), wrong


def test_a_description_names_all_things_with_colour_and_corner():
    assert questions.describe(FARM) == (
        "There is a purple cow at the top left and a pink pig at the bottom right."
    )


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
