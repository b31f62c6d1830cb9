import json
import platform
import shlex
import sys
from pathlib import Path

import pytest

from napo.commands import pipeline
from napo.commands.cli import main
from napo.commands.jobs import Jobs
from napo.errors import NapoError


def reproduce(root, *options, profile="smoke"):
    words = ["--profile", profile, "--workspace", str(root), "--cores", "1"]
    return main(["reproduce", *words, *options])


def notebook(tmp_path, *outputs):
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": [{"outputs": list(outputs)}]}))
    return path


def test_a_failed_notebook_says_its_own_sentence(tmp_path):
    error = {"output_type": "error", "ename": "NapoError", "evalue": "Row 3 is empty; drop it."}
    assert pipeline.failure_sentence(notebook(tmp_path, error)) == "Row 3 is empty; drop it."
    error["ename"] = "KeyError"
    assert pipeline.failure_sentence(notebook(tmp_path, error)).startswith("KeyError: ")


def test_a_notebook_without_an_error_did_not_start_or_lost_its_kernel(tmp_path):
    assert "did not start" in pipeline.failure_sentence(tmp_path / "none.ipynb")
    assert "kernel ended before" in pipeline.failure_sentence(notebook(tmp_path))


# Snakemake's child prints an event after a line of a job that has not ended yet.
TALK = """print('half a line', end='')
print('\\x1e{"event": "error", "sentence": "No."}')
print('train A1 seed 0: 10/60 steps, 12 s left', flush=True)
"""


def test_progress_is_shown_and_all_output_but_events_is_in_the_log(tmp_path, capsys):
    jobs = Jobs(cores=1)
    assert pipeline.follow([sys.executable, "-c", TALK], tmp_path, jobs) == 0
    progress = "train A1 seed 0: 10/60 steps, 12 s left\n"
    assert capsys.readouterr().out == "  " + progress
    assert (tmp_path / "pipeline.log").read_text() == "half a line" + progress
    assert jobs.error == "No."


def test_downloads_are_checked_before_anything_is_planned(tmp_path, capsys):
    assert reproduce(tmp_path, profile="llava-1.5-7b") == 1
    output = capsys.readouterr()
    assert "RLAIF-V" in output.out and "YES=1" in output.out
    assert "correct them before anything is run" in output.err
    assert not (tmp_path / "data" / "llava-1.5-7b" / "pipeline.log").exists()


def test_a_sentence_of_the_snakefile_is_the_error(tmp_path, capsys, monkeypatch):
    call = pipeline.snakemake_call
    config = ["--config", "sedes=1"]
    monkeypatch.setattr(pipeline, "snakemake_call", lambda *words: [*call(*words), *config])
    assert reproduce(tmp_path, "-n") == 1
    assert capsys.readouterr().err.startswith("napo: Unknown config 'sedes'. Did you mean 'seeds'?")


def test_the_settings_of_a_place_reach_snakemake(tmp_path):
    assert reproduce(tmp_path, "-n", "--on", "node") == 0
    assert "gpu=8" in (tmp_path / "data" / "smoke" / "pipeline.log").read_text()


def test_backups_of_a_killed_snakemake_are_removed_for_this_profile_only(tmp_path):
    backups = tmp_path / ".snakemake" / "backups" / "data"
    for profile in ("smoke", "tiny"):
        (backups / profile / "runs").mkdir(parents=True)
    assert reproduce(tmp_path, "-n") == 0
    assert [folder.name for folder in backups.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("options", "suffix"),
    [
        (["--seeds", "0", "--tune", "full"], ""),  # the profile's own
        (["--seeds", "1", "--tune", "lora"], "-lora-seeds-1"),
    ],
)
def test_other_seeds_and_tune_have_tables_of_their_own(tmp_path, capsys, options, suffix):
    assert reproduce(tmp_path, "-n", *options) == 0
    plan = (tmp_path / "data" / "smoke" / "pipeline.log").read_text()
    assert f"data/smoke/tables{suffix}/report.html" in plan
    assert f"figures/smoke/comparison{suffix}.png" in plan
    assert bool(suffix) != ("data/smoke/tables/" in plan)
    assert capsys.readouterr().out.splitlines()[-1].startswith("Nothing was run; the plan is in ")


def test_a_finished_result_stays_where_its_job_runs_again_and_fails(tmp_path):
    manifest = tmp_path / "data" / "smoke" / "source" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")
    # The benchmarks are missing, so the job runs; other settings made the rows, so it fails.
    (manifest.parent / "settings.json").write_text('{"count": 1}')
    assert reproduce(tmp_path, "--until", "icon_world") == 1
    assert manifest.read_text() == "{}"


def test_a_workspaces_name_is_taken_literally(tmp_path, monkeypatch):
    workspace = tmp_path / "it's a #1: {x}"
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "mine.yaml").write_text("extends: smoke\nname: mine")
    (profiles / "child.yaml").write_text("extends: mine.yaml\nname: child")
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "child"):
        assert reproduce(workspace, "-n", profile=f"profiles/{name}.yaml") == 0
        assert "loss_curves" in (workspace / "data" / name / "pipeline.log").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [workspace.name, "profiles"]


