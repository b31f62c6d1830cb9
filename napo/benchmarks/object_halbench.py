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

from napo.benchmarks import Mark, Options, Request, checked_answers, formats, words
from napo.benchmarks.chat import Cut
from napo.benchmarks.formats import GET_AGAIN, covered, expect_count, unique
from napo.benchmarks.judges import EXTRACTOR_FILE, LIST_OBJECTS
from napo.benchmarks.lenient import Reading, objects
from napo.benchmarks.object_words import Vocabulary, match_phrases, match_words
from napo.benchmarks.words import clean_answer
from napo.errors import NapoError
from napo.workspace.files import read_json, read_json_lines, read_text

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


@dataclass(frozen=True)
class Benchmark:
    """The questions with their images, and COCO's annotations of those images."""

    folder: Path
    questions: list[dict[str, Any]]
    vocabulary: Vocabulary
    classes: Mapping[int, set[str]]  # image id -> classes of its instance annotations
    captions: Mapping[int, list[str]] = field(repr=False)  # image id -> its captions


def options(settings: Any, judge: Any = None) -> Options:
    """The settings of `napo.config.profile.Evaluation` that this benchmark uses."""
    scoring = {"extractor": settings.extractor}
    if settings.extractor != "llm" or judge is None:
        return Options({}, scoring, scoring)
    # The model that lists objects is the judge's: one endpoint, one budget.
    chat = getattr(judge, "chat", None)
    if chat is None:
        raise NapoError("The extractor 'llm' needs a model; set evaluation.judge to openai.")
    record = {
        **scoring,
        "extractor_model": settings.judge_model,
        "extractor_prompt": str(judge.extractor),
        "answered_by": sorted(chat.answered_by),
        "tagger": words.tagger()[1],
    }
    return Options({}, {**scoring, "judge": chat, "prompt": judge.extractor.text}, record)


def read_objects(reply: str) -> list[str]:
    """Objects of an LLM's reply: JSON, or a last line of JSON if the reply holds `["`.

    Raises:
        ValueError: where the official reader fails.
    """
    lines = [reply, reply.strip().split("\n")[-1]] if '["' in reply else [reply]
    for text in lines:
        try:
            return list(json.loads(text))
        except (ValueError, TypeError, RecursionError):  # TypeError: null or a number
            pass
    raise ValueError("the reply is no JSON list")


def read_both(reply: str) -> Reading:
    """A reply as `read_objects` and the lenient `objects` read it; neither reads a `Cut` one."""
    if isinstance(reply, Cut):
        return Reading(None, None)
    try:
        official = read_objects(reply)
    except ValueError:
        official = None
    return Reading(official, objects(reply))


def llm_replies(
    questions: Sequence[str], texts: Sequence[str], judge: Any, prompt: str = LIST_OBJECTS
) -> list[list[str]]:
    """A language model's replies about each response, until the official reader reads a list.

    A short answer is not sent and has no reply.

    Raises:
        NapoError: when no reply is a list, `ATTEMPTS` times.
    """
    replies: list[list[str]] = [[] for _ in texts]
    pending = [index for index, text in enumerate(texts) if len(text.split()) > SHORT_ANSWER]
    for attempt in range(ATTEMPTS):
        requests = []
        for index in pending:
            content = prompt.replace("{question}", questions[index])
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
        for index, reply in zip(pending, judge.ask(requests), strict=True):
            replies[index].append(reply)
        pending = [index for index in pending if read_both(replies[index][-1]).official is None]
        if not pending:
            return replies
    raise NapoError(
        f"Object HalBench: {judge.model!r} gave no list of objects for {len(pending)} responses "
        f"({', '.join(map(str, pending[:10]))}) in {ATTEMPTS} attempts; name another judge_model, "
        f"or give another prompt in object_halbench/{EXTRACTOR_FILE}."
    )


def llm_objects(
    questions: Sequence[str],
    texts: Sequence[str],
    judge: Any,
    prompt: str = LIST_OBJECTS,
    lenient: bool = False,
) -> list[list[str]]:
    """Objects of each response as a language model lists them; a short answer has none (LLM mode).

    The list is that of the first reply that can be read: by `read_objects`, or, if `lenient`, by
    `napo.benchmarks.lenient.objects` before it.

    Raises:
        NapoError: when no reply is a list, `ATTEMPTS` times.
    """
    lists = []
    for replies in llm_replies(questions, texts, judge, prompt):
        both = map(read_both, replies)
        read = (r.lenient if lenient and r.lenient is not None else r.official for r in both)
        lists.append(next((names for names in read if names is not None), []))
    return lists


