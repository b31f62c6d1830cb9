"""MMHal-Bench: eight types of question, rated 0 to 6 by a judge.

Official scorer: Shengcao1006/MMHal-Bench (and RLHF-V/RLAIF-V's informativeness). Scores of
different judges are not comparable; every result names its judge.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.benchmarks import Options, Ratio, Request, checked_answers, expect_count
from napo.errors import NapoError
from napo.workspace import read_json

if TYPE_CHECKING:
    import pandas as pd

OFFICIAL_COUNT = 96
TYPES = 8  # question i is of type i mod 8
RATIOS = {
    "score": Ratio("rating", "one"),
    "hallucination_rate": Ratio("hallucination", "one"),
    "informativeness": Ratio("informative", "three", 100),
}
Judge = Callable[[Mapping[str, Any], str], str]


@dataclass(frozen=True)
class Benchmark:
    """The questions of `response_template.json`."""

    folder: Path
    items: list[dict[str, Any]]


def options(settings: Any, judge: Judge | None = None) -> Options:
    """The options of `napo.config.Evaluation` that this benchmark takes."""
    named = {"judge": settings.judge, "judge_model": settings.judge_model}
    return Options({}, {"judge": judge}, named)


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
    """What the model is asked; the id is the question's number."""
    asked = []
    for number, item in enumerate(benchmark.items):
        places = (item["image_src"], f"images/{item['image_id']}.jpg", Path(item["image_src"]).name)
        paths = [benchmark.folder / place for place in places if "://" not in place]
        path = next((path for path in paths if path.is_file()), None)
        if path is None or not path.resolve().is_relative_to(benchmark.folder.resolve()):
            raise NapoError(
                f"MMHal-Bench: the image {item['image_id']} of question {number} is not in "
                f"{benchmark.folder}/images; download it from {item['image_src']}."
            )
        asked.append(Request(str(number), item["question"], path))
    return asked


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
    benchmark: Benchmark, answers: Mapping[str, str], *, judge: Judge | None
) -> tuple[dict[str, float], pd.DataFrame]:
    """Have a judge rate a model's answers.

    Args:
        benchmark: what `load` gave.
        answers: request id -> response.
        judge: (item, answer) -> reply.

    Raises:
        NapoError: without a judge, or listing the ids without an answer.
    """
    asked = [str(number) for number in range(len(benchmark.items))]
    checked_answers(answers, asked, "MMHal-Bench")
    if judge is None:
        raise NapoError("MMHal-Bench needs a judge; set evaluation.judge and its endpoint.")
    texts = [answers[name].replace("Assistant:", "").strip() for name in asked]
    frame = items([judge(item, text) for item, text in zip(benchmark.items, texts, strict=True)])
    scores = _scores(frame)
    return {name: scores[name] for name in RATIOS}, frame


def unreadable(answers: Mapping[str, str]) -> int:
    """How many answers are empty."""
    return sum(not text.strip() for text in answers.values())
