"""Wordings of answers: first what was asked, then often a detail of the picture.

All kinds of answers share their beginnings ("There is ...", "The image shows ..."), so the first
words of a response do not tell what it answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from napo.icon_world.scenes import CELLS, Scene, Thing, pick

COUNTS = ("no", "one", "two", "three", "four")
VERDICTS = ("sight", "sight_only", "sense", "context")  # kinds of questions: true or false?
P_TWO_DETAILS = 0.3  # where a scene has two more things

BEGINNINGS = ("There is {}.", "The image shows {}.", "I can see {}.")
ALSO = ("There is also {}.", "The image also shows {}.", "I can also see {}.")
COUNTED = ("There {are} {}.", "The image shows {}.", "I can see {}.", "In total there {are} {}.")
COLORED = ("The {kind} is {color}.", "The color of the {kind} is {color}.")
PLACED = ("The {kind} is at the {cell}.", "At the {cell} there is {a_kind}.")
SETTINGS = ("This is the {}.", "The image shows the {}.", "These objects belong to the {}.")
PRESENT = ("Yes, there is {}.", "Yes, the image shows {}.", "Yes, I can see {}.")
ABSENT = ("No, there is no {}.", "No, I can see no {}.", "There is no {}.",
          "The image shows no {}.", "I can see no {}.")  # fmt: skip
SAME = ("Yes, both are {color}.", "Yes, the {kind} and the {other} are both {color}.",
        "Both are {color}.", "The {kind} and the {other} are both {color}.")  # fmt: skip
DIFFERENT = ("No, {one} and {two}.", "No, {one}, but {two}.", "{one} and {two}.",
             "{one}, but {two}.")  # fmt: skip
JUDGED = ("{Verdict}.", "That is {verdict}.", "This is {verdict}.", "The statement is {verdict}.")


def a(noun: str) -> str:
    """The noun phrase with its article: "an apple", "a red apple"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def color_statement(kind: str, color: str) -> str:
    """A kind has a colour, as a sentence."""
    return COLORED[0].format(kind=kind, color=color)


def count_phrase(number: int) -> str:
    """A number of objects, such as "two objects"."""
    return "one object" if number == 1 else f"{COUNTS[number]} objects"


def seen(thing: Thing) -> str:
    """A thing with its colour and place, such as "a red cow at the top left"."""
    return f"{a(f'{thing.color} {thing.kind}')} at the {CELLS[thing.cell]}"


def listed(phrases: list[str]) -> str:
    """Phrases with commas and a last "and"."""
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last


def describe(scene: Scene) -> str:
    """All things of a scene in one sentence, in the order of their cells."""
    return BEGINNINGS[0].format(listed([seen(thing) for thing in scene.things]))


def description(rng: np.random.Generator, scene: Scene) -> str:
    """All things of a scene in one of five wordings, of one to three sentences."""
    form, things = int(rng.integers(5)), scene.things
    if form == 3:
        return " ".join(
            f"The {thing.color} {thing.kind} is at the {CELLS[thing.cell]}." for thing in things
        )
    if form == 4:
        return " ".join(
            f"At the {CELLS[thing.cell]} there is {a(f'{thing.color} {thing.kind}')}."
            for thing in things
        )
    split = int(rng.integers(1, len(things) + 1))
    sentences = [BEGINNINGS[form].format(listed([seen(thing) for thing in things[:split]]))]
    if things[split:]:
        sentences.append(ALSO[form].format(listed([seen(thing) for thing in things[split:]])))
    return " ".join(sentences)


def answer(
    rng: np.random.Generator, kind: str, about: Mapping[str, Any], scene: Scene, brief: bool
) -> str:
    """An answer that is true of a scene, in one of its wordings.

    Args:
        rng: draws the wording and the details.
        kind: of the question, see `napo.icon_world.questions.Question`.
        about: the fact in question.
        scene: the scene that the answer describes.
        brief: without details, as an answer about true or false always is.
    """
    if kind == "description":
        return description(rng, scene)
    if kind == "check":
        return "Yes" if about["truth"] else "No"
    if kind in VERDICTS:
        verdict = str(about["truth"])
        ending = pick(rng, JUDGED).format(Verdict=verdict, verdict=verdict.lower())
        return f"{about['repeated']} {ending}"
    said = core(rng, kind, about, scene)
    return said if brief else " ".join((said, *details(rng, kind, about, scene)))


def core(rng: np.random.Generator, kind: str, about: Mapping[str, Any], scene: Scene) -> str:
    """The sentence that says what was asked."""
    noun = about.get("kind", "")
    thing = scene.thing(noun)
    if kind == "color":
        forms = (*COLORED, *BEGINNINGS)
        colored = a(f"{thing.color} {noun}")
        return pick(rng, forms).format(colored, kind=noun, color=thing.color)
    if kind == "cell":
        cell, forms = CELLS[thing.cell], (*PLACED, *BEGINNINGS)
        return pick(rng, forms).format(f"{a(noun)} at the {cell}", kind=noun, cell=cell,
                                       a_kind=a(noun))  # fmt: skip
    if kind in ("presence", "absent"):
        if thing is None:
            return pick(rng, ABSENT).format(noun)
        return pick(rng, (*PRESENT, *BEGINNINGS)).format(a(noun))
    if kind == "count":
        number = len(scene.things)
        return pick(rng, COUNTED).format(count_phrase(number), are="is" if number == 1 else "are")
    if kind == "setting":
        return pick(rng, SETTINGS).format(scene.setting)
    other = scene.thing(about["other"])
    if thing.color == other.color:
        return pick(rng, SAME).format(kind=noun, other=other.kind, color=thing.color)
    one, two = (color_statement(t.kind, t.color).rstrip(".") for t in (thing, other))
    form = pick(rng, DIFFERENT)
    two = two[0].lower() + two[1:]
    one = one[0].lower() + one[1:] if form.startswith("No") else one
    return form.format(one=one, two=two)


def details(
    rng: np.random.Generator, kind: str, about: Mapping[str, Any], scene: Scene
) -> list[str]:
    """One or two sentences about what the question does not ask for."""
    asked = {about.get("kind"), about.get("other")}
    others = [thing for thing in scene.things if thing.kind not in asked]
    if not others:
        thing = scene.thing(about["kind"])
        if kind == "cell":
            return [color_statement(thing.kind, thing.color)]
        return [PLACED[0].format(kind=thing.kind, cell=CELLS[thing.cell])]
    order = [others[index] for index in rng.permutation(len(others))]
    form = pick(rng, ALSO)
    if len(order) > 1 and rng.random() < P_TWO_DETAILS:
        return [form.format(seen(order[0])), pick(rng, ALSO).format(seen(order[1]))]
    return [form.format(seen(order[0]))]


def all_texts() -> list[str]:
    """Every form of an answer, for the vocabulary."""
    forms = (BEGINNINGS, ALSO, COUNTED, COLORED, PLACED, SETTINGS, PRESENT, ABSENT, SAME, DIFFERENT)
    return [
        *(form for group in forms for form in group),
        *(form.format(Verdict=v, verdict=v.lower()) for form in JUDGED for v in ("True", "False")),
        "Yes No one object three objects there is there are and, the it is an it at the it",
    ]
