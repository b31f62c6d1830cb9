"""What a profile needs: reported, downloaded, resumed; from a local server and the hub's client."""

# ruff: noqa: F401, F811 - fixtures of hub_fixtures

import hashlib
import io
import os
import re
import shutil
import threading
import time
import zipfile
from types import SimpleNamespace

import pytest
from hub_fixtures import BODY, flip, folder, profile, report, server, source, tree, workspace

from napo.config.profile import load_profile
from napo.data.fetch import RECORD, fetch, items, status
from napo.errors import NapoError
from napo.workspace.files import write_json


def disk_with(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))


def test_an_address_that_is_gone_does_not_stop_the_others(server, workspace):
    both = profile(
        source(name="gone", to="gone", url={"f": server.address + "/gone"}),
        source(name="there", to="there", url={"f": server.address + "/f"}),
    )
    with pytest.raises(NapoError, match=r"gone: http.*/gone answers 404 Not Found"):
        report(both, workspace, yes=True)
    assert [item.state for item in status(both, workspace)] == ["missing", "complete"]


def test_a_second_fetch_is_told_to_wait_and_leaves_the_part_alone(server, workspace, folder):
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
    assert (folder / "big").read_bytes() == BODY


def test_a_place_where_all_is_there_is_not_written_to(server, workspace, folder):
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


def test_a_disk_that_is_too_small_stops_before_any_download(server, workspace, folder, monkeypatch):
    disk_with(monkeypatch, 10**9)
    large = profile(source(url={"f": server.address + "/f"}, gigabytes=1.5))
    with pytest.raises(NapoError, match=r"1.5 GB are to come to .*, where 1.0 GB are free; free"):
        report(large, workspace, yes=True)
    assert not server.requests and not folder.exists()


def test_zip_files_are_unpacked_recorded_and_not_fetched_twice(server, workspace, folder):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("annotations/one.json", "1")
        archive.writestr("two.txt", "22")
    server.files["/a.zip"] = buffer.getvalue()
    zipped = profile(source(url={"a.zip": server.address + "/a.zip"}, holds={"*/one.json": 1}))
    for _ in range(2):
        report(zipped, workspace, yes=True)
    assert len(server.requests) == 1
    assert tree(folder) == ["annotations", "annotations/one.json", "two.txt"]
    (folder / "two.txt").write_text("2")
    [item] = status(zipped, workspace)
    assert (item.state, item.lacks) == ("partly", ("two.txt",))
    report(zipped, workspace, yes=True)
    assert (folder / "two.txt").read_text() == "22"


def test_holds_counts_files_by_pattern(workspace, folder):
    images = profile(source(manual="Get the images.", holds={"*.json": 1, "image/*.jpg": 3}))
    (folder / "image" / "folder.jpg").mkdir(parents=True)
    for name in ("data.json", "image/1.jpg"):
        (folder / name).touch()
    [partly] = status(images, workspace)
    assert (str(partly), partly.lacks) == ("2 of 4 files", ("image/*.jpg",))
    for name in ("image/2.jpg", "image/3.jpg", "image/4.jpg"):
        (folder / name).touch()
    [complete] = status(images, workspace)
    assert (complete.state, complete.present) == ("complete", 4)


def test_another_revision_is_refused_until_the_folder_is_removed(server, workspace, folder):
    server.files |= {"/old": b"old", "/new": b"new"}
    old, new = (
        profile(source(revision=name, url={"f": f"{server.address}/{name}"}))
        for name in ("old", "new")
    )
    report(old, workspace, yes=True)
    assert status(new, workspace)[0].lacks == ("revision new",)
    with pytest.raises(NapoError, match="fetched at old, and the profile asks for new; remove"):
        report(new, workspace, yes=True)
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


TRUSTED = pytest.mark.kind("bytes are trusted by size")


@TRUSTED
def test_one_wrong_byte_from_an_address_is_seen_and_mended(server, workspace, folder, result):
    server.files |= {"/pinned": BODY, "/plain": BODY}
    pin = hashlib.sha256(BODY).hexdigest()
    urls = {"pinned": f"{server.address}/pinned#sha256={pin}", "plain": server.address + "/plain"}
    both = profile(source(url=urls))
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
