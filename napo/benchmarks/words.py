"""Words of a text: NLTK and spaCy as the official scorers use them, and a lemmatiser of our own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from napo.errors import NapoError


def clean_answer(answer: str) -> str:
    """An answer without "Assistant:" and outer blanks, as the official scripts read it."""
    return answer.replace("Assistant:", "").strip()


def repeats(text: str) -> bool:
    """Whether the same three words stand twice in a row, as in "There is a car is a car."

    Words are compared in lower case; punctuation between them does not count.
    """
    words = re.findall(r"\w[\w'-]*", text.lower())
    return any(words[i : i + 3] == words[i + 3 : i + 6] for i in range(len(words) - 5))


def plain_tokens(text: str) -> list[str]:
    """Words, numbers and punctuation marks of a text."""
    return re.findall(r"[\w'-]+|[^\w\s]", text)


@lru_cache(maxsize=4)
def lemmatizer(vocabulary: frozenset[str]) -> Callable[[str], str]:
    """A lemmatiser that needs no download: a known word stays, other words get simplemma's lemma.

    It differs from WordNet: "men" becomes "man" here and stays "men" there. Results that use it
    name the extractor `vocabulary`.
    """
    import simplemma

    @lru_cache(maxsize=50_000)
    def lemma(word: str) -> str:
        return word if word in vocabulary else simplemma.lemmatize(word, lang="en")

    return lemma


@lru_cache(maxsize=1)
def wordnet() -> tuple[Callable[[str], list[str]], Callable[[str], str], Callable[..., Any]]:
    """NLTK's tokeniser, WordNet's noun lemmatiser and NLTK's tagger, as the official scorers use.

    Raises:
        NapoError: when NLTK's data are missing, with the command that fetches them.
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
            "The extractor 'wordnet' needs NLTK's data; fetch them with: python -m nltk.downloader "
            "wordnet punkt_tab averaged_perceptron_tagger_eng"
        ) from None
    return nltk.word_tokenize, lemma, nltk.pos_tag


@lru_cache(maxsize=1)
def tagger() -> tuple[Callable[[str], list[tuple[str, str]]], str]:
    """A function that gives spaCy's (lemma, tag) pairs of a text, and the name of its model.

    Raises:
        NapoError: when spaCy or its model is missing, with the command that fetches it.
    """
    try:
        import spacy
    except ImportError:
        raise NapoError(
            "The extractor 'llm' needs spaCy; install it with: pip install spacy"
        ) from None
    models = ("en_core_web_trf", "en_core_web_sm")  # the official model, and its stand-in
    name = next((model for model in models if spacy.util.is_package(model)), None)
    if name is None:
        raise NapoError(
            "The extractor 'llm' needs a spaCy model: python -m spacy download en_core_web_trf"
        )
    analyse = spacy.load(name)
    return lambda text: [(token.lemma_, token.tag_) for token in analyse(text)], name


def nouns(text: str, vocabulary: Iterable[str], extractor: str = "wordnet") -> list[str]:
    """Nouns of a text that are in a vocabulary, in order, repetitions included (AMBER).

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
