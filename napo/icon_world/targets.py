"""How closely the icon world resembles the data that it stands for, measured with a base model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from napo.benchmarks import vlind
from napo.config.profile import Decoding
from napo.config.settings import Masks
from napo.config.variants import BIASED
from napo.icon_world.benchmarks import make_benchmarks
from napo.icon_world.rows import make_rows
from napo.icon_world.truth import label_by_truth
from napo.models.generate import Prompt, biased_prompts, generate

if TYPE_CHECKING:
    import pandas as pd
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

FEW = {"object_halbench": 1, "amber_generative": 1, "amber_discriminative": 1, "mmhal": 8}


@dataclass(frozen=True)
class Target:
    """A range that a measured number should lie in."""

    name: str
    low: float
    high: float


WORDS = Target("words of vision-biased over words of chosen responses", 0.7, 1.5)
OTHER_WORDS = Target("language-biased noise worded differently from the chosen response", 0.7, 1)
NOISE = {
    name: Target(f"noise among {name.replace('_', '-')} responses to questions", 0.15, 0.5)
    for name in BIASED
}
OPENING = Target("chosen or vision-biased? right by the first two words", 0.5, 0.75)
LP = Target("VLind LP of the base model, percent", 35, 60)
CB = Target("VLind CB of the base model, percent", 90, 100)


def measure(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    masks: Masks,
    *,
    count: int = 600,
    instances: int = 200,
    seed: int = 1,
) -> pd.DataFrame:
    """Measure every target on rows and VLind instances of its own.

    Args:
        model: the base model.
        processor: its processor.
        masks: how a modality is hidden, and how the biased responses are decoded.
        count: preference rows.
        instances: of VLind-Bench's validation split.
        seed: of rows and instances.

    Returns:
        A row for each target: target, measured, low, high, met.
    """
    import pandas as pd

    rows = make_rows(model, processor, count=count, seed=seed, p_typical=0.5)
    for name, prompts in biased_prompts(rows, masks).items():
        answers = generate(model, processor, prompts, masks.decoding, seed=seed)
        for row, answer in zip(rows, answers, strict=True):
            row[name] = answer.text
    measured = {**of_rows(rows), **of_model(model, processor, instances, seed)}
    table = [
        {"target": target.name, "measured": value, "low": target.low, "high": target.high,
         "met": target.low <= value <= target.high}
        for target, value in measured.items()
    ]  # fmt: skip
    return pd.DataFrame(table)


def of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[Target, float]:
    """The targets that rows with biased responses decide."""
    lengths = {name: sum(len(row[name].split()) for row in rows) for name in ("chosen", *BIASED)}
    labels = {name: [label_by_truth(row, name) for row in rows] for name in BIASED}
    measured = {WORDS: lengths["vision_biased"] / lengths["chosen"]}
    for name, target in NOISE.items():
        of_questions = [label for label, group in labels[name] if group == "question"]
        measured[target] = of_questions.count("unbiased") / len(of_questions)
    noise = [
        row
        for row, label in zip(rows, labels["language_biased"], strict=True)
        if label == ("unbiased", "question")
    ]
    differing = sum(row["language_biased"] != row["chosen"] for row in noise)
    measured[OTHER_WORDS] = differing / max(1, len(noise))
    asked = [row for row in rows if json.loads(row["truth"])["question"]["group"] == "question"]
    measured[OPENING] = told_by_opening(asked)
    return measured


def told_by_opening(rows: Sequence[Mapping[str, Any]], words: int = 2) -> float:
    """How often the first words tell a vision-biased response from a chosen one.

    Of each opening, the first half of the rows says which of the two it is more often; the second
    half is judged by that. 0.5 is chance.
    """

    def openings(part: Iterable[Mapping[str, Any]], name: str) -> list[str]:
        return [" ".join(row[name].split()[:words]) for row in part]

    half = len(rows) // 2
    seen = {name: Counter(openings(rows[:half], name)) for name in ("chosen", "vision_biased")}
    right = 0
    for name, other in (("chosen", "vision_biased"), ("vision_biased", "chosen")):
        for opening in openings(rows[half:], name):
            counts = seen[name][opening], seen[other][opening]
            right += 0.5 if counts[0] == counts[1] else counts[0] > counts[1]
    return right / (2 * (len(rows) - half))


def of_model(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, instances: int, seed: int
) -> dict[Target, float]:
    """LP and CB on instances of the validation split."""
    with TemporaryDirectory() as folder:
        sizes = {"vlind": instances, **FEW}
        make_benchmarks(Path(folder), sizes=sizes, seed=seed, split="validation")
        benchmark = vlind.load(Path(folder) / "vlind")
        requests = list(vlind.requests(benchmark))
        prompts = [Prompt(request.text, request.open()) for request in requests]
        answers = generate(model, processor, prompts, Decoding(max_new_tokens=48))
        pairs = zip(requests, answers, strict=True)
        scores, _ = vlind.evaluate(benchmark, {request.id: a.text for request, a in pairs})
    return {LP: scores["d_macro"], CB: scores["c"]}
