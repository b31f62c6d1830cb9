import json
import os
from pathlib import Path

import pytest

from napo.commands import slurm
from napo.errors import NapoError

STATUS = "SLURM-job '7' failed, SLURM status is: '{}'. Detailed failure reason unavailable."


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Put a program of SLURM into the path that prints a text; with one, sbatch is there, too."""

    def write(name, text="", code=0):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for each, said in (("sbatch", ""), (name, text)):
            (folder / each).write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\nexit {code}\n")
            (folder / each).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    return write


@pytest.fixture
def settings(tmp_path, monkeypatch, program):
    """Options of `napo reproduce` -> the settings that Snakemake gets, and the queue."""
    monkeypatch.setattr(slurm, "find_spec", lambda name: name)
    program("squeue")

    def place(**options):
        (_, folder), queue = slurm.place("slurm", tmp_path / "llava-1.5", **options)
        return json.loads((Path(folder) / "config.yaml").read_text()), queue

    return place


def test_partition_account_and_hours_of_the_command_line_reach_the_settings(settings):
    written, queue = settings(partition="a100", account="lab", hours=24)
    defaults, rules = written["default-resources"], written["set-resources"]
    assert (defaults["slurm_partition"], defaults["slurm_account"]) == ("'a100'", "'lab'")
    assert {rule["runtime"] for rule in rules.values()} == {1440}
    assert queue.partition == "a100"


def test_without_them_the_clusters_defaults_hold(settings):
    written, queue = settings()
    assert not {"slurm_partition", "slurm_account"} & set(written["default-resources"])
    assert written["set-resources"]["train"]["runtime"] == 1440 and not queue.partition


def test_the_names_of_jobs_begin_with_what_the_plugin_allows(settings):
    written, queue = settings()
    assert written["slurm-jobname-prefix"] == queue.prefix
    assert queue.prefix.startswith("napo-llava-1-5-") and len(queue.prefix) <= 50


@pytest.mark.parametrize("on", ["", "node"])
def test_options_of_slurm_are_refused_elsewhere(tmp_path, on):
    with pytest.raises(NapoError, match="need --on slurm"):
        slurm.place(on, tmp_path, partition="gpu")


def test_an_unknown_place_names_those_that_there_are(tmp_path):
    with pytest.raises(NapoError, match=r"'slrum'. Did you mean 'slurm'\?"):
        slurm.place("slrum", tmp_path)


def test_a_missing_plugin_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "find_spec", lambda name: None)
    with pytest.raises(NapoError, match=r"pip install -e '\.\[slurm\]'"):
        slurm.place("slurm", tmp_path)


def test_a_machine_without_sbatch_is_no_login_node(tmp_path, monkeypatch):
    monkeypatch.setattr(slurm, "find_spec", lambda name: name)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NapoError, match="run this on a login node"):
        slurm.place("slurm", tmp_path)


def test_the_queue_holds_this_pipelines_jobs_by_rule_and_variant(program):
    program("squeue", "7|PENDING|Resources|rule_train_wildcards_A1|mine_1\n"
                      "8|RUNNING|None|rule_train_wildcards_A1|mine2_1")  # fmt: skip
    job = slurm.QueuedJob("7", "PENDING", "Resources", "train A1")
    assert slurm.Queue("mine").jobs() == [job]


def test_a_queue_that_cannot_be_read_is_no_empty_queue(program):
    program("squeue", code=1)
    with pytest.raises(NapoError, match="squeue failed"):
        slurm.Queue("mine").jobs()


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (STATUS.format("TIMEOUT"), "SLURM ended job 7 as TIMEOUT (its time limit;"),
        (STATUS.format("OUT_OF_MEMORY"), "SLURM ended job 7 as OUT_OF_MEMORY (mem_mb"),
        (STATUS.format("CANCELLED by 1000"), "SLURM ended job 7 as CANCELLED; what is finished"),
        (
            "SLURM sbatch failed. The error message was 'sbatch: error: No such account\n"
            "sbatch: error: Batch job submission failed'.\n    sbatch call:\n ...",
            "SLURM refused the job: No such account Batch job submission failed; correct",
        ),
        (
            "Job submission failed with exception: The given account x appears to be invalid.",
            "SLURM refused the job: The given account x appears to be invalid; correct --partition",
        ),
    ],
)
def test_what_slurm_did_to_a_job_is_a_sentence(message, sentence):
    assert slurm.cause(message, "7").startswith(sentence)


def test_a_job_that_failed_by_itself_is_left_to_its_notebook():
    assert slurm.cause(STATUS.format("FAILED"), "7") == ""


def test_a_notebook_that_did_not_start_has_slurms_last_error(tmp_path):
    log = tmp_path / "7.log"
    log.write_text("text\nsrun: fatal: no configuration\nMore text\n")
    assert slurm.last_error(str(log)) == "srun: fatal: no configuration"
