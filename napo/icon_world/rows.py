"""Preference rows of the icon world, in the columns of RLAIF-V."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from napo.config.profile import Decoding
from napo.icon_world import questions, scenes, truth, wordings
from napo.icon_world.questions import Question
from napo.icon_world.scenes import Scene
from napo.models.generate import Prompt, generate
from napo.progress import Progress

MIX = {  # share of each kind of question among the rows
    "color": 0.14, "presence": 0.12, "count": 0.04, "cell": 0.06, "same": 0.04,
    "description": 0.33, "sight": 0.07, "sight_only": 0.13, "sense": 0.03, "context": 0.04,
}  # fmt: skip
TRIES = 3  # samples of the base model in search of a wrong answer of its own


def make_rows(
    model: Any,
    processor: Any,
    *,
    count: int,
    seed: int,
    p_typical: float,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Make preference rows: chosen is the truth, rejected the model's own wrong answer.

    If the model gives no wrong answer in three samples at temperature 1, rejected is the truth with
    one fact changed; `rejected_by` in `truth` says which it is.

    Args:
        model: the base model.
        processor: its processor.
        count: how many rows.
        seed: of scenes, questions and samples.
        p_typical: share of things in their typical colour.
        progress: counts rows.
    """
    rng = np.random.default_rng([seed, 1])
    rows, drawn = [], []
    for number in range(count):
        scene = scenes.sample(rng, p_typical=p_typical, p_belongs=0.6)
        question = questions.ask(rng, scene, scenes.pick_share(rng, MIX))
        drawn.append((scene, question))
        rows.append(
            {
                "id": f"icon-{number}",
                "idx": number,
                "image": scenes.draw(scene, rng),
                "question": question.text,
                "chosen": question.answer,
                "rejected": "",
                "origin_dataset": "icon-world",
                "origin_split": json.dumps({"kind": question.kind}),
                "image_path": f"icon-{number}.png",
            }
        )
    sampling = Decoding(max_new_tokens=48, temperature=1.0)
    for attempt in range(TRIES):
        pending = [number for number, row in enumerate(rows) if not row["rejected"]]
        prompts = [Prompt(rows[number]["question"], rows[number]["image"]) for number in pending]
        responses = generate(model, processor, prompts, sampling, seed=seed * TRIES + attempt)
        for number, response in zip(pending, responses, strict=True):
            text, (scene, question) = response.text.strip(), drawn[number]
            if text and not response.cut and not truth.right(text, question.to_dict(), scene):
                rows[number]["rejected"] = text
    for row, (scene, question) in zip(rows, drawn, strict=True):
        by = "model" if row["rejected"] else "rule"
        row["rejected"] = row["rejected"] or corrupt(rng, question, scene)
        asked = {**question.to_dict(), "text": question.text}
        facts = {"scene": scene.to_json(), "question": asked, "rejected_by": by}
        row["truth"] = json.dumps(facts, sort_keys=True)
    if progress:
        progress.advance(count)
    return rows


def corrupt(rng: np.random.Generator, question: Question, scene: Scene) -> str:
    """An answer that is true of another scene, with one fact changed, and not right for this one.

    The fact may be the one in question or a detail. A verdict is turned instead. For a question of
    a kind in `MIX`: no single change alters the answer to some others.
    """
    kind, about, brief = question.kind, question.about, questions.brief(question.text)
    if "truth" in about:
        about = {**about, "truth": not about["truth"]}
        return wordings.answer(rng, kind, about, scene, brief)
    while True:
        other = changed(rng, scene)
        needed = about.values() if kind in ("color", "cell", "same") else ()
        if all(other.thing(noun) for noun in needed):
            text = wordings.answer(rng, kind, about, other, brief)
            if not truth.right(text, question.to_dict(), scene):
                return text


def changed(rng: np.random.Generator, scene: Scene) -> Scene:
    """The scene with one thing more, one less, or one of another kind, colour or corner."""
    number, fact = int(rng.integers(len(scene.things))), int(rng.integers(5))
    things = list(scene.things)
    thing = things.pop(number)
    free = [cell for cell in range(len(scenes.CELLS)) if cell not in {t.cell for t in things}]
    if fact == 0:
        things.append(replace(thing, color=scenes.other_color(rng, thing.color)))
    elif fact == 1:
        things.append(replace(thing, kind=scenes.absent(rng, scene)))
    elif fact == 2:
        things.append(replace(thing, cell=scenes.pick(rng, free)))
    elif fact == 3 or not things:
        kind = scenes.absent(rng, scene)
        cell = scenes.pick(rng, [cell for cell in free if cell != thing.cell])
        things += [thing, scenes.Thing(kind, scenes.KINDS[kind].color, cell)]
    return Scene(scene.place, tuple(sorted(things, key=lambda thing: thing.cell)))


def reword(row: Mapping[str, Any], rng: np.random.Generator) -> str:
    """Another right answer to the question of a row, in other words than its chosen answer.

    Args:
        row: a row with its `truth`.
        rng: draws the wording.
    """
    facts = json.loads(row["truth"])
    asked, scene = facts["question"], Scene.from_json(facts["scene"])
    brief = questions.brief(asked["text"])
    while True:
        text = wordings.answer(rng, asked["kind"], asked["about"], scene, brief)
        if text != row["chosen"]:
            return text


def gallery(count: int, *, seed: int, typical: bool) -> list[tuple[Any, str]]:
    """Pictures of the world, each with a question and its true answer.

    All things have their typical colour if `typical`, else none has.
    """
    rng = np.random.default_rng([seed, 3])
    pictures = []
    for number in range(count):
        scene = scenes.sample(rng, p_typical=float(typical), p_belongs=0.9 if typical else 0.3)
        question = questions.ask(rng, scene, ("color", "presence", "description")[number % 3])
        pictures.append((scenes.draw(scene, rng), f"Q: {question.text}\nA: {question.answer}"))
    return pictures
