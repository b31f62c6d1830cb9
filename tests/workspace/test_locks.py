"""One process at a time in a workspace, and in a folder of it."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest

from napo.errors import NapoError
from napo.workspace import locks
from napo.workspace.locks import hold, work_on
from napo.workspace.manifests import keep_only, require

HOLD = """
import sys
from pathlib import Path
from napo.workspace.locks import hold, work_on
place = Path(sys.argv[1])
with (hold(place, "already runs a pipeline in") if sys.argv[2] == "hold" else work_on(place, {})):
    print("held", flush=True)
    input()
"""


@contextmanager
def another(place, how):
    """Another process that holds a place until the end of the block, when it gets SIGKILL."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline().strip() == "held"
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_second_pipeline_in_one_workspace_is_told_who_holds_it(tmp_path):
    place = tmp_path / "data" / "tiny"
    with another(place, "hold") as other:
        sentence = f"Process {other.pid} on {os.uname().nodename} already runs a pipeline in"
        with pytest.raises(NapoError, match=sentence), hold(place, "already runs a pipeline in"):
            pass
    with hold(place, "already runs a pipeline in"):
        pass  # killed, it holds nothing


def test_a_folder_that_another_process_works_in_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    place = tmp_path / "runs" / "A1" / "seed-0"
    with another(place, "work") as other:
        before = sorted(path.name for path in place.iterdir())
        sentence = f"Process {other.pid} .* already works in"
        with pytest.raises(NapoError, match=sentence), work_on(place, {}):
            (place / "weights").touch()
        assert sorted(path.name for path in place.iterdir()) == before
    with work_on(place, {}) as todo:
        assert todo


def test_a_holder_that_is_about_to_end_is_waited_for(tmp_path):
    place = tmp_path / "rows"
    with another(place, "work") as other:
        subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {other.pid}"])
        with work_on(place, {}) as todo:
            assert todo


def test_work_is_sealed_only_when_it_ends_well_and_is_not_done_again(tmp_path):
    place = tmp_path / "rows"
    with pytest.raises(ZeroDivisionError), work_on(place, {"a": 1}):
        (place / "part").write_text("kept")
        raise ZeroDivisionError
    assert not (place / "manifest.json").exists() and (place / "part").exists()
    with work_on(place, {"a": 1}) as todo:
        assert todo
    sealed = (place / "manifest.json").read_bytes()
    assert b'"part"' in sealed and b".lock" not in sealed
    with work_on(place, {"a": 1}) as todo:
        assert not todo
    with pytest.raises(NapoError, match="a differ"), work_on(place, {"a": 2}):
        pass


def test_what_is_made_again_keeps_each_file_until_it_is_replaced(tmp_path):
    place = tmp_path / "tables"

    def made():
        return {path.name: path.read_text() for path in place.iterdir() if path.suffix == ".csv"}

    with work_on(place, {"a": 1}):
        for name in ("one.csv", "two.csv", "dropped.csv"):
            (place / name).write_text("old")
    old = made()
    for _ in range(2):  # killed once, and once more
        with pytest.raises(KeyboardInterrupt), work_on(place, {"a": 2}, remake=True) as todo:
            assert todo and made() == old
            assert not (place / "manifest.json").exists()  # nothing seals what is being replaced
            raise KeyboardInterrupt
    with work_on(place, {"a": 2}, remake=True):
        (place / "deep").mkdir()
        written = [place / "one.csv", place / "two.csv", place / "deep" / "three.csv"]
        for path in written:
            path.write_text("new")
        keep_only(place, written)
    assert made() == {"one.csv": "new", "two.csv": "new"}
    manifest = require(place)
    assert sorted(manifest["files"]) == ["deep/three.csv", "one.csv", "two.csv"]
    assert manifest["settings"] == {"a": 2}
