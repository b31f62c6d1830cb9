"""A file is hashed again only after it changed."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from napo import stages
from napo.data import sources
from napo.errors import NapoError
from napo.stages.session import open_session
from napo.workspace import hashing
from napo.workspace.manifests import begin, finish, require


@pytest.fixture
def hashed(monkeypatch):
    """The files that are read to be hashed, in order; files are old enough to be remembered."""
    paths, hash_file = [], hashing.hash_file
    monkeypatch.setattr(hashing, "hash_file", lambda path: (paths.append(path), hash_file(path))[1])
    monkeypatch.setattr(hashing, "SETTLED", 0.0)
    monkeypatch.setattr(hashing, "_memory", {})
    monkeypatch.setattr(hashing, "_store", None)
    return paths


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.write_text(path.name)
    return paths


def rewrite(path, content):
    """Write other bytes of the same length into the same file."""
    assert len(content) == path.stat().st_size
    path.write_bytes(content)


def test_a_file_is_hashed_once(files, hashed):
    first = hashing.hash_files(files)
    assert hashing.hash_files(files) == first and hashed == files


def test_a_file_with_a_new_time_is_hashed_again(files, hashed):
    first = hashing.hash_files(files)
    os.utime(files[0], ns=(1, 1))
    assert hashing.hash_files(files) == first and hashed == [*files, files[0]]


def test_a_change_that_keeps_size_and_mtime_is_noticed(files, hashed):
    before, state = hashing.hash_files(files), files[0].stat()
    rewrite(files[0], b"x")
    os.utime(files[0], ns=(state.st_atime_ns, state.st_mtime_ns))
    assert hashing.hash_files(files)[files[0]] != before[files[0]]


def test_a_file_that_is_too_young_is_not_remembered(files, hashed, monkeypatch):
    monkeypatch.setattr(hashing, "SETTLED", 60.0)
    hashing.hash_files(files)
    hashing.hash_files(files)
    assert hashed == [*files, *files]


def test_a_later_process_knows_the_hashes_of_the_workspace(files, hashed, tmp_path):
    store = tmp_path / "hashes.json"
    hashing.remember_in(store)
    hashing.hash_files(files)
    program = (
        "import sys; from pathlib import Path; from napo.workspace import hashing\n"
        "hashing.hash_file = None\n"  # a call would fail
        "hashing.remember_in(Path(sys.argv[1])); hashing.hash_files(map(Path, sys.argv[2:]))"
    )
    subprocess.run([sys.executable, "-c", program, store, *files], check=True)


@pytest.mark.parametrize("damage", ["[]", "{", '{"hashes": {"a": 3}}', "another hash"])
def test_a_damaged_memory_costs_time_only(files, hashed, tmp_path, damage):
    store = tmp_path / "hashes.json"
    hashing.remember_in(store)
    right = hashing.hash_files(files)
    damaged = store.read_text().replace(right[files[0]], "0" * 64)
    store.write_text(damaged if damage == "another hash" else damage)
    hashing._memory.clear()
    hashing.remember_in(store)
    assert hashing.hash_files(files) == right


def test_two_processes_share_one_memory(files, hashed, tmp_path):
    store = tmp_path / "hashes.json"
    hashing.remember_in(store)
    hashing.hash_files(files[:1])
    hashing._memory.clear()  # a process that began before the store was written
    hashing.hash_files(files[1:])
    hashing.remember_in(store)
    hashing.hash_files(files)
    assert hashed == files


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(NapoError, match="gone cannot be read"):
        hashing.content_hash([tmp_path / "gone"], tmp_path)


def test_damage_of_a_sealed_folder_is_noticed_right_after_it_was_checked(tmp_path):
    begin(tmp_path, {})
    (tmp_path / "a.bin").write_bytes(b"abc")
    finish(tmp_path)
    require(tmp_path)
    rewrite(tmp_path / "a.bin", b"abd")
    with pytest.raises(NapoError, match=r"a\.bin is damaged"):
        require(tmp_path)


def test_one_training_run_hashes_rows_and_base_model_at_most_once(built_smoke, hashed, tmp_path):
    # Workspaces share nothing in memory, so this run starts without any known hash.
    session = open_session("smoke", str(built_smoke.workspace.root))
    stages.score_reference(session)
    hashed.clear()
    hashing._memory.clear()
    stages.train(session, "dpo", 0)
    rows = [path for path in hashed if path.parent == session.workspace.rows]
    weights = [path for path in hashed if path.parent.name == "checkpoint"]
    assert rows and weights
    assert len(set(rows)) == len(rows) and len(set(weights)) == len(weights)


# --- downloads ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory):
    """A session whose rows are JSONL beside their images, built once, and the rows' folder."""
    root = tmp_path_factory.mktemp("downloaded")
    folder = root / "in"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    row = {"idx": "1", "image": "a.png", "question": "What is it?", "chosen": "A cat.",
           "rejected": "A dog.", "language_biased": "A cow.", "vision_biased": "Red."}  # fmt: skip
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    session = open_session("smoke", str(root / "work"))
    data = session.profile.data.model_copy(update={"source": str(folder), "count": 0})
    profile = session.profile.model_copy(update={"data": data})
    session = type(session)(profile, session.workspace)
    stages.build_rows(session)
    return session, folder


def test_rows_from_the_same_download_are_not_built_again(downloaded):
    session, _ = downloaded
    manifest = session.workspace.rows / "manifest.json"
    before = manifest.stat().st_mtime_ns
    stages.build_rows(session)
    assert manifest.stat().st_mtime_ns == before


@pytest.mark.parametrize("name", ["rows.jsonl", "a.png"])
def test_a_changed_byte_of_a_download_is_another_source(downloaded, name):
    session, folder = downloaded
    path, content = folder / name, (folder / name).read_bytes()
    other = content.replace(b"A cat.", b"A bat.") if name == "rows.jsonl" else content[::-1]
    rewrite(path, other)
    with pytest.raises(NapoError, match=r"made with other settings \(source differ\)"):
        stages.build_rows(session)
    path.write_bytes(content)


def test_missing_pictures_and_pictures_outside_are_not_hashed(tmp_path):
    row = {"question": "?", "chosen": "a", "rejected": "b"}
    names = ["../../etc/hostname", "none.png", "", "a\0b"]
    lines = [json.dumps({**row, "image": name}) for name in names]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    assert sources.files(tmp_path) == [tmp_path / "rows.jsonl"]
