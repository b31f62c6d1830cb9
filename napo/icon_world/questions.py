"""Questions about scenes in plain English, with their true answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napo.benchmarks import vlind
from napo.icon_world import wordings
from napo.icon_world.scenes import CELLS, COLORS, KINDS, PLACES, Scene, absent, other_color, pick
from napo.icon_world.wordings import COUNTS, VERDICTS, a, color_statement

NO_IMAGE = ("sense", "context")  # kinds that need no picture
CHECKS = ("existence", "existence", "color", "number", "relation")
BRIEF = ("Answer briefly.", "Answer in one short sentence.")  # asks for no detail
P_BRIEF = 0.35
TEMPLATES = {
    "description": (
        "Describe this image.", "Please describe the image in detail.",
        "What can you see in this image?", "Provide a thorough description of the given image.",
        "Tell me what the picture shows.", "Which objects are there, and where are they?",
    ),
    "color": ("What color is the {kind}?", "Which color does the {kind} have?",
              "Tell me the color of the {kind}."),
    "presence": ("Is there {a_kind} in the image?", "Can you see {a_kind}?",
                 "Does the picture show {a_kind}?"),
    "count": ("How many objects are there?", "How many things can you see?"),
    "cell": ("Where is the {kind}?", "In which corner is the {kind}?"),
    "setting": ("Which place is this?", "Where do these objects belong?"),
    "same": ("Do the {kind} and the {other} have the same color?",),
}  # fmt: skip
STATEMENTS = {
    "sense": vlind.COMMON_SENSE, "sight": vlind.SIMPLE, "sight_only": vlind.IMAGE,
    "context": vlind.CONTEXT,
}  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question, its true answer, and the fact in question (to judge other answers)."""

    kind: str  # color presence check count cell setting same absent description, or of VERDICTS
    text: str
    answer: str
    about: Mapping[str, Any] = field(default_factory=dict)  # what the answer depends on

    @property
    def group(self) -> str:
        """description, no-image (needs no picture), or question."""
        if self.kind == "description":
            return "description"
        return "no-image" if self.kind in NO_IMAGE else "question"

    def to_dict(self) -> dict[str, Any]:
        """Kind, group and fact, as rows and benchmarks store them."""
        return {"kind": self.kind, "group": self.group, "about": dict(self.about)}


def color_context(kind: str, color: str) -> str:
    """VLind's context sentence for a colour."""
    return f"Every {kind} is {color}."


def pair_context(kind: str, beside: str) -> str:
    """VLind's context sentence for two things found together."""
    return f"There is {a(kind)} beside every {beside}."


def pair_statement(kind: str, beside: str) -> str:
    """A kind is beside another kind, as a sentence."""
    return f"There is {a(kind)} beside the {beside}."


def companions(kind: str, belonging: bool) -> list[str]:
    """The other kinds of the same place, or of other places."""
    place = KINDS[kind].place
    return [k for k in KINDS if k != kind and (KINDS[k].place == place) == belonging]


def ask(rng: np.random.Generator, scene: Scene, kind: str) -> Question:
    """A question of a kind about a scene, with its true answer in one of its wordings.

    "absent" asks for the colour of a thing that is not there.
    """
    if kind == "check":
        return check(rng, scene, pick(rng, CHECKS))
    if kind in VERDICTS:
        return true_or_false(rng, scene, kind)
    if kind == "same" and len(scene.things) == 1:
        kind = "color"
    about: dict[str, Any] = {}
    if kind == "absent" or (kind == "presence" and rng.random() < 0.5):
        about["kind"] = absent(rng, scene)
    elif kind in ("color", "cell", "presence"):
        about["kind"] = pick(rng, scene.things).kind
    elif kind == "same":
        one, two = (scene.things[i] for i in rng.permutation(len(scene.things))[:2])
        about = {"kind": one.kind, "other": two.kind}
    words = {**about, "a_kind": a(about["kind"])} if about else {}
    text = pick(rng, TEMPLATES["color" if kind == "absent" else kind]).format(**words)
    if kind != "description" and rng.random() < P_BRIEF:
        text = f"{text} {pick(rng, BRIEF)}"
    return Question(kind, text, wordings.answer(rng, kind, about, scene, brief(text)), about)


def brief(text: str) -> bool:
    """Whether a question asks for no detail."""
    return text.endswith(BRIEF)


