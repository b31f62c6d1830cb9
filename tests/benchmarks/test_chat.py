"""A model behind an endpoint: requests, kept replies, named failures."""

import sqlite3
import sys

import pytest

from napo.benchmarks import chat as module
from napo.benchmarks.chat import Chat, Cut, NothingSent, Plan
from napo.errors import NapoError

ADVICE = pytest.mark.kind("wrong advice")
SURROUNDINGS = pytest.mark.kind("the machine's surroundings")
UNREADABLE = pytest.mark.kind("an unreadable reply counts as an answer")


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.001)


def prompts(count, **options):
    return [
        {"messages": [{"role": "user", "content": f"Rate {n}"}], **options} for n in range(count)
    ]


def replies(count):
    return [f"Because. Rating: {number}" for number in range(count)]


@pytest.fixture
def chat(tmp_path):
    return lambda model="judge", **options: Chat(model, tmp_path / "judge.sqlite", **options)


def test_a_request_carries_model_key_and_settings_but_not_its_attempt(server, chat):
    [request] = prompts(1, temperature=0.2, attempt=1)
    chat().ask([request])
    [(path, key, body)] = server.requests
    assert (path, key) == ("/v1/chat/completions", "Bearer key-of-the-test")
    assert body == {"messages": request["messages"], "temperature": 0.2, "model": "judge"}


def test_nothing_is_sent_twice_not_even_by_another_process(server, chat):
    first, again = chat().ask(prompts(5)), chat()
    assert again.ask(prompts(5)) == first and len(server.requests) == 5
    assert again.answered_by == {"judge-2024"}
    again.ask(prompts(6))
    assert len(server.requests) == 6


def test_equal_requests_are_sent_once_and_share_the_reply(server, chat):
    assert chat().ask(prompts(2) * 8) == replies(2) * 8
    assert len(server.requests) == 2


def test_another_model_endpoint_or_attempt_is_another_request(server, chat, monkeypatch):
    chat().ask(prompts(1))
    assert not chat().missing(prompts(1))
    assert chat("other").missing(prompts(1)) and chat().missing(prompts(1, attempt=1))
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert chat().missing(prompts(1))


def test_a_dry_run_counts_the_missing_requests_and_sends_nothing(server, chat):
    chat().ask(prompts(2))
    with pytest.raises(NothingSent, match="would send 2 requests, about 3 tokens") as dry:
        chat(dry_run=True).ask(prompts(4, max_tokens=512)[2:] * 2)
    assert dry.value.plan == Plan(2, 3, 1024) and len(server.requests) == 2
    assert chat(dry_run=True).ask(prompts(2)) == replies(2)


def test_a_busy_endpoint_gets_the_request_again(server, chat):
    server.failures = [429, 503]
    assert chat(workers=1).ask(prompts(1)) == replies(1)
    assert len(server.requests) == 3


@pytest.mark.parametrize("failure", ["torn", "empty", "late"])
def test_a_torn_empty_or_late_reply_is_requested_again(server, chat, failure):
    server.failures = [failure]
    assert chat(workers=1, timeout=0.5).ask(prompts(1)) == replies(1)
    assert len(server.requests) == 2


def test_an_endpoint_that_never_answers_is_named(server, chat):
    server.failures = ["late"] * 2
    with pytest.raises(NapoError, match=r"'judge' .*Timeout"):
        chat(workers=1, retries=1, timeout=0.5).ask(prompts(1))
    assert len(server.requests) == 2


UNUSABLE = {
    "parts as text": {"choices": [{"message": {"content": [{"text": "Rating: 0"}]}}]},
    "no text": {"choices": [{"message": {"content": None}}]},
    "blanks": {"choices": [{"message": {"content": " \n"}}]},
    "half a character": {"choices": [{"message": {"content": "Rating: 5 \ud83d"}}]},
    "null as message": {"choices": [{"message": None}]},
    "a text as choice": {"choices": ["Rating: 5"]},
    "an object as choices": {"choices": {"message": {"content": "Rating: 5"}}},
    "an object as model": {"model": {"name": "judge"}},
}


