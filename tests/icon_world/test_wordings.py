import numpy as np

from napo.icon_world import truth, wordings
from napo.icon_world.scenes import Scene, Thing

FARM = Scene("farm", (Thing("cow", "purple", 0), Thing("pig", "pink", 3), Thing("dog", "red", 1)))


def answers(kind, about, brief=False):
    return {
        wordings.answer(np.random.default_rng(seed), kind, about, FARM, brief)
        for seed in range(200)
    }


def test_a_description_names_all_things_with_colour_and_corner():
    assert wordings.describe(Scene("farm", FARM.things[:2])) == (
        "There is a purple cow at the top left and a pink pig at the bottom right."
    )
    claims = {("color", t.kind, t.color) for t in FARM.things}
    for text in answers("description", {}):
        assert claims < truth.claims(text)


def test_answers_have_several_wordings_of_one_to_three_sentences():
    texts = answers("color", {"kind": "cow"})
    assert len(texts) > 20
    assert {text.count(".") for text in texts} == {2, 3}
    assert answers("color", {"kind": "cow"}, brief=True) == {
        "The cow is purple.", "The color of the cow is purple.", "There is a purple cow.",
        "The image shows a purple cow.", "I can see a purple cow.",
    }  # fmt: skip


def test_a_detail_tells_of_something_that_was_not_asked():
    for text in answers("color", {"kind": "cow"}):
        assert {claim[1] for claim in truth.claims(text)} & {"pig", "dog"}


def test_all_kinds_of_answers_share_their_beginnings():
    questions = (("color", {"kind": "cow"}), ("presence", {"kind": "cow"}), ("count", {}),
                 ("cell", {"kind": "cow"}), ("description", {}))  # fmt: skip
    for kind, about in questions:
        openings = {" ".join(text.split()[:2]) for text in answers(kind, about)}
        assert {"The image", "I can"} <= openings, kind
