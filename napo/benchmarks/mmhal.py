"""MMHal-Bench: eight types of question, rated 0 to 6 by a judge.

Official scorer: Shengcao1006/MMHal-Bench (and RLHF-V/RLAIF-V's informativeness). Scores of
different judges are not comparable; every result names its judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.benchmarks import Options, Request, checked_answers, checked_images, expect_count
from napo.benchmarks.judges import OpenAIJudge, Rule, RuleJudge
from napo.config.benchmarks import BENCHMARKS
from napo.errors import NapoError
from napo.workspace.files import read_json

if TYPE_CHECKING:
    import pandas as pd

OFFICIAL_COUNT = 96
TYPES = 8  # question i is of type i mod 8
RATIOS = BENCHMARKS["mmhal"].ratios
Judge = RuleJudge | OpenAIJudge


@dataclass(frozen=True)
class Benchmark:
    """The questions of `response_template.json`."""

    folder: Path
    items: list[dict[str, Any]]


def options(settings: Any, judge: Judge | None = None) -> Options:
    """The options of `napo.config.profile.Evaluation` that this benchmark takes."""
    return Options({}, {"judge": judge}, judge.record if judge else {"judge": settings.judge})


def load(folder: Path) -> Benchmark:
    """Read `response_template.json`.

    Raises:
        NapoError: when it is missing or the count is wrong.
    """
    folder = Path(folder)
    items = read_json(folder / "response_template.json")
    expect_count(folder, len(items), OFFICIAL_COUNT, "questions")
    return Benchmark(folder, items)


def requests(benchmark: Benchmark) -> list[Request]:
    """What the model is asked; the id is the question's number.

    Raises:
        NapoError: listing the ids whose image is missing or outside the folder.
    """
    asked, root = [], benchmark.folder.resolve()
    for number, item in enumerate(benchmark.items):
        source = item["image_src"]
        # The download names images as their address does (Flickr's name), or by image_id.
        places = (source, f"images/{item['image_id']}.jpg", f"images/{source.rpartition('/')[2]}")
        paths = [benchmark.folder / place for place in places if "://" not in place]
        there = [p for p in paths if p.is_file() and p.resolve().is_relative_to(root)]
        path = there[0] if there else benchmark.folder / f"images/{item['image_id']}.jpg"
        asked.append(Request(str(number), item["question"], path))
    remedy = "download it from the image_src of response_template.json"
    return checked_images(asked, benchmark.folder, "MMHal-Bench", remedy)


def read_rating(reply: str) -> int:
    """The rating of a judge's reply: the one digit s in 0..6 after `rating: `, else 0.

    None or several different ones give 0, as in the official script.
    """
    reply = reply.lower()
    found = [score for score in range(7) if f"rating: {score}" in reply]
    return found[0] if len(found) == 1 else 0


def score(replies: Sequence[str]) -> dict[str, Any]:
    """Score (mean rating), hallucination rate (share below 3), by type, informativeness (percent).

    Args:
        replies: one judge's reply a question, in the order of the questions.
    """
    return _scores(items(replies))


def items(replies: Sequence[str]) -> pd.DataFrame:
    """One row a question: rating, whether it is a hallucination, how informative."""
    import pandas as pd

    ratings = [read_rating(reply) for reply in replies]
    return pd.DataFrame(
        {
            "question": range(len(ratings)),
            "type": [number % TYPES for number in range(len(ratings))],
            "rating": ratings,
            "hallucination": [int(rating < 3) for rating in ratings],
            "informative": [rating - 3 if rating >= 3 else rating for rating in ratings],
            "three": 3,
            "one": 1,
        }
    )


def _scores(frame: pd.DataFrame) -> dict[str, Any]:
    by_type = frame.groupby("type")["rating"].mean()
    return {
        "score": float(frame["rating"].mean()),
        "hallucination_rate": float(frame["hallucination"].mean()),
        "by_type": [round(float(value), 2) for value in by_type],
        "informativeness": float(frame["informative"].mean() / 3 * 100),
    }


def evaluate(
    benchmark: Benchmark, answers: Mapping[str, str], *, judge: Judge | Rule | None
) -> tuple[dict[str, float], pd.DataFrame]:
    """Have a judge rate a model's answers.

    Args:
        benchmark: what `load` gave.
        answers: request id -> response.
        judge: a judge, or any function (item, answer) -> reply.

    Raises:
        NapoError: without a judge, or listing the ids without an answer.
    """
    asked = [str(number) for number in range(len(benchmark.items))]
    checked_answers(answers, asked, "MMHal-Bench")
    if judge is None:
        raise NapoError("MMHal-Bench needs a judge; set evaluation.judge and its endpoint.")
    texts = [answers[name].replace("Assistant:", "").strip() for name in asked]
    if not isinstance(judge, Judge):
        judge = RuleJudge(judge)
    frame = items(judge.replies(zip(benchmark.items, texts, strict=True)))
    scores = _scores(frame)
    return {name: scores[name] for name in RATIOS}, frame