@pytest.mark.parametrize("shape", [*UNUSABLE, "a list"])
def test_a_reply_of_another_shape_is_requested_again_and_then_named(server, chat, shape):
    chat().ask(prompts(1))
    server.change = lambda reply: [reply] if shape == "a list" else {**reply, **UNUSABLE[shape]}
    with pytest.raises(NapoError, match=r"'judge' sent a reply without a usable text 2 times"):
        chat(workers=1, retries=1).ask(prompts(2))
    assert len(server.requests) == 3 and len(chat().missing(prompts(2))) == 1


def test_a_reply_that_names_no_model_counts_for_the_requested_model(server, chat):
    server.change = lambda reply: {**reply, "model": None}
    rater = chat()
    rater.ask(prompts(1))
    assert rater.answered_by == {"judge"}


@pytest.mark.parametrize(
    "address",
    ["http://me:my-password@host:port/v1", "http://[::1/v1",
     "http://me:my-password@127.0.0.1:9/\x07", "127.0.0.1:9/v1", "ftp://127.0.0.1/v1", "http://",
     ""],
)  # fmt: skip
def test_a_bad_address_is_refused_and_not_repeated(server, chat, monkeypatch, address):
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(NapoError, match=r"^OPENAI_BASE_URL is not the address .* correct") as error:
        chat(workers=1).ask(prompts(1))
    assert "my-password" not in str(error.value) and not server.requests


def test_a_long_message_of_an_endpoint_becomes_a_line_without_keys(server, chat):
    server.failures = [400]
    with pytest.raises(NapoError, match=r"'judge' did not answer .*Not .*No judge") as error:
        chat(workers=1).ask(prompts(1))
    sentence = str(error.value)
    assert sentence.isprintable() and len(sentence) < 500
    assert "[secret]" in sentence and "key-of" not in sentence
    assert b"key-of" not in chat().cache.read_bytes()


@ADVICE
@pytest.mark.parametrize(
    ("status", "code", "message", "remedy"),
    [
        (400, "unsupported_parameter", "Unsupported parameter: 'max_tokens'", "name an evaluation"),
        (400, "content_filter", "The response was filtered", "the endpoint's filter refuses"),
        (401, "invalid_api_key", "Incorrect API key", "correct OPENAI_API_KEY"),
        (402, None, "Insufficient balance", "raise the account's quota"),
        (403, None, "Country not supported", "use an OPENAI_API_KEY that may use this model"),
        (404, "model_not_found", "The model `m` does not exist", "correct evaluation.judge_model"),
        (422, None, "top_p: extra input", "name an evaluation.judge_model that takes max_tokens"),
        (422, [], "no code of a service", "name an evaluation.judge_model that takes max_tokens"),
        (429, "insufficient_quota", "You exceeded your current quota", "raise the account's quota"),
    ],
)
def test_a_refusal_of_the_endpoint_says_what_to_change(
    server, chat, result, status, code, message, remedy
):
    server.failures = [(status, {"message": message, "code": code})]
    with pytest.raises(NapoError) as refused:
        chat(workers=1, retries=0).ask(prompts(1))
    sentence = str(refused.value)
    assert f": {message}); {remedy}" in sentence and "run it again" not in sentence
    result(sentence)


@ADVICE
@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_passing_failure_says_to_run_it_again(server, chat, status):
    server.failures = [status]
    with pytest.raises(NapoError, match=r"busy\); the replies so far are kept, so run it again"):
        chat(workers=1, retries=0).ask(prompts(1))


@ADVICE
@pytest.mark.parametrize(
    ("end", "refusal", "cause"),
    [
        ("stop", "I'm sorry, I can't.", r"it refused: I'm sorry, I can't\."),
        ("length", None, "the limit of its tokens"),
        ("content_filter", None, "a filter of the endpoint"),
    ],
)
def test_a_reply_without_text_says_why_and_is_not_requested_again(
    server, chat, result, end, refusal, cause
):
    message = {"role": "assistant", "content": None, "refusal": refusal}
    choice = {"index": 0, "finish_reason": end, "message": message}
    server.change = lambda reply: {**reply, "choices": [choice]}
    with pytest.raises(NapoError, match=rf"sent no text \({cause}\); name another") as refused:
        chat(workers=1).ask(prompts(1))
    assert len(server.requests) == 1
    result(refused.value)


