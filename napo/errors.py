"""The exception whose message people read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

_SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD)($|_)", re.IGNORECASE)
_SHORTEST = 8  # characters; a shorter value is a word such as "none", not a secret


class NapoError(Exception):
    """An error in an input, as one sentence that names the thing and the remedy.

    Args:
        sentence: the message. Keys and tokens of the environment are cut out of it, because a
            server may echo them and messages go to logs and notebooks.
    """

    def __init__(self, sentence: str = "") -> None:
        super().__init__(without_secrets(sentence))

    def _render_traceback_(self) -> list[str]:
        # IPython calls this: a notebook shows the sentence instead of fifty lines of frames.
        return [f"NapoError: {self}"]


def without_secrets(text: str) -> str:
    """A text without the values of environment variables whose names say that they are secret."""
    values = {value for name, value in os.environ.items() if _SECRET.search(name)}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, "[secret]")
    return text


def unknown(what: str, name: object, known: Iterable[str]) -> NapoError:
    """The error for an unknown name, which suggests the nearest known name.

    Args:
        what: the kind of thing, singular ("variant", "profile").
        name: the unknown name.
        known: all known names.
    """
    names = sorted(known)
    near = [other for other in names if other.casefold() == str(name).casefold()]
    near = near or get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return NapoError(f"Unknown {what} {str(name)!r}.{hint} Known: {', '.join(names)}.")
