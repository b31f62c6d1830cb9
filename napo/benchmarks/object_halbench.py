"""Object HalBench: objects that a description names and the image does not hold (CHAIR).

Official scorers: RLHF-V/RLAIF-V's, after LisaAnne/Hallucination. An object is one of COCO's 80
classes, named by any of its synonyms; the truth of an image is what its instance annotations and
its reference captions name.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.benchmarks import Options, Request, checked_answers, expect_count, words
from napo.config.benchmarks import BENCHMARKS
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
# Fractions, as the official keys; the paper's CHAIRs is CHAIRs_refine.
RATIOS = BENCHMARKS["object_halbench"].ratios
_BABY = (
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe",
    "animal", "cub",
)  # fmt: skip
SHORT_ANSWER = 3  # words; an LLM is not asked about an answer this short


@dataclass(frozen=True)
class Vocabulary:
    """Synonyms of the classes, and the two-word names that are taken as one word."""

    entries: Mapping[str, str]  # entry -> class
    pairs: Mapping[str, str]  # two words -> what they count as

    @classmethod
    def from_text(cls, text: str) -> Vocabulary:
        """Read a synonyms file: a class a line, its names separated by commas, its own first.

        Raises:
            NapoError: when a name stands in two classes.
        """
        entries: dict[str, str] = {}
        for line in text.strip().splitlines():
            names = [name.strip() for name in line.split(",") if name.strip()]
            for name in names:
                if entries.setdefault(name, names[0]) != names[0]:
                    raise NapoError(
                        f"synonyms.txt gives {name!r} to {entries[name]} and to {names[0]}; "
                        "keep it in one line."
                    )
        pairs = {name: name for name in entries if " " in name}
        pairs |= {"home plate": "home plate", "train track": "train track"}
        pairs |= {f"{young} {name}": name for name in _BABY for young in ("baby", "adult")}
        pairs |= {"passenger jet": "jet", "passenger train": "train"}
        pairs |= {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}
        return cls(entries, pairs)

    @property
    def known(self) -> frozenset[str]:
        """Every single word that is an entry or part of a two-word name."""
        return _known(tuple(self.entries), tuple(self.pairs))


@lru_cache(maxsize=4)
def _known(entries: tuple[str, ...], pairs: tuple[str, ...]) -> frozenset[str]:
    return frozenset(word for name in (*entries, *pairs) for word in name.split())


@dataclass(frozen=True)
class Benchmark:
    """The questions with their images, and COCO's annotations of those images."""

    folder: Path
    questions: list[dict[str, Any]]
    vocabulary: Vocabulary
    classes: Mapping[int, set[str]]  # image id -> classes of its instance annotations
    captions: Mapping[int, list[str]] = field(repr=False)


def options(settings: Any, judge: Any = None) -> Options:
    """The options of `napo.config.profile.Evaluation` that this benchmark takes."""
    named: dict[str, Any] = {"extractor": settings.extractor}
    if settings.extractor != "llm":
        return Options({}, named, named)
    # The model that lists objects is the judge's: one endpoint, one budget.
    chat = getattr(judge, "chat", None)
    if chat is None:
        raise NapoError("The extractor 'llm' needs a model; set evaluation.judge to openai.")
    named |= {"extractor_model": settings.judge_model, "tagger": words.tagger()[1]}
    return Options({}, {"extractor": "llm", "judge": chat}, named)


def merge_pairs(lemmas: Sequence[str], pairs: Mapping[str, str]) -> list[str]:
    """Take two-word names as one word, left to right; then a toilet's seat is no seat."""
    merged, at = [], 0
    while at < len(lemmas):
        pair = " ".join(lemmas[at : at + 2])
        if at + 1 < len(lemmas) and pair in pairs:
            merged.append(pairs[pair])
            at += 2
        else:
            merged.append(lemmas[at])
            at += 1
    if "toilet" in merged and "seat" in merged:
        merged = [word for word in merged if word != "seat"]
    return merged


def match_words(
    text: str, vocabulary: Vocabulary, extractor: str = "wordnet"
) -> list[tuple[str, str]]:
    """Words of a text that name a class, with repetitions, each with its class (exact mode).

    Args:
        text: a response or a caption.
        vocabulary: the synonyms.
        extractor: "wordnet" (official) or "vocabulary" (a packaged lemmatiser, no download).
    """
    if extractor == "wordnet":
        tokenize, lemma, _ = words.wordnet()
        lemmas = [lemma(token) for token in tokenize(text.lower())]
    else:
        lemma = words.lemmatizer(vocabulary.known)
        lemmas = [lemma(token) for token in words.plain_tokens(text.lower())]
    merged = merge_pairs(lemmas, vocabulary.pairs)
    return [(word, vocabulary.entries[word]) for word in merged if word in vocabulary.entries]


