import os
import subprocess
import sys

import pytest

from napo.errors import NapoError
from napo.workspace.files import finished_files, write_json
from napo.workspace.folders import Workspace
from napo.workspace.manifests import (
    GONE,
    begin,
    complete,
    conflicts,
    differences,
    finish,
    finished,
    in_words,
    missing_files,
    require,
)


def test_a_folder_is_claimed_continued_and_sealed(tmp_path):
    folder = tmp_path / "rows"
    assert begin(folder, {"seed": 1})
    assert begin(folder, {"seed": 1})
    write_json(folder / "x.json", 1)
    finish(folder)
    assert complete(folder)
    assert not begin(folder, {"seed": 1})
    assert list(require(folder)["files"]) == ["x.json"]


def test_other_settings_in_the_same_folder_are_refused_by_name(tmp_path):
    folder = tmp_path / "rows"
    begin(folder, {"seed": 1, "beta": 2})
    (folder / "part-00000.parquet").touch()
    with pytest.raises(NapoError, match=r"made with other settings \(seed: 1 there, 2 now\)"):
        begin(folder, {"seed": 2, "beta": 2})


def test_the_settings_hold_even_if_the_manifest_is_deleted(tmp_path):
    folder = tmp_path / "rows"
    begin(folder, {"seed": 1})
    finish(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(NapoError, match="other settings"):
        begin(folder, {"seed": 2})


def test_a_missing_input_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(NapoError, match=r"run notebooks/01_build_biased_data.ipynb first"):
        require(Workspace(tmp_path, "tiny").rows)


def test_a_missing_run_or_result_names_its_run_too(tmp_path):
    workspace = Workspace(tmp_path, "tiny")
    sentences = {
        workspace.result("A1/seed-0"): r"06_evaluate.ipynb for A1/seed-0 first",
        workspace.result("model-x-1"): r"06_evaluate.ipynb for model-x-1 first",
        workspace.result("base"): r"06_evaluate.ipynb for base first",
        workspace.run("LB-sum", 1, "full"): r"05_train.ipynb for LB-sum/seed-1 first",
        workspace.run("A1", 0, "lora"): r"05_train.ipynb for A1-lora/seed-0 first",
    }
    for folder, sentence in sentences.items():
        with pytest.raises(NapoError, match=sentence):
            require(folder)


def test_a_deleted_file_of_a_finished_folder_is_known(tmp_path):
    folder = tmp_path / "tables"
    begin(folder, {})
    write_json(folder / "x.json", 1)
    finish(folder)
    assert finished(folder, {}) and missing_files(folder) == []
    (folder / "x.json").unlink()
    assert finished(folder, {}) and missing_files(folder) == ["x.json"]


def test_an_input_with_a_changed_byte_or_a_missing_file_is_refused(tmp_path):
    folder = tmp_path / "rows"
    begin(folder, {})
    (folder / "a.bin").write_bytes(b"abc")
    finish(folder)
    (folder / "a.bin").write_bytes(b"abd")
    with pytest.raises(NapoError, match=r"a.bin is damaged"):
        require(folder)
    (folder / "a.bin").unlink()
    with pytest.raises(NapoError, match=r"a.bin is missing"):
        require(folder)


def test_lost_settings_of_a_finished_folder_come_from_its_manifest(tmp_path):
    settings = {"count": 3}
    assert begin(tmp_path, settings)
    (tmp_path / "part").write_text("x")
    finish(tmp_path)
    written = (tmp_path / "settings.json").read_bytes()
    (tmp_path / "settings.json").unlink()
    assert finished(tmp_path, settings) and not begin(tmp_path, settings)
    assert (tmp_path / "settings.json").read_bytes() == written
    (tmp_path / "settings.json").unlink()
    with pytest.raises(NapoError, match="made with other settings"):
        begin(tmp_path, {"count": 4})


@pytest.mark.parametrize("content", ["[]", "3", '{"files": {}}', '{"files": 1, "settings": {}}'])
def test_a_manifest_of_another_shape_is_refused(tmp_path, content):
    begin(tmp_path, {})
    finish(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(NapoError, match=r"manifest\.json is damaged \(.*; delete .*make it"):
        require(tmp_path)
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(NapoError, match=r"settings\.json is damaged"):
        begin(tmp_path, {})


def test_temporary_files_of_ended_processes_are_removed_when_work_continues(tmp_path):
    folder = tmp_path / "rows"
    begin(folder, {"a": 1})
    (folder / "shard-0.parquet").write_text("whole")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = folder / f".shard-1.{ended.pid}.part.parquet"
    running = folder / f".shard-2.{os.getpid()}.part.parquet"
    for path in (left, running):
        path.write_text("half")
    assert finished_files(folder, "*.parquet") == [folder / "shard-0.parquet"]
    assert begin(folder, {"a": 1})
    assert not left.exists() and running.exists()
    assert list(finish(folder)["files"]) == ["shard-0.parquet"]


def test_a_claimed_but_empty_folder_takes_other_settings(tmp_path):
    assert begin(tmp_path, {"samples": 100})
    (tmp_path / ".labels.lock").touch()
    assert begin(tmp_path, {"samples": 30})
    (tmp_path / "ann.csv").write_text("x")
    with pytest.raises(NapoError, match="samples: 30 there, 10 now"):
        begin(tmp_path, {"samples": 10})


def test_settings_that_differ_are_named_with_their_values_but_not_with_hashes():
    old = {"seed": 1, "decoding": {"beams": 1, "top_p": 1.0}, "rows": "0" * 16, "lost": "x"}
    new = {"seed": 1, "decoding": {"beams": 3, "top_p": 1.0}, "rows": "1" * 16, "new": None}
    pairs = differences(old, new)
    assert pairs == {
        "decoding.beams": (1, 3), "rows": ("0" * 16, "1" * 16), "lost": ("x", None),
    }  # fmt: skip
    assert (
        in_words(pairs)
        == "decoding.beams: 1 there, 3 now; lost: 'x' there, not set now; rows differ"
    )


def test_an_input_that_is_gone_is_not_compared(tmp_path):
    begin(tmp_path, {"rows": "0" * 16, "seed": 1})
    finish(tmp_path)
    assert not conflicts(tmp_path, {"rows": GONE, "seed": 1})
    assert list(conflicts(tmp_path, {"rows": GONE, "seed": 2})) == ["seed"]
    assert list(conflicts(tmp_path, {"rows": "1" * 16, "seed": 1})) == ["rows"]
