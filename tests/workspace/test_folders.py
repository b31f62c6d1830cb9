import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napo.errors import NapoError
from napo.stages.inputs import reference_folder
from napo.stages.session import open_session
from napo.workspace.files import atomic_file, fingerprint, finished_files, read_json, write_json
from napo.workspace.folders import Workspace, run_name
from napo.workspace.manifests import begin, complete, finish, finished, missing_files, require

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def test_a_file_is_whole_or_absent(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_earlier_file_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before"


def test_the_temporary_name_keeps_the_suffix_that_writers_choose_a_format_by(tmp_path):
    with atomic_file(tmp_path / "fig.pdf") as temporary:
        temporary.write_bytes(b"x")
        assert temporary.suffix == ".pdf"


@given(json_values)
def test_a_fingerprint_survives_a_trip_through_json(value):
    assert fingerprint(json.loads(json.dumps(value))) == fingerprint(value)


def test_a_fingerprint_does_not_depend_on_the_order_of_keys():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})


def test_a_folder_is_begun_gone_on_with_and_sealed(tmp_path):
    folder = tmp_path / "rows"
    assert begin(folder, {"seed": 1})
    assert begin(folder, {"seed": 1})
    write_json(folder / "x.json", 1)
    finish(folder)
    assert complete(folder)
    assert not begin(folder, {"seed": 1})
    assert list(require(folder)["files"]) == ["x.json"]


def test_other_settings_in_the_same_place_are_refused_by_name(tmp_path):
    folder = tmp_path / "rows"
    begin(folder, {"seed": 1, "beta": 2})
    (folder / "part-00000.parquet").touch()
    with pytest.raises(NapoError, match=r"made with other settings \(seed differ\)"):
        begin(folder, {"seed": 2, "beta": 2})


def test_the_settings_hold_even_when_the_manifest_was_taken_away(tmp_path):
    folder = tmp_path / "rows"
    begin(folder, {"seed": 1})
    finish(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(NapoError, match="other settings"):
        begin(folder, {"seed": 2})


def test_a_missing_input_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(NapoError, match=r"run notebooks/01_build_biased_data.ipynb first"):
        require(Workspace(tmp_path, "tiny").rows)


def test_a_missing_run_or_result_names_its_variant_too(tmp_path):
    workspace = Workspace(tmp_path, "tiny")
    asked = {
        workspace.result("A1/seed-0"): r"06_evaluate.ipynb for A1/seed-0 first",
        workspace.result("model-x-1"): r"06_evaluate.ipynb for model-x-1 first",
        workspace.result("base"): r"06_evaluate.ipynb for base first",
        workspace.run("LB-sum", 1, "full"): r"05_train.ipynb for LB-sum/seed-1 first",
        workspace.run("A1", 0, "lora"): r"05_train.ipynb for A1-lora/seed-0 first",
    }
    for folder, sentence in asked.items():
        with pytest.raises(NapoError, match=sentence):
            require(folder)


def test_a_folder_made_from_others_alone_is_made_again_when_a_file_of_it_is_gone(tmp_path):
    folder = tmp_path / "tables"
    begin(folder, {})
    write_json(folder / "x.json", 1)
    finish(folder)
    assert finished(folder, {}) and missing_files(folder) == []
    (folder / "x.json").unlink()
    assert finished(folder, {}) and missing_files(folder) == ["x.json"]


def test_an_input_with_a_flipped_byte_is_refused(tmp_path):
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
def test_a_manifest_of_another_shape_is_a_sentence(tmp_path, content):
    begin(tmp_path, {})
    finish(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(NapoError, match=r"manifest\.json is damaged \(it has no "):
        require(tmp_path)
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(NapoError, match=r"settings\.json is damaged"):
        begin(tmp_path, {})


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "a" * 300, "/tmp/\udcff"])
def test_a_name_that_is_no_place_is_a_sentence(name):
    with pytest.raises(NapoError, match="is no path"):
        Workspace.open(name, "smoke")


def test_json_cut_short_is_a_sentence(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": ')
    with pytest.raises(NapoError, match="damaged"):
        read_json(path)


def test_runs_are_named_by_variant_tuning_and_seed(tmp_path):
    assert run_name("A1", 2) == "A1/seed-2"
    assert Workspace(tmp_path, "tiny").run("A1", 0, "lora").parts[-2:] == ("A1-lora", "seed-0")


def test_what_a_killed_writer_left_is_not_there_and_goes_when_work_goes_on(tmp_path):
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


def test_a_folder_that_a_refused_call_claimed_can_be_claimed_with_other_settings(tmp_path):
    assert begin(tmp_path, {"samples": 100})
    (tmp_path / ".labels.lock").touch()
    assert begin(tmp_path, {"samples": 30})
    (tmp_path / "ann.csv").write_text("x")
    with pytest.raises(NapoError, match="samples differ"):
        begin(tmp_path, {"samples": 10})


def test_json_is_the_same_bytes_under_another_locale(tmp_path):
    code = "import sys; from napo.workspace.files import *; "
    code += "write_json(Path(sys.argv[1]), {'a': '\\u03b1 Gr\\u00f6\\u00dfe'})"
    for name, locale in (("one.json", "C.UTF-8"), ("two.json", "C")):
        call = [sys.executable, "-X", "utf8=0", "-c", code, str(tmp_path / name)]
        alone = {"PATH": os.environ["PATH"], "LC_ALL": locale, "PYTHONCOERCECLOCALE": "0"}
        subprocess.run(call, env=alone, check=True)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert read_json(tmp_path / "one.json") == {"a": "α Größe"}


@pytest.mark.parametrize("content", ["{}", "[1]", '{"folder": 3}'])
def test_a_damaged_name_of_the_reference_is_a_sentence(tmp_path, content):
    session = open_session("smoke", str(tmp_path))
    current = session.workspace.data / "reference" / "current.json"
    current.parent.mkdir(parents=True)
    current.write_text(content)
    with pytest.raises(NapoError, match=r"current\.json is damaged \(it names no folder\)"):
        reference_folder(session)
