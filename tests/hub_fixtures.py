"""A local web server: plain files, and the addresses of the hub that its client uses."""

import hashlib
import json
import os
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from napo.config.profile import Profile, Source
from napo.data.fetch import fetch
from napo.workspace.folders import Workspace

LARGE = 1000  # bytes
BODY = bytes(range(256)) * 4000
OLD, NEW = "a" * 40, "b" * 40


def etag(body):
    """The name of a file's blob: SHA-256 of a large file, git's SHA-1 of a small one."""
    if len(body) >= LARGE:
        return hashlib.sha256(body).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()


def digests(body):
    """A file's hashes as the hub lists them."""
    lfs = {"oid": etag(body), "size": len(body), "pointerSize": 134}
    return {"oid": "0" * 40, "lfs": lfs} if len(body) >= LARGE else {"oid": etag(body)}


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
            body = server.hub[file[1]][file[2]]
            self.send_file(server.sends.get(file[2], body), file[1])
        elif path in server.files:
            self.send_file(server.files[path])
        else:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"} if path[:4] == "/api" else {})

    def answer_hub(self, what, revision):
        commit = self.server.newest if revision in (None, "main") else revision
        if commit not in self.server.hub:
            return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        files = self.server.hub[commit].items()
        tree = [{"type": "file", "path": n, "size": len(b), **digests(b)} for n, b in files]
        info = {"id": "o/d", "sha": commit, "siblings": []}
        return self.send(200, json.dumps(tree if what == "tree" else info).encode(), {})

    def send_file(self, body, commit=""):
        headers = {"ETag": f'"{etag(body)}"', "Accept-Ranges": "bytes"}
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
    server.sends = {}  # name -> other bytes than the hub lists
    server.may_answer = threading.Event()
    server.may_answer.set()
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.may_answer.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def server():
    with running_server() as server:
        server.files["/f"] = b"x"
        yield server


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(str(tmp_path / "w"), "p")


@pytest.fixture
def folder(workspace):
    """The folder of `source()`."""
    return workspace.root / "data/downloads/thing"


def profile(*sources):
    return Profile(name="p", sources=sources)


def source(**settings):
    return Source(**{"name": "thing", "to": "data/downloads/thing", **settings})


def report(profile, workspace, **options):
    lines = []
    fetch(profile, workspace, say=lines.append, **options)
    return "\n".join(lines)


def flip(path):
    """Change one byte of a file, and nothing that a listing shows."""
    content, state = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
