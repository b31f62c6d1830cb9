"""The exception whose message people read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

_SECRET = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD)($|_)", re.IGNORECASE)
_SHORTEST = 8  # characters; a shorter value is a word such as "none", not a secret
_QUOTED = 300  # characters of another program's message that an error repeats
_PROXIES = ("ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY")
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


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


def one_line(text: str) -> str:
    """The beginning of another program's message, on one line, without secrets.

    Queries of addresses are left out too: a signed address gives access to a file.
    """
    text = re.sub(r"(https?://[^\s?]*)\?\S+", r"\1", without_secrets(text))
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _QUOTED else f"{line[:_QUOTED]} ..."


def first_line(error: BaseException, most: int = 300) -> str:
    """The first line of a library's message, or the beginning of it; empty if it says nothing."""
    return next(iter(str(error).strip().splitlines()), "")[:most]


def connection_failure(error: BaseException) -> str:
    """The message of a server's client, and the environment variables that may be its cause.

    These are proxies, and certificates where their file is missing or the error concerns them.
    Values of variables are not repeated: a proxy's address may hold a password.
    """
    # A message about a wrong address may repeat a part of it, such as a password.
    text = one_line(str(error)) if type(error).__name__ != "InvalidURL" else "a wrong address"
    names = [n for name in _PROXIES for n in (name, name.lower()) if os.environ.get(n)]
    for name in _CERTIFICATES:
        if path := os.environ.get(name):
            if not os.path.exists(path):
                names.append(f"{name}, whose file is missing")
            elif "[SSL" in text or "[X509" in text:
                names.append(name)
    hint = f"; the environment sets {' and '.join(names)}: perhaps the cause" if names else ""
    return f"{type(error).__name__}: {text}{hint}"


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
