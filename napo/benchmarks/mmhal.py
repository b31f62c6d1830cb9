"""MMHal-Bench: eight types of question, rated 0 to 6 by a judge.

Official scorer: Shengcao1006/MMHal-Bench (and RLHF-V/RLAIF-V's informativeness). Scores of
different judges are not comparable; every result names its judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.benchmarks import Mark, Options, Request, checked_answers, checked_images
from napo.benchmarks.chat import Cut
from napo.benchmarks.formats import GET_AGAIN, MmhalItem, expect_count, unique
from napo.benchmarks.judges import Judge, Rule, RuleJudge
from napo.benchmarks.lenient import Reading, rating
from napo.benchmarks.words import clean_answer
from napo.config.benchmarks import BENCHMARKS
from napo.errors import NapoError
from napo.workspace.files import read_json

if TYPE_CHECKING:
    import pandas as pd

OFFICIAL_COUNT = 96
TYPES = 8  # question i is of type i mod 8


@dataclass(frozen=True)
class Benchmark:
    """The questions of `response_template.json`."""

    folder: Path
    items: list[dict[str, Any]]


def options(settings: Any, judge: Judge | None = None) -> Options:
    """The settings of `napo.config.profile.Evaluation` that this benchmark uses."""
    return Options({}, {"judge": judge}, judge.record if judge else {"judge": settings.judge})


def load(folder: Path) -> Benchmark:
    """Read `response_template.json`.

    Raises:
        NapoError: when it is missing or damaged, the count is wrong, or a question repeats.
    """
    folder = Path(folder)
    path = folder / "response_template.json"
    items = read_json(path, list[MmhalItem], GET_AGAIN)
    unique(((item["image_id"], item["question"]) for item in items), path, "question")
    expect_count(folder, len(items), OFFICIAL_COUNT, "questions")
    return Benchmark(folder, items)


def requests(benchmark: Benchmark) -> list[Request]:
    """The questions; the id is the question's number."""
    prompts, root = [], benchmark.folder.resolve()
    for number, item in enumerate(benchmark.items):
        source, usual = item["image_src"], f"images/{item['image_id']}.jpg"
        # The download names images as their address does (Flickr's name), or by image_id.
        places = (source, usual, f"images/{source.rpartition('/')[2]}")
        paths = [benchmark.folder / place for place in places if "://" not in place]
        paths = [path for path in paths if path.is_file() and path.resolve().is_relative_to(root)]
        image = paths[0] if paths else benchmark.folder / usual
        prompts.append(Request(str(number), item["question"], image))
    remedy = "download it from the image_src of response_template.json"
    return checked_images(prompts, benchmark.folder, "MMHal-Bench", remedy)


def read_rating(reply: str) -> int:
    """The rating in a judge's reply: the digit 0 to 6 that follows `rating: `.

    No such digit, or several different ones, give 0, as in the official script.
    """
    return _only_rating(reply) or 0


def read_both(reply: str) -> Reading:
    """The rating in a reply as the official and the lenient reader read it.

    A `Cut` reply is unreadable for both. The official score still takes the digit in its text, as
    the official script does; `answers.unreadable` counts the reply.
    """
    if isinstance(reply, Cut):
        return Reading(None, None)
    return Reading(_only_rating(reply), rating(reply))


def _only_rating(reply: str) -> int | None:
    reply = reply.lower()
    ratings = [score for score in range(7) if f"rating: {score}" in reply]
    return ratings[0] if len(ratings) == 1 else None


def items(replies: Sequence[str]) -> pd.DataFrame:
    """One row for each question: rating, whether it is a hallucination, how informative."""
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


def score(replies: Sequence[str]) -> dict[str, Any]:
    """The official numbers of a judge's replies, in the order of the questions.

    Returns:
        score (mean rating), hallucination_rate (share of ratings below 3), by_type (mean rating of
        each type, two decimals), informativeness (percent).
    """
    frame = items(replies)
    by_type = frame.groupby("type")["rating"].mean()
    return {
        "score": float(frame["rating"].mean()),
        "hallucination_rate": float(frame["hallucination"].mean()),
        "by_type": [round(float(value), 2) for value in by_type],
        "informativeness": float(frame["informative"].mean() / 3 * 100),
    }


def judge_replies(
    benchmark: Benchmark, answers: Mapping[str, str], judge: Judge | Rule | None
) -> list[str]:
    """The judge's replies to a model's answers, in the order of the questions.

    Raises:
        NapoError: without a judge, or listing the ids without an answer.
    """
    ids = [str(number) for number in range(len(benchmark.items))]
    checked_answers(answers, ids, "MMHal-Bench")
    if judge is None:
        raise NapoError("MMHal-Bench needs a judge; set evaluation.judge and its endpoint.")
    if not isinstance(judge, Judge):
        judge = RuleJudge(judge)
    texts = [clean_answer(answers[name]) for name in ids]
    return judge.replies(zip(benchmark.items, texts, strict=True))


def readings(
    benchmark: Benchmark, answers: Mapping[str, str], *, judge: Judge | Rule | None
) -> list[Reading]:
    """What both readers read in each of the judge's replies."""
    return [read_both(reply) for reply in judge_replies(benchmark, answers, judge)]


def evaluate(
    benchmark: Benchmark,
    answers: Mapping[str, str],
    *,
    judge: Judge | Rule | None,
    lenient: bool = False,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Rate a model's answers with a judge, or with any function (item, answer) -> reply.

    `lenient` reads a reply by `napo.benchmarks.lenient.rating`, and officially only where that is
    in doubt or the reply was cut.

    Raises:
        NapoError: without a judge, or listing the ids without an answer.
    """
    replies = judge_replies(benchmark, answers, judge)
    if lenient:
        ratings = [read_both(reply).lenient for reply in replies]
        replies = [
            reply if number is None else f"Rating: {number}"
            for reply, number in zip(replies, ratings, strict=True)
        ]
    scores = score(replies)
    return {name: scores[name] for name in BENCHMARKS["mmhal"].ratios}, items(replies)


def marks(
    benchmark: Benchmark, answers: Mapping[str, str], items: pd.DataFrame, **_: Any
) -> dict[str, Mark]:
    """Each answer beside the reference answer; a rating below 3 is a hallucination."""
    return {
        str(number): Mark(
            benchmark.items[number]["gt_answer"], f"rating {rating} of 6", rating >= 3, place
        )
        for place, (number, rating) in enumerate(
            zip(items["question"], items["rating"], strict=True)
        )
        if str(number) in answers
    }
