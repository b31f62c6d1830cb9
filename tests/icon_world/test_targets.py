import json

import pytest

from napo.icon_world import targets
from napo.icon_world.scenes import Scene, Thing

SCENE = Scene("farm", (Thing("cow", "purple", 0),)).to_json()


def row(language_biased, vision_biased, chosen="The cow is purple."):
    question = {"kind": "color", "group": "question", "about": {"kind": "cow"}}
    biased = {"language_biased": language_biased, "vision_biased": vision_biased}
    return {"chosen": chosen, **biased, "truth": json.dumps({"scene": SCENE, "question": question})}


def test_words_and_noise_are_counted_by_hand():
    rows = [
        row("The cow is purple.", "There is a purple cow at the top left."),  # noise, noise
        row("I can see a purple cow.", "There is a red cow."),  # noise in other words, noise-free
        row("The cow is red.", "I can see a cow."),  # noise-free twice
        row("The cow is red.", "I can see a pig."),
    ]
    measured = targets.of_rows(rows)
    assert measured[targets.WORDS] == (9 + 5 + 5 + 5) / (4 * 4)
    assert measured[targets.NOISE["language_biased"]] == 2 / 4
    assert measured[targets.NOISE["vision_biased"]] == 1 / 4
    assert measured[targets.OTHER_WORDS] == 1 / 2


@pytest.mark.parametrize(
    ("vision_biased", "share"), [("There is a cow.", 1), ("The cow sleeps.", 0.5)]
)
def test_the_first_words_tell_a_response_only_if_they_differ(vision_biased, share):
    assert targets.told_by_opening([row("", vision_biased)] * 4) == share