def load(folder: Path) -> Benchmark:
    """Read questions, `annotations/{instances,captions}_{train,val}2014.json` and `synonyms.txt`.

    An edition may hold the split alone that its images are from; every image needs its instances
    and its captions, since the truth is what both name.

    Raises:
        NapoError: when a file is missing or damaged, an image is not annotated or has no caption,
            a class has no synonyms, a question repeats, or the count is wrong.
    """
    folder = Path(folder)
    path = next((folder / name for name in QUESTION_FILES if (folder / name).is_file()), None)
    if path is None:
        raise NapoError(f"{folder} lacks its questions; put one of {', '.join(QUESTION_FILES)}.")
    questions = read_json_lines(path, formats.ObjectQuestion, GET_AGAIN)
    for number, question in enumerate(questions, 1):
        try:
            base64.b64decode("".join(question["image"].split()), validate=True)
        except ValueError as error:
            raise NapoError(
                f"{path}, question {number}: its image is not whole base64 ({error}); {GET_AGAIN}."
            ) from None
    unique(((q["image_id"], q["question"]) for q in questions), path, "question")
    expect_count(folder, len(questions), OFFICIAL_COUNT, "questions")
    synonyms = folder / "synonyms.txt"
    remedy = "get RLAIF-V's synonyms_refine.txt"
    vocabulary = Vocabulary.from_text(read_text(synonyms, remedy))
    ids = {question["image_id"] for question in questions}
    classes: dict[int, set[str]] = {}
    captions: dict[int, list[str]] = {}
    for split in ("train", "val"):
        path = folder / "annotations" / f"instances_{split}2014.json"
        if path.is_file():
            content = read_json(path, formats.Instances, GET_AGAIN)
            names = {category["id"]: category["name"] for category in content["categories"]}
            covered(names.values(), vocabulary.entries, synonyms, f"classes of {path.name}")
            for image in content["images"]:
                if image["id"] in ids:
                    classes.setdefault(image["id"], set())
            notes = [note for note in content["annotations"] if note["image_id"] in ids]
            covered((n["category_id"] for n in notes), names, path, "categories of its annotations")
            for note in notes:
                classes.setdefault(note["image_id"], set()).add(names[note["category_id"]])
        path = folder / "annotations" / f"captions_{split}2014.json"
        if path.is_file():
            for note in read_json(path, formats.Captions, GET_AGAIN)["annotations"]:
                if note["image_id"] in ids:
                    captions.setdefault(note["image_id"], []).append(note["caption"])
    for kind, annotated in (("instances", classes), ("captions", captions)):
        path = folder / "annotations" / f"{kind}_*2014.json"
        covered(sorted(ids), annotated, path, f"images of the questions with their {kind}")
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
    for caption in benchmark.captions[image]:
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
                "words": len(clean_answer(text).split(" ")),
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
        texts: the responses as the model gave them; words are counted after cleaning.
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


def readings(
    benchmark: Benchmark, answers: Mapping[str, str], *, extractor: str = "wordnet", **asking: Any
) -> list[Reading]:
    """The list of objects in each reply of LLM mode; officially None is asked again."""
    if extractor != "llm":
        return []
    questions = [question["question"] for question in benchmark.questions]
    texts = [clean_answer(answers[str(number)]) for number in range(len(questions))]
    replies = llm_replies(questions, texts, **asking)
    return [read_both(reply) for of_response in replies for reply in of_response]


def evaluate(
    benchmark: Benchmark,
    answers: Mapping[str, str],
    *,
    extractor: str = "wordnet",
    judge: Any = None,
    prompt: str = LIST_OBJECTS,
    lenient: bool = False,
) -> tuple[dict[str, float], pd.DataFrame]:
    """The official numbers of a model's descriptions, and one row a response.

    Args:
        benchmark: from `load`.
        answers: request id -> response.
        extractor: "wordnet", "vocabulary", or "llm" with `judge`.
        judge: a `napo.benchmarks.chat.Chat`.
        prompt: what it is asked; holds `{question}` and `{answer}`.
        lenient: read its replies by `napo.benchmarks.lenient.objects` first.

    Raises:
        NapoError: listing the ids without an answer, or when the LLM gives no list of objects.
    """
    ids = [str(number) for number in range(len(benchmark.questions))]
    checked_answers(answers, ids, "Object HalBench")
    responses, vocabulary = [answers[name] for name in ids], benchmark.vocabulary
    texts = [clean_answer(response) for response in responses]
    if extractor == "llm":
        analyse, _ = words.tagger()
        questions = [question["question"] for question in benchmark.questions]
        lists = llm_objects(questions, texts, judge, prompt, lenient)
        matched = [match_phrases(phrases, vocabulary, analyse) for phrases in lists]
        extractor = "wordnet"  # of the captions
    else:
        matched = [match_words(text, vocabulary, extractor) for text in texts]
    truth = [ground_truth(benchmark, q["image_id"], extractor) for q in benchmark.questions]
    return score(matched, truth, responses), items(matched, truth, responses)


def marks(
    benchmark: Benchmark,
    answers: Mapping[str, str],
    items: pd.DataFrame,
    *,
    extractor: str = "wordnet",
    **_: Any,
) -> dict[str, Mark]:
    """Each description beside the classes of its picture."""
    mode, marked = "wordnet" if extractor == "llm" else extractor, {}
    for place, row in enumerate(items.to_dict("records")):
        if (name := str(place)) in answers:
            classes = ground_truth(benchmark, benchmark.questions[place]["image_id"], mode)
            read = f"{row['matched']} objects, {row['hallucinated']} hallucinated"
            if extractor != "llm":  # whose reply is not asked for again
                pairs = match_words(clean_answer(answers[name]), benchmark.vocabulary, extractor)
                read = f"{', '.join(word for word, _ in pairs) or 'no objects'}; {read}"
            right, correct = ", ".join(sorted(classes)), not row["has_hallucination"]
            marked[name] = Mark(right, read, correct, place)
    return marked
