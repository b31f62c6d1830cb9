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

# Share of each kind of question among the rows.
MIX = {
    "color": 0.18, "presence": 0.16, "count": 0.05, "cell": 0.06, "same": 0.04,
    "description": 0.20, "sight": 0.08, "sight_only": 0.18, "sense": 0.03, "context": 0.02,
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

    Where the model makes no wrong answer in three samples at temperature 1, one fact of the
    truth is changed instead; `truth` says which (`rejected_by`).

    Args:
        model: the base model.
        processor: its processor.
        count: how many rows.
        seed: of scenes, questions and samples.
        p_typical: share of things in their typical colour.
        progress: counts rows.
    """
    rng = np.random.default_rng([seed, 1])
    kinds, shares = list(MIX), np.cumsum(list(MIX.values())) / sum(MIX.values())
    rows = []
    for number in range(count):
        scene = scenes.sample(rng, p_typical=p_typical, p_belongs=0.6)
        asked = questions.ask(rng, scene, kinds[int(np.searchsorted(shares, rng.random()))])
        rows.append(_row(number, scene, asked, scenes.draw(scene, rng)))
    _reject(model, processor, rows, rng, seed)
    if progress:
        progress.advance(count)
    return rows


def _row(number: int, scene: scenes.Scene, asked: questions.Question, image: Any) -> dict[str, Any]:
    about = {
        "kind": asked.kind, "group": asked.group, "about": dict(asked.about), "text": asked.text,
    }  # fmt: skip
    return {
        "id": f"icon-{number}",
        "idx": number,
        "image": image,
        "question": asked.text,
        "chosen": asked.answer,
        "rejected": "",
        "origin_dataset": "icon-world",
        "origin_split": json.dumps({"kind": asked.kind}),
        "image_path": f"icon-{number}.png",
        "truth": {"scene": scene.to_json(), "question": about},
    }


def _reject(
    model: Any, processor: Any, rows: list[dict[str, Any]], rng: np.random.Generator, seed: int
) -> None:
    """Fill `rejected` in place, then write `truth` as JSON."""
    open_rows = rows
    sampling = Decoding(max_new_tokens=48, temperature=1.0)
    for attempt in range(TRIES):
        prompts = [Prompt(row["question"], row["image"]) for row in open_rows]
        said = generate(model, processor, prompts, sampling, seed=seed * TRIES + attempt)
        for row, response in zip(open_rows, said, strict=True):
            scene, asked = scenes.Scene.from_json(row["truth"]["scene"]), row["truth"]["question"]
            text = response.text.strip()
            if text and not response.cut and not truth.right(text, asked, scene):
                row["rejected"], row["truth"]["rejected_by"] = text, "model"
        open_rows = [row for row in open_rows if not row["rejected"]]
    for row in open_rows:
        row["rejected"], row["truth"]["rejected_by"] = corrupt(rng, row["chosen"]), "rule"
    for row in rows:
        row["truth"] = json.dumps(row["truth"], sort_keys=True)


OPPOSITE = {"Yes": "No", "No": "Yes", "True": "False", "False": "True"}


def corrupt(rng: np.random.Generator, answer: str) -> str:
    """The answer with one fact changed, in an English sentence that claims something false.

    A verdict is turned together with its reason; a description gets another colour, thing or
    corner; a plain statement another colour, corner, count or place.
    """
    told = re.fullmatch(r"(.+ )(True|False)\.", answer)
    if told:
        return f"{told[1]}{OPPOSITE[told[2]]}."
    verdict = re.match(r"(Yes|No|True|False)\b", answer)
    reason = answer[verdict.end() :] if verdict else answer
    changed = _turned(reason) if verdict else None
    if changed is None:
        changed = _other_fact(rng, reason, described=answer.startswith("There is a"))
    if verdict and not reason.startswith(", both"):  # there the changed colour is the error
        changed = OPPOSITE[verdict[1]] + changed
    elif verdict:
        changed = verdict[1] + changed
    return changed if changed != answer else "No."


def _turned(reason: str) -> str | None:
    """The opposite reason: there is no cat, where there is one; both are red, where one is."""
    apart = re.fullmatch(r", the \w+ is (\w+) and the \w+ is \w+\.", reason)
    if apart:
        return f", both are {apart[1]}."
    there = re.fullmatch(r", there is (no|an?) (\w+)\.", reason)
    if not there:
        return None
    noun = there[2]
    return f", there is {questions.a(noun) if there[1] == 'no' else f'no {noun}'}."


def _other_fact(rng: np.random.Generator, text: str, *, described: bool) -> str:
    """The text with one word of fact replaced by another that it does not hold."""
    families = [tuple(scenes.COLORS), tuple(scenes.CELLS)]
    families += [tuple(scenes.KINDS)] if described else [questions.COUNTS[1:4], scenes.PLACES]
    found = [(f, words) for f in families if (words := [w for w in f if _has(text, w)])]
    if not found:
        return text
    family, words = scenes.pick(rng, found) if described else found[0]
    old = scenes.pick(rng, words)
    new = scenes.pick(rng, [word for word in family if word not in words])
    if family == questions.COUNTS[1:4]:
        return questions.count_statement(questions.COUNTS.index(new))
    phrase = re.search(rf"\b(?:an? )?{old}\b", text)[0]
    new = questions.a(new) if phrase != old else new
    return text.replace(phrase, new, 1)


def _has(text: str, word: str) -> bool:
    return re.search(rf"\b{word}\b", text) is not None


def gallery(count: int, *, seed: int, typical: bool) -> list[tuple[Any, str]]:
    """Pictures of the world with a question and its true answer, for looking at.

    Args:
        count: how many.
        seed: of scenes and questions.
        typical: whether all things have their typical colour, or none has.
    """
    rng = np.random.default_rng([seed, 3])
    shown = []
    for number in range(count):
        scene = scenes.sample(rng, p_typical=float(typical), p_belongs=0.9 if typical else 0.3)
        asked = questions.ask(rng, scene, ("color", "presence", "description")[number % 3])
        shown.append((scenes.draw(scene, rng), f"Q: {asked.text}\nA: {asked.answer}"))
    return shown
