"""Lenient readers of answers and of judges' replies, beside the official ones.

The official readers know one form and count every other form as wrong. A lenient reader knows many
forms and gives None wherever a person could read the text in two ways. Its scores never replace the
official ones: a result names them `lenient`.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

MARKUP = re.compile(r"[*_`#~\"“”«»$\\{}\[\]<>|]")
WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
NEGATIONS = frozenset(("no", "not", "never", "neither", "nor", "none", "cannot", "nothing"))
DOUBTS = frozenset((
    "partly", "partially", "half", "mostly", "maybe", "perhaps", "possibly", "might", "may",
    "could", "would", "if", "unless", "whether", "unclear", "unsure",
))  # fmt: skip
OPPOSITE = {"true": "false", "false": "true", "yes": "no", "no": "yes"}
YES_OR_NO = re.compile(
    r"\W*(?:(?:assistant|a)\s*:\s*)?(?:(?:(?:the|my|final|correct)\s+)*answer(?:\s+is|\s*:)?\W*)?"
    # After "no" another word may turn the meaning: "no doubt", "no problem", "no-one".
    r"(yes\b|no\b(?!-\w)(?=[^\S\n]*(?:$|[^\w ]|(?:it|there|the|this|that|they|he|she)\b)))"
)
SCALE = re.compile(
    r"\(?(?:on (?:a|the) scale )?(?:of|from)? ?\b0 ?(?:-|–|to) ?6\b[^):]*\)?|\((?:out of|/) ?6\)"
)
NUMBER = r"(-?\d+(?:\.\d+)?)"
WHOLE = r"\s*(?:/|\bout of)\s*(\d+)"
SECOND = r"(?:\s*(-|–|—|\bto\b|\bor\b|\band\b)\s*\d)?"  # another number makes it a range
RATING = re.compile(
    r"\bratings?\b(?:[^\d\n.;]{0,60}?(?:[:=–—]|\s-\s|\bis\b|\bof\b|\bwas\b|\bbe\b)|-)?\s*\(?\s*"
    + rf"{NUMBER}(?:{WHOLE})?{SECOND}"
)
SHARE = re.compile(rf"(?<![\d.]){NUMBER}{WHOLE}{SECOND}")


@dataclass(frozen=True)
class Reading:
    """What both readers read in one text; None: unreadable, or for the lenient reader in doubt."""

    official: Any
    lenient: Any

    @property
    def differs(self) -> bool:
        """Whether the lenient reader reads the text, and not as the official reader does."""
        return self.lenient is not None and self.lenient != self.official


def plain(text: str) -> str:
    """A text in lower case, with compatible forms of letters and signs, without markup."""
    return MARKUP.sub(" ", unicodedata.normalize("NFKC", text).lower().replace("’", "'"))


def negated(words: list[str]) -> bool:
    """Whether a negation or a doubt is among some words."""
    return any(w in NEGATIONS or w in DOUBTS or w.endswith("n't") for w in words)


def true_or_false(answer: str) -> str | None:
    """The verdict of an answer, "True" or "False"; None for none, for both, and in doubt.

    "not true" is False. Another negation or a doubt before the verdict, in the same sentence,
    leaves the verdict in doubt.
    """
    verdicts = set()
    for sentence in re.split(r"[.!?;\n]+", plain(answer)):
        words = WORD.findall(sentence)
        for index, word in enumerate(words):
            if word in ("true", "false"):
                before = words[:index]
                if before and (before[-1] == "not" or before[-1].endswith("n't")):
                    word = OPPOSITE[word]
                    before = before[:-1]
                verdicts.add(None if negated(before) else word)
    verdict = verdicts.pop() if len(verdicts) == 1 else None
    return verdict and verdict.capitalize()


def yes_or_no(answer: str) -> str | None:
    """The verdict that begins an answer, "Yes" or "No"; None where the rest may contradict it.

    A "yes" with any negation after it is in doubt: "Yes, there is no dog."
    """
    text = plain(answer)
    verdict = YES_OR_NO.match(text)
    if not verdict:
        return None
    rest = WORD.findall(text[verdict.end() :])
    contrary = negated(rest) if verdict[1] == "yes" else not DOUBTS.isdisjoint(rest)
    if contrary or OPPOSITE[verdict[1]] in rest:
        return None
    return verdict[1].capitalize()


def after_thought(reply: str) -> str:
    """A reply without what a reasoning model thinks aloud; empty if the thought has no end."""
    conclusion = re.split(r"</think(?:ing)?>", reply, flags=re.IGNORECASE)[-1]
    return "" if re.search(r"<think(?:ing)?>", conclusion, re.IGNORECASE) else conclusion


def rating(reply: str) -> int | None:
    """The rating of a judge's reply, 0 to 6; None for none, for several, and in doubt.

    In doubt are ranges, fractions, numbers outside 0 to 6 and numbers of another scale. Without the
    word "rating", a number out of 6 counts, or a reply that is nothing but a number. Ratings in a
    reasoning model's thought do not count, see `after_thought`.
    """
    text = SCALE.sub(" ", plain(after_thought(reply)))
    mentions = list(RATING.finditer(text)) or list(SHARE.finditer(text))
    if not mentions and (alone := re.fullmatch(r"[^\w-]*([0-6])\W*", text)):
        return int(alone[1])
    ratings = set()
    for number, whole, second in (mention.groups() for mention in mentions):
        value = float(number)
        doubt = second or whole not in (None, "6") or value not in range(7)
        ratings.add(None if doubt else int(value))
    return ratings.pop() if len(ratings) == 1 else None


def objects(reply: str) -> list[str] | None:
    """The only list of strings in a language model's reply; None for none and for several.

    Lists in a reasoning model's thought do not count, see `after_thought`.
    """
    reply = after_thought(reply)
    if reply.strip().strip("`'\".") in ("()", "[]"):
        return []
    lists, start = [], reply.find("[")
    while start >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(reply, start)
        except (ValueError, RecursionError):
            value, end = _quoted(reply, start)
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            lists.append(value)
        start = reply.find("[", end)
    return lists[0] if lists and all(names == lists[0] for names in lists) else None


def _quoted(reply: str, start: int) -> tuple[Any, int]:
    """A list with Python's quotation marks, and where it ends."""
    end = reply.find("]", start) + 1
    try:
        return ast.literal_eval(reply[start:end]), end
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None, start + 1
