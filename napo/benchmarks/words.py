"""From a text to its words: the exact extractors' NLTK, and one that needs no download."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Any

from napo.errors import NapoError

_FETCH = "python -m nltk.downloader wordnet punkt_tab averaged_perceptron_tagger_eng"


@lru_cache(maxsize=4)
def lemmatizer(vocabulary: frozenset[str]) -> Callable[[str], str]:
    """A lemmatiser that needs no download: the word itself if known, else simplemma's lemma.

    It differs from WordNet, for instance on "men" (man here, men there); results made with it say
    `vocabulary`.
    """
    import simplemma

    @lru_cache(maxsize=50_000)
    def lemma(word: str) -> str:
        return word if word in vocabulary else simplemma.lemmatize(word, lang="en")

    return lemma


def plain_tokens(text: str) -> list[str]:
    """Words, numbers and punctuation marks of a text."""
    return re.findall(r"[\w'-]+|[^\w\s]", text)


@lru_cache(maxsize=1)
def wordnet() -> tuple[Callable[[str], list[str]], Callable[[str], str], Callable[..., Any]]:
    """NLTK's tokeniser, WordNet's noun lemmatiser and NLTK's tagger, as the official scorers use.

    Raises:
        NapoError: when NLTK's data are not there, with the command that fetches them.
    """
    import nltk
    from nltk.stem import WordNetLemmatizer

    lemma = lru_cache(maxsize=50_000)(WordNetLemmatizer().lemmatize)
    try:
        nltk.word_tokenize("A dog.")
        nltk.pos_tag(["dog"])
        lemma("dogs")
    except LookupError:
        raise NapoError(
            f"The extractor 'wordnet' needs NLTK's data; fetch them with: {_FETCH}"
        ) from None
    return nltk.word_tokenize, lemma, nltk.pos_tag


def _lemmas_and_tags(analyse: Callable[[str], Any], text: str) -> list[tuple[str, str]]:
    return [(token.lemma_, token.tag_) for token in analyse(text)]


@lru_cache(maxsize=1)
def tagger() -> tuple[Callable[[str], list[tuple[str, str]]], str]:
    """spaCy's (lemma, tag) pairs of a text, and the name of the model that gives them.

    Raises:
        NapoError: when no model is there, with the command that fetches the official one.
    """
    try:
        import spacy
    except ImportError:
        raise NapoError(
            "The extractor 'llm' needs spaCy; install it with: pip install spacy"
        ) from None
    for name in ("en_core_web_trf", "en_core_web_sm"):  # the official one, and its stand-in
        if spacy.util.is_package(name):
            return partial(_lemmas_and_tags, spacy.load(name)), name
    raise NapoError(
        "The extractor 'llm' needs a spaCy model: python -m spacy download en_core_web_trf"
    )


def nouns(text: str, vocabulary: Iterable[str], extractor: str = "wordnet") -> list[str]:
    """Nouns of a text that a vocabulary holds, with repetitions, in order (AMBER).

    Args:
        text: a response.
        vocabulary: words that count.
        extractor: "wordnet" (official: the text as it is, tags that start with NN, WordNet's
            lemmas) or "vocabulary" (lower-cased words and their lemmas).
    """
    known = frozenset(vocabulary)
    if extractor == "wordnet":
        tokenize, lemma, tag = wordnet()
        lemmas = [lemma(word) for word, mark in tag(tokenize(text)) if mark.startswith("NN")]
    else:
        lemma = lemmatizer(known)
        lemmas = [lemma(word) for word in plain_tokens(text.lower())]
    return [word for word in lemmas if word in known]
