"""A judge on the loopback interface that can stop answering half-way."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class JudgeServer:
    """An OpenAI-compatible endpoint that rates an answer by its length.

    Args:
        pause: seconds for each reply.
        until: number of requests before it refuses; None: it never does.
    """

    def __init__(self, pause: float = 0.02, until: int | None = None) -> None:
        outer, self.received, self.until, self._lock = self, 0, until, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.received += 1
                    refused = outer.until is not None and outer.received > outer.until
                time.sleep(pause)
                rating = f"Because. Rating: {len(body['messages'][0]['content']) % 7}"
                message = {"role": "assistant", "content": rating}
                choice = {"index": 0, "finish_reason": "stop", "message": message}
                reply = {"id": "x", "object": "chat.completion", "created": 0, "model": "judge-1",
                         "choices": [choice]}  # fmt: skip
                content = json.dumps({"error": {"message": "gone"}} if refused else reply).encode()
                self.send_response(503 if refused else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Retry-After-Ms", "1")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        serve = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        serve.start()

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for the judge's client."""
        proxies = {f"{kind}_proxy": "" for kind in ("http", "https", "all")}
        proxies |= {name.upper(): "" for name in proxies}
        address = f"http://127.0.0.1:{self._http.server_port}/v1"
        return {"OPENAI_BASE_URL": address, "OPENAI_API_KEY": "a-key", **proxies}

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._http.shutdown()
        self._http.server_close()
