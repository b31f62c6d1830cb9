"""AMBER: hallucination in descriptions (generative) and in yes-or-no answers (discriminative).

Official scorer: junyangwang0410/AMBER. The generative numbers are micro averages; every official
denominator starts at 0.001, which shows in small samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napo.benchmarks import Mark, Options, Request, checked_answers, checked_images, formats, words
from napo.benchmarks.formats import GET_AGAIN, covered, expect_count, unique
from napo.benchmarks.lenient import Reading, yes_or_no
from napo.benchmarks.similarity import Similar, similar_words
from napo.workspace.files import check_shape, read_json, read_text

if TYPE_CHECKING:
    import pandas as pd

OFFICIAL_COUNT = {
    "generative": 1004, "discriminative": 14216, "annotations": 15220, "objects": 340,
    "safe words": 9,
}  # fmt: skip
START = 0.001  # of every official denominator

RIGHT = (("Yes", "yes"), ("No", "no"))  # answer and truth; nothing else is right
TASKS = {  # AMBER's types; every other type is a relation
    "discriminative-hallucination": "Existence",
    "discriminative-attribute-state": "State",
    "discriminative-attribute-number": "Number",
    "discriminative-attribute-action": "Action",
}


@dataclass(frozen=True)
class Benchmark:
    """Annotations, queries and word lists of the official download."""

    folder: Path
    annotations: list[dict[str, Any]]
    generative: list[dict[str, Any]]
    discriminative: list[dict[str, Any]]
    association: dict[str, list[str]]
    safe_words: frozenset[str]


def options(settings: Any, judge: Any = None) -> Options:
    """The settings of `napo.config.profile.Evaluation` that this benchmark uses."""
    extractor = "wordnet" if settings.extractor == "llm" else settings.extractor
    scoring = {"extractor": extractor, "similarity": settings.similarity}
    return Options({}, scoring, scoring)


def vocabulary(association: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """All words that count: the objects and the words associated with them."""
    return frozenset(association) | {word for words in association.values() for word in words}


def load(folder: Path) -> Benchmark:
    """Read the official `data/` folder.

    Raises:
        NapoError: when a file is missing, the count is wrong, or a query has no annotation.
    """
    folder = Path(folder)
    path, queries = folder / "annotations.json", {}
    annotations = read_json(path, list[formats.AmberAnnotation], GET_AGAIN)
    unique((note["id"] for note in annotations), path, "id")
    for task, shape in formats.AMBER_TASKS.items():
        generative = task == "generative"
        notes = {n["id"]: n for n in annotations if (n["type"] == "generative") == generative}
        for id, note in notes.items():
            check_shape(note, f"{path}, id {id},", shape, GET_AGAIN)
        file = folder / f"query_{task}.json"
        queries[task] = read_json(file, list[formats.AmberQuery], GET_AGAIN)
        unique((query["id"] for query in queries[task]), file, "id")
        covered((query["id"] for query in queries[task]), notes, path, f"ids of {file.name}")
    association = read_json(folder / "relation.json", formats.AmberRelation, GET_AGAIN)
    lines = map(str.strip, read_text(folder / "safe_words.txt", GET_AGAIN).splitlines())
    safe_words = frozenset(filter(None, lines))
    count = {task: len(entries) for task, entries in queries.items()}
    count |= {"annotations": len(annotations), "objects": len(association)}
    count["safe words"] = len(safe_words)
    expect_count(folder, count, OFFICIAL_COUNT, "entries")
    return Benchmark(folder, annotations, *queries.values(), association, safe_words)


def requests(benchmark: Benchmark) -> list[Request]:
    """The queries of both tasks; ids are AMBER's own."""
    prompts = []
    for task in formats.AMBER_TASKS:
        for query in getattr(benchmark, task):
            paths = [benchmark.folder / name / query["image"] for name in ("image", "images", ".")]
            path = next((path for path in paths if path.is_file()), paths[0])
            prompts.append(Request(str(query["id"]), query["query"], path, task))
    return checked_images(prompts, benchmark.folder, "AMBER", "download AMBER's images there")


def _slots(
    objects: Sequence[str], association: Mapping[str, Sequence[str]]
) -> list[tuple[str, int]]:
    """(word, slot) pairs: all associated words of the objects first, then the objects."""
    numbered = list(enumerate(objects))
    associated = [(word, slot) for slot, name in numbered for word in association.get(name, ())]
    return associated + [(name, slot) for slot, name in numbered]


