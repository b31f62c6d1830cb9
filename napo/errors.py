"""The one exception that is meant for people."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class NapoError(Exception):
    """Bad input or a broken premise, told in one sentence that names the thing and the remedy."""

    def _render_traceback_(self) -> list[str]:
        # IPython asks for this: a notebook then shows the sentence, not fifty lines of frames.
        return [f"NapoError: {self}"]


def unknown(what: str, name: object, known: Iterable[str]) -> NapoError:
    """The error for a name that is not one of `known`, with the nearest known one suggested.

    Args:
        what: the kind of thing, singular ("variant", "profile").
        name: what the user gave.
        known: every name that would have been right.
    """
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return NapoError(f"Unknown {what} {str(name)!r}.{hint} Known: {', '.join(names)}.")
