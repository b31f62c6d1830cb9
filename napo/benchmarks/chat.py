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

from napo.errors import NapoError, connection_failure, one_line
from napo.workspace.files import writing

PAUSE = 0.5  # seconds before a malformed reply is requested again; doubled each time
CHARACTERS_A_TOKEN = 4  # of English text, for estimates
BAD_ADDRESS = (  # the address is not repeated: a password may be in it
    "OPENAI_BASE_URL is not the address of a server, such as http://localhost:8000/v1; correct it, "
    "or unset it to use OpenAI's."
)
CUT = {  # an endpoint's `finish_reason` -> what cut its reply off
    "length": "the limit of its tokens",
    "content_filter": "a filter of the endpoint",
}
HEADERS = ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")  # sent as they are
REMEDIES = {  # status or code of an error -> what to change; the same request would fail again
    400: "name an evaluation.judge_model that takes max_tokens, temperature and top_p",
    401: "correct OPENAI_API_KEY",
    402: "raise the account's quota, or use another OPENAI_API_KEY",
    403: "use an OPENAI_API_KEY that may use this model, or name another evaluation.judge_model",
    404: "correct evaluation.judge_model or OPENAI_BASE_URL",
    "content_filter": (
        "the endpoint's filter refuses the prompt; name another evaluation.judge_model, or another "
        "endpoint in OPENAI_BASE_URL"
    ),
}
REMEDIES["insufficient_quota"] = REMEDIES[402]


class Cut(str):
    """A reply that the limit of tokens or a filter cut off: its conclusion is unknown."""


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

        A reply that was cut off is a `Cut`. Replies in a file of an earlier version, which has no
        `finish_reason`, count as whole.

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
        self.answered_by |= {name for _, name, _ in replies.values()}
        texts = {k: Cut(text) if end in CUT else text for k, (text, _, end) in replies.items()}
        return [texts[key] for key in keys]

    def missing(self, requests: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The requests without a kept reply; nothing is sent."""
        unique = {self._key(request): request for request in requests}
        return [request for key, request in unique.items() if self._kept(key) is None]

    def _key(self, request: Mapping[str, Any]) -> str:
        # The endpoint belongs to the request: two servers may call different models the same.
        whole = {"model": self.model, "endpoint": os.environ.get("OPENAI_BASE_URL", ""), **request}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def _reply(self, key: str, request: Mapping[str, Any]) -> tuple[str, str, str]:
        reply = self._kept(key)
        if reply is None:
            reply = self._send({k: v for k, v in request.items() if k != "attempt"})
            with self._database() as database:
                database.execute(
                    "INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", (key, *reply[:2])
                )
                database.execute("INSERT OR REPLACE INTO ends VALUES (?, ?)", (key, reply[2]))
        return reply

    def _kept(self, key: str) -> tuple[str, str, str] | None:
        with self._database() as database:
            query = (
                "SELECT reply, answered_by, coalesce(finish_reason, '') FROM replies "
                "LEFT JOIN ends ON ends.key = replies.key WHERE replies.key = ?"
            )
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
                        connection.execute(  # a table apart: earlier versions can use the file too
                            "CREATE TABLE IF NOT EXISTS ends (key TEXT PRIMARY KEY, "
                            "finish_reason TEXT NOT NULL)"
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

    def _send(self, request: Mapping[str, Any]) -> tuple[str, str, str]:
        """The text of the endpoint's reply, the model that gave it, and why the text ends."""
        client = self._connected()
        import openai

        for attempt in range(self._retries + 1):
            try:
                reply = client.chat.completions.create(model=self.model, **request)
                # The client checks nothing: any field may be missing or of another type.
                choice, model = reply.choices[0], reply.model or self.model
                text, end = choice.message.content, str(getattr(choice, "finish_reason", "") or "")
                refusal = getattr(choice.message, "refusal", None)
                if not (text or "").strip() and (refusal or end in CUT):
                    cause = f"it refused: {one_line(str(refusal))}" if refusal else CUT[end]
                    raise NapoError(
                        f"The judge {self.model!r} sent no text ({cause}); name another "
                        "evaluation.judge_model. The replies so far are kept."
                    )
                (text + model + end).encode()  # half a surrogate pair cannot be written
                if text.strip():  # an empty text would get the worst rating
                    return text, model, end
            except openai.APIError as error:
                raise NapoError(self._failure(error)) from None
            except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
                pass  # no JSON, or JSON of another shape
            if attempt < self._retries:
                time.sleep(min(8.0, PAUSE * 2**attempt))
        raise NapoError(
            f"The judge {self.model!r} sent a reply without a usable text "
            f"{self._retries + 1} times; check OPENAI_BASE_URL. The replies so far are kept."
        )

    def _failure(self, error: Any) -> str:
        """The sentence of an error of the client: the endpoint's message, and what to change."""
        status = getattr(error, "status_code", 0)
        if status:
            message = error.body.get("message") if isinstance(error.body, dict) else None
            text = one_line(message if isinstance(message, str) else error.message)
            cause = f"{type(error).__name__}: {text}"
        else:
            cause = connection_failure(error.__cause__ or error)
        # The code is the endpoint's: it may be anything.
        remedy = REMEDIES.get(str(error.code)) or REMEDIES.get(status)
        if remedy is None and 400 <= status < 500 and status not in (408, 409, 429):
            remedy = REMEDIES[400]
        kept = "the replies so far are kept, so run it again"
        remedy = f"{remedy}. The replies so far are kept" if remedy else kept
        return f"The judge {self.model!r} did not answer ({cause}); {remedy}."

    def _connected(self) -> Any:
        """The client, made at the first request: a call whose replies are kept needs no key."""
        try:
            import openai
        except ImportError:
            raise NapoError("A judge behind an endpoint needs: pip install openai") from None
        if not os.environ.get("OPENAI_API_KEY"):
            raise NapoError(
                "The judge needs OPENAI_API_KEY (and OPENAI_BASE_URL for another endpoint than "
                "OpenAI's) in the environment; a local server takes any key."
            )
        for name in HEADERS:
            value = os.environ.get(name, "")
            if not (value.isascii() and value.isprintable()) or value != value.strip():
                raise NapoError(
                    f"{name} holds blanks at its ends, line breaks, or letters beyond ASCII, which "
                    "no request can carry; correct it."
                )
        if not is_address(os.environ.get("OPENAI_BASE_URL", "https://api.openai.com")):
            raise NapoError(BAD_ADDRESS)
        with self._lock:
            try:
                self._client = self._client or openai.OpenAI(
                    max_retries=self._retries, timeout=self._timeout
                )
            except Exception as error:  # of httpx or httpx2, of a proxy or of certificates
                if type(error).__name__ == "InvalidURL":  # it may repeat a password
                    sentence = f"{BAD_ADDRESS} Or a proxy's address in the environment is wrong."
                    raise NapoError(sentence) from None
                raise NapoError(
                    f"The judge cannot be connected ({connection_failure(error)}); correct "
                    "that, then run it again."
                ) from None
        return self._client


def is_address(text: str) -> bool:
    """Whether a text is the address of a server."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half a bracket
        return False