def test_a_log_that_cannot_be_written_ends_all_processes(tmp_path, monkeypatch):
    data = tmp_path.resolve() / "data" / "smoke"
    data.mkdir(parents=True)
    (data / "pipeline.log").symlink_to("/dev/full")
    talk = "print('word', flush=True); import time; time.sleep(60)"
    call = [sys.executable, "-c", talk]
    monkeypatch.setattr(pipeline, "snakemake_call", lambda *_: call)
    with pytest.raises(NapoError, match=r"pipeline\.log cannot be written: the disk is full"):
        pipeline.run(pipeline.Reproduction(), "smoke", str(tmp_path), cores=1)
    assert pipeline.processes.end(data) == 0


NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.kind("A. No edit of a parameters cell changes the pipeline")
def test_the_pipeline_passes_every_parameter_of_every_notebook(tmp_path):
    assert reproduce(tmp_path, "-n", "--printshellcmds") == 0
    log = (tmp_path / "data" / "smoke" / "pipeline.log").read_text()
    commands = [shlex.split(line) for line in log.splitlines() if "papermill /" in line]
    names = [Path(words[3]).stem for words in commands]
    assert len(set(names)) == 8
    for name, words in zip(names, commands, strict=True):
        cells = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())["cells"]
        (cell,) = (cell for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
        declared = {line.split(":")[0] for line in cell["source"]}
        passed = {words[i + 1]: word for i, word in enumerate(words) if word in ("-p", "-r")}
        assert set(passed) == declared, name
        texts = {line.split(":")[0] for line in cell["source"] if ": str" in line}
        assert texts == {each for each in passed if passed[each] == "-r"}, name


def test_fig4_waits_for_notebook_02_so_that_always_the_same_notebook_makes_the_labels(tmp_path):
    assert reproduce(tmp_path, "-n") == 0
    plan = (tmp_path / "data" / "smoke" / "pipeline.log").read_text()
    (job,) = [job for job in plan.split("\n\n") if "rule margin_distributions:" in job]
    inputs = next(line for line in job.splitlines() if line.strip().startswith("input:"))
    assert "data/smoke/annotations/manifest.json" in inputs


def test_a_variant_without_training_is_evaluated_once_and_never_trained(tmp_path):
    profile = tmp_path / "free.yaml"
    profile.write_text("extends: smoke\nname: free\nvariants: [vcd, dpo]\nseeds: '0,1'")
    assert reproduce(tmp_path, "-n", "--printshellcmds", profile=str(profile)) == 0
    plan = (tmp_path / "data" / "free" / "pipeline.log").read_text()
    commands = [line for line in plan.splitlines() if "papermill /" in line and " vcd " in line]
    (command,) = commands
    assert "06_evaluate-vcd.ipynb" in command and "05_train-vcd" not in plan
    assert "05_train-dpo.ipynb" in plan and "results/vcd/manifest.json" in plan


@pytest.mark.kind("A. Without labels everything else is made")
def test_without_labels_the_plan_has_everything_but_fig4(tmp_path, capsys, result):
    profile = tmp_path / "byhand.yaml"
    profile.write_text("extends: smoke\nname: byhand\nscale: paper\nannotation: {annotator: ''}")
    assert reproduce(tmp_path, "-n", profile=str(profile)) == 0
    plan = (tmp_path / "data" / "byhand" / "pipeline.log").read_text()
    assert "07_results" in plan and "fig3.png" in plan
    assert "fig4" not in plan and "02_annotate_noise" not in plan
    sentence = capsys.readouterr().out.splitlines()[-2]
    result(sentence)
    assert sentence.startswith("Fig. 4: not labelled. Nobody has labelled the samples yet; label")


@pytest.mark.kind("the machine's surroundings")
def test_jobs_find_this_environments_kernel_before_a_users_kernel_of_the_same_name(
    tmp_path, monkeypatch
):
    foreign = tmp_path / "user" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    (foreign / "kernel.json").write_text('{"argv": ["/none/python"], "display_name": "other"}')
    monkeypatch.setenv("JUPYTER_PATH", str(foreign.parents[1]))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(foreign.parents[1]))
    code = "from jupyter_client.kernelspec import get_kernel_spec as spec; "
    code += "print(spec('python3').resource_dir)"
    assert pipeline.follow([sys.executable, "-c", code], tmp_path, Jobs(cores=1)) == 0
    place = (tmp_path / "pipeline.log").read_text().strip()
    assert Path(place).is_relative_to(sys.prefix)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_jobs_keep_the_memory_that_they_use_again(tmp_path, capsys):
    code = (
        "import resource; faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "bytearray(2**22); before = faults()\n"
        "for _ in range(50): bytearray(2**22)\n"
        "print(faults() - before)"
    )
    assert pipeline.follow([sys.executable, "-c", code], tmp_path, Jobs(cores=1)) == 0
    assert int((tmp_path / "pipeline.log").read_text()) < 50
