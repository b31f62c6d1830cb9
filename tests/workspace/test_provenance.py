import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from napo.commands.verify import makers, verify
from napo.results import figures
from napo.stages.session import open_session
from napo.workspace import provenance
from napo.workspace.files import read_json, write_json
from napo.workspace.hashing import hash_file
from napo.workspace.manifests import MANIFEST, begin, finish

ROOT = Path(__file__).parents[2]


def git(folder, *arguments):
    identity = ("-c", "user.name=n", "-c", "user.email=n@example.org")
    call = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(call, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository that holds a copy of the package, with one commit."""
    folder = tmp_path / "checkout"
    (folder / "notebooks").mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "checkpoint", "profiles")
    shutil.copytree(ROOT / "napo", folder / "napo", ignore=ignored)
    (folder / "Snakefile").write_text("")
    (folder / ".gitignore").write_text("__pycache__/\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def code_of(folder, **surroundings):
    """The state of the code in a process that runs the package in a folder."""
    output = subprocess.run(
        [sys.executable, "-c", "import json; from napo.workspace.provenance import *; "
         "print(json.dumps([code(), code_in_words(code())]))"],
        env={**os.environ, "PYTHONPATH": str(folder), **surroundings},
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout  # fmt: skip
    return json.loads(output)


def stage(folder, content="same"):
    begin(folder, {"seed": 1})
    (folder / "a.txt").write_text(content)
    finish(folder)
    return folder


def test_the_commit_is_known_and_whether_the_code_differs_from_it(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert code_of(checkout)[1] == f"commit {commit}, clean"
    (checkout / "README.md").write_text("no code")
    assert code_of(checkout)[0]["dirty"] is False
    (checkout / "napo" / "new.py").write_text("")  # git does not know it, but it may run
    assert code_of(checkout)[1] == f"commit {commit}, with changes not committed"
    (checkout / "napo" / "new.py").unlink()
    (checkout / "Snakefile").write_text("# other")
    assert code_of(checkout)[0]["dirty"] is True


def test_variables_of_a_git_hook_do_not_lead_to_another_repository(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    other = {"GIT_DIR": str(checkout / "nowhere"), "GIT_WORK_TREE": "/"}
    assert code_of(checkout, **other)[0]["commit"] == commit


def test_without_a_checkout_or_git_only_the_version_is_recorded(checkout, tmp_path):
    nothing = tmp_path / "empty"
    nothing.mkdir()
    assert code_of(checkout, PATH=str(nothing))[0]["commit"] is None
    installed = tmp_path / "installed"
    shutil.copytree(checkout / "napo", installed / "napo")
    state, words = code_of(installed)
    assert state["commit"] is None and words == f"napo {state['version']}, not from a checkout"


def test_a_copy_inside_another_repository_does_not_take_its_commit(checkout, tmp_path):
    inner = checkout / "vendor"
    shutil.copytree(checkout / "napo", inner / "napo")
    (inner / "Snakefile").write_text("")
    assert code_of(inner)[0]["commit"] is None


def test_a_finished_folder_records_code_profile_parameters_and_machine(tmp_path):
    open_session("smoke", str(tmp_path), variant="A1", seeds="0,1")
    made = read_json(stage(tmp_path / "rows") / provenance.FILE)
    assert made["code"] == provenance.code() and made["code"]["version"]
    assert made["profile"]["name"] == "smoke" and len(made["profile"]["fingerprint"]) == 16
    assert made["parameters"] == {"variant": "A1", "seeds": "0,1"}
    known = {"cpu", "cores", "threads", "memory_gb", "gpus", "visible_gpus", "system", "python"}
    assert set(made["machine"]) == known and made["machine"]["threads"] == 1
    assert str(tmp_path) not in json.dumps(made)


def test_a_session_forgets_the_parameters_of_the_session_before(tmp_path):
    open_session("smoke", str(tmp_path), variant="A1")
    open_session("tiny", str(tmp_path))
    assert provenance.record()["parameters"] == {}
    assert provenance.record()["profile"]["name"] == "tiny"


def test_another_commit_and_another_machine_give_the_same_manifest(tmp_path, monkeypatch):
    one = stage(tmp_path / "one")
    monkeypatch.setattr(provenance, "code", lambda: {"version": "9", "commit": "f" * 40})
    monkeypatch.setattr(provenance, "machine", lambda: {"cpu": "another"})
    two = stage(tmp_path / "two")
    assert (one / provenance.FILE).read_bytes() != (two / provenance.FILE).read_bytes()
    assert (one / MANIFEST).read_bytes() == (two / MANIFEST).read_bytes()


def test_the_same_commit_and_machine_give_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        open_session("smoke", str(tmp_path / name), variant="A1")
        stage(tmp_path / name / "rows")
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name / "rows").iterdir()}
                for name in ("one", "two"))  # fmt: skip
    assert one == two and set(one) == {"a.txt", MANIFEST, "settings.json", provenance.FILE}


def test_a_folder_that_was_killed_before_its_manifest_is_continued(tmp_path):
    folder = stage(tmp_path / "rows")
    (folder / MANIFEST).unlink()  # the last file that is written
    assert begin(folder, {"seed": 1})
    assert list(finish(folder)["files"]) == ["a.txt"]


def test_verify_prints_what_made_the_folders(tmp_path):
    for name in ("rows", "source"):
        stage(tmp_path / name)
    (tmp_path / "source" / provenance.FILE).unlink()
    assert verify(tmp_path) == (2, [])
    counts = makers(tmp_path)
    assert counts["an earlier napo, which wrote no provenance.json"] == 1
    (other,) = set(counts) - {"an earlier napo, which wrote no provenance.json"}
    assert other.startswith(provenance.code_in_words(provenance.code()))
    assert ", 1 thread, " in other


def test_a_figure_has_its_record_and_hashes_beside_it(tmp_path):
    paths = figures.save(
        figures.fig3(figures.loss_curves([0.5], points=20)),
        tmp_path,
        "fig3",
        pd.DataFrame({"x": [1]}),
    )
    beside = read_json(tmp_path / "fig3.provenance.json")
    assert beside["files"] == {path.name: hash_file(path) for path in paths}
    assert beside["code"] == provenance.code()


def test_the_report_names_its_commit_and_that_of_its_results(tmp_path):
    from napo.results.collect import Results
    from napo.stages.report import commits
    from napo.workspace.folders import Workspace

    workspace = Workspace(tmp_path, "tiny")
    results = Results(workspace.results, {"base": ["base"], "A1": ["A1/seed-0"]})
    for run in ("base", "A1/seed-0"):
        stage(workspace.result(run))
    mine = provenance.code_in_words(provenance.code())
    assert commits(workspace, results) == {"this report": mine, "its results": mine}
    record = read_json(workspace.result("base") / provenance.FILE)
    record["code"] |= {"commit": "e" * 40, "dirty": False}
    write_json(workspace.result("base") / provenance.FILE, record)
    both = "; ".join(sorted([mine, f"commit {'e' * 40}, clean"]))
    assert commits(workspace, results)["its results"] == both


def test_gpus_have_the_names_of_the_driver(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --query-gpu=name ] && printf "NVIDIA H200\\nNVIDIA H200\\n"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    provenance._hardware.cache_clear()
    try:
        assert provenance.machine()["gpus"] == ["NVIDIA H200", "NVIDIA H200"]
        program.write_text("#!/bin/sh\nexit 9\n")  # the driver does not answer
        provenance._hardware.cache_clear()
        assert provenance.machine()["gpus"] == []
    finally:
        provenance._hardware.cache_clear()
