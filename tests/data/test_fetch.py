"""What a profile needs: reported, downloaded, resumed; from a local server and the hub's client."""

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
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_fixtures import NEW, OLD, running_server

from napo.config.profile import Profile, Source, load_profile
from napo.data.fetch import RECORD, fetch, items, require_unchanged, status
from napo.errors import NapoError
from napo.models.fingerprint import model_fingerprint
from napo.workspace.files import write_json
from napo.workspace.folders import Workspace

BODY = bytes(range(256)) * 4000


@pytest.fixture
def server():
    with running_server() as server:
        server.files["/f"] = b"x"
        yield server


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(str(tmp_path / "w"), "p")


def profile(*sources):
    return Profile(name="p", sources=sources)


def source(**settings):
    return Source(**{"name": "thing", "to": "data/downloads/thing", **settings})


def report(profile, workspace, **options):
    lines = []
    fetch(profile, workspace, say=lines.append, **options)
    return "\n".join(lines)


def disk_with(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_an_address_that_is_gone_does_not_stop_the_others(server, workspace):
    both = profile(
        source(name="gone", to="gone", url={"f": server.address + "/gone"}),
        source(name="there", to="there", url={"f": server.address + "/f"}),
    )
    with pytest.raises(NapoError, match=r"gone: http.*/gone answers 404 Not Found"):
        report(both, workspace, yes=True)
    assert [item.state for item in status(both, workspace)] == ["missing", "complete"]


def test_a_second_fetch_is_told_to_wait_and_leaves_the_part_alone(server, workspace):
    server.files["/big"] = BODY
    big = profile(source(url={"big": server.address + "/big"}))
    server.may_answer.clear()
    first = threading.Thread(target=report, args=(big, workspace), kwargs={"yes": True})
    first.start()
    while not server.requests:
        time.sleep(0.01)
    busy = rf"^Process {os.getpid()} on .* already downloads .*fetched\.json; wait for it, stop it"
    with pytest.raises(NapoError, match=busy):
        report(big, workspace, yes=True)
    assert "missing" in report(big, workspace)  # a dry run needs no lock
    server.may_answer.set()
    first.join()
    assert len(server.requests) == 1
    assert (workspace.root / "data/downloads/thing/big").read_bytes() == BODY


def test_a_place_where_all_is_there_is_not_written_to(server, workspace):
    folder = workspace.root / "data/downloads/thing"
    folder.mkdir(parents=True)
    (folder / "f").write_bytes(b"x")
    report(profile(source(url={"f": server.address + "/f"})), workspace, yes=True)
    assert tree(workspace.root / "data/downloads") == ["thing", "thing/f"]


def test_a_dry_run_writes_nothing_and_names_size_licence_and_steps(server, workspace, monkeypatch):
    disk_with(monkeypatch, 10**9)
    needs = profile(
        source(url={"f": server.address + "/f"}, gigabytes=1.5, licence="CC0", revision="abc"),
        source(name="images", to="i", manual="1. Open the page.\n", holds={"*.jpg": 2}),
    )
    text = report(needs, workspace)
    assert re.search(r"thing +data/downloads/thing +1.5 GB \(stated\) +missing +CC0 +abc", text)
    assert "In all at least 1.5 GB, 1.5 GB to come, 1.0 GB free at" in text
    assert "By hand: images (missing; lacks *.jpg)\n1. Open the page.\n" in text
    assert "Nothing was downloaded" in text
    assert not workspace.root.exists() and not server.requests


def test_a_disk_that_is_too_small_stops_before_any_download(server, workspace, monkeypatch):
    disk_with(monkeypatch, 10**9)
    large = profile(source(url={"f": server.address + "/f"}, gigabytes=1.5))
    with pytest.raises(NapoError, match=r"1.5 GB are to come to .*, where 1.0 GB are free; free"):
        report(large, workspace, yes=True)
    assert not server.requests and not (workspace.root / "data/downloads/thing").exists()


def test_zip_files_are_unpacked_recorded_and_not_fetched_twice(server, workspace):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("annotations/one.json", "1")
        archive.writestr("two.txt", "22")
    server.files["/a.zip"] = buffer.getvalue()
    zipped = profile(source(url={"a.zip": server.address + "/a.zip"}, holds={"*/one.json": 1}))
    for _ in range(2):
        report(zipped, workspace, yes=True)
    assert len(server.requests) == 1
    folder = workspace.root / "data/downloads/thing"
    assert tree(folder) == ["annotations", "annotations/one.json", "two.txt"]
    (folder / "two.txt").write_text("2")
    [item] = status(zipped, workspace)
    assert (item.state, item.lacks) == ("partly", ("two.txt",))
    report(zipped, workspace, yes=True)
    assert (folder / "two.txt").read_text() == "22"


def test_holds_counts_files_by_pattern(workspace):
    images = profile(source(manual="Get the images.", holds={"*.json": 1, "image/*.jpg": 3}))
    folder = workspace.root / "data/downloads/thing"
    (folder / "image" / "folder.jpg").mkdir(parents=True)
    for name in ("data.json", "image/1.jpg"):
        (folder / name).touch()
    [partly] = status(images, workspace)
    assert (str(partly), partly.lacks) == ("2 of 4 files", ("image/*.jpg",))
    for name in ("image/2.jpg", "image/3.jpg", "image/4.jpg"):
        (folder / name).touch()
    [complete] = status(images, workspace)
    assert (complete.state, complete.present) == ("complete", 4)


def test_another_revision_is_refused_until_the_folder_is_removed(server, workspace):
    server.files |= {"/old": b"old", "/new": b"new"}
    old, new = (
        profile(source(revision=name, url={"f": f"{server.address}/{name}"}))
        for name in ("old", "new")
    )
    report(old, workspace, yes=True)
    assert status(new, workspace)[0].lacks == ("revision new",)
    with pytest.raises(NapoError, match="fetched at old, and the profile asks for new; remove"):
        report(new, workspace, yes=True)
    folder = workspace.root / "data/downloads/thing"
    assert (folder / "f").read_bytes() == b"old"
    shutil.rmtree(folder)
    report(new, workspace, yes=True)
    assert (folder / "f").read_bytes() == b"new"


def test_a_damaged_record_is_one_sentence(workspace):
    write_json(workspace.root / RECORD, {"to": {"repo": None}})
    with pytest.raises(NapoError, match=r"fetched\.json is damaged .*; delete it, then call"):
        status(profile(source()), workspace)


@pytest.mark.parametrize(
    ("sources", "problem"),
    [
        ([{}, {"to": "./data/downloads/thing"}], "Two sources go to data/downloads/thing; give"),
        ([{"url": {"../f": "https://x.org/f"}}], r"thing names '../f', outside"),
        ([{"name": "thin"}], r"Unknown item to fetch 'thing'\. Did you mean 'thin'"),
    ],
)
def test_sources_that_cannot_be_fetched_are_one_sentence(workspace, sources, problem):
    with pytest.raises(NapoError, match=problem):
        report(profile(*(source(**s) for s in sources)), workspace, yes=True, only="thing")


def run(server, workspace, *sources, model=None, arguments=("--yes",)):
    """The command line in a process of its own, with the local server as the hub."""
    path = workspace.root.parent / "p.yaml"
    settings = {"sources": [item.model_dump() for item in sources], "model": model or {}}
    path.write_text(json.dumps(settings))
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": server.address}
    environment |= {"HF_HOME": str(workspace.root.parent / "hub"), "HF_TOKEN": "hf_secret"}
    command = [sys.executable, "-m", "napo", "fetch", "--profile", str(path)]
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
    assert tree(folder) == ["Bench", "Bench/data.json", "Bench/images", "Bench/images/1.jpg",
                            "data.json", "images"]  # fmt: skip

    server.newest = NEW
    (folder / "Bench/images/1.jpg").write_bytes(b"cut")
    [state] = status(profile(item), workspace)
    assert (state.state, state.lacks, state.commit) == ("partly", ("Bench/images/1.jpg",), OLD)
    assert run(server, workspace, item).returncode == 0
    assert (folder / "Bench/images/1.jpg").read_bytes() == BODY
    assert (folder / "data.json").read_bytes() == b"[]"


def test_a_repository_that_breaks_off_continues_at_its_first_commit(server, workspace):
    server.hub[OLD], server.newest, server.cut = {"a.parquet": BODY}, OLD, 1000
    item = source(repo="o/d")
    assert "napo: thing: The hub cannot be reached" in run(server, workspace, item).stderr
    server.hub[NEW], server.newest, server.cut = {"a.parquet": b"new"}, NEW, None
    assert run(server, workspace, item).returncode == 0
    assert (workspace.root / "data/downloads/thing/a.parquet").read_bytes() == BODY


def test_the_base_model_is_fetched_to_where_the_profile_loads_it_from(server, workspace):
    model = {"path": "o/d", "revision": OLD}
    server.hub[OLD] = {"config.json": b"{}", "model.safetensors": BODY, "pytorch_model.bin": BODY}
    assert run(server, workspace, model=model).returncode == 0
    assert " complete " in run(server, workspace, model=model, arguments=()).stdout
    script = f"from napo.config.settings import Model; print(Model(**{model}).location)"
    environment = {**os.environ, "HF_HOME": str(workspace.root.parent / "hub")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True)
    assert tree(Path(done.stdout.decode().strip())) == ["config.json", "model.safetensors"]


TRUSTED = pytest.mark.kind("bytes are trusted by size")


def flip(path):
    """Change one byte of a file, and nothing that a listing shows."""
    content, state = bytearray(path.read_bytes()), path.stat()
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


@TRUSTED
@pytest.mark.parametrize("name", ["Bench/images/1.jpg", "Bench/data.json"])  # LFS, git
def test_one_wrong_byte_of_a_repository_is_seen_and_mended(server, workspace, name, result):
    server.hub[OLD] = {"Bench/data.json": b"[12345]", "Bench/images/1.jpg": BODY}
    server.newest = OLD
    item = source(repo="o/d", files=("Bench/*",), holds={"data.json": 1})
    path = workspace.root / "data/downloads/thing" / name
    assert run(server, workspace, item).returncode == 0
    flip(path)
    [state] = status(profile(item), workspace)
    result(f"{state}, lacks {state.lacks}")
    assert (state.state, state.lacks, state.changed) == ("partly", (name,), (name,))
    with pytest.raises(NapoError, match=f"{name} has other bytes than thing has; call make fetch"):
        require_unchanged(profile(item), workspace)
    assert run(server, workspace, item).returncode == 0
    assert path.read_bytes() == server.hub[OLD][name]
    require_unchanged(profile(item), workspace)


@TRUSTED
def test_a_copy_placed_by_hand_is_compared_with_the_hub_and_mended(server, workspace, result):
    server.hub[NEW] = {"a.parquet": BODY, "b.parquet": BODY[::-1]}
    item = source(repo="o/d", revision=NEW, holds={"*.parquet": 2})
    folder = workspace.root / "data/downloads/thing"
    folder.mkdir(parents=True)
    elsewhere = workspace.root / "shared.parquet"
    for path, content in ((folder / "a.parquet", BODY), (elsewhere, BODY[::-1])):
        path.write_bytes(content)
    (folder / "b.parquet").symlink_to(elsewhere)
    assert " complete " in run(server, workspace, item, arguments=()).stdout
    flip(elsewhere)
    changed = elsewhere.read_bytes()
    dry = run(server, workspace, item, arguments=()).stdout
    assert " complete " not in dry and "2 of 2 files" in dry
    assert run(server, workspace, item).returncode == 0
    assert (folder / "b.parquet").read_bytes() == BODY[::-1]
    assert elsewhere.read_bytes() == changed  # the person's own file is left alone
    result("named as not whole; the hub's file replaces the link, not the file behind it")


@TRUSTED
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])  # LFS, git
def test_the_models_own_files_in_the_cache_are_hashed(server, workspace, name, result):
    server.hub[OLD] = {"config.json": b'{"a": 1}', "model.safetensors": BODY}
    model = {"path": "o/d", "revision": OLD}
    assert run(server, workspace, model=model).returncode == 0
    snapshot = workspace.root.parent / f"hub/hub/models--o--d/snapshots/{OLD}"
    model_fingerprint(snapshot)
    shutil.rmtree(workspace.root / "data")  # a cache that another program has filled
    flip((snapshot / name).resolve())
    with pytest.raises(NapoError, match=r"is damaged \(its hash is not the hub") as error:
        model_fingerprint(snapshot)
    result(error.value)
    dry = run(server, workspace, model=model, arguments=()).stdout
    assert " complete " not in dry
    assert run(server, workspace, model=model).returncode == 0
    assert (snapshot / name).read_bytes() == server.hub[OLD][name]


