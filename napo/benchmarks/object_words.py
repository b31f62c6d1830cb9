"""From words to COCO's classes: the synonyms, two-word names and matching of Object HalBench."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from napo.benchmarks import words
from napo.errors import NapoError

ANIMALS = (  # COCO's words after "baby" and "adult"
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe",
    "animal", "cub",
)  # fmt: skip


@dataclass(frozen=True)
class Vocabulary:
    """Synonyms of the classes, and the two-word names that are taken as one word."""

    entries: Mapping[str, str]  # entry -> class
    pairs: Mapping[str, str]  # two words -> the word that they count as

    @classmethod
    def from_text(cls, text: str) -> Vocabulary:
        """Read a synonyms file: a line is a class, its names separated by commas, its own first.

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
        pairs |= {f"{young} {name}": name for name in ANIMALS for young in ("baby", "adult")}
        pairs |= {"passenger jet": "jet", "passenger train": "train"}
        pairs |= {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}
        return cls(entries, pairs)

    @cached_property
    def known(self) -> frozenset[str]:
        """Every single word that is an entry or part of a two-word name."""
        return frozenset(word for name in (*self.entries, *self.pairs) for word in name.split())

    def named(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """The words that name a class, each with its class."""
        return [(word, self.entries[word]) for word in names if word in self.entries]


def scan_pairs(lemmas: Sequence[str], pairs: Mapping[str, str]) -> list[tuple[str, bool]]:
    """Words left to right, two-word names as one; each with whether it is a two-word name."""
    scanned, index = [], 0
    while index < len(lemmas):
        pair = " ".join(lemmas[index : index + 2])
        paired = index + 1 < len(lemmas) and pair in pairs
        scanned.append((pairs[pair] if paired else lemmas[index], paired))
        index += 2 if paired else 1
    return scanned


def merge_pairs(lemmas: Sequence[str], pairs: Mapping[str, str]) -> list[str]:
    """Words with two-word names taken as one, left to right; a toilet's seat is no seat."""
    merged = [word for word, _ in scan_pairs(lemmas, pairs)]
    return [word for word in merged if word != "seat"] if "toilet" in merged else merged


def match_words(
    text: str, vocabulary: Vocabulary, extractor: str = "wordnet"
) -> list[tuple[str, str]]:
    """Words of a text that name a class, with repetitions, each with its class (exact mode).

    `extractor` is "wordnet" (official) or "vocabulary" (a packaged lemmatiser, no download).
    """
    if extractor == "wordnet":
        tokenize, lemma, _ = words.wordnet()
        lemmas = [lemma(token) for token in tokenize(text.lower())]
    else:
        lemma = words.lemmatizer(vocabulary.known)
        lemmas = [lemma(token) for token in words.plain_tokens(text.lower())]
    return vocabulary.named(merge_pairs(lemmas, vocabulary.pairs))


def match_phrases(
    phrases: Sequence[str],
    vocabulary: Vocabulary,
    analyse: Callable[[str], Sequence[tuple[str, str]]],
) -> list[tuple[str, str]]:
    """Classes that an LLM's phrases name: unique words, first occurrence kept (LLM mode).

    A phrase gives its two-word names, or if it has none its runs of nouns. `analyse` maps "a " +
    phrase to its tokens as (lemma, tag), spaCy's in the official scorer.
    """
    names: list[str] = []
    for phrase in phrases:
        tokens = list(analyse(f"a {phrase}"))
        scanned = scan_pairs([lemma for lemma, _ in tokens], vocabulary.pairs)
        runs = groupby(tokens, key=lambda token: token[1] in ("NN", "NNS", "NNP", "NNPS"))
        names += [word for word, paired in scanned if paired] or [
            " ".join(lemma for lemma, _ in run) for nouns, run in runs if nouns
        ]
    return vocabulary.named(merge_pairs(list(dict.fromkeys(names)), {}))
