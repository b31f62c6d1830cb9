"""Object HalBench: objects that a description names and the image does not hold (CHAIR).

Official scorers: RLHF-V/RLAIF-V's, after LisaAnne/Hallucination. An object is one of COCO's 80
classes, named by any of its synonyms; the truth of an image is what its instance annotations and
its reference captions name.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.benchmarks import Options, Request, checked_answers, expect_count, words
from napo.benchmarks.object_words import Vocabulary, match_phrases, match_words
from napo.benchmarks.words import clean_answer
from napo.errors import NapoError
from napo.workspace.files import read_json

if TYPE_CHECKING:
    import pandas as pd

OFFICIAL_COUNT = 300
QUESTION_FILES = (
    "questions.jsonl",
    "obj_halbench_300_with_image.jsonl",
    "chair_instruction2_img_diversify_8_noemo_test_300.jsonl",
)
SHORT_ANSWER = 3  # words; the LLM gets no answer this short
ATTEMPTS = 100  # to get a list from the LLM, as in the official script

LIST_OBJECTS = """\
You are an expert in finding the objects of an image in a question and its answer. An examiner \
was asked about a picture.

[Question]
<image> {question}
[End of question]

[Examiner's answer]
{answer}
[End of examiner's answer]

Take the answer to be correct and name all visible objects that it shows directly.
1. Name only objects that the answer mentions explicitly.
2. Name them without attributes.
3. No property, such as color or material, is part of a name.
4. Be precise, and reply with a JSON list of strings and nothing else.
5. If there is no object, reply with an empty JSON list: []
"""


@dataclass(frozen=True)
class Benchmark:
    """The questions with their images, and COCO's annotations of those images."""

    folder: Path
    questions: list[dict[str, Any]]
    vocabulary: Vocabulary
    classes: Mapping[int, set[str]]  # image id -> classes of its instance annotations
    captions: Mapping[int, list[str]] = field(repr=False)


def options(settings: Any, judge: Any = None) -> Options:
    """The settings of `napo.config.profile.Evaluation` that this benchmark uses."""
    scoring = {"extractor": settings.extractor}
    if settings.extractor != "llm" or judge is None:
        return Options({}, scoring, scoring)
    # The model that lists objects is the judge's: one endpoint, one budget.
    chat = getattr(judge, "chat", None)
    if chat is None:
        raise NapoError("The extractor 'llm' needs a model; set evaluation.judge to openai.")
    record = {**scoring, "extractor_model": settings.judge_model, "tagger": words.tagger()[1]}
    return Options({}, {**scoring, "judge": chat}, record)


def read_objects(reply: str) -> list[str]:
    """Objects of an LLM's reply: JSON, or a last line of JSON if the reply holds `["`.

    Raises:
        ValueError: where the official reader fails.
    """
    lines = [reply, reply.strip().split("\n")[-1]] if '["' in reply else [reply]
    for text in lines:
        try:
            return list(json.loads(text))
        except (ValueError, TypeError):  # TypeError: null or a number
            pass
    raise ValueError("the reply is no JSON list")


def llm_objects(questions: Sequence[str], texts: Sequence[str], chat: Any) -> list[list[str]]:
    """Objects of each response as a language model lists them; a short answer has none (LLM mode).

    Raises:
        NapoError: when a reply is no list, `ATTEMPTS` times.
    """
    objects: list[list[str]] = [[] for _ in texts]
    pending = [index for index, text in enumerate(texts) if len(text.split()) > SHORT_ANSWER]
    for attempt in range(ATTEMPTS):
        requests = []
        for index in pending:
            content = LIST_OBJECTS.replace("{question}", questions[index])
            content = content.replace("{answer}", texts[index])
            requests.append(
                {
                    "messages": [{"role": "system", "content": content}],
                    "temperature": 0.2,
                    "top_p": 1,
                    "max_tokens": 512,
                    "attempt": attempt,  # not sent: the kept reply of a failed attempt is not used
                }
            )
        failed = []
        for index, reply in zip(pending, chat.ask(requests), strict=True):
            try:
                objects[index] = read_objects(reply)
            except ValueError:
                failed.append(index)
        if not failed:
            return objects
        pending = failed
    raise NapoError(
        f"Object HalBench: {chat.model!r} gave no list of objects for {len(pending)} responses "
        f"({', '.join(map(str, pending[:10]))}) in {ATTEMPTS} attempts; name another judge_model."
    )


def load(folder: Path) -> Benchmark:
    """Read questions, `annotations/{instances,captions}_{train,val}2014.json` and `synonyms.txt`.

    Raises:
        NapoError: when a file is missing, an image is not annotated, or the count is wrong.
    """
    folder = Path(folder)
    path = next((folder / name for name in QUESTION_FILES if (folder / name).is_file()), None)
    if path is None:
        raise NapoError(f"{folder} lacks its questions; put one of {', '.join(QUESTION_FILES)}.")
    lines = path.read_text(encoding="utf-8").splitlines()
    questions = [json.loads(line) for line in lines if line.strip()]
    expect_count(folder, len(questions), OFFICIAL_COUNT, "questions")
    synonyms = folder / "synonyms.txt"
    if not synonyms.is_file():
        raise NapoError(f"{folder} lacks synonyms.txt; get RLAIF-V's synonyms_refine.txt.")
    vocabulary = Vocabulary.from_text(synonyms.read_text(encoding="utf-8"))
    ids = {question["image_id"] for question in questions}
    classes: dict[int, set[str]] = {}
    captions: dict[int, list[str]] = {}
    for split in ("train", "val"):
        path = folder / "annotations" / f"instances_{split}2014.json"
        if path.is_file():
            content = read_json(path)
            names = {category["id"]: category["name"] for category in content["categories"]}
            for image in content["images"]:
                if image["id"] in ids:
                    classes.setdefault(image["id"], set())
            for note in content["annotations"]:
                if note["image_id"] in ids:
                    classes.setdefault(note["image_id"], set()).add(names[note["category_id"]])
        path = folder / "annotations" / f"captions_{split}2014.json"
        for note in read_json(path)["annotations"] if path.is_file() else ():
            if note["image_id"] in ids:
                captions.setdefault(note["image_id"], []).append(note["caption"])
    lost = sorted(ids - set(classes))
    if lost:
        raise NapoError(
            f"{folder}/annotations holds no instances for {len(lost)} images "
            f"({', '.join(map(str, lost[:10]))}); get COCO's 2014 train and val annotations."
        )
    return Benchmark(folder, questions, vocabulary, classes, captions)


def requests(benchmark: Benchmark) -> list[Request]:
    """The questions; the id is the line's number."""
    return [
        Request(str(number), question["question"], base64.b64decode(question["image"]))
        for number, question in enumerate(benchmark.questions)
    ]


def ground_truth(benchmark: Benchmark, image: int, extractor: str = "wordnet") -> set[str]:
    """Classes of an image: of its instance annotations and of the words of its captions."""
    entries = benchmark.vocabulary.entries
    classes = {entries.get(name, name) for name in benchmark.classes[image]}
    for caption in benchmark.captions.get(image, []):
        classes |= {name for _, name in match_words(caption, benchmark.vocabulary, extractor)}
    return classes


def items(
    matched: Sequence[Sequence[tuple[str, str]]],
    ground_truth: Sequence[set[str]],
    texts: Sequence[str],
) -> pd.DataFrame:
    """One row a response: matched and hallucinated words, recalled and true classes, words."""
    import pandas as pd

    rows = []
    for pairs, truth, text in zip(matched, ground_truth, texts, strict=True):
        wrong = sum(name not in truth for _, name in pairs)
        rows.append(
            {
                "matched": len(pairs),
                "hallucinated": wrong,
                "has_match": int(bool(pairs)),
                "has_hallucination": int(wrong > 0),
                "recalled": len({name for _, name in pairs if name in truth}),
                "truth": len(truth),
                "words": len(text.split(" ")),
                "one": 1,
            }
        )
    return pd.DataFrame(rows)


def score(
    matched: Sequence[Sequence[tuple[str, str]]],
    ground_truth: Sequence[set[str]],
    texts: Sequence[str],
) -> dict[str, float]:
    """The official numbers, fractions; nan where the official script divides by zero.

    Args:
        matched: the (word, class) pairs of each response.
        ground_truth: the classes of each response's image.
        texts: the responses.
    """
    frame = items(matched, ground_truth, texts)
    total = frame.sum()

    def share(part: str, whole: str) -> float:
        return float(total[part] / total[whole]) if total[whole] else math.nan

    chair_refine = share("has_hallucination", "has_match")
    chair_i = share("hallucinated", "matched")
    return {
        "CHAIRs": share("has_hallucination", "one"),
        "CHAIRs_refine": chair_refine,
        "CHAIRi": chair_i,
        "correct_rate": 1 - chair_refine,
        "object_correct_rate": 1 - chair_i,
        "obj_rec": share("recalled", "truth"),
        "sentence_num": int(total["one"]),
        "coco_sentence_num": int(total["has_match"]),
        "coco_word_count": int(total["recalled"]),  # the official name misleads
        "gt_word_count": int(total["truth"]),
        "avg_word_len": float(frame["words"].mean()),
    }


def evaluate(
    benchmark: Benchmark,
    answers: Mapping[str, str],
    *,
    extractor: str = "wordnet",
    judge: Any = None,
) -> tuple[dict[str, float], pd.DataFrame]:
    """The official numbers of a model's descriptions, and one row a response.

    Args:
        benchmark: from `load`.
        answers: request id -> response.
        extractor: "wordnet", "vocabulary", or "llm" with `judge`.
        judge: a `napo.benchmarks.chat.Chat`.

    Raises:
        NapoError: listing the ids without an answer, or when the LLM gives no list of objects.
    """
    ids = [str(number) for number in range(len(benchmark.questions))]
    checked_answers(answers, ids, "Object HalBench")
    texts, vocabulary = [clean_answer(answers[name]) for name in ids], benchmark.vocabulary
    if extractor == "llm":
        analyse, _ = words.tagger()
        lists = llm_objects([q["question"] for q in benchmark.questions], texts, judge)
        matched = [match_phrases(phrases, vocabulary, analyse) for phrases in lists]
        extractor = "wordnet"  # of the captions
    else:
        matched = [match_words(text, vocabulary, extractor) for text in texts]
    truth = [ground_truth(benchmark, q["image_id"], extractor) for q in benchmark.questions]
    return score(matched, truth, texts), items(matched, truth, texts)
