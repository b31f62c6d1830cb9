import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napo.icon_world import questions, rows, scenes, truth
from napo.icon_world.scenes import COLORS, KINDS, MEMBERS, Scene, Thing

seeds = st.integers(0, 2**31 - 1)
PAIR = {"kind": "cow", "other": "pig"}
FARM = Scene("farm", (Thing("cow", "purple", 0), Thing("pig", "pink", 3)))


def asked(kind, about):
    return {"kind": kind, "about": about}


def test_there_are_30_to_40_kinds_and_each_place_has_several():
    assert 30 <= len(KINDS) <= 40
    assert all(len(members) >= 4 for members in MEMBERS.values())
    assert all(kind.color in COLORS for kind in KINDS.values())


def test_the_same_seed_draws_the_same_picture_and_another_one_another():
    pictures = [scenes.draw(FARM, np.random.default_rng(seed)).tobytes() for seed in (1, 1, 2)]
    assert pictures[0] == pictures[1] != pictures[2]


def test_every_glyph_is_drawn_and_no_two_are_alike():
    shapes = {kind.name: scenes._shape(kind.glyph) for kind in KINDS.values()}
    assert all(0.03 < shape.mean() < 0.9 for shape in shapes.values())
    flat = np.stack([shape.ravel() for shape in shapes.values()])
    apart = np.abs(flat[:, None] - flat[None]).mean(-1) + np.eye(len(flat))
    assert apart.min() > 0.04


@given(seeds, st.floats(0, 1), st.floats(0, 1))
def test_a_scene_has_different_kinds_in_different_cells_and_survives_json(seed, typical, belongs):
    rng = np.random.default_rng(seed)
    scene = scenes.sample(rng, p_typical=typical, p_belongs=belongs)
    assert len({thing.kind for thing in scene.things}) == len(scene.things)
    assert len({thing.cell for thing in scene.things}) == len(scene.things)
    assert Scene.from_json(scene.to_json()) == scene


@given(seeds, st.sampled_from([*rows.MIX, "check", "setting"]))
def test_every_true_answer_is_judged_right_and_every_corrupted_one_wrong(seed, kind):
    rng = np.random.default_rng(seed)
    scene = scenes.sample(rng, p_typical=0.5, p_belongs=0.5)
    question = questions.ask(rng, scene, kind)
    told = asked(question.kind, question.about)
    assert truth.answers(question.answer, told, scene)
    assert truth.right(question.answer, told, scene)
    wrong = rows.corrupt(rng, question.answer)
    assert not truth.right(wrong, told, scene), wrong


def test_claims_are_read_from_plain_english():
    said = truth.claims("There is a purple cow at the top left and no pig. The cow is purple.")
    assert ("color", "cow", "purple") in said
    assert ("cell", "cow", "top left") in said
    assert ("absent", "pig") in said


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The cow is purple.", "unbiased"),
        ("The cow is brown.", "biased"),  # the prior, not the picture
        ("There is a purple cow at the top left and a pink pig at the bottom right.", "unbiased"),
        ("There is a purple cow at the top left and a red pig at the bottom right.", "biased"),
        ("There is a pink pig at the bottom right.", "biased"),  # true, but no answer
        ("", "biased"),
        ("The cow is the cow is", "biased"),
    ],
)
def test_a_response_is_noise_if_it_answers_and_all_it_claims_is_true(text, label):
    import json

    told = {"kind": "color", "group": "question", "about": {"kind": "cow"}}
    row = {"truth": json.dumps({"scene": FARM.to_json(), "question": told}), "vision_biased": text}
    assert truth.label_by_truth(row, "vision_biased") == (label, "question")


@pytest.mark.parametrize(
    ("text", "kind", "about", "right"),
    [
        ("Yes, there is a cow.", "presence", {"kind": "cow"}, True),
        ("No, there is no cow.", "presence", {"kind": "cow"}, False),
        ("No.", "presence", {"kind": "dog"}, True),
        ("Yes", "check", {"truth": True}, True),
        ("True, the cow is purple.", "sight", {"truth": True}, True),
        ("There are two objects.", "count", {"count": 2}, True),
        ("There are three objects.", "count", {"count": 2}, False),
        ("No, the cow is purple and the pig is pink.", "same", PAIR, True),
        ("This is the farm.", "setting", {}, True),
        ("There is no dog.", "absent", {"kind": "dog"}, True),
    ],
)  # fmt: skip
def test_answers_are_judged_by_the_scene(text, kind, about, right):
    assert truth.answers(text, asked(kind, about), FARM) is right


@pytest.mark.parametrize(
    ("answer", "corrupted"),
    [
        ("Yes, there is a duck.", "No, there is no duck."),
        ("False, there is no apple.", "True, there is an apple."),
        ("No, the cow is red and the pig is pink.", "Yes, both are red."),
        ("Yes", "No"),
    ],
)
def test_a_turned_verdict_keeps_a_reason_that_fits_it(answer, corrupted):
    assert rows.corrupt(np.random.default_rng(0), answer) == corrupted


def test_corrupted_counts_and_articles_are_english():
    rng = np.random.default_rng(0)
    counts = {rows.corrupt(rng, "There are two objects.") for _ in range(20)}
    assert counts == {"There is one object.", "There are three objects."}
    described = [rows.corrupt(rng, "There is a red cow at the top left.") for _ in range(200)]
    assert any("an orange cow" in text for text in described)
    assert not any("a orange" in text or "an red" in text for text in described)
    kinds = {word for text in described for word in text.split() if word in KINDS}
    assert len(kinds) > 5  # a description is also corrupted by another thing


def test_common_sense_is_not_judged_by_the_picture():
    told = {"kind": "sense", "group": "no-image", "about": {"truth": True}}
    assert truth.right("True, the cow is brown.", told, FARM)  # the cow of FARM is purple
    assert not truth.right("False, the cow is brown.", told, FARM)


class Parrot:
    """Stands in for generation: gives every prompt's scripted answer."""

    def __init__(self, answers):
        self.answers = answers

    def __call__(self, model, processor, prompts, *args, **settings):
        from napo.models.generate import Generated

        return [Generated(self.answers[prompt.text], 3, False) for prompt in prompts]


def test_rejected_is_the_models_own_error_or_a_corrupted_truth(monkeypatch):
    import json

    def known(question):
        return {row["question"]: row["chosen"] for row in question}

    made = {}

    def right_always(model, processor, prompts, *args, **settings):
        return Parrot(made)(model, processor, prompts)

    real = rows._row

    def remember(number, scene, asked, image):
        made[asked.text] = asked.answer
        return real(number, scene, asked, image)

    monkeypatch.setattr(rows, "_row", remember)
    monkeypatch.setattr(rows, "generate", right_always)
    one = rows.make_rows(None, None, count=60, seed=3, p_typical=0.5)
    assert all(row["rejected"] != row["chosen"] for row in one)
    monkeypatch.setattr(rows, "generate", Parrot({text: "Bananas sing." for text in made}))
    other = rows.make_rows(None, None, count=60, seed=3, p_typical=0.5)
    assert {json.loads(row["truth"])["rejected_by"] for row in other} == {"model"}
    assert known(one) == known(other)
