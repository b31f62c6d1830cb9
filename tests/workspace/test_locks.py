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
    """Another process that holds a lock until SIGKILL at the end of the block."""
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


def test_a_second_pipeline_in_one_workspace_is_refused_and_names_the_first(tmp_path):
    place = tmp_path / "data" / "tiny"
    with another(place, "hold") as other:
        sentence = f"Process {other.pid} on {os.uname().nodename} already runs a pipeline in"
        with pytest.raises(NapoError, match=sentence), hold(place, "already runs a pipeline in"):
            pass
    with hold(place, "already runs a pipeline in"):
        pass  # a killed process holds no lock


def test_a_folder_in_which_another_process_works_is_not_touched(tmp_path, monkeypatch):
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


def test_work_waits_for_a_process_that_ends_soon(tmp_path):
    place = tmp_path / "rows"
    with another(place, "work") as other:
        subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {other.pid}"])
        with work_on(place, {}) as todo:
            assert todo


def test_work_is_sealed_if_it_succeeds_and_is_not_repeated(tmp_path):
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
    with pytest.raises(NapoError, match="a: 1 there, 2 now"), work_on(place, {"a": 2}):
        pass


def test_a_remade_folder_keeps_each_file_until_it_is_replaced(tmp_path):
    place = tmp_path / "tables"

    def contents():
        return {path.name: path.read_text() for path in place.iterdir() if path.suffix == ".csv"}

    with work_on(place, {"a": 1}):
        for name in ("one.csv", "two.csv", "dropped.csv"):
            (place / name).write_text("old")
    old = contents()
    for _ in range(2):  # killed once, and once more
        with pytest.raises(KeyboardInterrupt), work_on(place, {"a": 2}, remake=True) as todo:
            assert todo and contents() == old
            assert not (place / "manifest.json").exists()  # nothing seals what is being replaced
            raise KeyboardInterrupt
    with work_on(place, {"a": 2}, remake=True):
        (place / "deep").mkdir()
        written = [place / "one.csv", place / "two.csv", place / "deep" / "three.csv"]
        for path in written:
            path.write_text("new")
        keep_only(place, written)
    assert contents() == {"one.csv": "new", "two.csv": "new"}
    manifest = require(place)
    assert sorted(manifest["files"]) == ["deep/three.csv", "one.csv", "two.csv"]
    assert manifest["settings"] == {"a": 2}