def read_objects(reply: str) -> list[str]:
    """Objects of an LLM's reply: JSON, or a last line of JSON where the reply holds `["`.

    Raises:
        ValueError: where the official reader fails.
    """
    try:
        return list(json.loads(reply))
    except (ValueError, TypeError):
        if '["' not in reply:
            raise ValueError("the reply is no JSON list") from None
        try:
            return list(json.loads(reply.strip().split("\n")[-1]))
        except (ValueError, TypeError):
            raise ValueError("the reply's last line is no JSON list") from None


_LIST_OBJECTS = """\
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
ATTEMPTS = 100  # to get a list, as in the official script; then the evaluation stops


def llm_objects(questions: Sequence[str], texts: Sequence[str], chat: Any) -> list[list[str]]:
    """Objects of each response as a language model lists them; a short answer has none (LLM mode).

    Args:
        questions: what was asked.
        texts: the responses.
        chat: a `napo.benchmarks.judges.Chat`.

    Raises:
        NapoError: when a reply is no list, `ATTEMPTS` times.
    """
    found: list[list[str]] = [[] for _ in texts]
    open_ = [at for at, text in enumerate(texts) if len(text.split()) > SHORT_ANSWER]
    for attempt in range(ATTEMPTS):
        replies = chat.ask([_list_request(questions[at], texts[at], attempt) for at in open_])
        failed = []
        for at, reply in zip(open_, replies, strict=True):
            try:
                found[at] = read_objects(reply)
            except (ValueError, TypeError):  # TypeError: null or a number, where the official fails
                failed.append(at)
        if not failed:
            return found
        open_ = failed
    raise NapoError(
        f"Object HalBench: {chat.model!r} gave no list of objects for {len(open_)} responses "
        f"({', '.join(map(str, open_[:10]))}) in {ATTEMPTS} attempts; name another judge_model."
    )


def _list_request(question: str, text: str, attempt: int) -> dict[str, Any]:
    content = _LIST_OBJECTS.replace("{question}", question).replace("{answer}", text)
    return {
        "messages": [{"role": "system", "content": content}],
        "temperature": 0.2,
        "top_p": 1,
        "max_tokens": 512,
        "attempt": attempt,  # not sent: it keeps a failed reply from being found again
    }


def match_phrases(
    phrases: Sequence[str],
    vocabulary: Vocabulary,
    analyse: Callable[[str], Sequence[tuple[str, str]]],
) -> list[tuple[str, str]]:
    """Classes that an LLM's phrases name: unique words, first occurrence kept (LLM mode).

    Args:
        phrases: what `read_objects` gave.
        vocabulary: the synonyms.
        analyse: "a " + phrase -> its tokens as (lemma, tag), spaCy's in the official scorer.
    """
    found: list[str] = []
    for phrase in phrases:
        tokens = list(analyse(f"a {phrase}"))
        lemmas = [lemma for lemma, _ in tokens]
        hits, at = [], 0
        while at + 1 < len(lemmas):
            pair = " ".join(lemmas[at : at + 2])
            if pair in vocabulary.pairs:
                hits.append(vocabulary.pairs[pair])
                at += 2
            else:
                at += 1
        found += hits or _noun_runs(tokens)
    unique = merge_pairs(list(dict.fromkeys(found)), {})
    return [(word, vocabulary.entries[word]) for word in unique if word in vocabulary.entries]


def _noun_runs(tokens: Sequence[tuple[str, str]]) -> list[str]:
    runs, run = [], []
    for lemma, tag in (*tokens, ("", "")):
        if tag in ("NN", "NNS", "NNP", "NNPS"):
            run.append(lemma)
        elif run:
            runs.append(" ".join(run))
            run = []
    return runs


def load(folder: Path) -> Benchmark:
    """Read questions, `annotations/{instances,captions}_{train,val}2014.json` and `synonyms.txt`.

    Raises:
        NapoError: when a file is missing, an image is not annotated, or the count is wrong.
    """
    folder = Path(folder)
    path = next((folder / name for name in QUESTION_FILES if (folder / name).is_file()), None)
    if path is None:
        raise NapoError(f"{folder} lacks its questions; put one of {', '.join(QUESTION_FILES)}.")
    questions = [
        json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
    ]
    expect_count(folder, len(questions), OFFICIAL_COUNT, "questions")
    synonyms = folder / "synonyms.txt"
    if not synonyms.is_file():
        raise NapoError(f"{folder} lacks synonyms.txt; get RLAIF-V's synonyms_refine.txt.")
    wanted = {question["image_id"] for question in questions}
    classes: dict[int, set[str]] = {}
    captions: dict[int, list[str]] = {}
    for split in ("train", "val"):
        path = folder / "annotations" / f"instances_{split}2014.json"
        if path.is_file():
            content = read_json(path)
            names = {category["id"]: category["name"] for category in content["categories"]}
            for image in content["images"]:
                if image["id"] in wanted:
                    classes.setdefault(image["id"], set())
            for note in content["annotations"]:
                if note["image_id"] in wanted:
                    classes.setdefault(note["image_id"], set()).add(names[note["category_id"]])
        path = folder / "annotations" / f"captions_{split}2014.json"
        if path.is_file():
            for note in read_json(path)["annotations"]:
                if note["image_id"] in wanted:
                    captions.setdefault(note["image_id"], []).append(note["caption"])
    lost = sorted(wanted - set(classes))
    if lost:
        raise NapoError(
            f"{folder}/annotations holds no instances for {len(lost)} images "
            f"({', '.join(map(str, lost[:10]))}); get COCO's 2014 train and val annotations."
        )
    return Benchmark(
        folder,
        questions,
        Vocabulary.from_text(synonyms.read_text(encoding="utf-8")),
        classes,
        captions,
    )


def requests(benchmark: Benchmark) -> list[Request]:
    """What the model is asked; the id is the line's number."""
    return [
        Request(str(number), question["question"], base64.b64decode(question["image"]))
        for number, question in enumerate(benchmark.questions)
    ]