@UNREADABLE
@pytest.mark.parametrize(
    ("end", "cut"),
    [("length", True), ("content_filter", True), ("stop", False), (None, False), ({}, False)],
)
def test_a_cut_reply_is_marked_also_when_it_comes_from_the_file(server, chat, end, cut):
    server.change = lambda reply: (
        reply | {"choices": [reply["choices"][0] | {"finish_reason": end}]}
    )
    for rater in (chat(), chat()):
        [reply] = rater.ask(prompts(1))
        assert reply == replies(1)[0] and isinstance(reply, Cut) is cut
    assert len(server.requests) == 1


@UNREADABLE
def test_a_file_of_replies_without_their_ends_is_still_used(server, chat):
    chat().ask(prompts(1))
    with sqlite3.connect(chat().cache) as database:
        database.execute("DROP TABLE ends")  # as earlier versions wrote it
    assert chat().ask(prompts(1)) == replies(1) and len(server.requests) == 1


@SURROUNDINGS
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ALL_PROXY", "socks5://me:my-password@127.0.0.1:9", "SOCKS.* sets ALL_PROXY: perhaps"),
        ("https_proxy", "foo://me:my-password@host", "Unknown scheme.* sets https_proxy: per"),
        ("HTTPS_PROXY", "http://me:my-password@host:port", "a proxy's address in the environment"),
        ("SSL_CERT_FILE", "/nowhere.pem", "No such file.* sets SSL_CERT_FILE, whose file is miss"),
        ("OPENAI_ORG_ID", "é", "^OPENAI_ORG_ID holds .* beyond ASCII"),
        ("OPENAI_PROJECT_ID", "a\nb", "^OPENAI_PROJECT_ID holds .* line breaks"),
        ("OPENAI_API_KEY", "sk-key ", "^OPENAI_API_KEY holds blanks at its ends"),
    ],
)
def test_a_variable_that_stops_the_client_is_named(
    server, chat, monkeypatch, result, name, value, sentence
):
    if "socks" in value:  # as without the package, whatever is installed here
        monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(name, value)
    with pytest.raises(NapoError, match=sentence) as error:
        chat(workers=1).ask(prompts(1))
    assert "my-password" not in str(error.value) and not server.requests
    result(error.value)


def test_replies_before_a_failure_are_kept(server, chat):
    server.failures = [200, 200, 401]
    with pytest.raises(NapoError, match="'judge' did not answer"):
        chat(workers=1).ask(prompts(6))
    assert len(chat().missing(prompts(6))) == 6 - (len(server.requests) - 1)


def test_a_missing_key_stops_before_anything_is_sent(server, chat, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(NapoError, match="needs OPENAI_API_KEY"):
        chat().ask(prompts(1))
    assert not server.requests


def test_the_key_is_not_in_the_file_of_replies(server, chat):
    chat().ask(prompts(1))
    path = chat().cache
    assert b"key-of-the-test" not in path.read_bytes()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT count(*) FROM replies").fetchone() == (1,)


def test_a_damaged_file_of_replies_is_named(chat):
    path = chat().cache
    chat().missing(prompts(1))
    for content in (b"no database at all" * 300, path.read_bytes()[:2000]):
        path.write_bytes(content)
        with pytest.raises(NapoError, match=r"judge\.sqlite is damaged .* move it away"):
            chat().missing(prompts(1))


def test_an_intact_file_that_cannot_be_used_is_not_called_damaged(chat):
    with sqlite3.connect(chat().cache) as database:
        database.execute("CREATE TABLE replies (something TEXT)")
    sentence = r"judge\.sqlite cannot be used \(no such column.*\), but its replies are not lost"
    with pytest.raises(NapoError, match=sentence):
        chat().missing(prompts(1))
