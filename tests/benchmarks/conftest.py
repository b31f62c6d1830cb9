"""The icon world's small benchmarks, and an OpenAI-compatible endpoint on this machine."""

import json
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from napo.icon_world.benchmarks import make_benchmarks

SIZES = {"vlind": 3, "object_halbench": 3, "amber_generative": 3, "amber_discriminative": 4,
         "mmhal": 8}  # fmt: skip
LONG_MESSAGE = "Not \x1b[31mso.\nNo judge key-of-the-test here.\n" * 80


class Server:
    """Records its requests and replies with the last letter of the prompt as rating.

    `failures` holds what happens to the next requests: an HTTP status, "torn", "empty" or "late",
    or a status with the endpoint's error.
    `change` changes every whole reply.
    """

    def __init__(self):
        self.requests, self.failures, self.lock = [], [], threading.Lock()
        self.change = lambda reply: reply
        handler = type("Handler", (Handler,), {"owner": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.requests.append((self.path, self.headers["Authorization"], body))
            failure = server.failures.pop(0) if server.failures else 200
        rating = body["messages"][0]["content"].rstrip()[-1]
        text = "" if failure == "empty" else f"Because. Rating: {rating}"
        message = {"role": "assistant", "content": text}
        reply = {
            "id": "x", "object": "chat.completion", "created": 0, "model": "judge-2024",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        }  # fmt: skip
        status = failure if isinstance(failure, int) else 200
        if failure == "late":
            time.sleep(1)
            status = 504
        if status != 200:
            reply = {"error": {"message": LONG_MESSAGE if status == 400 else "busy"}}
        if isinstance(failure, tuple):
            status, reply = failure[0], {"error": failure[1]}
        sent = json.dumps(server.change(reply) if failure == 200 else reply)
        sent = sent[:-20] if failure == "torn" else sent
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Retry-After-Ms", "1")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent.encode())

    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with the four benchmarks, which no test changes."""
    folder = tmp_path_factory.mktemp("made") / "benchmarks"
    make_benchmarks(folder, sizes=SIZES)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of it to change."""
    return shutil.copytree(made, tmp_path / "benchmarks")


@pytest.fixture
def server(monkeypatch):
    pytest.importorskip("openai")
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    running = Server()
    monkeypatch.setenv("OPENAI_BASE_URL", running.url)
    monkeypatch.setenv("OPENAI_API_KEY", "key-of-the-test")
    yield running
    running.stop()
