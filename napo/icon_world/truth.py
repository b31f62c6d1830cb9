"""The claims of a response about a scene, and whether they are true.

The icon world has few words, so patterns can read the claims of a response: this thing is there, it
has this colour, it is at this corner, there are so many. A response is judged by its claims, not by
its wording.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from napo.icon_world.scenes import CELLS, COLORS, KINDS, PLACES, Scene
from napo.icon_world.wordings import COUNTS, VERDICTS

_KIND = "|".join(KINDS)
_COLOR = "|".join(COLORS)
_CELL = "|".join(CELLS)
_PATTERNS = {
    "color": re.compile(rf"\bthe ({_KIND}) is ({_COLOR})\b|\b({_COLOR}) ({_KIND})\b"),
    "absent": re.compile(rf"\bno ({_KIND})\b"),
    "there": re.compile(rf"\b(?<!no )({_KIND})\b"),
    "cell": re.compile(
        rf"\b({_KIND}) (?:is )?at the ({_CELL})\b"
        rf"|\bat the ({_CELL}) there is an? (?:(?:{_COLOR}) )?({_KIND})\b"
    ),
    "count": re.compile(rf"\b({'|'.join(COUNTS)}) objects?\b"),
    "setting": re.compile(rf"\b({'|'.join(PLACES)})\b"),
    "both": re.compile(rf"\b(?:both are|are both) ({_COLOR})\b"),
}


def claims(text: str) -> set[tuple[str, ...]]:
    """The claims of a response, as tuples that begin with their kind.

    `("there", kind)`, `("absent", kind)`, `("color", kind, color)`, `("cell", kind, cell)`,
    `("count", word)`, `("setting", place)`, `("both", color)`.
    """
    claimed: set[tuple[str, ...]] = set()
    for name, pattern in _PATTERNS.items():
        for match in pattern.finditer(text.lower()):
            parts = [part for part in match.groups() if part is not None]
            if parts[0] in COLORS or parts[0] in CELLS:  # named before their thing
                parts = parts[::-1]
            claimed.add((name, *parts))
    return claimed


def holds(claim: tuple[str, ...], scene: Scene, about: Mapping[str, Any]) -> bool:
    """Whether a claim is true of a scene; "both" means the two kinds of the question's `about`."""
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
    pair = [scene.thing(about.get(key, "")) for key in ("kind", "other")]
    return all(thing is not None and thing.color == rest[0] for thing in pair)


def verdict(text: str) -> str:
    """The word yes or no that a response begins with, or the first true or false in it."""
    text = text.lower()
    match = re.match(r"\s*(yes|no)\b", text) or re.search(r"\b(true|false)\b", text)
    return match[1] if match else ""


def answers(text: str, question: Mapping[str, Any], scene: Scene) -> bool:
    """Whether a response answers the question correctly; its other claims do not matter."""
    kind, about = question["kind"], question["about"]
    claimed, word = claims(text), verdict(text)
    if kind in VERDICTS:
        return word == str(about["truth"]).lower()
    if kind == "check":
        return word == ("yes" if about["truth"] else "no")
    if kind == "presence":
        present = scene.thing(about["kind"]) is not None
        if word in ("yes", "no"):
            return (word == "yes") == present
        return ("there" if present else "absent", about["kind"]) in claimed
    if kind == "same":
        one, two = scene.thing(about["kind"]), scene.thing(about["other"])
        if word in ("yes", "no"):
            return (word == "yes") == (one.color == two.color)
        colors = {("color", t.kind, t.color) for t in (one, two)}
        return colors <= claimed or ("both", one.color) in claimed
    if kind == "color":
        return ("color", about["kind"], scene.thing(about["kind"]).color) in claimed
    if kind == "cell":
        return ("cell", about["kind"], CELLS[scene.thing(about["kind"]).cell]) in claimed
    if kind == "count":
        named = {claim[1] for claim in claimed if claim[0] == "there"}
        return ("count", COUNTS[len(scene.things)]) in claimed or len(named) == len(scene.things)
    if kind == "setting":
        return ("setting", scene.setting) in claimed
    if kind == "absent":
        return ("absent", about["kind"]) in claimed
    return {("there", thing.kind) for thing in scene.things} <= claimed  # description


def all_true(text: str, question: Mapping[str, Any], scene: Scene) -> bool:
    """Whether all claims of a response about the scene are true; "no cow" claims no cow."""
    claimed = claims(text)
    denied = {("there", claim[1]) for claim in claimed if claim[0] == "absent"}
    return all(holds(claim, scene, question["about"]) for claim in claimed - denied)


def right(text: str, question: Mapping[str, Any], scene: Scene) -> bool:
    """Whether a response answers the question and claims nothing false.

    The answer to a true-or-false question repeats the statement and may call it false, so only its
    verdict counts.
    """
    truthful = question["kind"] in VERDICTS or all_true(text, question, scene)
    return truthful and answers(text, question, scene)


def label_by_truth(row: Mapping[str, Any], kind: str) -> tuple[str, str]:
    """The label of a biased response by the scene's truth, and the group of its question.

    A response is noise ("unbiased") if it answers the question correctly and claims nothing false;
    extra detail is allowed.

    Args:
        row: a row of RLAIF-V-Bias with its `truth`.
        kind: the response, a name in `napo.config.variants.BIASED`.
    """
    truth = json.loads(row["truth"])
    scene, question = Scene.from_json(truth["scene"]), truth["question"]
    label = "unbiased" if right(row[kind], question, scene) else "biased"
    return label, question["group"]