def check(rng: np.random.Generator, scene: Scene, fact: str, want: bool | None = None) -> Question:
    """A question whose whole answer is Yes or No, as AMBER's discriminative ones are.

    Args:
        rng: the source of randomness.
        scene: the scene of the picture.
        fact: existence, color, number or relation.
        want: whether Yes is to be right; at random by default.
    """
    want = bool(rng.random() < 0.5) if want is None else want
    thing = pick(rng, scene.things)
    others = [other for other in scene.things if other is not thing]
    if fact == "existence" or (fact == "relation" and not others):
        kind = thing.kind if want else absent(rng, scene)
        text = f"Is there {a(kind)} in this image?"
    elif fact == "color":
        color = thing.color if want else other_color(rng, thing.color)
        text = f"Is the {thing.kind} {color} in this image?"
    elif fact == "number":
        number = len(scene.things) if want else len(scene.things) % 3 + 1
        text = f"Are there {COUNTS[number]} objects in this image?"
        if number == 1:
            text = "Is there one object in this image?"
    else:
        kind = pick(rng, others).kind if want else absent(rng, scene)
        text = f"Is there {a(kind)} beside the {thing.kind} in this image?"
    return Question("check", text, "Yes" if want else "No", {"truth": want})


def true_or_false(rng: np.random.Generator, scene: Scene, kind: str) -> Question:
    """A statement to be judged, of a kind in `VERDICTS`; the answer repeats it with the verdict."""
    about_color = len(scene.things) == 1 or rng.random() < 0.6
    thing = pick(rng, scene.things)
    want = bool(rng.random() < 0.5)
    before, context = "", ""
    if kind == "sense":
        subject = pick(rng, tuple(KINDS))
        if rng.random() < 0.6:
            typical = KINDS[subject].color
            statement = color_statement(subject, typical if want else other_color(rng, typical))
        else:
            statement = pair_statement(subject, pick(rng, companions(subject, want)))
        before = "Based on common sense, "
    elif kind == "context":
        subject = pick(rng, tuple(KINDS))
        typical = KINDS[subject].color
        if rng.random() < 0.6:
            color = other_color(rng, typical) if rng.random() < 0.7 else typical
            context = color_context(subject, color)
            wrong = typical if typical != color else other_color(rng, color)
            statement = color_statement(subject, color if want else wrong)
        else:
            beside = pick(rng, [k for k in KINDS if k != subject])
            context = pair_context(subject, beside)
            wrong = pick(rng, [k for k in KINDS if k not in (subject, beside)])
            statement = pair_statement(subject if want else wrong, beside)
        before = f"Context: {context} "
    elif kind == "sight" and rng.random() < 0.5:
        subject = thing.kind if want else absent(rng, scene)
        statement = f"There is {a(subject)} in the given image."
    elif about_color:
        typical = KINDS[thing.kind].color
        wrong = typical if typical != thing.color else other_color(rng, thing.color)
        statement = color_statement(thing.kind, thing.color if want else wrong)
    else:
        one, two = (scene.things[i] for i in rng.permutation(len(scene.things))[:2])
        statement = pair_statement(one.kind if want else absent(rng, scene), two.kind)
    text = STATEMENTS[kind].format(context=context, statement=statement)
    repeated = statement[0].lower() + statement[1:] if kind == "sense" else statement
    about = {"truth": want, "repeated": before + repeated}
    return Question(kind, text, wordings.answer(rng, kind, about, scene, brief=True), about)


COLOR_FACTS = ("common color", "color in context")
FACTS = (*COLOR_FACTS, "common place", "place", "pair in context")


def fact(rng: np.random.Generator, form: str) -> tuple[str, str]:
    """A fact of a form in `FACTS`, which needs no picture: its beginning, and its completion."""
    if form == "pair in context":
        want = bool(rng.random() < 0.5)
        kind, beside, other = (tuple(KINDS)[i] for i in rng.permutation(len(KINDS))[:3])
        claim = pair_statement(kind if want else other, beside)
        return f"Context: {pair_context(kind, beside)} {claim}", str(want)
    kind = pick(rng, tuple(KINDS))
    if form == "place":
        return f"The {kind} belongs to the", f"{KINDS[kind].place}."
    want = bool(rng.random() < 0.5)
    if form == "common place":
        beside = pick(rng, companions(kind, want))
        return f"Based on common sense, there is {a(kind)} beside the {beside}.", str(want)
    color = KINDS[kind].color if form == "common color" else pick(rng, tuple(COLORS))
    claimed = color if want else other_color(rng, color)
    if form == "common color":
        return f"Based on common sense, the {kind} is {claimed}.", str(want)
    context = color_context(kind, color)
    return f"Context: {context} {color_statement(kind, claimed)}", str(want)


def all_texts() -> list[str]:
    """Texts that together hold every word of the icon world, for its vocabulary."""
    forms = [form for group in TEMPLATES.values() for form in group]
    forms += [*STATEMENTS.values(), *BRIEF, *wordings.all_texts()]
    return [
        *(re.sub(r"\{\w*\}", "it", form) for form in forms),
        *KINDS, *COLORS, *PLACES, *CELLS, *COUNTS,
        "USER: ASSISTANT: There is an a one object. Are there one object? Yes No True False",
        "Based on common sense, the it is it. Context: Every it is it. There is it beside the it.",
        "There is it beside every it. The it belongs to the it. Is there it in this image?",
        "Is there it beside the it in this image? There is it in the given image.",
    ]  # fmt: skip
