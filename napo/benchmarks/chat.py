"""A model behind an OpenAI-compatible endpoint: MMHal-Bench's judge, Object HalBench's LLM mode.

The address and the key come only from OPENAI_BASE_URL and OPENAI_API_KEY. A SQLite file keeps every
reply under its whole request, so no request is sent, or paid for, twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from napo.errors import NapoError, without_secrets
from napo.workspace.files import writing

PAUSE = 0.5  # seconds before a malformed reply is requested again; doubled each time
CHARACTERS_A_TOKEN = 4  # of English text, for estimates
QUOTED = 300  # characters of an endpoint's own message that an error repeats
BAD_ADDRESS = (  # the address is not repeated: a password may be in it
    "OPENAI_BASE_URL is not the address of a server, such as http://localhost:8000/v1; correct it, "
    "or unset it to use OpenAI's."
)


@dataclass(frozen=True)
class Plan:
    """The size of the requests that an endpoint would get."""

    requests: int = 0
    tokens: int = 0  # an estimate
    most_tokens: int = 0  # of the replies

    @classmethod
    def of(cls, requests: Sequence[Mapping[str, Any]]) -> Plan:
        """The plan of some requests."""
        texts = [m["content"] for request in requests for m in request["messages"]]
        most = sum(request.get("max_tokens", 0) for request in requests)
        return cls(len(requests), sum(map(len, texts)) // CHARACTERS_A_TOKEN, most)

    def __add__(self, other: Plan) -> Plan:
        return Plan(
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.most_tokens + other.most_tokens,
        )

    def __str__(self) -> str:
        return (
            f"{self.requests:,} requests, about {self.tokens:,} tokens, "
            f"and at most {self.most_tokens:,} tokens in reply"
        )


class NothingSent(NapoError):
    """A dry run reached requests that have no reply yet; `plan` counts them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        super().__init__(f"Dry run: judging would send {plan}; nothing was sent.")


