"""A changed byte of a download is another input; what is as it was is not read again."""

import json
import os

import pytest
from PIL import Image

from napo import stages
from napo.data import sources
from napo.errors import NapoError
from napo.stages.session import open_session
from napo.workspace import hashing


@pytest.fixture
def made(tmp_path):
    """A session whose rows are JSONL beside their images, built once."""
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    row = {"idx": "1", "image": "a.png", "question": "What is it?", "chosen": "A cat.",
           "rejected": "A dog.", "language_biased": "A cow.", "vision_biased": "Red."}  # fmt: skip
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    opened = open_session("smoke", str(tmp_path / "work"))
    data = opened.profile.data.model_copy(update={"source": str(folder), "count": 0})
    asked = type(opened)(opened.profile.model_copy(update={"data": data}), opened.workspace)
    stages.build_rows(asked)
    return asked, folder


def rewrite(path, content):
    """Other bytes of the same length."""
    assert len(content) == path.stat().st_size
    path.write_bytes(content)


def test_the_same_source_is_not_built_again(made):
    asked, _ = made
    manifest = asked.workspace.rows / "manifest.json"
    before = manifest.stat().st_mtime_ns
    stages.build_rows(asked)
    assert manifest.stat().st_mtime_ns == before


@pytest.mark.parametrize("what", ["a text", "a picture"])
def test_a_change_that_keeps_the_size_is_another_source(made, what):
    asked, folder = made
    path = folder / ("rows.jsonl" if what == "a text" else "a.png")
    content = path.read_bytes()
    other = content.replace(b"A cat.", b"A bat.") if what == "a text" else content[::-1]
    rewrite(path, other)
    with pytest.raises(NapoError, match=r"made with other settings \(source differ\)"):
        stages.build_rows(asked)


def test_files_are_read_once_and_again_when_they_change(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("a", "b")]
    for path in files:
        path.write_text(path.name)
    read, real = [], hashing.hash_file
    monkeypatch.setattr(hashing, "hash_file", lambda path: (read.append(path.name), real(path))[1])
    memory = tmp_path / "memory.json"
    first = hashing.content_hash(files, tmp_path, memory)
    assert hashing.content_hash(files, tmp_path, memory) == first and read == ["a", "b"]
    os.utime(files[0], ns=(1, 1))
    assert hashing.content_hash(files, tmp_path, memory) == first and read == ["a", "b", "a"]
    files[1].write_text("c")
    assert hashing.content_hash(files, tmp_path, memory) != first
    for damaged in ("[]", "{", '{"a": 3}'):
        memory.write_text(damaged)
        files[1].write_text("b")
        assert hashing.content_hash(files, tmp_path, memory) == first


def test_a_file_that_went_away_is_named(tmp_path):
    with pytest.raises(NapoError, match="gone cannot be read"):
        hashing.content_hash([tmp_path / "gone"], tmp_path, tmp_path / "memory.json")


def test_pictures_that_are_missing_or_outside_are_left_to_whoever_reads_the_rows(tmp_path):
    row = {"question": "?", "chosen": "a", "rejected": "b"}
    names = ["../../etc/hostname", "none.png", "", "a\0b"]
    lines = [json.dumps({**row, "image": name}) for name in names]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    assert sources.files(tmp_path) == [tmp_path / "rows.jsonl"]
