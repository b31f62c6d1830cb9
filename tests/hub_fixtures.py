"""A local web server: plain files, and the addresses of the hub that its client uses."""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

OLD, NEW = "a" * 40, "b" * 40


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server, path = self.server, unquote(urlsplit(self.path).path)
        server.requests.append((self.command, path, self.headers["Range"]))
        server.may_answer.wait(30)
        api = re.fullmatch(r"/api/(?:datasets|models)/o/d(?:/(revision|tree)/(\w+))?", path)
        file = re.fullmatch(r"(?:/datasets)?/o/d/resolve/(\w+)/(.+)", path)
        if api:
            self.answer_hub(*api.groups())
        elif file:
            self.send_file(server.hub[file[1]][file[2]], file[1])
        elif path in server.files:
            self.send_file(server.files[path])
        else:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"} if path[:4] == "/api" else {})

    def answer_hub(self, what, revision):
        commit = self.server.newest if revision in (None, "main") else revision
        if commit not in self.server.hub:
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        files = self.server.hub[commit].items()
        tree = [{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in files]
        info = {"id": "o/d", "sha": commit, "siblings": []}
        return self.send(200, json.dumps(tree if what == "tree" else info).encode(), {})

    def send_file(self, body, commit=""):
        headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "Accept-Ranges": "bytes"}
        headers |= {"X-Repo-Commit": commit} if commit else {}
        begin = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if begin >= len(body):
            self.send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        elif begin:
            span = f"bytes {begin}-{len(body) - 1}/{len(body)}"
            self.send(206, body[begin:], headers | {"Content-Range": span})
        else:
            self.send(200, body, headers)

    def send(self, code, body, headers):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: self.server.cut])
            self.close_connection |= len(body) > (self.server.cut or len(body))


@contextmanager
def running_server():
    """A server whose `files`, `hub`, `newest` commit and `cut` (bytes until it breaks) are set."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.hub, server.newest, server.requests, server.cut = {}, {}, NEW, [], None
    server.may_answer = threading.Event()
    server.may_answer.set()
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.may_answer.set()
    server.shutdown()
    server.server_close()