def judge_nouns(
    nouns: Sequence[str],
    annotation: Mapping[str, Any],
    association: Mapping[str, Sequence[str]],
    safe_words: Iterable[str],
    similar: Similar,
) -> dict[str, int]:
    """Count one response's nouns by the official bookkeeping.

    A noun that equals an item of the safe list marks the slot of the first such item. A noun that
    equals, or is similar to, an item of the hallucination list marks that slot and goes on. If it
    is then similar to an item of the safe list it is no hallucination; otherwise it is one.
    """
    truth, hallu = annotation["truth"], annotation["hallu"]
    safe_list, hallu_list = _slots(truth, association), _slots(hallu, association)
    safe_words = frozenset(safe_words)
    marked, hallu_marked, wrong = set(), set(), 0
    for noun in nouns:
        if noun in safe_words:
            continue
        equal = next((slot for word, slot in safe_list if word == noun), None)
        if equal is not None:
            marked.add(equal)
            continue
        for same in (lambda a, b: a == b, similar):
            slot = next((slot for word, slot in hallu_list if same(noun, word)), None)
            if slot is not None:
                hallu_marked.add(slot)
        near = next((slot for word, slot in safe_list if similar(noun, word)), None)
        if near is not None:
            marked.add(near)
        else:
            wrong += 1
    return {
        "nouns": len(nouns),
        "hallucinated": wrong,
        "covered": len(marked),
        "truth": len(truth),
        "hallu_covered": len(hallu_marked),
        "hallu": len(hallu),
        "has_hallucination": int(wrong > 0),
        "one": 1,
    }


def generative_items(
    items: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    association: Mapping[str, Sequence[str]],
    safe_words: Iterable[str],
    similar: Similar,
    extractor: str = "wordnet",
) -> list[dict[str, int]]:
    """The counts of `judge_nouns` and the id of each response, see `score_generative`."""
    by_id = {note["id"]: note for note in annotations if note["type"] == "generative"}
    known, rows = vocabulary(association), []
    for item in items:
        if item["id"] not in by_id:
            continue
        if "nouns" in item:
            nouns = [noun for noun in item["nouns"] if noun in known]
        else:
            nouns = words.nouns(item["response"], known, extractor)
        counts = judge_nouns(nouns, by_id[item["id"]], association, safe_words, similar)
        rows.append({"id": item["id"], **counts})
    return rows


def score_generative(
    items: Sequence[Mapping[str, Any]],
    annotations: Sequence[Mapping[str, Any]],
    association: Mapping[str, Sequence[str]],
    safe_words: Iterable[str],
    similar: Similar,
    extractor: str = "wordnet",
) -> dict[str, float]:
    """CHAIR, Cover, Hal and Cog, percent, rounded as the official script does.

    Args:
        items: `{"id", "nouns"}` or `{"id", "response"}`; ids that are not generative are left out.
        annotations: AMBER's annotations.
        association: AMBER's `relation.json`.
        safe_words: AMBER's `safe_words.txt`.
        similar: whether two words count as one.
        extractor: how nouns are read from a response, see `napo.benchmarks.words.nouns`.
    """
    return _official(
        generative_items(items, annotations, association, safe_words, similar, extractor)
    )


def _official(rows: Sequence[Mapping[str, int]]) -> dict[str, float]:
    def total(name: str) -> int:
        return sum(row[name] for row in rows)

    clean = total("one") - total("has_hallucination")
    return {
        "CHAIR": round(total("hallucinated") / (total("nouns") + START) * 100, 1),
        "Cover": round(total("covered") / (total("truth") + START) * 100, 1),
        "Hal": round(100 - clean / (total("one") + START) * 100, 1),
        "Cog": round(total("hallu_covered") / (total("hallu") + START) * 100, 1),
    }


def _block(pairs: Sequence[tuple[str, str]], parts: int, epsilon: float) -> dict[str, float]:
    """Accuracy, Precision, Recall and F1 of (answer, truth) pairs; "No" is the positive class."""
    base = parts * START
    answered_no = [truth for answer, truth in pairs if answer == "No"]
    truly_no = [answer for answer, truth in pairs if truth == "no"]
    right = sum(pair in RIGHT for pair in pairs)
    accuracy = round(right / (len(pairs) + base) * 100, 1)
    precision = round(answered_no.count("no") / (len(answered_no) + base) * 100, 1)
    recall = round(truly_no.count("No") / (len(truly_no) + base) * 100, 1)
    p, r = precision / 100, recall / 100
    f1 = round(2 * p * r / (p + r + epsilon) * 100, 1)
    return {"Accuracy": accuracy, "Precision": precision, "Recall": recall, "F1": f1}


