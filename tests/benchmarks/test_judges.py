"""Judges: a rule, and a model behind an endpoint, here a server on the loopback interface."""

import json
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from napo.benchmarks import judges, mmhal
from napo.benchmarks.judges import Chat, OpenAIJudge, RuleJudge
from napo.config.profile import Evaluation
from napo.errors import NapoError

pytest.importorskip("openai")

ITEM = {"image_content": ["Cat", "Mat"], "question": "What {is} it?", "gt_answer": "A cat."}


LONG = "Not \x1b[31mso.\nNo judge key-of-the-test here.\n" * 80


def emptied(reply):
    """The reply as a filter leaves it: without a text."""
    choice = reply["choices"][0]
    return {**reply, "choices": [{**choice, "message": {"role": "assistant", "content": ""}}]}


class Server:
    """An OpenAI-compatible endpoint that records what it is asked and rates by the answer."""

    def __init__(self):
        outer = self
        self.asked, self.failures, self.lock = [], [], threading.Lock()
        self.change = lambda reply: reply

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    outer.asked.append((self.path, self.headers["Authorization"], body))
                    status = outer.failures.pop(0) if outer.failures else 200
                content = body["messages"][0]["content"]
                rating = content.rstrip()[-1]
                reply = {
                    "id": "x", "object": "chat.completion", "created": 0, "model": "judge-2024",
                    "choices": [{"index": 0, "finish_reason": "stop", "message": {
                        "role": "assistant", "content": f"Because. Rating: {rating}"}}],
                }  # fmt: skip
                told = json.dumps(
                    reply if status in (200, "torn") else {"error": {"message": "busy"}}
                )
                if status == 200:
                    told = json.dumps(outer.change(reply))
                if status == 400:
                    told = json.dumps({"error": {"message": LONG}})
                if status == "late":
                    time.sleep(1)
                if status == "empty":
                    told, status = json.dumps(emptied(reply)), 200
                if status == "torn":
                    told, status = told[:-20], 200
                self.send_response(status if isinstance(status, int) else 504)
                self.send_header("Content-Type", "application/json")
                self.send_header("Retry-After-Ms", "1")
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told.encode())

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    running = Server()
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{running.http.server_port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
    yield running
    running.stop()


def pairs(count):
    return [(ITEM, f"My answer {number}") for number in range(count)]


def judge(tmp_path, **options):
    return OpenAIJudge(Chat("judge", tmp_path / "judge.sqlite", **options))


def test_replies_come_in_the_order_of_the_answers(server, tmp_path):
    found = judge(tmp_path).replies(pairs(7))
    assert [mmhal.read_rating(reply) for reply in found] == list(range(7))


def test_a_request_has_the_official_settings_and_all_four_sections(server, tmp_path):
    judge(tmp_path).replies([(ITEM, "It is {a} cat 5")])
    [(path, key, body)] = server.asked
    assert (path, key) == ("/v1/chat/completions", "Bearer key-of-the-test")
    assert {k: body[k] for k in ("model", "temperature", "top_p", "max_tokens")} == {
        "model": "judge", "temperature": 0, "top_p": 1, "max_tokens": 512,
    }  # fmt: skip
    [message] = body["messages"]
    assert message["role"] == "user"
    assert message["content"].endswith(
        "### Image Contents\nCat, Mat\n\n### Question\nWhat {is} it?\n\n### Standard "
        "Human-Generated Answer\nA cat.\n\n### LMM Response to Evaluate\nIt is {a} cat 5\n"
    )
    for score in range(7):
        assert f"\nRating: {score}, " in message["content"]


def test_nothing_is_asked_twice_not_even_by_another_process(server, tmp_path):
    first = judge(tmp_path).replies(pairs(5))
    again = judge(tmp_path)
    assert again.replies(pairs(5)) == first and len(server.asked) == 5
    assert again.record["answered_by"] == ["judge-2024"]
    again.replies(pairs(6))
    assert len(server.asked) == 6


def test_another_model_prompt_or_endpoint_is_another_request(server, tmp_path, monkeypatch):
    judge(tmp_path).replies(pairs(1))
    chat = Chat("other", tmp_path / "judge.sqlite")
    assert OpenAIJudge(chat).plan(pairs(1)).requests == 1
    chat = Chat("judge", tmp_path / "judge.sqlite")
    assert OpenAIJudge(chat).plan(pairs(1)).requests == 0
    assert OpenAIJudge(chat, "{} {} {} {}").plan(pairs(1)).requests == 1
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert OpenAIJudge(chat).plan(pairs(1)).requests == 1


def test_a_dry_run_counts_what_would_be_sent_and_sends_nothing(server, tmp_path):
    judge(tmp_path).replies(pairs(2))
    planned = judge(tmp_path).plan(pairs(4) + pairs(4))
    assert planned.requests == 2 and planned.most_tokens == 2 * 512
    assert planned.tokens == pytest.approx(2 * len(judges.PROMPT) / 4, rel=0.05)
    with pytest.raises(judges.NothingSent, match="would send 2 requests, about") as dry:
        judge(tmp_path, dry_run=True).replies(pairs(4))
    assert dry.value.plan == planned and len(server.asked) == 2
    assert judge(tmp_path, dry_run=True).replies(pairs(2)) == judge(tmp_path).replies(pairs(2))


@pytest.mark.parametrize("trouble", ["torn", "empty", "late"])
def test_a_reply_that_is_torn_or_late_is_asked_for_again(server, tmp_path, monkeypatch, trouble):
    monkeypatch.setattr(judges, "PAUSE", 0.001)
    server.failures = [trouble]
    quick = judge(tmp_path, workers=1, timeout=0.5)
    assert quick.replies(pairs(1)) == ["Because. Rating: 0"]
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "trouble, told", [("torn", "without a text"), ("empty", "without a text"), ("late", "Timeout")]
)
def test_an_endpoint_that_never_sends_a_whole_reply_is_named(
    server, tmp_path, monkeypatch, trouble, told
):
    monkeypatch.setattr(judges, "PAUSE", 0.001)
    server.failures = [trouble] * 2
    with pytest.raises(NapoError, match=f"'judge' .*{told}"):
        judge(tmp_path, workers=1, retries=1, timeout=0.5).replies(pairs(1))
    assert len(server.asked) == 2