class Chat:
    """A model behind an OpenAI-compatible endpoint; its replies are kept.

    Args:
        model: its name there.
        cache: the SQLite file of the replies.
        workers: requests at a time.
        retries: how often a request that fails for a passing reason (429, 5xx, network) is sent
            again, with growing pauses.
        timeout: seconds for one request.
        dry_run: send nothing; a call that needs the network raises `NothingSent`.
    """

    def __init__(
        self,
        model: str,
        cache: Path,
        *,
        workers: int = 8,
        retries: int = 8,
        timeout: float = 120.0,
        dry_run: bool = False,
    ) -> None:
        if not model:
            raise NapoError("No judge model is named; set evaluation.judge_model in the profile.")
        self.model, self.cache, self.workers = model, Path(cache), workers
        self._retries, self._timeout, self._dry_run = retries, timeout, dry_run
        self._lock, self._client = threading.Lock(), None
        self.answered_by: set[str] = set()

    def ask(self, requests: Sequence[Mapping[str, Any]]) -> list[str]:
        """The replies to requests (`messages` and sampling settings), several at a time.

        Each reply is on the disk as soon as it arrives, so a call after a failure continues from
        there. Equal requests are sent once and share the reply. A key `attempt` is not sent; it
        only makes a request differ from an earlier one.

        Raises:
            NapoError: without a key, or when the endpoint refuses or does not answer.
            NothingSent: in a dry run, unless all replies are kept already.
        """
        if self._dry_run and (missing := self.missing(requests)):
            raise NothingSent(Plan.of(missing))
        keys = [self._key(request) for request in requests]
        unique = dict(zip(keys, requests, strict=True))
        pool = ThreadPoolExecutor(self.workers)
        try:
            replies = dict(zip(unique, pool.map(self._reply, unique, unique.values()), strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
        self.answered_by |= {name for _, name in replies.values()}
        return [replies[key][0] for key in keys]

    def missing(self, requests: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The requests without a kept reply; nothing is sent."""
        unique = {self._key(request): request for request in requests}
        return [request for key, request in unique.items() if self._kept(key) is None]

    def _key(self, request: Mapping[str, Any]) -> str:
        # The endpoint belongs to the request: two servers may call different models the same.
        whole = {"model": self.model, "endpoint": os.environ.get("OPENAI_BASE_URL", ""), **request}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def _reply(self, key: str, request: Mapping[str, Any]) -> tuple[str, str]:
        reply = self._kept(key)
        if reply is None:
            reply = self._send({k: v for k, v in request.items() if k != "attempt"})
            with self._database() as database:
                database.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", (key, *reply))
        return reply

    def _kept(self, key: str) -> tuple[str, str] | None:
        with self._database() as database:
            query = "SELECT reply, answered_by FROM replies WHERE key = ?"
            return database.execute(query, (key,)).fetchone()

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        try:
            with writing(self.cache):
                self.cache.parent.mkdir(parents=True, exist_ok=True)
                connection = sqlite3.connect(self.cache, timeout=60)
                try:
                    with connection:
                        connection.execute(
                            "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, "
                            "reply TEXT NOT NULL, answered_by TEXT NOT NULL)"
                        )
                        yield connection
                finally:
                    connection.close()
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the higher bits are details
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                problem = f"is damaged ({error}); move it away, and its replies are requested again"
            else:
                problem = (
                    f"cannot be used ({error}), but its replies are not lost; close the program "
                    "that uses it, or move it away"
                )
            raise NapoError(f"{self.cache} {problem}.") from None

    def _send(self, request: Mapping[str, Any]) -> tuple[str, str]:
        """The text of the endpoint's reply, and the name of the model that gave it."""
        client = self._connected()
        import openai

        for attempt in range(self._retries + 1):
            try:
                reply = client.chat.completions.create(model=self.model, **request)
                # The client checks nothing: any field may be missing or of another type.
                text, model = reply.choices[0].message.content, reply.model or self.model
                (text + model).encode()  # half a surrogate pair cannot be written
                if text.strip():  # a filter leaves an empty text: it would get the worst rating
                    return text, model
            except openai.APIError as error:
                raise NapoError(
                    f"The judge {self.model!r} did not answer ({type(error).__name__}: "
                    f"{_one_line(error.message)}); the replies so far are kept, so run it again."
                ) from None
            except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
                pass  # no JSON, or JSON of another shape
            if attempt < self._retries:
                time.sleep(min(8.0, PAUSE * 2**attempt))
        raise NapoError(
            f"The judge {self.model!r} sent a reply without a usable text "
            f"{self._retries + 1} times; check OPENAI_BASE_URL. The replies so far are kept."
        )

    def _connected(self) -> Any:
        """The client, made at the first request: a call whose replies are kept needs no key."""
        try:
            import openai
        except ImportError:
            raise NapoError("A judge behind an endpoint needs: pip install openai") from None
        key = os.environ.get("OPENAI_API_KEY", "")
        if not key or not key.isascii():
            raise NapoError(
                "The judge needs OPENAI_API_KEY, in ASCII letters (and OPENAI_BASE_URL for another "
                "endpoint than OpenAI's), in the environment; a local server takes any key."
            )
        if not is_address(os.environ.get("OPENAI_BASE_URL", "https://api.openai.com")):
            raise NapoError(BAD_ADDRESS)
        with self._lock:
            try:
                self._client = self._client or openai.OpenAI(
                    max_retries=self._retries, timeout=self._timeout
                )
            except Exception as error:  # httpx's or httpx2's, by the version of openai
                if type(error).__name__ != "InvalidURL":
                    raise
                raise NapoError(BAD_ADDRESS) from None
        return self._client


def is_address(text: str) -> bool:
    """Whether a text is the address of a server."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half a bracket
        return False


def _one_line(text: str) -> str:
    """The beginning of an endpoint's message, on one line; keys are removed before the cut."""
    printable = "".join(letter if letter.isprintable() else " " for letter in without_secrets(text))
    line = " ".join(printable.split())
    return line if len(line) <= QUOTED else f"{line[:QUOTED]} ..."