@TRUSTED
def test_one_wrong_byte_from_an_address_is_seen_and_mended(server, workspace, result):
    server.files |= {"/pinned": BODY, "/plain": BODY}
    pin = hashlib.sha256(BODY).hexdigest()
    urls = {"pinned": f"{server.address}/pinned#sha256={pin}", "plain": server.address + "/plain"}
    both, folder = profile(source(url=urls)), workspace.root / "data/downloads/thing"
    report(both, workspace, yes=True)
    for name in urls:
        flip(folder / name)
    [state] = status(both, workspace)
    assert set(state.lacks) == set(urls)
    report(both, workspace, yes=True)
    assert all((folder / name).read_bytes() == BODY for name in urls)
    shutil.rmtree(workspace.root)  # by hand, without a record: only the pin is known
    folder.mkdir(parents=True)
    for name in urls:
        (folder / name).write_bytes(b"x" * len(BODY))
    [state] = status(both, workspace)
    result(f"{state}, lacks {state.lacks}")
    assert state.lacks == ("pinned",)


@TRUSTED
def test_a_server_that_sends_other_bytes_is_refused(server, workspace, result):
    server.hub[OLD] = {"a.parquet": BODY}
    server.newest = OLD
    server.sends = {"a.parquet": BODY[:-1] + b"x"}
    done = run(server, workspace, source(repo="o/d"))
    result(done.stderr.strip())
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "did not arrive with the hash that the hub gives" in done.stderr


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"repo": "o/nothing"}, "o/nothing is not on the hub, or needs a token"),
        ({"repo": "o/d", "revision": "c" * 40}, "o/d has no revision 'ccc"),
        ({"repo": "o/d", "files": ("*.zip",)}, "o/d has no file like *.zip"),
        ({"repo": "no hub id/at/all"}, "no hub id/at/all is not a valid name"),
    ],
)
def test_what_the_hub_does_not_have_is_one_sentence(server, workspace, settings, sentence):
    server.hub[NEW] = {"a.parquet": b"new"}
    done = run(server, workspace, source(**settings))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert f"napo: thing: {sentence}" in done.stderr


