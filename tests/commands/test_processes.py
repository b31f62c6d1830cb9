"""All that a pipeline starts ends with it, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from napo.commands import processes

# A child that starts a grandchild in a session of its own, as a notebook's kernel is.
FAMILY = (
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
    " start_new_session=True)\n"
    "print('started', flush=True); time.sleep(60)"
)
PARENT = (
    "import os, sys; from pathlib import Path; from napo.commands import processes\n"
    f"family = [sys.executable, '-c', {FAMILY!r}]\n"
    "child = processes.start(family, Path(sys.argv[1]), os.environ)\n"
    "print(child.stdout.readline().strip(), child.pid, flush=True)\n"
    "child.wait()"
)


def alive(number):
    return psutil.pid_exists(number) and psutil.Process(number).status() != psutil.STATUS_ZOMBIE


def until(look, seconds=10):
    end = time.monotonic() + seconds
    while not look() and time.monotonic() < end:
        time.sleep(0.05)
    return look()


def test_all_processes_with_the_mark_end_and_no_others(tmp_path):
    place, other = tmp_path / "a", tmp_path / "b"
    child = processes.start([sys.executable, "-c", FAMILY], place, os.environ)
    stranger = processes.start([sys.executable, "-c", FAMILY], other, os.environ)
    try:
        for process in (child, stranger):
            assert process.stdout.readline().strip() == "started"
        assert processes.end(place) == 2
        assert not alive(child.pid) and stranger.poll() is None
        assert processes.end(place) == 0
    finally:
        assert processes.end(other) == 2
        for process in (child, stranger):
            process.wait(5)
            process.stdout.close()


def test_a_job_of_slurm_on_this_machine_is_left_to_slurm(tmp_path):
    child = processes.start(["sleep", "60"], tmp_path, {**os.environ, "SLURM_JOB_ID": "7"})
    try:
        assert processes.end(tmp_path) == 0 and child.poll() is None
    finally:
        child.kill()
        child.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_killed_pipelines_child_ends_and_the_next_pipeline_ends_the_rest(tmp_path):
    call = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as parent:
        said, number = parent.stdout.readline().split()
        assert said == "started"
        parent.kill()
    assert until(lambda: not alive(int(number)))
    assert processes.end(tmp_path) == 1  # the grandchild


def test_a_signal_raises_once_with_the_exit_code_of_a_shell():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(processes.Stopped) as stopped, processes.stop_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        with processes.stop_on_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def reproduce(root, *options, **streams):
    return subprocess.Popen(
        [sys.executable, "-m", "napo", "reproduce", "--profile", "smoke", "--cores", "1",
         "--workspace", str(root), *options],
        **streams,
    )  # fmt: skip


@pytest.mark.long
def test_a_stopped_pipeline_leaves_nothing_running(tmp_path):
    data = Path(tmp_path).resolve() / "data" / "smoke"
    pipeline = reproduce(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert until(lambda: (data / "source" / "settings.json").is_file(), 60)
        pipeline.send_signal(signal.SIGINT)
        output, _ = pipeline.communicate(timeout=60)
    finally:
        pipeline.kill()
    assert pipeline.returncode == 128 + signal.SIGINT
    assert output.splitlines()[-1] == (
        "Interrupted; what is finished is kept, run the same command to go on."
    )
    assert "Traceback" not in output and processes.end(data) == 0


@pytest.mark.long
def test_a_pipeline_whose_reader_ends_stops_without_a_traceback(tmp_path):
    data = Path(tmp_path).resolve() / "data" / "smoke"
    until = ("--until", "loss_curves", "icon_world")
    pipeline = reproduce(tmp_path, *until, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pipeline.stdout.readline()
    pipeline.stdout.close()
    _, error = pipeline.communicate(timeout=120)
    assert pipeline.returncode == 128 + signal.SIGPIPE and error == b""
    assert processes.end(data) == 0
