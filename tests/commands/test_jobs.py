import pytest

from napo.commands.jobs import Job, Jobs


def started(number, rule, **wildcards):
    return {"event": "job_info", "jobid": number, "rule_name": rule, "wildcards": wildcards}


def finished(number):
    return {"event": "job_finished", "job_id": number}


SUBMITTED = {"event": "submitted", "job_id": 4, "external": "77"}


def failed(rule, *logs, message=None, **aux):
    fields = {"rule_name": rule, "log": list(logs), "rule_msg": message, "aux": aux}
    return {"event": "job_error", **fields}


def lines(jobs, *events):
    """What is shown for events that come a second apart."""
    return [line for now, event in enumerate(events) if (line := jobs.update(event, float(now)))]


def test_each_finished_job_is_shown_with_its_time_and_the_time_left():
    plan = {"event": "run_info", "stats": {"loss_curves": 1, "train": 2, "all": 1, "total": 4}}
    events = (plan, started(4, "train", variant="A1"), started(5, "loss_curves"), finished(4))
    (line,) = lines(Jobs(cores=1), *events)
    assert line.startswith("[1/3] train A1 done in 2 s; about ") and line.endswith(" left")


def test_the_last_job_says_no_time_left_and_the_goal_is_no_job():
    plan = {"event": "run_info", "stats": {"train": 1, "all": 1, "total": 2}}
    events = (plan, started(1, "train"), finished(1), started(0, "all"), finished(0))
    assert lines(Jobs(cores=1), *events) == ["[1/1] train done in 1 s"]


def test_the_estimate_follows_the_measured_pace():
    jobs = Jobs(cores=2, planned={"train": 3}, seconds={"train": [10.0]})
    assert jobs.remaining(now=0) == pytest.approx(10)
    jobs.running[7] = Job("train", "A2", started=0.0)
    assert jobs.remaining(now=4) == pytest.approx(8)


def test_a_rule_without_a_finished_job_is_estimated_at_the_pace_of_the_others():
    jobs = Jobs(cores=1, planned={"train": 1, "evaluate": 1}, seconds={"train": [120.0]})
    assert jobs.remaining(now=0) == pytest.approx(200)  # 60 s took 120 s, so 100 s take 200 s


def test_a_job_of_the_study_counts_as_its_cells():
    # Two jobs with 1 and 3 cells; the first cell takes 2 s, so the other three take 6.
    plan = {"event": "run_info", "stats": {"study_cells": 2, "study": 1, "total": 3}}
    jobs = Jobs(cores=1, sizes={"study_cells": {"a": 1, "b": 3}})
    events = (plan, started(1, "study_cells", job="a"), {"event": "other"}, finished(1))
    assert lines(jobs, *events) == ["[1/4] study_cells a done in 2 s; about 6 s left"]
    jobs.update(started(2, "study_cells", job="b"), now=3.0)
    assert jobs.remaining(now=8) == pytest.approx(1)


def test_a_failed_notebook_is_named_at_once_and_once():
    first, second = failed("annotate_noise", "02.ipynb"), failed("train", "05.ipynb")
    jobs = Jobs(cores=1)
    assert lines(jobs, first, second, first) == [
        "annotate_noise failed; see 02.ipynb",
        "train failed; see 05.ipynb",
    ]
    assert list(jobs.failed) == ["02.ipynb", "05.ipynb"]


def test_a_submission_is_shown_with_its_partition_and_number():
    events = (started(4, "train", variant="A1"), SUBMITTED)
    assert lines(Jobs(1, "a100"), *events) == ["train A1 submitted to a100 as job 77"]
    assert lines(Jobs(1), *events) == ["train A1 submitted to the default partition as job 77"]


def test_a_job_that_slurm_ended_keeps_slurms_word_and_log():
    message = "SLURM-job '77' failed, SLURM status is: 'TIMEOUT'."
    jobs = Jobs(cores=1)
    lines(jobs, failed("train", "05.ipynb", "77.log", message=message, external_jobid="77"))
    assert jobs.failed["05.ipynb"].startswith("SLURM ended job 77 as TIMEOUT")
    assert jobs.slurm_log == "77.log"
