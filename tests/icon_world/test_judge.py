import pytest

from napo.icon_world.judge import judge_by_truth
from napo.icon_world.scenes import Scene, Thing

ITEM = {
    "scene": Scene("farm", (Thing("cow", "purple", 0), Thing("pig", "pink", 3))).to_json(),
    "truth": {"kind": "color", "group": "question", "about": {"kind": "cow"}},
}


@pytest.mark.parametrize(
    ("answer", "rating"),
    [
        ("The cow is purple.", 5),
        ("The cow is purple and the pig is pink.", 6),
        ("There is a pink pig.", 4),
        ("I do not know.", 3),
        ("The cow is brown.", 1),
        ("The cow is purple. There is a red dog.", 2),
    ],
)
def test_the_rule_judge_rates_by_the_scene(answer, rating):
    assert judge_by_truth(ITEM, answer).endswith(f"Rating: {rating}")
