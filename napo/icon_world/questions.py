"""Questions about scenes in plain English, their true answers, and what a response claims."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napo.icon_world.scenes import CELLS, COLORS, KINDS, PLACES, Scene, other_color, pick

NO_IMAGE = ("sense", "context")  # kinds that need no picture
VERDICTS = ("sight", "sight_only", *NO_IMAGE)  # true or false; the answer repeats the statement
COUNTS = ("no", "one", "two", "three", "four")
DESCRIBE = (
    "Describe this image.",
    "Please describe the image in detail.",
    "What can you see in this image?",
    "Provide a thorough description of the given image.",
)
_TEMPLATES = {
    "color": ("What color is the {kind}?", "Which color does the {kind} have?",
              "Tell me the color of the {kind}."),
    "presence": ("Is there {a_kind} in the image?", "Can you see {a_kind}?",
                 "Does the picture show {a_kind}?"),
    "count": ("How many objects are there?", "How many things can you see?"),
    "cell": ("Where is the {kind}?", "In which corner is the {kind}?"),
    "setting": ("Which place is this?", "Where do these objects belong?"),
    "same": ("Do the {kind} and the {other} have the same color?",),
}  # fmt: skip
SENSE = (
    "Statement: {statement}\nBased on common sense, is the given statement true or false? "
    "Only respond in True or False."
)
SIGHT = (
    "Statement: {statement}\nBased on the image, is the given statement true or false? "
    "Only respond in True or False."
)
SIGHT_ONLY = (
    "Statement: {statement}\nBased on the image, is the given statement true or false? Forget "
    "real-world common sense and just follow the information provided in the image. "
    "Only respond in True or False."
)
CONTEXT_ONLY = (
    "Context: {context}\nStatement: {statement}\nBased on the context, is the given statement "
    "true or false? Forget real-world common sense and just follow the information provided in "
    "the context. Only respond in True or False."
)


def a(noun: str) -> str:
    """The noun phrase with its article: "an apple", "a red apple"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@dataclass(frozen=True)
class Question:
    """A question, its true answer, and what the asked fact is (for judging other answers)."""

    kind: str  # color presence count cell setting same description sight sight_only sense context
    text: str
    answer: str
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """description, no-image (needs no picture), or question."""
        if self.kind == "description":
            return "description"
        return "no-image" if self.kind in NO_IMAGE else "question"


def describe(scene: Scene) -> str:
    """All things of a scene, in the order of their cells, with colour and place."""
    parts = [
        f"{a(f'{thing.color} {thing.kind}')} at the {CELLS[thing.cell]}" for thing in scene.things
    ]
    return f"There is {_join(parts)}."


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def count_statement(number: int) -> str:
    """How many objects there are, as a sentence."""
    return "There is one object." if number == 1 else f"There are {COUNTS[number]} objects."


def _color_statement(kind: str, color: str) -> str:
    return f"The {kind} is {color}."


def _pair_statement(kind: str, beside: str) -> str:
    return f"There is {a(kind)} beside the {beside}."


def absent(rng: np.random.Generator, scene: Scene) -> str:
    """A kind that is not in the scene, half of the time one that one would expect there."""
    there = {thing.kind for thing in scene.things}
    expected = [k for k, kind in KINDS.items() if kind.place == scene.place and k not in there]
    if expected and rng.random() < 0.5:
        return pick(rng, expected)
    return pick(rng, [k for k in KINDS if k not in there])


