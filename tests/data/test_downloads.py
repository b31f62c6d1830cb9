"""Plain addresses against a real local server: resumed, checked, unpacked."""

import errno
import hashlib
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from hub_fixtures import running_server

from napo.data.downloads import arrange, download, printable, unpack
from napo.errors import NapoError

BODY = bytes(range(256)) * 4000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server():
    with running_server() as server:
        server.files |= {"/big": BODY, "/lfs": POINTER}
        yield server


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_an_interrupted_download_resumes_and_ends_with_the_same_bytes(server, tmp_path):
    server.cut = 300_000
    with pytest.raises(NapoError, match="gave 300,000 bytes of 1,024,000; call make fetch again"):
        download(server.address + "/big", tmp_path / "big")
    assert tree(tmp_path) == ["big.part"]
    server.cut = None
    download(server.address + "/big", tmp_path / "big")
    assert tree(tmp_path) == ["big"] and (tmp_path / "big").read_bytes() == BODY
    assert server.requests[-1] == ("GET", "/big", "bytes=300000-")


def test_a_part_that_leaves_nothing_to_send_is_downloaded_anew(server, tmp_path):
    (tmp_path / "big.part").write_bytes(BODY)
    download(server.address + "/big", tmp_path / "big")
    assert (tmp_path / "big").read_bytes() == BODY


def test_a_pinned_file_is_compared_with_its_hash(server, tmp_path):
    download(f"{server.address}/big#sha256={DIGEST}", tmp_path / "big")
    with pytest.raises(NapoError, match="/big does not have the SHA-256 that the profile pins"):
        download(f"{server.address}/big#sha256={'0' * 64}", tmp_path / "other")
    assert tree(tmp_path) == ["big"]


def test_a_file_is_on_the_disk_before_its_name(server, tmp_path, monkeypatch):
    sync, replace, done = os.fsync, os.replace, []

    def note_sync(handle):
        paths = (tmp_path, *tmp_path.iterdir())
        done.extend(p.name for p in paths if os.path.samestat(p.stat(), os.fstat(handle)))
        sync(handle)

    def note_replace(old, new):
        done.append(f"rename to {Path(new).name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_replace)
    download(server.address + "/big", tmp_path / "big")
    assert done == ["big.part", "rename to big", tmp_path.name]


def test_a_full_disk_is_not_taken_for_a_broken_connection(server, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(NapoError, match=r"big\.part cannot be written: the disk is full"):
        download(server.address + "/big", tmp_path / "big")


SECRET = "hf-0123456789"


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("{server}/gone?token={secret}", "/gone answers 404 Not Found; download it by hand"),
        ("{server}/lfs?token={secret}", "/lfs is a pointer of Git LFS"),
        ("http://127.0.0.1:9/f?token={secret}", r"http://127.0.0.1:9/f cannot be downloaded \(C"),
        ("http://me:{secret}@127.0.0.1:9/f g", r"http://127.0.0.1:9/f g cannot be downloaded"),
        ("http://me:a/{secret}@127.0.0.1/f", "the address cannot be downloaded"),
        ("file:///etc/hostname", "file:///etc/hostname is not https, so its content"),
    ],
)
def test_an_address_that_fails_is_one_sentence_without_its_secrets(
    server, tmp_path, address, sentence
):
    address = address.format(server=server.address, secret=SECRET)
    with pytest.raises(NapoError, match=sentence) as refused:
        download(address, tmp_path / "f")
    assert SECRET not in f"{refused.value} {printable(address)}"
    assert not list(tmp_path.glob("f*"))


def test_plain_http_from_another_machine_needs_a_pinned_hash(server, tmp_path, monkeypatch):
    monkeypatch.setattr("napo.data.downloads.LOCAL", ())
    with pytest.raises(NapoError, match=r"/big is not https, .* end the address with #sha256="):
        download(server.address + "/big", tmp_path / "big")
    assert not tree(tmp_path)
    download(f"{server.address}/big#sha256={DIGEST}", tmp_path / "big")


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "a/../../out.txt", "..\\out.txt"])
def test_a_member_that_would_leave_the_folder_is_refused_by_name(tmp_path, name):
    path = tmp_path / "in" / "a.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.txt", "1")
        archive.writestr(name, "2")
    with pytest.raises(NapoError, match=re.escape(f"a.zip names {name!r}, outside")):
        unpack(path)
    assert tree(tmp_path) == ["in", "in/a.zip"]


def test_a_damaged_archive_is_one_sentence(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(NapoError, match=r"a\.zip cannot be unpacked .*; delete it"):
        unpack(tmp_path / "a.zip")


def test_vlind_bench_is_linked_to_where_its_reader_looks(tmp_path):
    (tmp_path / "VLind-Bench Dataset" / "images").mkdir(parents=True)
    (tmp_path / "VLind-Bench Dataset" / "data.json").write_text("[]")
    for _ in range(2):
        arrange(tmp_path)
    assert (tmp_path / "data.json").read_text() == "[]" and (tmp_path / "images").is_dir()