def saying(content):
    """A change of the reply's message."""
    return lambda reply: {**reply, "choices": [{"index": 0, "message": {"content": content}}]}


def changed(name, value):
    return lambda reply: {**reply, name: value}


UNUSABLE = {
    "a list as text": saying(["Because. Rating: 0"]),
    "parts as text": saying([{"type": "text", "text": "Because. Rating: 0"}]),
    "a number as text": saying(5),
    "no text": saying(None),
    "blanks": saying(" \n"),
    "half a character": saying("Rating: 5 \ud83d"),
    "no message": changed("choices", [{"index": 0}]),
    "null as message": changed("choices", [{"message": None}]),
    "a text as message": changed("choices", [{"message": "Rating: 5"}]),
    "a text as choice": changed("choices", ["Rating: 5"]),
    "a text as choices": changed("choices", "Rating: 5"),
    "an object as choices": changed("choices", {"message": {"content": "Rating: 5"}}),
    "an object as model": changed("model", {"name": "judge"}),
    "half a character in the model": changed("model", "judge \ud83d"),
    "a list": lambda reply: [reply],
    "a number": lambda reply: 5,
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_reply_of_another_shape_is_asked_for_again_and_then_named(
    server, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(judges, "PAUSE", 0.001)
    judge(tmp_path).replies(pairs(1))
    server.change = UNUSABLE[name]
    with pytest.raises(NapoError, match=r"'judge' sent a reply without a text .* 2 times") as told:
        judge(tmp_path, workers=1, retries=1).replies(pairs(2))
    assert "judge.sqlite" not in str(told.value) and len(server.asked) == 3
    assert judge(tmp_path).plan(pairs(2)).requests == 1


@pytest.mark.parametrize("model", [None, ""])
def test_a_reply_that_names_no_model_is_the_one_that_was_asked(server, tmp_path, model):
    server.change = changed("model", model)
    rater = judge(tmp_path)
    rater.replies(pairs(1))
    assert rater.record["answered_by"] == ["judge"]


@pytest.mark.parametrize(
    "address",
    [
        "http://host:port/v1",
        "http://me:my-password@host:port/v1",
        "http://[::1/v1",
        "http://me:my-password@127.0.0.1:9/\x07",
        "127.0.0.1:9/v1",
        "ftp://127.0.0.1/v1",
        "http://",
        "",
    ],
)
def test_an_address_that_is_none_is_named_and_not_repeated(server, tmp_path, monkeypatch, address):
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(NapoError, match=r"^OPENAI_BASE_URL is no address .* correct it") as told:
        judge(tmp_path, workers=1).replies(pairs(1))
    assert "my-password" not in str(told.value) and not server.asked


def test_what_an_endpoint_says_at_length_is_one_short_line_without_its_keys(server, tmp_path):
    server.failures = [400]
    with pytest.raises(NapoError, match=r"'judge' did not answer .*Not .*No judge") as told:
        judge(tmp_path, workers=1).replies(pairs(1))
    sentence = str(told.value)
    assert sentence.isprintable() and len(sentence) < 500
    assert "[secret]" in sentence and "key-of" not in sentence


def test_equal_requests_are_asked_once_and_all_get_the_reply(server, tmp_path):
    found = judge(tmp_path).replies(pairs(2) * 8)
    assert found == ["Because. Rating: 0", "Because. Rating: 1"] * 8
    assert len(server.asked) == 2


def test_a_result_names_the_model_that_answered_whatever_was_asked_for(server, tmp_path):
    rater = judge(tmp_path)
    rater.replies(pairs(1))
    assert rater.record["judge_model"] == "judge" and rater.record["answered_by"] == ["judge-2024"]


def test_a_busy_endpoint_is_asked_again(server, tmp_path):
    server.failures = [429, 503]
    assert judge(tmp_path, workers=1).replies(pairs(1)) == ["Because. Rating: 0"]
    assert len(server.asked) == 3


def test_a_failure_names_the_judge_and_keeps_what_came_before(server, tmp_path):
    server.failures = [200, 200, 401]
    with pytest.raises(NapoError, match="'judge' did not answer"):
        judge(tmp_path, workers=1).replies(pairs(6))
    done = len([1 for *_, body in server.asked]) - 1
    assert judge(tmp_path).plan(pairs(6)).requests == 6 - done


def test_without_a_key_the_remedy_is_told_and_nothing_is_sent(server, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(NapoError, match="OPENAI_API_KEY"):
        judge(tmp_path).replies(pairs(1))
    assert not server.asked


def test_the_key_is_in_no_file(server, tmp_path):
    judge(tmp_path).replies(pairs(1))
    assert b"key-of-the-test" not in (tmp_path / "judge.sqlite").read_bytes()
    with sqlite3.connect(tmp_path / "judge.sqlite") as database:
        assert database.execute("SELECT count(*) FROM replies").fetchone() == (1,)


def test_a_retried_question_is_cached_apart_but_sent_without_the_attempt(server, tmp_path):
    chat = Chat("judge", tmp_path / "judge.sqlite")
    message = {"messages": [{"role": "system", "content": "List 1"}]}
    chat.ask([{**message, "attempt": 0}, {**message, "attempt": 1}])
    assert len(server.asked) == 2 and all("attempt" not in body for *_, body in server.asked)


def test_a_prompt_without_four_places_is_refused(tmp_path):
    with pytest.raises(NapoError, match=r"has 1 places \{\} instead of 4"):
        OpenAIJudge(Chat("judge", tmp_path / "x"), "Rate this: {}")


def test_the_settings_choose_the_judge(tmp_path):
    made = judges.make(Evaluation(), tmp_path / "benchmarks", lambda item, answer: "Rating: 6")
    assert isinstance(made, RuleJudge) and made.replies(pairs(2)) == ["Rating: 6"] * 2
    with pytest.raises(NapoError, match="world has no rule"):
        judges.make(Evaluation(), tmp_path, None)
    settings = Evaluation(judge="openai", judge_model="big")
    made = judges.make(settings, tmp_path / "benchmarks", None)
    assert made.chat.cache == tmp_path / "judge.sqlite" and made.record["judge_prompt"] == "own"
    with pytest.raises(NapoError, match="judge_model"):
        judges.make(settings.model_copy(update={"judge_model": ""}), tmp_path, None)


def test_an_official_prompt_beside_the_benchmark_is_used_and_said(tmp_path):
    path = tmp_path / "benchmarks/mmhal" / judges.GIVEN_PROMPT
    path.parent.mkdir(parents=True)
    path.write_text("Official. {} {} {} {}")
    settings = Evaluation(judge="openai", judge_model="big")
    made = judges.make(settings, tmp_path / "benchmarks", None)
    [request] = made.requests([(ITEM, "It.")])
    assert request["messages"][0]["content"] == "Official. Cat, Mat What {is} it? A cat. It."
    assert made.record["judge_prompt"] == "official or given"


def test_a_file_of_replies_that_is_none_is_named(tmp_path):
    path = tmp_path / "judge.sqlite"
    Chat("judge", path).missing([{"messages": []}])
    for content in (b"no database at all" * 300, path.read_bytes()[:2000]):
        path.write_bytes(content)
        with pytest.raises(NapoError, match=r"judge\.sqlite is damaged .* move it away"):
            Chat("judge", path).missing([{"messages": []}])


def test_a_file_of_replies_that_is_whole_is_not_called_damaged(tmp_path):
    path = tmp_path / "judge.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE replies (something TEXT)")
    told = r"judge\.sqlite cannot be used \(no such column.*\), and nothing in it was lost"
    with pytest.raises(NapoError, match=told):
        Chat("judge", path).missing([{"messages": []}])
    chat = Chat("judge", tmp_path / "other.sqlite")
    with pytest.raises(NapoError, match="cannot be used"), chat._database() as database:
        database.execute("SELECT ?", (["no value of SQLite"],))
