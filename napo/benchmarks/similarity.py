"""When two words count as one in AMBER: equal, near in a table, or near by spaCy's vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from napo.errors import NapoError, unknown
from napo.workspace.files import read_json

SIMILAR = 0.8  # two words count as one above this similarity
Similar = Callable[[str, str], bool]


def similar_words(choice: str, folder: Path) -> Similar:
    """A function that says whether two words of the vocabulary count as one.

    Args:
        choice: "identity" (only equal words), "table" (`similarity.json` in the benchmark's
            folder: "pairs" of [word, word, value, kind]), "table-own" (of those, the pairs of kind
            "own": measured on both words' own vectors), or "lg" (spaCy's `en_core_web_lg`,
            official).
        folder: the benchmark's folder.

    Raises:
        NapoError: when the table or spaCy's model is missing, with the remedy.
    """
    if choice == "identity":
        return lambda a, b: a == b
    if choice in ("table", "table-own"):
        path = Path(folder) / "similarity.json"
        content = read_json(path, remedy="put the table there, or choose 'identity'")
        try:
            pairs = content["pairs"] if isinstance(content, dict) else content
            kept = pairs if choice == "table" else [pair for pair in pairs if pair[3] == "own"]
            near = {frozenset(pair[:2]) for pair in kept if pair[2] > SIMILAR}
        except (TypeError, LookupError):
            raise NapoError(
                f"{path} is damaged; each of its pairs is [word, word, value, kind]. Correct it."
            ) from None
        return lambda a, b: a == b or frozenset((a, b)) in near
    if choice != "lg":
        raise unknown("similarity", choice, ("identity", "table", "table-own", "lg"))
    try:
        import spacy

        analyse = lru_cache(maxsize=None)(spacy.load("en_core_web_lg"))
    except (ImportError, OSError):
        raise NapoError(
            "The similarity 'lg' needs spaCy's model; install it with "
            "python -m spacy download en_core_web_lg, or choose 'table' or 'identity'."
        ) from None
    return lambda a, b: analyse(a).similarity(analyse(b)) > SIMILAR
