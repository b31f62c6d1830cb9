"""Downloads against a real local server: plain addresses, and the hub's own client on top of it."""

import errno
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from napo.config.profile import Profile, Source, load_profile
from napo.data.downloads import arrange, download, unpack
from napo.data.fetch import RECORD, fetch, items, main, status
from napo.errors import NapoError
from napo.workspace.files import read_json, write_json
from napo.workspace.folders import Workspace

OLD, NEW = "a" * 40, "b" * 40
BODY = bytes(range(256)) * 4000


class Handler(BaseHTTPRequestHandler):
    """Plain files, and the endpoints of the hub that a snapshot asks for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server, path = self.server, unquote(urlsplit(self.path).path)
        server.asked.append((self.command, path, self.headers["Range"]))
        server.may_answer.wait(30)
        found = re.fullmatch(r"/api/(?:datasets|models)/o/d(?:/(revision|tree)/(\w+))?", path)
        file = re.fullmatch(r"(?:/datasets)?/o/d/resolve/(\w+)/(.+)", path)
        if found:
            self.answer_hub(*found.groups())
        elif file:
            self.send_file(server.hub[file[1]][file[2]], file[1])
        elif path in server.files:
            self.send_file(server.files[path])
        else:
            error = {"X-Error-Code": "RepoNotFound"} if path.startswith("/api") else {}
            self.send(404, b"", error)

    def answer_hub(self, what, revision):
        commit = self.server.newest if revision in (None, "main") else revision
        if commit not in self.server.hub:
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif what == "tree":
            files = self.server.hub[commit]
            tree = [{"type": "file", "path": n, "size": len(b), "oid": n} for n, b in files.items()]
            self.send(200, json.dumps(tree).encode())
        else:
            self.send(200, json.dumps({"id": "o/d", "sha": commit, "siblings": []}).encode())

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

    def send(self, code, body, headers=None):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: self.server.cut])
            self.close_connection |= len(body) > (self.server.cut or len(body))


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.hub, server.newest, server.asked, server.cut = {}, {}, NEW, [], None
    server.may_answer = threading.Event()
    server.may_answer.set()
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.may_answer.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(str(tmp_path / "w"), "p")


def profile(*sources):
    return Profile(name="p", sources=sources)


def source(**given):
    return Source(**{"name": "thing", "to": "data/downloads/thing", **given})


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def quiet(profile, workspace, **given):
    said = []
    fetch(profile, workspace, say=said.append, **given)
    return "\n".join(said)


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_an_interrupted_download_resumes_with_a_range_and_ends_with_the_same_bytes(
    server, tmp_path
):
    server.files["/big"], server.cut = BODY, 300_000
    with pytest.raises(NapoError, match="gave 300,000 bytes of 1,024,000; call make fetch again"):
        download(server.address + "/big", tmp_path / "big")
    assert tree(tmp_path) == ["big.part"]
    server.cut = None
    download(server.address + "/big", tmp_path / "big")
    assert tree(tmp_path) == ["big"]
    assert (tmp_path / "big").read_bytes() == BODY
    assert server.asked[-1] == ("GET", "/big", "bytes=300000-")


def test_a_download_that_was_killed_before_its_rename_is_not_fetched_again(server, tmp_path):
    server.files["/big"] = BODY
    (tmp_path / "big.part").write_bytes(BODY)
    download(server.address + "/big", tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == BODY


def test_a_part_that_is_longer_than_the_file_is_refused_and_removed(server, tmp_path):
    server.files["/big"] = BODY
    (tmp_path / "big.part").write_bytes(BODY + b"more")
    with pytest.raises(NapoError, match="gave 1,024,004 bytes of 1,024,000"):
        download(server.address + "/big", tmp_path / "big")
    assert tree(tmp_path) == []


def test_a_pointer_of_git_lfs_is_not_taken_for_the_file(server, tmp_path):
    server.files["/f"] = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    with pytest.raises(NapoError, match="pointer of Git LFS"):
        download(server.address + "/f", tmp_path / "f")
    assert tree(tmp_path) == []


def test_an_address_that_is_gone_is_one_sentence_and_the_other_items_are_fetched(server, workspace):
    server.files["/there"] = b"x"
    both = profile(
        source(name="gone", to="gone", url={"f": server.address + "/gone"}),
        source(name="there", to="there", url={"f": server.address + "/there"}),
    )
    with pytest.raises(NapoError, match=r"gone: http.*/gone answers 404 Not Found; get it by hand"):
        quiet(both, workspace, yes=True)
    assert [item.state for item in status(both, workspace)] == ["missing", "complete"]


def test_no_server_is_one_sentence(server, workspace):
    nobody = profile(source(url={"f": "http://127.0.0.1:9/f"}))
    with pytest.raises(
        NapoError, match=r"thing: http://127.0.0.1:9/f broke off .*make fetch again"
    ):
        quiet(nobody, workspace, yes=True)


def test_a_second_fetch_says_who_downloads_and_leaves_the_part_alone(server, workspace):
    server.files["/big"] = BODY
    wanted = profile(source(url={"big": server.address + "/big"}))
    server.may_answer.clear()
    first = threading.Thread(target=quiet, args=(wanted, workspace), kwargs={"yes": True})
    first.start()
    while not server.asked:
        time.sleep(0.01)
    told = rf"^Process {os.getpid()} on .* already downloads .*fetched\.json; wait for it, stop it"
    with pytest.raises(NapoError, match=told):
        quiet(wanted, workspace, yes=True)
    assert "missing" in quiet(wanted, workspace)  # a dry run holds nothing up
    server.may_answer.set()
    first.join()
    assert len(server.asked) == 1
    assert (workspace.root / "data/downloads/thing/big").read_bytes() == BODY


def test_what_another_fetch_brought_meanwhile_is_not_fetched_again(server, workspace):
    server.files["/a.zip"] = zipped(**{"one.json": "1"})
    wanted = profile(source(url={"a.zip": server.address + "/a.zip"}))
    others = iter([lambda: quiet(wanted, workspace, yes=True)])

    def say(line):  # the first line is the plan
        next(others, lambda: None)()

    fetch(wanted, workspace, yes=True, say=say)
    assert len(server.asked) == 1
    assert status(wanted, workspace)[0].state == "complete"


def test_a_place_where_all_is_there_is_not_written_to(server, workspace):
    folder = workspace.root / "data/downloads/thing"
    folder.mkdir(parents=True)
    (folder / "f").write_bytes(b"x")
    quiet(profile(source(url={"f": server.address + "/f"})), workspace, yes=True)
    assert tree(workspace.root / "data/downloads") == ["thing", "thing/f"]


def test_a_file_is_on_the_disk_before_its_name_and_its_name_before_the_record(
    server, tmp_path, monkeypatch
):
    server.files["/big"], done = BODY, []
    sync, replace = os.fsync, os.replace

    def note_sync(handle):
        there = (tmp_path, *tmp_path.iterdir())
        done.extend(f"sync {p.name}" for p in there if os.path.samestat(p.stat(), os.fstat(handle)))
        sync(handle)

    def note_replace(old, new):
        done.append(f"rename to {Path(new).name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    download(server.address + "/big", tmp_path / "big")
    assert done == ["sync big.part", "rename to big", f"sync {tmp_path.name}"]


def test_a_full_disk_is_not_taken_for_a_broken_connection(server, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    server.files["/big"] = BODY
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(NapoError, match=r"big\.part cannot be written: the disk is full"):
        download(server.address + "/big", tmp_path / "big")


SECRET = "hf-0123456789"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("{server}/gone?token={secret}", r"/gone answers 404 Not Found; get it by hand"),
        ("{server}/lfs?token={secret}#{secret}", "/lfs is a pointer of Git LFS"),
        ("http://127.0.0.1:9/f?token={secret}", "http://127.0.0.1:9/f broke off"),
        ("http://me:{secret}@127.0.0.1:9/f", "http://127.0.0.1:9/f comes with a name or password"),
        ("http://me:{secret}@127.0.0.1/f", "http://127.0.0.1/f comes with a name or password"),
        ("http://me:a/{secret}@127.0.0.1/f", "its address cannot be opened; correct it"),
        ("http://127.0.0.1:9/f g?token={secret}", "http://127.0.0.1:9/f g cannot be opened"),
        ("me?token={secret}", "me cannot be opened; correct it in the profile"),
        ("http://[?token={secret}", "its address cannot be opened; correct it in the profile"),
    ],
)
def test_an_address_is_told_without_its_secrets(server, workspace, address, told):
    server.files["/lfs"] = b"version https://git-lfs.github.com/spec/v1\n"
    address = address.format(server=server.address, secret=SECRET)
    said = []
    with pytest.raises(NapoError, match=told) as refused:
        fetch(profile(source(url={"f": address})), workspace, yes=True, say=said.append)
    assert SECRET not in "".join([*said, str(refused.value)])


def test_zip_files_are_unpacked_recorded_and_not_fetched_twice(server, workspace):
    server.files["/a.zip"] = zipped(**{"annotations/one.json": "1", "two.txt": "22"})
    wanted = profile(source(url={"a.zip": server.address + "/a.zip"}, holds={"*/one.json": 1}))
    quiet(wanted, workspace, yes=True)
    folder = workspace.root / "data/downloads/thing"
    assert tree(folder) == ["annotations", "annotations/one.json", "two.txt"]
    [record] = read_json(workspace.root / RECORD).values()
    assert record["urls"] == {"a.zip": {"annotations/one.json": 1, "two.txt": 2}}
    asked = len(server.asked)
    quiet(wanted, workspace, yes=True)
    assert len(server.asked) == asked
    (folder / "two.txt").write_text("2")
    [item] = status(wanted, workspace)
    assert (item.state, item.lacks) == ("partly", ("two.txt",))
    quiet(wanted, workspace, yes=True)
    assert (folder / "two.txt").read_text() == "22"


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "..\\out.txt"])
def test_a_member_that_would_leave_the_folder_is_refused_by_name(tmp_path, name):
    path = tmp_path / "in" / "a.zip"
    path.parent.mkdir()
    path.write_bytes(zipped(**{"good.txt": "1", name: "2"}))
    with pytest.raises(NapoError, match=re.escape(f"a.zip names {name!r}, outside")):
        unpack(path, lambda folder: 100)
    assert tree(tmp_path) == ["in", "in/a.zip"]


def test_an_archive_that_is_damaged_or_too_large_is_one_sentence(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(NapoError, match=r"cannot be unpacked .*; delete it"):
        unpack(path, lambda folder: 100)
    path.write_bytes(zipped(a="x" * 2000))
    with pytest.raises(NapoError, match="free some space"):
        unpack(path, lambda folder: 100)


def test_a_file_name_of_a_profile_that_would_leave_its_folder_is_refused(server, workspace):
    server.files["/f"] = b"x"
    wanted = profile(source(url={"../f": server.address + "/f"}))
    with pytest.raises(NapoError, match=r"thing names '../f', outside"):
        quiet(wanted, workspace, yes=True)


def test_holds_counts_files_by_pattern(workspace):
    item = source(manual="Get the images.", holds={"*.json": 1, "image/*.jpg": 3})
    folder = workspace.root / "data/downloads/thing"
    state = lambda: status(profile(item), workspace)[0]  # noqa: E731
    assert (state().state, state().found, state().expected) == ("missing", 0, 4)
    (folder / "image").mkdir(parents=True)
    (folder / "image" / "1.jpg").touch()
    (folder / "image" / "folder.jpg").mkdir()
    assert (str(state()), state().lacks) == ("1 of 4 files", ("*.json", "image/*.jpg"))
    for name in ("data.json", "image/2.jpg", "image/3.jpg", "image/4.jpg"):
        (folder / name).touch()
    assert (state().state, state().found) == ("complete", 4)


def test_a_dry_run_writes_nothing_and_names_size_licence_and_steps(server, workspace):
    server.files["/f"] = b"x"
    wanted = profile(
        source(url={"f": server.address + "/f"}, gigabytes=1.5, licence="CC0", revision="abc"),
        source(name="images", to="i", manual="1. Open the page.\n", holds={"*.jpg": 2}),
    )
    said = quiet(wanted, workspace, free=lambda folder: 10**9)
    assert re.search(r"thing +data/downloads/thing +1.5 GB \(stated\) +missing +CC0 +abc", said)
    assert "In all at least 1.5 GB, 1.5 GB to come, 1.0 GB free at" in said
    assert "By hand: images (missing; lacks *.jpg)\n1. Open the page.\n" in said
    assert "Nothing was downloaded" in said
    assert not workspace.root.exists()
    assert not server.asked


def test_a_disk_that_is_too_small_stops_before_anything_starts(server, workspace):
    wanted = profile(source(url={"f": server.address + "/f"}, gigabytes=1.5))
    with pytest.raises(NapoError, match=r"1.5 GB are to come to .*, where 1.0 GB are free; free"):
        quiet(wanted, workspace, yes=True, free=lambda folder: 10**9)
    assert not workspace.root.exists()
    assert not server.asked


def test_another_revision_than_the_recorded_one_is_refused_until_the_folder_is_removed(
    server, workspace
):
    server.files["/old"], server.files["/new"] = b"old", b"new"
    old = profile(source(revision="old", url={"f": server.address + "/old"}))
    new = profile(source(revision="new", url={"f": server.address + "/new"}))
    quiet(old, workspace, yes=True)
    [item] = status(new, workspace)
    assert (item.state, item.lacks) == ("partly", ("revision new",))
    with pytest.raises(NapoError, match="fetched at old, and the profile asks for new; remove"):
        quiet(new, workspace, yes=True)
    file = workspace.root / "data/downloads/thing/f"
    assert file.read_bytes() == b"old"
    file.unlink()
    file.parent.rmdir()
    quiet(new, workspace, yes=True)
    assert file.read_bytes() == b"new"
    [record] = read_json(workspace.root / RECORD).values()
    assert (record["revision"], record["whole"]) == ("new", True)


GOOD_RECORD = {
    "repo": "", "revision": "", "commit": "", "whole": True, "files": {}, "urls": {"f": {"f": 1}},
}  # fmt: skip
DAMAGED = {
    "a list": [],
    "a number": 5,
    "an item that is a list": {"data/downloads/thing": []},
    "an item without keys": {"data/downloads/thing": {}},
    "files without sizes": {"data/downloads/thing": {**GOOD_RECORD, "files": {"f": None}}},
    "files in a list": {"data/downloads/thing": {**GOOD_RECORD, "files": ["f"]}},
    "an address in a list": {"data/downloads/thing": {**GOOD_RECORD, "urls": {"f": ["f"]}}},
    "another item": {"data/downloads/other": {"repo": None}},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_record_is_one_sentence(server, workspace, name):
    write_json(workspace.root / RECORD, DAMAGED[name])
    wanted = profile(source(url={"f": server.address + "/f"}))
    for look in (status, quiet):
        with pytest.raises(NapoError, match=r"fetched\.json is damaged .*; delete it, then call"):
            look(wanted, workspace)
    assert not server.asked


@pytest.mark.parametrize(
    "place", ["data/downloads/thing", "data/downloads/thing/", "./data/downloads/thing"]
)
def test_two_sources_that_go_to_one_place_are_refused(workspace, place):
    both = profile(source(name="one"), source(name="two", to=place))
    for look in (status, quiet):
        with pytest.raises(
            NapoError, match="'one' and 'two' both go to data/downloads/thing; give"
        ):
            look(both, workspace)
    apart = profile(source(name="one"), source(name="two", to="data/downloads/thing/more"))
    assert len(status(apart, workspace)) == 2


def run(server, workspace, *sources, model=None, arguments=("--yes",)):
    """The command line in a process of its own, with the local server as the hub."""
    path = workspace.root.parent / "p.yaml"
    given = {"sources": [item.model_dump() for item in sources], "model": model or {}}
    path.write_text(json.dumps(given))
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": server.address}
    environment |= {"HF_HOME": str(workspace.root.parent / "hub"), "HF_TOKEN": "hf_secret"}
    command = [sys.executable, "-m", "napo.data.fetch", "--profile", str(path)]
    command += ["--workspace", str(workspace.root), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_a_repository_is_fetched_at_the_recorded_commit_and_mended(server, workspace):
    server.hub[OLD] = {"Bench/data.json": b"[]", "Bench/images/1.jpg": BODY, "README.md": b"old"}
    server.hub[NEW] = {"Bench/data.json": b"[1]", "Bench/images/1.jpg": BODY}
    server.newest = OLD
    item = source(repo="o/d", files=("Bench/*",), holds={"data.json": 1})
    folder = workspace.root / "data/downloads/thing"
    dry = run(server, workspace, item, arguments=())
    assert re.search(rf"1.0 MB +missing +see its page +{OLD[:12]}", dry.stdout)
    assert not workspace.root.exists()

    done = run(server, workspace, item)
    assert (done.returncode, "hf_secret" in done.stdout + done.stderr) == (0, False)
    assert [name for name in tree(folder) if "cache" not in name.lower()] == [
        "Bench", "Bench/data.json", "Bench/images", "Bench/images/1.jpg", "data.json", "images",
    ]  # fmt: skip
    assert not list(folder.rglob("*.metadata"))
    assert (folder / "data.json").read_bytes() == b"[]"
    [record] = read_json(workspace.root / RECORD).values()
    assert (record["commit"], record["whole"]) == (OLD, True)
    assert record["files"] == {"Bench/data.json": 2, "Bench/images/1.jpg": len(BODY)}

    server.newest = NEW
    (folder / "Bench/images/1.jpg").write_bytes(b"cut")
    [state] = status(profile(item), workspace)
    assert (state.state, state.lacks, state.commit) == ("partly", ("Bench/images/1.jpg",), OLD)
    assert run(server, workspace, item).returncode == 0
    assert (folder / "Bench/images/1.jpg").read_bytes() == BODY
    assert (folder / "data.json").read_bytes() == b"[]"


def test_a_repository_that_breaks_off_goes_on_at_the_commit_it_began_with(server, workspace):
    server.hub[OLD] = {"a.parquet": BODY}
    server.hub[NEW] = {"a.parquet": b"new"}
    server.newest, item = OLD, source(repo="o/d", holds={"*.parquet": 1})
    (workspace.root / "data/downloads/thing").mkdir(parents=True)
    record = {"repo": "o/d", "revision": "", "commit": OLD, "files": {"a.parquet": len(BODY)}}
    write_json(workspace.root / RECORD, {item.to: {**record, "urls": {}, "whole": False, "at": ""}})
    server.newest = NEW
    assert run(server, workspace, item).returncode == 0
    assert (workspace.root / "data/downloads/thing/a.parquet").read_bytes() == BODY


def test_the_base_model_is_fetched_to_where_the_profile_loads_it_from(server, workspace):
    model = {"path": "o/d", "revision": OLD}
    server.hub[OLD] = {"config.json": b"{}", "model.safetensors": BODY, "pytorch_model.bin": BODY}
    assert run(server, workspace, model=model).returncode == 0
    script = (
        "from napo.config.profile import *; from napo.data.fetch import status; "
        "from napo.workspace.folders import *; "
        f"p = Profile(name='p', model=Model(**{model})); print(p.model.location); "
        f"print(status(p, Workspace.open({str(workspace.root)!r}, 'p'))[0])"
    )
    environment = {**os.environ, "HF_HOME": str(workspace.root.parent / "hub")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    folder, state = done.stdout.decode().split()
    assert tree(Path(folder)) == ["config.json", "model.safetensors"]
    assert state == "complete"


def test_a_repository_whose_server_breaks_off_is_one_sentence(server, workspace):
    server.hub[NEW] = {"a.parquet": BODY}
    server.cut = 1000
    done = run(server, workspace, source(repo="o/d"))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "napo: thing (o/d) " in done.stderr
    server.cut = None
    assert run(server, workspace, source(repo="o/d")).returncode == 0
    assert (workspace.root / "data/downloads/thing/a.parquet").read_bytes() == BODY


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"repo": "o/nothing"}, "thing (o/nothing) is not on the hub, or needs a token"),
        ({"repo": "o/d", "revision": "c" * 40}, "thing (o/d) has no revision 'ccc"),
        ({"repo": "o/d", "files": ("*.zip",)}, "thing (o/d) has no file like *.zip"),
        ({"repo": "no hub id/at/all"}, "thing (no hub id/at/all) is not a name"),
    ],
)
def test_what_the_hub_has_not_is_one_sentence(server, workspace, given, words):
    server.hub[NEW] = {"a.parquet": b"new"}
    done = run(server, workspace, source(**given))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert f"napo: {words}" in done.stderr


def test_a_hub_that_cannot_be_reached_is_one_sentence_and_sizes_are_the_stated_ones(
    workspace, capsys
):
    wanted = [source(name=name, to=name, repo="o/d", gigabytes=2) for name in ("one", "two")]
    said = quiet(profile(*wanted), workspace)
    assert said.count("2.0 GB (stated)") == 2
    assert said.count("cannot be reached on the hub: unset HF_HUB_OFFLINE") == 1
    with pytest.raises(NapoError, match=r"one \(o/d\) cannot be reached .* two \(o/d\) cannot"):
        quiet(profile(*wanted), workspace, yes=True, free=lambda folder: 10**10)
    assert main(["--profile", "llava-1.5-7b", "--only", "RLAIFV"]) == 1
    assert (
        "napo: Unknown item to fetch 'RLAIFV'. Did you mean 'RLAIF-V'?" in capsys.readouterr().err
    )


def test_benchmarks_are_linked_to_where_their_readers_look(tmp_path):
    question = {"image_id": "df62", "image_src": "https://farm2.staticflickr.com/1/23_o.jpg"}
    write_json(tmp_path / "response_template.json", [question, {**question, "image_id": "gone"}])
    question["image_src"] = "https://farm2.staticflickr.com/1/none.jpg"
    write_json(tmp_path / "response_template.json", [{**question, "image_id": "gone"}])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "23_o.jpg").write_bytes(b"jpg")
    arrange(tmp_path)
    assert tree(tmp_path / "images") == ["23_o.jpg"]
    question["image_src"] = "https://farm2.staticflickr.com/1/23_o.jpg"
    write_json(tmp_path / "response_template.json", [question])
    arrange(tmp_path)
    arrange(tmp_path)
    assert (tmp_path / "images" / "df62.jpg").read_bytes() == b"jpg"


QUESTION = {"image_id": "df62", "image_src": "https://farm2.staticflickr.com/1/23_o.jpg"}
NO_TEMPLATE = {
    "an object": {"questions": [QUESTION]},
    "a number": 5,
    "nothing": None,
    "a list of texts": ["df62"],
    "a list of lists": [[]],
    "no id": [QUESTION, {"image_src": "a.jpg"}],
    "no address": [QUESTION, {"image_id": "df62"}],
    "an address that is a number": [{**QUESTION, "image_src": 5}],
    "an id that is an object": [{**QUESTION, "image_id": {}}],
    "a null character": [{**QUESTION, "image_id": "a\0b"}],
    "a null character in an address": [{**QUESTION, "image_src": "a\0b"}],
    "an id of another folder": [{**QUESTION, "image_id": "a/b"}],
    "an id that is too long": [{**QUESTION, "image_id": "a" * 300}],
    "an id that a terminal obeys": [{**QUESTION, "image_id": "\x1b[31m"}],
}


@pytest.mark.parametrize("name", NO_TEMPLATE)
def test_a_list_of_questions_of_another_shape_is_one_sentence_and_links_nothing(tmp_path, name):
    write_json(tmp_path / "response_template.json", NO_TEMPLATE[name])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "23_o.jpg").write_bytes(b"jpg")
    told = r"response_template\.json does not give each question an image_id and an image_src"
    with pytest.raises(NapoError, match=told) as refused:
        arrange(tmp_path)
    assert str(refused.value).isprintable()
    assert tree(tmp_path / "images") == ["23_o.jpg"]


def test_a_picture_with_a_name_that_no_disk_takes_is_passed_over(tmp_path):
    long = {**QUESTION, "image_src": "https://x.org/" + "a" * 300}
    write_json(tmp_path / "response_template.json", [long])
    arrange(tmp_path)
    assert tree(tmp_path) == ["response_template.json"]


def test_the_base_model_comes_first_if_it_is_on_the_hub():
    assert items(load_profile("tiny")) == []
    model, *rest = items(load_profile("llava-1.5-7b"))
    assert (model.repo, model.kind, model.to) == ("llava-hf/llava-1.5-7b-hf", "model", "")
    assert len(model.revision) == 40
    assert [item.name for item in rest] == [
        item.name for item in load_profile("llava-1.5-13b-lora").sources
    ]


@pytest.mark.parametrize("name", ["llava-1.5-7b", "llava-1.5-13b"])
def test_the_sources_go_where_the_profile_reads_and_are_pinned(name):
    given = load_profile(name)
    places = {item.to for item in given.sources}
    folders = {f"{given.evaluation.source}/{name}" for name in given.evaluation.benchmarks}
    assert places == folders | {given.data.source}
    for item in given.sources:
        assert item.licence and item.holds
        assert all(item.revision in address or "coco" in address for address in item.url.values())
        assert Path(item.to).parts[:2] == ("data", "downloads")
