"""The whole pipeline, killed at random moments, and its notebook's kernel."""

import random
import signal
import subprocess
import sys
import time

import pytest

from faults.real_commands import Survival, check, contents, fresh, kill, lost, run


@pytest.mark.long
def test_the_whole_pipeline_killed_five_times_ends_with_the_same_bytes(tmp_path, show):
    whole, killed = fresh(tmp_path / "whole"), fresh(tmp_path / "killed")
    call = [sys.executable, "-m", "napo", "reproduce", "--profile", "smoke", "--cores", "2"]
    seconds, _ = run([*call, "--workspace", str(whole)], whole)
    command, rng = [*call, "--workspace", str(killed)], random.Random(2)
    survival, seen = Survival("pipeline"), {}
    for _ in range(5):
        if kill(command, killed, rng.uniform(0.05, 0.3) * seconds, rng):
            survival.kills += 1
        now = contents(killed)
        survival.lost += lost(seen, now)
        seen = now
    run(command, killed)
    end, expected = contents(killed), contents(whole)
    survival.lost += lost(seen, end)
    survival.different = [name for name in {*expected, *end} if expected.get(name) != end.get(name)]
    check([survival], kills=4, show=show)


@pytest.mark.long
def test_a_killed_kernel_gives_one_error_that_names_the_notebook(tmp_path):
    call = [sys.executable, "-m", "napo", "reproduce", "--profile", "smoke", "--cores", "1"]
    pipeline = subprocess.Popen(
        [*call, "--workspace", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        kernel = first_kernel(pipeline.pid, tmp_path)
        kernel.send_signal(signal.SIGKILL)
        output, _ = pipeline.communicate(timeout=60)
    finally:
        pipeline.kill()
    assert pipeline.returncode == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("napo: the notebook's kernel ended before the notebook did")
    assert (tmp_path / "data" / "smoke" / "notebooks" / "00_icon_world.ipynb").is_file()
    assert "00_icon_world.ipynb" in last and "Traceback" not in output


def first_kernel(pid, workspace):
    """The kernel of the pipeline's first notebook, after its stage has begun to write."""
    import psutil

    end = time.monotonic() + 60
    while time.monotonic() < end:
        started = (workspace / "data" / "smoke" / "source" / "settings.json").is_file()
        for child in psutil.Process(pid).children(recursive=True) if started else ():
            if "ipykernel_launcher" in " ".join(child.cmdline()):
                return child
        time.sleep(0.1)
    raise AssertionError("No kernel has begun to work within a minute.")
