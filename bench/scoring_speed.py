"""Time the four scorers at the official sizes, from answers to metrics with 95 % intervals.

    python -m bench.scoring_speed

The icon world makes the benchmarks: 302 instances, 300 descriptions, 1,004 + 14,216 items and 96
replies. One core.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from napo.benchmarks import module, options
from napo.benchmarks.judges import RuleJudge
from napo.benchmarks.runner import with_intervals
from napo.config.benchmarks import BENCHMARKS
from napo.config.profile import Evaluation
from napo.errors import NapoError
from napo.icon_world import questions, scenes
from napo.icon_world.benchmarks import make_benchmarks
from napo.icon_world.judge import judge_by_truth

SIZES = {
    "vlind": 302,
    "object_halbench": 300,
    "amber_generative": 1004,
    "amber_discriminative": 14216,
    "mmhal": 96,
}
SHORT = {"vlind": ("True.", "False.", "I cannot say"), "amber": ("Yes", "No")}


def seconds(folder: Path, name: str, extractor: str) -> float:
    """The time of a scorer on random answers, in seconds."""
    rng = np.random.default_rng(0)
    chosen = options(name, Evaluation(extractor=extractor), RuleJudge(judge_by_truth))
    benchmark = module(name).load(folder / name)
    answers = {}
    for request in module(name).requests(benchmark, **chosen.asking):
        described = name not in SHORT or request.text == "Describe this image."
        text = questions.describe(scenes.sample(rng)) if described else rng.choice(SHORT[name])
        answers[request.id] = str(text)
    started = time.perf_counter()
    metrics, items = module(name).evaluate(benchmark, answers, **chosen.scoring)
    with_intervals(metrics, items, BENCHMARKS[name].ratios)
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_benchmarks(Path(folder), sizes=SIZES)
        for name in ("vlind", "object_halbench", "amber", "mmhal"):
            for extractor in ("vocabulary", "wordnet"):
                try:
                    spent = f"{seconds(Path(folder), name, extractor):6.2f} s"
                except NapoError as error:
                    spent = f"not timed: {error}"
                print(f"{name:16} {extractor:10} {spent}", flush=True)


if __name__ == "__main__":
    main()