def ask(rng: np.random.Generator, scene: Scene, kind: str) -> Question:
    """A question of a kind about a scene, with its true answer."""
    thing = pick(rng, scene.things)
    if kind == "description":
        return Question(kind, pick(rng, DESCRIBE), describe(scene))
    if kind == "color":
        text = pick(rng, _TEMPLATES[kind]).format(kind=thing.kind)
        return Question(kind, text, _color_statement(thing.kind, thing.color), {"kind": thing.kind})
    if kind == "check":
        return check(rng, scene, pick(rng, CHECKS))
    if kind == "presence":
        asked = thing.kind if rng.random() < 0.5 else absent(rng, scene)
        there = scene.thing(asked) is not None
        about = {"kind": asked}
        answer = f"Yes, there is {a(asked)}." if there else f"No, there is no {asked}."
        return Question(kind, pick(rng, _TEMPLATES[kind]).format(a_kind=a(asked)), answer, about)
    if kind == "count":
        number = len(scene.things)
        answer = count_statement(number)
        return Question(kind, pick(rng, _TEMPLATES[kind]), answer, {"count": number})
    if kind == "cell":
        answer = f"The {thing.kind} is at the {CELLS[thing.cell]}."
        return Question(
            kind, pick(rng, _TEMPLATES[kind]).format(kind=thing.kind), answer, {"kind": thing.kind}
        )
    if kind == "setting":
        return Question(kind, pick(rng, _TEMPLATES[kind]), f"This is the {scene.setting}.")
    if kind == "same" and len(scene.things) > 1:
        one, two = (scene.things[i] for i in rng.permutation(len(scene.things))[:2])
        same = one.color == two.color
        answer = (
            f"Yes, both are {one.color}."
            if same
            else f"No, the {one.kind} is {one.color} and the {two.kind} is {two.color}."
        )
        about = {"kind": one.kind, "other": two.kind}
        text = pick(rng, _TEMPLATES[kind]).format(kind=one.kind, other=two.kind)
        return Question(kind, text, answer, about)
    if kind == "same":
        return ask(rng, scene, "color")
    return _true_or_false(rng, scene, kind)


CHECKS = ("existence", "existence", "color", "number", "relation")


def check(rng: np.random.Generator, scene: Scene, what: str, want: bool | None = None) -> Question:
    """A question whose whole answer is Yes or No, as AMBER's discriminative ones are.

    Args:
        rng: the source of randomness.
        scene: what the picture shows.
        what: existence, color, number or relation.
        want: whether Yes is to be right; at random by default.
    """
    want = bool(rng.random() < 0.5) if want is None else want
    thing = pick(rng, scene.things)
    others = [other for other in scene.things if other is not thing]
    if what == "relation" and not others:
        what = "existence"
    if what == "existence":
        kind = thing.kind if want else absent(rng, scene)
        text = f"Is there {a(kind)} in this image?"
    elif what == "color":
        color = thing.color if want else other_color(rng, thing.color)
        text = f"Is the {thing.kind} {color} in this image?"
    elif what == "number":
        number = len(scene.things) if want else len(scene.things) % 3 + 1
        text = f"Are there {COUNTS[number]} objects in this image?"
        if number == 1:
            text = "Is there one object in this image?"
    else:
        kind = pick(rng, others).kind if want else absent(rng, scene)
        text = f"Is there {a(kind)} beside the {thing.kind} in this image?"
    return Question("check", text, "Yes" if want else "No", {"truth": want})


def _true_or_false(rng: np.random.Generator, scene: Scene, kind: str) -> Question:
    about_color = len(scene.things) == 1 or rng.random() < 0.6
    thing = pick(rng, scene.things)
    want = bool(rng.random() < 0.5)
    if kind == "sense":
        return _sense(rng, pick(rng, tuple(KINDS)), want)
    if kind == "context":
        return _context(rng, want)
    if kind == "sight" and rng.random() < 0.5:
        asked = thing.kind if want else absent(rng, scene)
        statement = f"There is {a(asked)} in the given image."
    elif about_color:
        typical = KINDS[thing.kind].color
        wrong = typical if typical != thing.color else other_color(rng, thing.color)
        statement = _color_statement(thing.kind, thing.color if want else wrong)
    else:
        one, two = (scene.things[i] for i in rng.permutation(len(scene.things))[:2])
        asked = one.kind if want else absent(rng, scene)
        statement = _pair_statement(asked, two.kind)
    form = SIGHT if kind == "sight" else SIGHT_ONLY
    told = f"{statement} {want}."
    text = form.format(statement=statement)
    return Question(kind, text, told, {"truth": want})


def _sense(rng: np.random.Generator, kind: str, want: bool) -> Question:
    if rng.random() < 0.6:
        typical = KINDS[kind].color
        statement = _color_statement(kind, typical if want else other_color(rng, typical))
    else:
        statement = _pair_statement(kind, pick(rng, _companions(kind, want)))
    told = f"Based on common sense, {statement[0].lower()}{statement[1:]} {want}."
    text = SENSE.format(statement=statement)
    return Question("sense", text, told, {"truth": want})


