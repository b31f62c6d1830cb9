"""The one exception that is meant for people."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

_SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD)($|_)", re.IGNORECASE)
_SHORTEST = 8  # characters: a shorter value is a word such as "none", not a secret


class NapoError(Exception):
    """Bad input or a broken premise, told in one sentence that names the thing and the remedy.

    Args:
        sentence: what to say. A key or token of the environment in it, as a server may echo it, is
            left out: sentences go to logs and executed notebooks.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(without_secrets(sentence))

    def _render_traceback_(self) -> list[str]:
        # IPython asks for this: a notebook then shows the sentence, not fifty lines of frames.
        return [f"NapoError: {self}"]


def without_secrets(text: str) -> str:
    """A text without the values of environment variables that are named like secrets."""
    values = {value for name, value in os.environ.items() if _SECRET.search(name)}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, "[secret]")
    return text


def unknown(what: str, name: object, known: Iterable[str]) -> NapoError:
    """The error for a name that is not one of `known`, with the nearest known one suggested.

    Args:
        what: the kind of thing, singular ("variant", "profile").
        name: what the user gave.
        known: every name that would have been right.
    """
    names = sorted(known)
    near = [each for each in names if each.casefold() == str(name).casefold()]
    near = near or get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return NapoError(f"Unknown {what} {str(name)!r}.{hint} Known: {', '.join(names)}.")
