"""Time the four scorers on synthetic answers of the official sizes, from answers to metrics.

    python -m bench.scoring_speed

302 instances with 12 images, 300 descriptions, 1,004 + 14,216 items, 96 replies; one core, 95 %
intervals included. Pictures and official files are not needed.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from napo.benchmarks import amber, mmhal, object_halbench, vlind
from napo.benchmarks.runner import with_intervals
from napo.config.benchmarks import BENCHMARKS
from napo.errors import NapoError

FILLER = ("a", "the", "and", "with", "on", "near", "is", "some", "two", "large", "small", "old")
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in ("al", "en", "ik", "or", "us")]


def words(count: int) -> list[str]:
    """Invented names of things, the same every time."""
    return [f"{first}{second}" for first in SYLLABLES for second in SYLLABLES[:10]][:count]


def sentences(rng: np.random.Generator, names: Sequence[str], length: int) -> str:
    """A description of `length` words, a quarter of them names of things."""
    drawn = [str(rng.choice(names if rng.random() < 0.25 else FILLER)) for _ in range(length)]
    return " ".join(drawn) + "."


def vlind_answers(rng: np.random.Generator) -> tuple[dict[str, float], Any]:
    votes = {str(image): 3 for image in range(12)}
    instances = [
        {"concept": f"concept {n % 10}", "aggregated_human_label_good_images": votes}
        for n in range(302)
    ]
    stages = [f"{stage}{half}" for stage in "abc" for half in "12"]
    stages += [f"d{half}/{image}" for half in "12" for image in range(12)]
    texts = rng.choice(
        ["True.", "False.", "It is true, the sky is green.", "I cannot say"], 302 * 30
    )
    names = [f"{n}/{stage}" for n in range(302) for stage in stages]
    benchmark = vlind.Benchmark(Path(), instances)
    filled = vlind.with_answers(benchmark, dict(zip(names, map(str, texts), strict=True)))
    scores = vlind.score(filled)
    frame = vlind.items(filled)
    metrics = {name: scores[name] for name in ("c", "d_macro")}
    return with_intervals(metrics, frame, BENCHMARKS["vlind"].ratios)


def object_halbench_answers(rng: np.random.Generator, extractor: str) -> dict[str, Any]:
    names = words(407)
    lines = [", ".join(names[start : start + 5]) for start in range(0, 400, 5)]
    vocabulary = object_halbench.Vocabulary.from_text("\n".join(lines))
    heads = [line.split(", ")[0] for line in lines]
    benchmark = object_halbench.Benchmark(
        Path(),
        [{"image_id": n, "question": "?"} for n in range(300)],
        vocabulary,
        {n: set(map(str, rng.choice(heads, 3))) for n in range(300)},
        {n: [sentences(rng, names, 12) for _ in range(5)] for n in range(300)},
    )
    answers = {str(n): sentences(rng, names, 100) for n in range(300)}
    metrics, frame = object_halbench.evaluate(benchmark, answers, extractor=extractor)
    return with_intervals(metrics, frame, BENCHMARKS["object_halbench"].ratios)


def amber_answers(rng: np.random.Generator, extractor: str) -> dict[str, Any]:
    names = words(418)
    objects = names[:340]
    association = {name: list(map(str, rng.choice(names, 2))) for name in objects}
    notes: list[dict[str, Any]] = [
        {
            "id": n,
            "type": "generative",
            "truth": list(map(str, rng.choice(objects, 5))),
            "hallu": list(map(str, rng.choice(objects, 5))),
        }
        for n in range(1, 1005)
    ]
    kinds = ["discriminative-hallucination", "discriminative-attribute-state", "relation"]
    notes += [
        {"id": n, "type": kinds[n % 3], "truth": ("no", "yes")[n % 2] if n % 3 else "no"}
        for n in range(1005, 15221)
    ]
    queries = [{"id": n, "image": f"AMBER_{(n - 1) % 1004 + 1}.jpg"} for n in range(1, 15221)]
    benchmark = amber.Benchmark(
        Path(), notes, queries[:1004], queries[1004:], association, frozenset(names[:9])
    )
    answers = {str(n): sentences(rng, names, 80) for n in range(1, 1005)}
    answers |= {str(n): ("Yes", "No")[int(rng.integers(2))] for n in range(1005, 15221)}
    metrics, frame = amber.evaluate(benchmark, answers, extractor=extractor)
    return with_intervals(metrics, frame, BENCHMARKS["amber"].ratios)


def mmhal_answers(rng: np.random.Generator) -> dict[str, Any]:
    benchmark = mmhal.Benchmark(Path(), [{"question": "?"}] * 96)
    answers = {str(n): sentences(rng, words(50), 40) for n in range(96)}
    rated = iter(rng.integers(0, 7, 96))
    metrics, frame = mmhal.evaluate(
        benchmark, answers, judge=lambda item, answer: f"So it is. Rating: {next(rated)}"
    )
    return with_intervals(metrics, frame, BENCHMARKS["mmhal"].ratios)


SCORERS: dict[str, Callable[[np.random.Generator], Any]] = {
    "vlind": vlind_answers,
    "object_halbench, vocabulary": lambda rng: object_halbench_answers(rng, "vocabulary"),
    "object_halbench, wordnet": lambda rng: object_halbench_answers(rng, "wordnet"),
    "amber, vocabulary": lambda rng: amber_answers(rng, "vocabulary"),
    "amber, wordnet": lambda rng: amber_answers(rng, "wordnet"),
    "mmhal": mmhal_answers,
}


def seconds(name: str) -> float:
    """The time of a scorer, in seconds; it includes the making of the answers."""
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    SCORERS[name](rng)
    return time.perf_counter() - started


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    for name in SCORERS:
        try:
            print(f"{name:28} {seconds(name):6.2f} s", flush=True)
        except NapoError as error:
            print(f"{name:28} not timed: {error}", flush=True)


if __name__ == "__main__":
    main()