def ground_truth(benchmark: Benchmark, image: int, extractor: str = "wordnet") -> set[str]:
    """Classes of an image: of its instance annotations and of the words of its captions."""
    named = {
        found
        for caption in benchmark.captions.get(image, [])
        for _, found in match_words(caption, benchmark.vocabulary, extractor)
    }
    entries = benchmark.vocabulary.entries
    return named | {entries.get(name, name) for name in benchmark.classes[image]}


def items(
    matched: Sequence[Sequence[tuple[str, str]]],
    ground_truth: Sequence[set[str]],
    texts: Sequence[str],
) -> pd.DataFrame:
    """One row a response: matched and hallucinated words, recalled and true classes, words."""
    import pandas as pd

    rows = []
    for found, truth, text in zip(matched, ground_truth, texts, strict=True):
        wrong = sum(name not in truth for _, name in found)
        rows.append(
            {
                "matched": len(found),
                "hallucinated": wrong,
                "has_match": int(bool(found)),
                "has_hallucination": int(wrong > 0),
                "recalled": len({name for _, name in found if name in truth}),
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
    """The official numbers, fractions.

    Args:
        matched: per response the (word, class) pairs that were found.
        ground_truth: per response the classes of its image.
        texts: the responses.

    Raises:
        NapoError: when no response names any object (the official script divides by zero).
    """
    frame = items(matched, ground_truth, texts)
    if not frame["matched"].sum() or not frame["truth"].sum():
        raise NapoError("Object HalBench: no response names any object; nothing can be scored.")
    return _scores(frame)


def _scores(frame: pd.DataFrame) -> dict[str, float]:
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


def clean(answer: str) -> str:
    """The answer as the official script reads it."""
    return answer.replace("Assistant:", "").strip()


def evaluate(
    benchmark: Benchmark,
    answers: Mapping[str, str],
    *,
    extractor: str = "wordnet",
    judge: Any = None,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Score a model's descriptions.

    Args:
        benchmark: what `load` gave.
        answers: request id -> response.
        extractor: "wordnet", "vocabulary", or "llm" with `judge`.
        judge: LLM mode: a `napo.benchmarks.judges.Chat`.

    Returns:
        The official numbers (a rate without any object is nan here), and one row a response.

    Raises:
        NapoError: listing the ids without an answer, or when the LLM gives no list of objects.
    """
    asked = [str(number) for number in range(len(benchmark.questions))]
    checked_answers(answers, asked, "Object HalBench")
    texts = [clean(answers[name]) for name in asked]
    exact = "wordnet" if extractor == "llm" else extractor
    if extractor == "llm":
        analyse, _ = words.tagger()
        lists = llm_objects([q["question"] for q in benchmark.questions], texts, judge)
        matched = [match_phrases(phrases, benchmark.vocabulary, analyse) for phrases in lists]
    else:
        matched = [match_words(text, benchmark.vocabulary, extractor) for text in texts]
    truth = [ground_truth(benchmark, q["image_id"], exact) for q in benchmark.questions]
    frame = items(matched, truth, texts)
    return _scores(frame), frame


def unreadable(answers: Mapping[str, str]) -> int:
    """How many answers are empty."""
    return sum(not clean(text) for text in answers.values())