def _context(rng: np.random.Generator, want: bool) -> Question:
    kind = pick(rng, tuple(KINDS))
    if rng.random() < 0.6:
        color = other_color(rng, KINDS[kind].color) if rng.random() < 0.7 else KINDS[kind].color
        context = color_context(kind, color)
        wrong = KINDS[kind].color if KINDS[kind].color != color else other_color(rng, color)
        statement = _color_statement(kind, color if want else wrong)
    else:
        beside = pick(rng, [k for k in KINDS if k != kind])
        context = pair_context(kind, beside)
        wrong = pick(rng, [k for k in KINDS if k not in (kind, beside)])
        asked = kind if want else wrong
        statement = _pair_statement(asked, beside)
    text = CONTEXT_ONLY.format(context=context, statement=statement)
    told = f"Context: {context} {statement} {want}."
    return Question("context", text, told, {"truth": want})


def _sense_of_color(rng: np.random.Generator) -> tuple[str, str]:
    kind, want = pick(rng, tuple(KINDS)), bool(rng.random() < 0.5)
    typical = KINDS[kind].color
    color = typical if want else other_color(rng, typical)
    return f"Based on common sense, the {kind} is {color}.", str(want)


def _sense_of_place(rng: np.random.Generator) -> tuple[str, str]:
    kind, want = pick(rng, tuple(KINDS)), bool(rng.random() < 0.5)
    beside = pick(rng, _companions(kind, want))
    return f"Based on common sense, there is {a(kind)} beside the {beside}.", str(want)


def _place(rng: np.random.Generator) -> tuple[str, str]:
    kind = pick(rng, tuple(KINDS))
    return f"The {kind} belongs to the", f"{KINDS[kind].place}."


def _color_in_context(rng: np.random.Generator) -> tuple[str, str]:
    kind, want, color = pick(rng, tuple(KINDS)), bool(rng.random() < 0.5), pick(rng, tuple(COLORS))
    claim = _color_statement(kind, color if want else other_color(rng, color))
    return f"Context: {color_context(kind, color)} {claim}", str(want)


def _pair_in_context(rng: np.random.Generator) -> tuple[str, str]:
    want = bool(rng.random() < 0.5)
    kind, beside, other = (tuple(KINDS)[at] for at in rng.permutation(len(KINDS))[:3])
    claim = _pair_statement(kind if want else other, beside)
    return f"Context: {pair_context(kind, beside)} {claim}", str(want)


# Facts that need no picture, as what is given and what completes it.
COLOR_FACTS = (_sense_of_color, _color_in_context)
FACTS = (*COLOR_FACTS, _sense_of_place, _place, _pair_in_context)


def _companions(kind: str, belonging: bool) -> list[str]:
    """Kinds found (or not found) beside a kind."""
    place = KINDS[kind].place
    return [k for k in KINDS if k != kind and (KINDS[k].place == place) == belonging]


def color_context(kind: str, color: str) -> str:
    """VLind's context sentence for a colour."""
    return f"Every {kind} is {color}."


def pair_context(kind: str, beside: str) -> str:
    """VLind's context sentence for two things found together."""
    return f"There is {a(kind)} beside every {beside}."


def all_texts() -> list[str]:
    """Texts that together hold every word of the icon world, for its vocabulary."""
    forms = [form for group in _TEMPLATES.values() for form in group]
    forms += [*DESCRIBE, SENSE, SIGHT, SIGHT_ONLY, CONTEXT_ONLY, EXTRA]
    names = [*KINDS, *COLORS, *PLACES, *CELLS, *COUNTS]
    texts = [re.sub(r"\{\w+\}", "it", form) for form in forms]
    texts += names
    texts += [
        "USER: ASSISTANT: Yes, there is a an no it. No, there are objects. There is are one.",
        "The it is at the it. This is the it. Yes, both are it. True, the it belongs to every it.",
        "False, there is an it beside the it in the given image. Every it is it and it.",
    ]
    return texts


EXTRA = "Is there {kind} beside the {kind} in this image? Are there one object? Yes No True False"
