"""The icon world's judge: a rule that reads the scene's truth, on MMHal-Bench's scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napo.icon_world import truth
from napo.icon_world.scenes import Scene


def judge_by_truth(item: Mapping[str, Any], answer: str) -> str:
    """A judge's reply, with a rating of 0 to 6 as MMHal-Bench defines them.

    A false claim, or a wrong answer to a yes-or-no question, is a hallucination (0 to 2). Otherwise
    the rating is 3 to 5 by how much the answer says, or 6 if it also names all things of the scene.

    Args:
        item: an item of the template, with the `scene` and `truth` that the icon world adds.
        answer: the model's answer.
    """
    scene, question = Scene.from_json(item["scene"]), item["truth"]
    claimed = truth.claims(answer)
    correct = truth.answers(answer, question, scene)
    informative = correct + bool(claimed)
    if not truth.all_true(answer, question, scene) or (truth.verdict(answer) and not correct):
        return f"The answer says something that the scene does not show. Rating: {informative}"
    complete = {("there", thing.kind) for thing in scene.things} <= claimed
    score = 6 if correct and complete else 3 + informative
    return f"Nothing in the answer contradicts the scene. Rating: {score}"
