import subprocess
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from napo.commands import pipeline
from napo.commands.cli import main
from napo.commands.study import USUAL_CELL, USUAL_PAIR, estimate, train_job
from napo.config.study import Study
from napo.noise.study import Job
from napo.stages import launch
from napo.stages.session import open_session

LONG, SHORT = Job.read("long/flip-0.4/seed-0"), Job.read("short/flip-0.4/seed-0")


def study(root, *options, profile="smoke"):
    return main(["study", "--profile", profile, "--workspace", str(root), "-n", *options])


def test_the_first_estimate_is_the_usual_time_of_the_tiny_scale():
    jobs = {LONG: ("dpo", "napo")}
    seconds = 2 * (USUAL_CELL + USUAL_PAIR * 1000 * 6)
    text = estimate(Study(), jobs, {}, "tiny")
    assert text.startswith("2 cells in 1 job take about 1 min") and seconds < 120
    assert estimate(Study(), jobs, {}, "paper").endswith(
        "the first finished cell gives an estimate."
    )


def test_finished_cells_replace_the_usual_time_and_other_budgets_count_by_their_epochs():
    jobs = {LONG: ("dpo",), SHORT: ("dpo",)}
    # 90 s for six epochs are 30 s for two.
    assert "about 2 min 00 s" in estimate(Study(), jobs, {"long": [80.0, 100.0]}, "paper")


def test_a_dry_run_says_what_the_study_would_do_and_runs_nothing(tmp_path, capsys):
    assert study(tmp_path) == 0
    output = capsys.readouterr().out
    assert "The study has 4 cells, 0 of them finished." in output and "4 cells in 2 jobs" in output
    plan = (tmp_path / "data" / "smoke" / "pipeline.log").read_text()
    assert "job=long/flip-0.4/seed-0" in plan and "rule study_summary" in plan
    assert not (tmp_path / "data" / "smoke" / "study").exists()


def test_unbiased_noise_is_left_out_where_the_world_does_not_reword(tmp_path, capsys):
    mute = tmp_path / "mute.yaml"
    mute.write_text("extends: smoke\nworld: {reword: ''}\n")
    assert study(tmp_path, "--grid", "full", "--seeds", "0,1", profile=str(mute)) == 0
    output = capsys.readouterr().out
    assert "Unbiased noise is left out" in output and "in 12 jobs" in output


def test_an_unknown_grid_is_refused(tmp_path, capsys):
    assert study(tmp_path, "--grid", "fulll") == 1
    assert "Unknown grid 'fulll'. Did you mean 'full'?" in capsys.readouterr().err


def test_a_job_on_a_machine_of_several_gpus_gets_one_of_the_visible_ones(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    monkeypatch.setattr(launch, "one_gpu", lambda session: nullcontext("cuda:1"))
    session = open_session("smoke", str(tmp_path))

    def run(call, env):
        calls.append((call, env))
        return SimpleNamespace(returncode=3)

    monkeypatch.setattr(subprocess, "run", run)
    assert train_job(session, "long/flip-0.4/seed-0", "dpo") == 3
    ((call, environment),) = calls
    assert environment["CUDA_VISIBLE_DEVICES"] == "6"
    assert "long/flip-0.4/seed-0" in call and str(session.workspace.root) in call


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("UserWarning: old\nnapo: Row 3 is empty; drop it.\n", "Row 3 is empty; drop it."),
        ("Traceback ...\nKeyError: 'x'\n", "KeyError: 'x'"),
        ("UserWarning: old\n", "the command ended without a word"),
    ],
)
def test_a_failed_command_says_its_last_error(tmp_path, text, sentence):
    path = tmp_path / "job.log"
    path.write_text(text)
    assert pipeline.last_sentence(path).startswith(sentence)
