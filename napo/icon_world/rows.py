"""Preference rows of the icon world, in the columns of RLAIF-V."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from napo.config import Decoding
from napo.generate import Prompt, generate
from napo.icon_world import questions, scenes, truth
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
            right = truth.answers(text, asked, scene) and truth.all_true(text, asked, scene)
            if text and not right and not response.cut:
                row["rejected"], row["truth"]["rejected_by"] = text, "model"
        open_rows = [row for row in open_rows if not row["rejected"]]
    for row in open_rows:
        row["rejected"], row["truth"]["rejected_by"] = corrupt(rng, row["chosen"]), "rule"
    for row in rows:
        row["truth"] = json.dumps(row["truth"], sort_keys=True)


def corrupt(rng: np.random.Generator, answer: str) -> str:
    """The answer with one fact changed: a verdict, a colour, a corner, a count or a thing."""
    opposite = {"Yes": "No", "No": "Yes", "True": "False", "False": "True"}
    first = re.match(r"(Yes|No|True|False)\b", answer)
    if first and not re.search(r"[a-z] [a-z]", answer):
        return opposite[first[1]] + answer[first.end() :]
    families = (
        tuple(scenes.COLORS),
        tuple(scenes.CELLS),
        questions.COUNTS[1:4],
        tuple(scenes.KINDS),
    )
    changed = answer
    for family in families:
        found = [word for word in family if re.search(rf"\b{word}\b", answer)]
        if found:
            old = scenes.pick(rng, found)
            new = scenes.pick(rng, [word for word in family if word not in found])
            phrase = re.search(rf"\b(?:an? )?{old}\b", answer)[0]
            changed = answer.replace(phrase, _phrase(phrase, new), 1)
            break
    if first:
        changed = opposite[first[1]] + changed[first.end() :]
    return changed if changed != answer else "No."


def _phrase(old: str, new: str) -> str:
    return questions.a(new) if old.startswith(("a ", "an ")) else new


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
