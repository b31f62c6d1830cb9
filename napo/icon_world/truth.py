"""What a response claims about a scene, and whether that is true.

The words of the icon world are few, so a response's claims can be read off by pattern: this thing
is there, it has this colour, it is at this corner, there are so many. A response is judged by its
claims, not by its wording.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from napo.icon_world.questions import COUNTS, VERDICTS
from napo.icon_world.scenes import CELLS, COLORS, KINDS, PLACES, Scene

_KIND = "|".join(KINDS)
_COLOR = "|".join(COLORS)
_CELL = "|".join(CELLS)
_PATTERNS = {
    "color": re.compile(rf"\bthe ({_KIND}) is ({_COLOR})\b|\b({_COLOR}) ({_KIND})\b"),
    "absent": re.compile(rf"\bno ({_KIND})\b"),
    "there": re.compile(rf"\b(?<!no )({_KIND})\b"),
    "cell": re.compile(rf"\b({_KIND}) (?:is )?at the ({_CELL})"),
    "count": re.compile(rf"\b(?:is|are) ({'|'.join(COUNTS)}) objects?\b"),
    "setting": re.compile(rf"\bthis is the ({'|'.join(PLACES)})"),
    "both": re.compile(rf"\bboth are ({_COLOR})\b"),
}


def claims(text: str) -> set[tuple[str, ...]]:
    """The claims of a response, as tuples that begin with their kind.

    `("there", kind)`, `("absent", kind)`, `("color", kind, color)`, `("cell", kind, cell)`,
    `("count", word)`, `("setting", place)`, `("both", color)`.
    """
    text = text.lower()
    found: set[tuple[str, ...]] = set()
    for name, pattern in _PATTERNS.items():
        for match in pattern.finditer(text):
            parts = [part for part in match.groups() if part is not None]
            if name == "color" and parts[0] in COLORS:
                parts = parts[::-1]
            found.add((name, *parts))
    return found


def holds(claim: tuple[str, ...], scene: Scene, about: Mapping[str, Any]) -> bool:
    """Whether a claim is true of a scene (`about`: what the question asked, for "both")."""
    name, *rest = claim
    thing = scene.thing(rest[0]) if rest and rest[0] in KINDS else None
    if name == "there":
        return thing is not None
    if name == "absent":
        return thing is None
    if name == "color":
        return thing is not None and thing.color == rest[1]
    if name == "cell":
        return thing is not None and CELLS[thing.cell] == rest[1]
    if name == "count":
        return COUNTS.index(rest[0]) == len(scene.things)
    if name == "setting":
        return scene.setting == rest[0]
    asked = [scene.thing(about.get(key, "")) for key in ("kind", "other")]
    return all(thing is not None and thing.color == rest[0] for thing in asked)


def verdict(text: str) -> str:
    """The word yes or no that a response begins with, or the first true or false in it."""
    text = text.lower()
    found = re.match(r"\s*(yes|no)\b", text) or re.search(r"\b(true|false)\b", text)
    return found[1] if found else ""


def answers(text: str, question: Mapping[str, Any], scene: Scene) -> bool:
    """Whether a response answers the question, and rightly; what else it says does not matter."""
    kind, about = question["kind"], question["about"]
    said = claims(text)
    word = verdict(text)
    if kind in ("sight", "sight_only", "sense", "context"):
        return word == str(about["truth"]).lower()
    if kind == "check":
        return word == ("yes" if about["truth"] else "no")
    if kind == "presence":
        there = scene.thing(about["kind"]) is not None
        if word in ("yes", "no"):
            return (word == "yes") == there
        return (("there" if there else "absent"), about["kind"]) in said
    if kind == "same":
        one, two = scene.thing(about["kind"]), scene.thing(about["other"])
        if word in ("yes", "no"):
            return (word == "yes") == (one.color == two.color)
        return {("color", t.kind, t.color) for t in (one, two)} <= said
    if kind == "color":
        return ("color", about["kind"], scene.thing(about["kind"]).color) in said
    if kind == "cell":
        return ("cell", about["kind"], CELLS[scene.thing(about["kind"]).cell]) in said
    if kind == "count":
        listed = {claim[1] for claim in said if claim[0] == "there"}
        return ("count", COUNTS[about["count"]]) in said or len(listed) == about["count"] > 0
    if kind == "setting":
        return ("setting", scene.setting) in said
    if kind == "absent":
        return ("absent", about["kind"]) in said
    return {("there", thing.kind) for thing in scene.things} <= said  # description


def all_true(text: str, question: Mapping[str, Any], scene: Scene) -> bool:
    """Whether everything that a response claims about the scene is true of it."""
    said = claims(text)
    refused = {claim[1] for claim in said if claim[0] == "absent"}
    return all(
        holds(claim, scene, question["about"])
        for claim in said
        if not (claim[0] == "there" and claim[1] in refused)
    )


def right(text: str, question: Mapping[str, Any], scene: Scene) -> bool:
    """Whether a response answers the question and claims nothing false.

    The answer to a true-or-false question repeats the statement, which it may go on to call
    false; so only its verdict counts.
    """
    if not answers(text, question, scene):
        return False
    return question["kind"] in VERDICTS or all_true(text, question, scene)


def label_by_truth(row: Mapping[str, Any], kind: str) -> tuple[str, str]:
    """The label of a biased response by the scene's truth, and the group it is reported in.

    A language-biased response is noise ("unbiased") if it answers the question and all it claims
    is true; a vision-biased one is noise if it answers the question correctly, extra detail
    allowed as long as it is true.

    Args:
        row: a row of RLAIF-V-Bias with its `truth`.
        kind: "language_biased" or "vision_biased".
    """
    truth = json.loads(row["truth"])
    scene, question = Scene.from_json(truth["scene"]), truth["question"]
    label = "unbiased" if right(row[kind], question, scene) else "biased"
    return label, question["group"]