def score_discriminative(
    items: Sequence[Mapping[str, Any]], annotations: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, float]]:
    """Accuracy, Precision, Recall and F1 for each block, percent, rounded as official.

    Only the exact strings "Yes" and "No" count; other answers are wrong but stay in the
    denominators.

    Args:
        items: `{"id", "response"}`; generative ids are left out.
        annotations: AMBER's annotations.

    Returns:
        The blocks "whole", "Existence", "Attribute", "State", "Number", "Action", "Relation".
    """
    by_id = {note["id"]: note for note in annotations if note["type"] != "generative"}
    pairs: dict[str, list[tuple[str, str]]] = {name: [] for name in (*TASKS.values(), "Relation")}
    for item in items:
        if item["id"] in by_id:
            note = by_id[item["id"]]
            task = TASKS.get(note["type"], "Relation")
            pairs[task].append((item["response"], note["truth"]))
    attribute = pairs["State"] + pairs["Number"] + pairs["Action"]
    whole = pairs["Existence"] + attribute + pairs["Relation"]
    others = {name: _block(pairs[name], 1, 0.0001) for name in pairs if name != "Existence"}
    return {
        "whole": _block(whole, 1, 0.0001),
        "Existence": _block(pairs["Existence"], 1, 0.001),
        "Attribute": _block(attribute, 3, 0.0001),
        **others,
    }


def readings(benchmark: Benchmark, answers: Mapping[str, str], **_: Any) -> list[Reading]:
    """Yes, No or None in each answer to a discriminative query; officially None is wrong."""
    texts = [answers[str(query["id"])] for query in benchmark.discriminative]
    return [Reading(t if t in dict(RIGHT) else None, yes_or_no(t)) for t in texts]


def evaluate(
    benchmark: Benchmark,
    answers: Mapping[str, str],
    *,
    extractor: str = "wordnet",
    similarity: str = "identity",
    lenient: bool = False,
) -> tuple[dict[str, float], pd.DataFrame]:
    """Score a model's answers to both tasks; `lenient` reads yes and no by `yes_or_no` first.

    Returns:
        CHAIR, Cover, Hal, Cog, d_Accuracy, d_Precision, d_Recall, d_F1 and the same of each block,
        such as d_State_F1; and one row an answer, with its `image`, which intervals resample by.

    Raises:
        NapoError: listing the ids without an answer.
    """
    import pandas as pd

    queries = (*benchmark.generative, *benchmark.discriminative)
    checked_answers(answers, (str(query["id"]) for query in queries), "AMBER")
    if lenient:
        names = [str(query["id"]) for query in benchmark.discriminative]
        answers = {**answers, **{n: yes_or_no(answers[n]) or answers[n] for n in names}}
    responses = [{"id": query["id"], "response": answers[str(query["id"])]} for query in queries]
    counts = generative_items(
        responses,
        benchmark.annotations,
        benchmark.association,
        benchmark.safe_words,
        similar_words(similarity, benchmark.folder),
        extractor,
    )
    metrics = _official(counts)
    for block, measures in score_discriminative(responses, benchmark.annotations).items():
        prefix = "d" if block == "whole" else f"d_{block}"
        metrics |= {f"{prefix}_{measure}": value for measure, value in measures.items()}
    rows: list[dict[str, Any]] = [{"task": "generative", **row} for row in counts]
    notes = {note["id"]: note for note in benchmark.annotations if note["type"] != "generative"}
    for item in responses:
        if item["id"] in notes:
            note = notes[item["id"]]
            right = int((item["response"], note["truth"]) in RIGHT)
            task = TASKS.get(note["type"], "Relation")
            rows.append({"task": task, "id": item["id"], "asked": 1, "right": right})
    frame = pd.DataFrame(rows).fillna(0)
    frame.insert(0, "image", frame["id"].map({q["id"]: q["image"] for q in queries}))
    return metrics, frame


def marks(
    benchmark: Benchmark,
    answers: Mapping[str, str],
    items: pd.DataFrame,
    *,
    extractor: str = "wordnet",
    **_: Any,
) -> dict[str, Mark]:
    """Each description beside the picture's objects, each other answer beside Yes or No."""
    notes = {str(note["id"]): note for note in benchmark.annotations}
    known, marked = vocabulary(benchmark.association), {}
    for place, row in enumerate(items.to_dict("records")):
        name = str(int(row["id"]))
        if name not in answers:
            continue
        text, truth = answers[name], notes[name]["truth"]
        if row["task"] == "generative":
            nouns = ", ".join(words.nouns(text, known, extractor))
            read = f"nouns: {nouns or 'none'}; {row['hallucinated']:g} hallucinated"
            right, correct = ", ".join(truth), not row["has_hallucination"]
        else:
            read = text if text in dict(RIGHT) else "neither Yes nor No"
            right, correct = truth.capitalize(), bool(row["right"])
        marked[name] = Mark(right, read, correct, place)
    return marked
