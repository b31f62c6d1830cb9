"""VLind-Bench: language priors (LP) and commonsense bias (CB) in four stages.

Official scorer: klee972/VLind-Bench. Each stage asks one question whose answer is True and one
whose answer is False; an instance passes the stage if both answers are right. The paper's CB and LP
are the raw accuracies `c` and `d_macro`: every CB that it prints is some k/302.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.benchmarks import Mark, Options, Request, checked_answers, checked_images
from napo.benchmarks.formats import GET_AGAIN, VlindInstance, expect_count, unique
from napo.benchmarks.lenient import Reading, true_or_false
from napo.config.benchmarks import BENCHMARKS
from napo.errors import NapoError
from napo.workspace.files import read_json

if TYPE_CHECKING:
    import pandas as pd

OFFICIAL_COUNT = 302
STYLES = {"photorealistic": range(0, 4), "illustration": range(4, 8), "cartoon": range(8, 12)}
STAGES = {"a": "_image", "b": "", "c": "_image"}  # suffixes of the official keys of a response

_ASK = "is the given statement true or false?"
_ONLY = "Only respond in True or False."
_FORGET = "Forget real-world common sense and just follow the information provided in the"
COMMON_SENSE = f"Statement: {{statement}}\nBased on common sense, {_ASK} {_ONLY}"
SIMPLE = f"Statement: {{statement}}\nBased on the image, {_ASK} {_ONLY}"
CONTEXT = (
    f"Context: {{context}}\nStatement: {{statement}}\nBased on the context, {_ASK} "
    f"{_FORGET} context. {_ONLY}"
)
IMAGE = f"Statement: {{statement}}\nBased on the image, {_ASK} {_FORGET} image. {_ONLY}"


@dataclass(frozen=True)
class Benchmark:
    """The instances of `data.json`, and the folder that holds it and `images/`."""

    folder: Path
    instances: list[dict[str, Any]]


def options(settings: Any, judge: Any = None) -> Options:
    """The settings of `napo.config.profile.Evaluation` that this benchmark uses."""
    chosen = {"vote_threshold": settings.vote_threshold, "vlind_image": settings.vlind_image}
    return Options(chosen, chosen, chosen)


def read_answer(text: str) -> str:
    """Read a response as "True", "False" or "NA", as the official scorer does.

    Lower-case, newlines to spaces, commas and full stops deleted, split at single spaces: the
    first piece that is "true" or "false" counts. Nothing else is stripped, so "True!" is NA.
    """
    text = text.lower().replace("\n", " ").replace(",", "").replace(".", "")
    for piece in text.split(" "):
        if piece in ("true", "false"):
            return piece.capitalize()
    return "NA"


def readings(benchmark: Benchmark, answers: Mapping[str, str], **_: Any) -> list[Reading]:
    """True, False or None in each answer; officially None is NA, which is wrong."""
    official = {"True": "True", "False": "False"}
    return [
        Reading(official.get(read_answer(text)), true_or_false(text)) for text in answers.values()
    ]


def good_images(instance: Mapping[str, Any], threshold: int = 2, style: str = "all") -> list[str]:
    """Ids of the images that enough annotators accepted, of one style or of all."""
    allowed = STYLES.get(style)
    votes = instance["aggregated_human_label_good_images"]
    return [
        image
        for image, count in votes.items()
        if count >= threshold and (allowed is None or int(image) in allowed)
    ]


def load(folder: Path) -> Benchmark:
    """Read the official download: `data.json` and `images/`.

    Raises:
        NapoError: when the file is missing or damaged, the count is wrong, or an instance repeats.
    """
    folder = Path(folder)
    instances = read_json(folder / "data.json", list[VlindInstance], GET_AGAIN)
    names = ("concept", "context_id", "context", "true_statement", "existent_noun")
    unique((tuple(map(i.get, names)) for i in instances), folder / "data.json", "instance")
    expect_count(folder, len(instances), OFFICIAL_COUNT, "instances")
    return Benchmark(folder, instances)


def _image(benchmark: Benchmark, instance: Mapping[str, Any], image: str, world: str) -> Path:
    sentence = instance["context" if world == "counterfactual" else "factual_context"]
    parent = benchmark.folder / "images" / world / instance["concept"]
    path = parent / f"{instance['context_id']}_{sentence}" / f"{image}.jpg"
    if not path.is_file():  # releases differ in how they write the sentence
        start = glob.escape(str(instance["context_id"]).replace("/", ""))
        path = min(parent.glob(f"{start}_*/{glob.escape(image)}.jpg"), default=path)
    return path


def requests(
    benchmark: Benchmark, *, vote_threshold: int = 2, vlind_image: str = "best"
) -> list[Request]:
    """The prompts of all stages; ids are `<number>/<stage><1|2>` and `<number>/d<1|2>/<image>`.

    Args:
        benchmark: from `load`.
        vote_threshold: votes that make an image good; an instance without one is left out.
        vlind_image: the image of stages b and c, "best" (upstream's `best_img_id`) or "most_votes".

    Raises:
        NapoError: listing the ids whose image is missing.
    """
    prompts = [
        Request(f"{number}/{name}", text, image)
        for number, instance in enumerate(benchmark.instances)
        if good_images(instance, vote_threshold)
        for name, text, image in _prompts(benchmark, instance, vote_threshold, vlind_image)
    ]
    return checked_images(prompts, benchmark.folder, "VLind-Bench", GET_AGAIN)


def _prompts(
    benchmark: Benchmark, instance: Mapping[str, Any], threshold: int, choice: str
) -> Iterator[tuple[str, str, Path]]:
    votes = instance["aggregated_human_label_good_images"]
    # The first of equals, as in the released code's stable sort.
    best = str(instance["best_img_id"]) if choice == "best" else max(votes, key=votes.get)
    shown = _image(benchmark, instance, best, "counterfactual")
    factual = _image(benchmark, instance, "0", "factual")
    true, false = instance["true_statement"], instance["false_statement"]
    # Stage a swaps the statements: common sense accepts the statement that the image contradicts.
    for half, statement in (("1", false), ("2", true)):
        yield f"a{half}", COMMON_SENSE.format(statement=statement), factual
    for half, key in (("1", "existent_noun"), ("2", "non-existent_noun")):
        statement = f"There is {instance[key]} in the given image."
        yield f"b{half}", SIMPLE.format(statement=statement), shown
    for half, statement in (("1", true), ("2", false)):
        yield f"c{half}", CONTEXT.format(context=instance["context"], statement=statement), shown
    for image in good_images(instance, threshold):
        path = _image(benchmark, instance, image, "counterfactual")
        for half, statement in (("1", true), ("2", false)):
            yield f"d{half}/{image}", IMAGE.format(statement=statement), path


def with_answers(
    benchmark: Benchmark, answers: Mapping[str, str], key: str = "m_pred", threshold: int = 2
) -> list[dict[str, Any]]:
    """The instances with the model's answers under the official keys, as `score` reads them."""

    def entry(request: str) -> dict[str, str]:
        return {"response": answers[request], "answer": read_answer(answers[request])}

    filled = []
    for number, instance in enumerate(benchmark.instances):
        instance, good = dict(instance), good_images(instance, threshold)
        for half in "12" if good else "":
            for stage, suffix in STAGES.items():
                instance[f"{key}_{stage}{half}{suffix}"] = entry(f"{number}/{stage}{half}")
            instance[f"{key}_d{half}"] = {i: entry(f"{number}/d{half}/{i}") for i in good}
        filled.append(instance)
    return filled


def items(
    instances: Sequence[Mapping[str, Any]],
    key: str = "m_pred",
    vote_threshold: int = 2,
    style: str = "all",
) -> pd.DataFrame:
    """One row for each instance with a good image: which stages it passes, and their halves.

    Columns: instance, concept, images, A, B, C, c_pass, bc_pass, d, d_pass, d_right, images_pass,
    d_right_pass, c_true, c_false, d_true, d_false, d_says_true, one.

    Raises:
        NapoError: when no instance has a good image (the official script divides by zero).
    """
    import pandas as pd

    rows = []
    for number, instance in enumerate(instances):
        good = good_images(instance, vote_threshold, style)
        if not good:
            continue
        halves = {
            stage: (
                instance[f"{key}_{stage}1{suffix}"]["answer"] == "True",
                instance[f"{key}_{stage}2{suffix}"]["answer"] == "False",
            )
            for stage, suffix in STAGES.items()
        }
        a, b, c = (all(halves[stage]) for stage in "abc")
        first = [instance[f"{key}_d1"][image]["answer"] for image in good]
        second = [instance[f"{key}_d2"][image]["answer"] for image in good]
        right = sum(pair == ("True", "False") for pair in zip(first, second, strict=True))
        share, reached = right / len(good), a and b and c
        rows.append(
            {
                "instance": number,
                "concept": instance["concept"],
                "images": len(good),
                "A": int(a),
                "B": int(b),
                "C": int(c),
                "c_pass": int(a and c),
                "bc_pass": int(reached),
                "d": share,
                "d_pass": share if reached else 0.0,
                "d_right": right,
                "images_pass": len(good) if reached else 0,
                "d_right_pass": right if reached else 0,
                "c_true": int(halves["c"][0]),
                "c_false": int(halves["c"][1]),
                "d_true": first.count("True") / len(good),
                "d_false": second.count("False") / len(good),
                "d_says_true": (first + second).count("True") / (2 * len(good)),
                "one": 1,
            }
        )
    if not rows:
        raise NapoError(f"VLind-Bench: no instance has an image with {vote_threshold} votes.")
    return pd.DataFrame(rows)


def score(
    instances: Sequence[Mapping[str, Any]],
    key: str = "m_pred",
    vote_threshold: int = 2,
    style: str = "all",
) -> dict[str, Any]:
    """The official numbers, percent and unrounded, for the total and for each concept.

    Args:
        instances: `data.json` with the answers under the official keys `<key>_a1_image`, ...
        key: the model's prefix of those keys.
        vote_threshold: votes that make an image good.
        style: photorealistic, illustration, cartoon, or all.

    Returns:
        a_pass_ratio, b_pass_ratio, c_pass_ratio, d_pass_ratio_macro, c, d_macro, CB (= c),
        LP (= d_macro), d_pass_ratio_micro (by image), d_micro (a count: images answered right),
        instances, images, per_concept. A concept's d_pass_ratio_micro is computed like the total's;
        the official script leaves it at 0 by mistake.

    Raises:
        NapoError: when no instance has a good image.
    """
    frame = items(instances, key, vote_threshold, style)
    concepts = {name: _scores(part) for name, part in frame.groupby("concept")}
    return {**_scores(frame), "per_concept": concepts}


def _scores(frame: pd.DataFrame) -> dict[str, Any]:
    count = len(frame)

    def total(name: str) -> float:
        # Added one by one, as the official script does: another order may round the other way.
        return sum(frame[name].tolist())

    def share(part: float, whole: float) -> float:
        return float(part / whole * 100) if whole else 0.0

    scores: dict[str, Any] = {
        "a_pass_ratio": share(total("A"), count),
        "b_pass_ratio": share(total("B"), count),
        "c_pass_ratio": share(total("c_pass"), total("A")),
        "d_pass_ratio_macro": share(total("d_pass"), total("bc_pass")),
        # These two multiply first, which in rare ties decides the last digit.
        "c": float(total("C") * 100 / count),
        "d_macro": float(total("d") * 100 / count),
        "d_pass_ratio_micro": share(total("d_right_pass"), total("images_pass")),
        "d_micro": total("d_right"),
    }
    scores |= {"CB": scores["c"], "LP": scores["d_macro"]}
    return {**scores, "instances": count, "images": int(frame["images"].sum())}


def evaluate(
    benchmark: Benchmark,
    answers: Mapping[str, str],
    *,
    vote_threshold: int = 2,
    vlind_image: str = "best",
    lenient: bool = False,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Score a model's answers; the other arguments are those of `requests`.

    `lenient` reads an answer by `true_or_false`, and officially only where that is in doubt.

    Returns:
        The metrics of the benchmark's entry, and the items that they are ratios of.

    Raises:
        NapoError: listing the ids without an answer.
    """
    prompts = requests(benchmark, vote_threshold=vote_threshold, vlind_image=vlind_image)
    checked_answers(answers, (request.id for request in prompts), "VLind-Bench")
    if lenient:
        answers = {name: true_or_false(text) or text for name, text in answers.items()}
    filled = with_answers(benchmark, answers, threshold=vote_threshold)
    frame = items(filled, vote_threshold=vote_threshold)
    scores, names = _scores(frame), BENCHMARKS["vlind"].ratios
    halves = {name: 100 * float(frame[name].mean()) for name in names if name not in scores}
    return {name: scores[name] for name in names if name in scores} | halves, frame


def marks(
    benchmark: Benchmark, answers: Mapping[str, str], items: pd.DataFrame, **_: Any
) -> dict[str, Mark]:
    """Each answer beside True or False; stages a and c are decided without the picture."""
    places = {number: place for place, number in enumerate(items["instance"])}
    marked = {}
    for request, text in answers.items():
        number, stage = request.split("/")[:2]
        truth, read = "True" if stage[1] == "1" else "False", read_answer(text)
        place = places[int(number)]
        marked[request] = Mark(truth, read, read == truth, place, about_picture=stage[0] in "bd")
    return marked
