"""Preference rows of the icon world, in the columns of RLAIF-V."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from napo.config.profile import Decoding
from napo.icon_world import questions, scenes, truth
from napo.models.generate import Prompt, generate
from napo.progress import Progress

MIX = {  # share of each kind of question among the rows
    "color": 0.18, "presence": 0.16, "count": 0.05, "cell": 0.06, "same": 0.04,
    "description": 0.20, "sight": 0.08, "sight_only": 0.18, "sense": 0.03, "context": 0.02,
}  # fmt: skip
TRIES = 3  # samples of the base model in search of a wrong answer of its own
OPPOSITE = {"Yes": "No", "No": "Yes", "True": "False", "False": "True"}


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
        drawn.append((scene, question.to_dict()))
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
            text, (scene, about) = response.text.strip(), drawn[number]
            if text and not response.cut and not truth.right(text, about, scene):
                rows[number]["rejected"] = text
    for row, (scene, about) in zip(rows, drawn, strict=True):
        by = "model" if row["rejected"] else "rule"
        row["rejected"] = row["rejected"] or corrupt(rng, row["chosen"])
        question = {**about, "text": row["question"]}
        facts = {"scene": scene.to_json(), "question": question, "rejected_by": by}
        row["truth"] = json.dumps(facts, sort_keys=True)
    if progress:
        progress.advance(count)
    return rows


def corrupt(rng: np.random.Generator, answer: str) -> str:
    """The answer with one fact changed, in an English sentence that claims something false.

    A verdict is turned together with its reason; a description gets another colour, thing or
    corner; a plain statement another colour, corner, count or place.
    """
    statement = re.fullmatch(r"(.+ )(True|False)\.", answer)
    if statement:
        return f"{statement[1]}{OPPOSITE[statement[2]]}."
    verdict = re.match(r"(Yes|No|True|False)\b", answer)
    if not verdict:
        changed = change_fact(rng, answer, described=answer.startswith("There is a"))
        return changed if changed != answer else "No."
    reason = answer[verdict.end() :]
    if reason.startswith(", both"):  # the changed colour is the error
        return verdict[1] + change_fact(rng, reason, described=False)
    apart = re.fullmatch(r", the \w+ is (\w+) and the \w+ is \w+\.", reason)
    presence = re.fullmatch(r", there is (no|an?) (\w+)\.", reason)
    if apart:
        reason = f", both are {apart[1]}."
    elif presence:
        noun = presence[2]
        reason = f", there is {questions.a(noun) if presence[1] == 'no' else f'no {noun}'}."
    else:
        reason = change_fact(rng, reason, described=False)
    return OPPOSITE[verdict[1]] + reason


def change_fact(rng: np.random.Generator, text: str, *, described: bool) -> str:
    """The text with one word of fact replaced by another word of its family."""
    families = [tuple(scenes.COLORS), tuple(scenes.CELLS)]
    families += [tuple(scenes.KINDS)] if described else [questions.COUNTS[1:4], scenes.PLACES]
    named = [[w for w in family if re.search(rf"\b{w}\b", text)] for family in families]
    choices = [(family, words) for family, words in zip(families, named, strict=True) if words]
    if not choices:
        return text
    family, words = scenes.pick(rng, choices) if described else choices[0]
    old = scenes.pick(rng, words)
    new = scenes.pick(rng, [word for word in family if word not in words])
    if family == questions.COUNTS[1:4]:
        return questions.count_statement(questions.COUNTS.index(new))
    phrase = re.search(rf"\b(?:an? )?{old}\b", text)[0]
    return text.replace(phrase, questions.a(new) if phrase != old else new, 1)


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