@pytest.mark.kind("the machine's surroundings")
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("ALL_PROXY", "socks5h://me:my-password@host:port", "a wrong address; the environment"),
        ("ALL_PROXY", "foo://me:my-password@127.0.0.1:9", "Unknown scheme"),
        ("SSL_CERT_FILE", "/nowhere.pem", "No such file"),
    ],
)
def test_a_variable_that_keeps_the_hub_away_is_named(
    server, workspace, monkeypatch, result, name, value, sentence
):
    server.hub[NEW] = {"a.parquet": b"new"}
    monkeypatch.setenv(name, value)
    done = run(server, workspace, source(repo="o/d"))
    [line] = [line for line in done.stderr.splitlines() if "The hub cannot be reached" in line]
    assert sentence in line and f"the environment sets {name}" in line
    assert "my-password" not in done.stdout + done.stderr and "Traceback" not in done.stderr
    result(line)


def test_without_the_hub_the_sizes_are_the_profiles(workspace, monkeypatch):
    disk_with(monkeypatch, 10**10)
    both = profile(*(source(name=name, to=name, repo="o/d", gigabytes=2) for name in ("a", "b")))
    text = report(both, workspace)
    assert text.count("2.0 GB (stated)") == 2
    assert text.count("unset HF_HUB_OFFLINE, then call make fetch again") == 1
    with pytest.raises(NapoError, match=r"a: The hub cannot be reached .* b: The hub cannot"):
        report(both, workspace, yes=True)


def test_the_base_model_comes_first_if_it_is_on_the_hub():
    assert items(load_profile("tiny")) == []
    model, *rest = items(load_profile("llava-1.5-7b"))
    assert (model.repo, model.kind, model.to) == ("llava-hf/llava-1.5-7b-hf", "model", "")
    assert len(model.revision) == 40
    lora = load_profile("llava-1.5-13b-lora").sources
    assert [item.name for item in rest] == [item.name for item in lora]


@pytest.mark.parametrize("name", ["llava-1.5-7b", "llava-1.5-13b"])
def test_the_sources_go_where_the_profile_reads_and_are_pinned(name):
    settings = load_profile(name)
    folders = {f"{settings.evaluation.source}/{name}" for name in settings.evaluation.benchmarks}
    assert {item.to for item in settings.sources} == folders | {settings.data.source}
    for item in settings.sources:
        addresses = item.url.values()
        assert item.licence and item.holds and item.to.startswith("data/downloads/")
        assert all(item.revision in address or "#sha256=" in address for address in addresses)
