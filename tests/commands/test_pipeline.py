import json
import os
from pathlib import Path

import pytest

from napo.commands.pipeline import Board, failure_sentence, main

TALK = """\
job                     count
--------------------  -------
loss_curves                 1
train                       2
all                         1
total                       4
rule train:
    log: data/tiny/notebooks/05_train-A1.ipynb
    jobid: 4
    wildcards: variant=A1
train A1 seed 0: 10/60 steps, 12 s left
Finished jobid: 4 (Rule: train)
localrule all:
    jobid: 0
Finished jobid: 0 (Rule: all)
""".splitlines()


def test_the_board_shows_progress_and_each_finished_job_with_an_estimate():
    board, shown = Board(), []
    for second, line in enumerate(TALK):
        shown += board.feed(line, float(second), cores=1)
    assert shown[0] == "  train A1 seed 0: 10/60 steps, 12 s left"
    assert shown[1].startswith("[1/3] train A1 done in 3 s; about ")
    assert len(shown) == 2  # the goal is no job


def test_the_estimate_follows_the_measured_pace():
    board = Board(planned={"train": 3}, took={"train": [10.0]})
    assert board.remaining(now=0, cores=2) == pytest.approx(10)
    board.jobs["7"] = ("train", "A2", 0.0)
    assert board.remaining(now=4, cores=2) == pytest.approx(8)


def test_a_failed_notebook_is_named_at_once_and_once():
    told = [
        "Error in rule annotate_noise:",
        "    jobid: 3",
        "    log: data/x/notebooks/02.ipynb (check log file(s) for error details)",
    ]
    other = ["Error in rule train:", "    log: data/x/notebooks/05.ipynb (check log)"]
    board = Board()
    shown = [line for said in (*told, *other, *told) for line in board.feed(said, 0.0, 1)]
    assert shown == [
        "annotate_noise failed; see data/x/notebooks/02.ipynb",
        "train failed; see data/x/notebooks/05.ipynb",
    ]
    assert board.failed == ["data/x/notebooks/02.ipynb", "data/x/notebooks/05.ipynb"]


def notebook(tmp_path, *outputs):
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": [{"outputs": list(outputs)}]}))
    return path


def test_a_failed_notebook_speaks_its_own_sentence(tmp_path):
    error = {"output_type": "error", "ename": "NapoError", "evalue": "Row 3 is empty; drop it."}
    assert failure_sentence(notebook(tmp_path, error)) == "Row 3 is empty; drop it."
    error["ename"] = "KeyError"
    assert failure_sentence(notebook(tmp_path, error)).startswith("KeyError: ")


def test_a_notebook_that_never_started_is_said_so(tmp_path):
    assert "did not start" in failure_sentence(tmp_path / "none.ipynb")
    assert "kernel ended before" in failure_sentence(notebook(tmp_path))


def test_downloads_are_checked_before_anything_is_planned(tmp_path, capsys):
    assert main(["--profile", "llava-1.5-7b", "--workspace", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "RLAIF-V" in said.out and "make fetch with YES=1" in said.out
    assert "correct them before anything is run" in said.err
    assert not (tmp_path / "data" / "llava-1.5-7b" / "pipeline.log").exists()


def test_copies_that_a_killed_snakemake_left_are_forgotten_and_another_profiles_are_not(tmp_path):
    backups = tmp_path / ".snakemake" / "backups" / "data"
    for profile in ("smoke", "tiny"):
        (backups / profile / "runs").mkdir(parents=True)
        (backups / profile / "runs" / "manifest.json").write_text("{}")
    assert main(["--profile", "smoke", "--workspace", str(tmp_path), "--cores", "1", "-n"]) == 0
    assert [each.name for each in backups.iterdir()] == ["tiny"]


def test_tables_of_other_seeds_and_tune_are_planned_beside_the_profiles(tmp_path, capsys):
    asked = ["--profile", "smoke", "--workspace", str(tmp_path), "--cores", "1", "-n"]
    plans = []
    for config in ([], ["--config", "seeds=0", "tune=full"], ["--config", "seeds=1", "tune=lora"]):
        assert main([*asked, *config]) == 0
        plans.append((tmp_path / "data" / "smoke" / "pipeline.log").read_text())
    for plan in plans[:2]:
        assert "data/smoke/tables/report.html" in plan and "figures/smoke/comparison.png" in plan
    assert "data/smoke/tables-lora-seeds-1/report.html" in plans[2]
    assert "figures/smoke/comparison-lora-seeds-1.png" in plans[2]
    assert "data/smoke/tables/" not in plans[2]
    assert capsys.readouterr().out.splitlines()[-1].startswith("Nothing was run; the plan is in ")


def test_a_finished_result_stays_where_its_job_runs_again_and_fails(tmp_path):
    manifest = tmp_path / "data" / "smoke" / "source" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    asked = ["--profile", "smoke", "--workspace", str(tmp_path), "--cores", "1"]
    # The benchmarks are missing, so the job runs; other settings made the rows, so it fails.
    (manifest.parent / "settings.json").write_text('{"count": 1}')
    assert main([*asked, "--until", "icon_world"]) == 1
    assert manifest.read_text() == "{}"


def test_the_workspace_is_the_folder_that_was_named_whatever_yaml_makes_of_it(tmp_path):
    named = tmp_path / "it's a #1: {x}"
    profile = tmp_path / "profiles" / "mine.yaml"
    profile.parent.mkdir()
    profile.write_text("extends: smoke\nname: mine")
    (profile.parent / "child.yaml").write_text("extends: mine.yaml\nname: child")
    for name in ("mine", "child"):
        asked = ["--profile", f"profiles/{name}.yaml", "--workspace", str(named), "-n"]
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            assert main(asked) == 0
        finally:
            os.chdir(here)
        assert "loss_curves" in (named / "data" / name / "pipeline.log").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [named.name, "profiles"]


@pytest.mark.long
def test_at_the_papers_scale_a_report_waits_for_labels_and_training_does_not(tmp_path, capsys):
    """Of the jobs that need no labels the shortest stands for all: Fig. 3 comes all the same."""
    profile = tmp_path / "byhand.yaml"
    profile.write_text("extends: smoke\nname: byhand\nscale: paper\nannotation: {annotator: ''}")
    wanted = ["annotate_noise", "loss_curves"]
    asked = ["--profile", str(profile), "--workspace", str(tmp_path), "--cores", "1"]
    assert main([*asked, "--until", *wanted]) == 1
    said = capsys.readouterr()
    assert "annotate_noise failed; see" in said.out and "loss_curves done" in said.out
    assert said.err.startswith("napo: Nobody has labelled the samples yet; label them in JupyterL")
    assert (tmp_path / "figures" / "byhand" / "fig3.png").is_file()
