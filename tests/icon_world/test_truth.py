import json

import pytest

from napo.icon_world import truth
from napo.icon_world.scenes import Scene, Thing

PAIR = {"kind": "cow", "other": "pig"}
FARM = Scene("farm", (Thing("cow", "purple", 0), Thing("pig", "pink", 3)))


def test_claims_are_read_from_plain_english():
    claims = truth.claims("There is a purple cow at the top left and no pig. The cow is purple.")
    assert claims == {
        ("there", "cow"), ("color", "cow", "purple"), ("cell", "cow", "top left"),
        ("absent", "pig"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("The color of the cow is purple.", ("color", "cow", "purple")),
        ("At the top left there is a purple cow.", ("cell", "cow", "top left")),
        ("At the top left there is a cow.", ("cell", "cow", "top left")),
        ("The image shows no pig.", ("absent", "pig")),
        ("In total there are two objects.", ("count", "two")),
        ("These objects belong to the living room.", ("setting", "living room")),
        ("Yes, the cow and the pig are both red.", ("both", "red")),
        ("No, the cow is purple, but the pig is pink.", ("color", "pig", "pink")),
    ],
)
def test_a_claim_is_read_whatever_its_wording(text, claim):
    assert claim in truth.claims(text)


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
def test_a_response_is_noise_if_it_answers_and_all_its_claims_are_true(text, label):
    question = {"kind": "color", "group": "question", "about": {"kind": "cow"}}
    facts = {"scene": FARM.to_json(), "question": question}
    row = {"truth": json.dumps(facts), "vision_biased": text}
    assert truth.label_by_truth(row, "vision_biased") == (label, "question")


@pytest.mark.parametrize(
    ("text", "kind", "about", "right"),
    [
        ("Yes, there is a cow.", "presence", {"kind": "cow"}, True),
        ("No, there is no cow.", "presence", {"kind": "cow"}, False),
        ("No.", "presence", {"kind": "dog"}, True),
        ("Yes", "check", {"truth": True}, True),
        ("True, the cow is purple.", "sight", {"truth": True}, True),
        ("There are two objects.", "count", {}, True),
        ("There are three objects.", "count", {}, False),
        ("No, the cow is purple and the pig is pink.", "same", PAIR, True),
        ("This is the farm.", "setting", {}, True),
        ("There is no dog.", "absent", {"kind": "dog"}, True),
    ],
)  # fmt: skip
def test_answers_are_judged_by_the_scene(text, kind, about, right):
    assert truth.answers(text, {"kind": kind, "about": about}, FARM) is right


def test_common_sense_is_not_judged_by_the_picture():
    question = {"kind": "sense", "group": "no-image", "about": {"truth": True}}
    assert truth.right("True, the cow is brown.", question, FARM)  # the cow of FARM is purple
    assert not truth.right("False, the cow is brown.", question, FARM)
