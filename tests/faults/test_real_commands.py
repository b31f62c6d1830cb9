"""Real commands, killed at random moments, end with the bytes of an uninterrupted run.

A command runs once in a quiet workspace. A copy of what was there before it is killed a number of
times, then it runs to its end. No finished file or record may be lost on the way.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from faults.harness import differences

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
PAPERMILL = str(Path(sys.executable).parent / "papermill")
REPRODUCE = [sys.executable, "-m", "napo", "reproduce", "--profile", "smoke"]
QUARTER, REST = 3, 8  # kills of each stage: a hundred in all, and some that may come too late
STAGES = (  # notebooks with their parameters
    ("00_icon_world",),
    ("01_build_biased_data",),
    ("02_annotate_noise",),
    ("03_loss_curves",),
    ("04_margin_distributions",),
    ("05_train", "variant=A1", "seeds=0"),
    ("05_train", "variant=A1", "seeds=0", "tune=lora"),
    ("06_evaluate", "variant=base"),
    ("06_evaluate", "variant=A1", "seeds=0"),
    ("07_results",),
)


def papermill(stage, workspace):
    """The command of a stage, as a person or Snakemake gives it."""
    notebook, *parameters = stage
    command = [PAPERMILL, str(ROOT / "notebooks" / f"{notebook}.ipynb")]
    command += [str(workspace / "executed.ipynb"), "--no-progress-bar", "-k", "python3"]
    for pair in ("profile=smoke", f"workspace={workspace}", *parameters):
        command += ["-p", *pair.split("=", 1)]
    return command


def run(command, workspace):
    """Run a command to its end, without an error; returns the seconds."""
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=workspace, env=ENVIRONMENT)
    assert done.returncode == 0, f"{command}: {(done.stdout + done.stderr)[-3000:]}"
    return time.monotonic() - began


def kill(command, workspace, delay, rng):
    """Start a command and stop it after `delay` seconds; False if it had ended by itself.

    The way is drawn: everything at once as a machine that stops, only the command or only its
    children (a notebook's kernel), or a request to stop, by SIGTERM or SIGINT.
    """
    log = workspace / "killed.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=workspace, env=ENVIRONMENT, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(delay)
            assert process.returncode == 0, log.read_text()[-3000:]
            return False
        except subprocess.TimeoutExpired:
            pass
        parent = psutil.Process(process.pid)
        children = parent.children(recursive=True)
        way = rng.choice(["machine", "machine", "command", "children", "SIGTERM", "SIGINT"])
        victims = {"machine": [parent, *children], "children": children or [parent]}
        if way.startswith("SIG"):
            process.send_signal(getattr(signal, way))
        else:
            for victim in victims.get(way, [parent]):
                try:
                    victim.kill()
                except psutil.NoSuchProcess:
                    continue
        process.wait(60)
    return True


def contents(workspace):
    """The files that are results: no hidden ones, executed notebooks, logs, checkpoints or drafts.

    A checkpoint goes when its run is complete, and a draft (`model.part`) is written anew.
    """
    files = {}
    # os.walk skips a folder that a child of the killed command removes in its last second.
    walks = (os.walk(workspace / top) for top in ("data", "figures"))
    for path in (Path(root, name) for walk in walks for root, _, names in walk for name in names):
        parts = path.relative_to(workspace).parts
        if path.suffix == ".log" or "notebooks" in parts:
            continue
        if any(part.startswith((".", "checkpoint")) or part.endswith(".part") for part in parts):
            continue
        try:
            files["/".join(parts)] = path.read_bytes()
        except FileNotFoundError:  # as above
            continue
    return files


def kept(before, workspace):
    """The files of a workspace; those of `before` are still there and may only have grown."""
    now = contents(workspace)
    assert not [name for name, old in before.items() if not now.get(name, b"").startswith(old)]
    return now


def fresh(workspace, files):
    """A workspace with these files and no others."""
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir()
    for name, content in files.items():
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("part", [0, 1])  # two tests, for two workers
@pytest.mark.parametrize(
    "kills",
    [pytest.param(QUARTER, marks=pytest.mark.long), pytest.param(REST, marks=pytest.mark.faults)],
)
def test_killed_commands_lose_nothing(tmp_path, show, kills, part):
    quiet, killed, counts = tmp_path / "quiet", tmp_path / "killed", {}
    rng = random.Random(f"{kills}/{part}")
    quiet.mkdir()
    for number, stage in enumerate(STAGES):
        before = contents(quiet)
        seconds = run(papermill(stage, quiet), quiet)
        if number % 2 != part:
            continue
        fresh(killed, before)
        command, seen, counts[stage] = papermill(stage, killed), {}, 0
        for _ in range(kills):
            # The first third is the start of interpreter, papermill and kernel. Less work is left
            # after every kill, so a kill may come too late and is tried again, earlier.
            for share in (1.0, 0.75, 0.5, 0.35):
                if kill(command, killed, rng.uniform(0.3, share) * seconds, rng):
                    counts[stage] += 1
                    seen = kept(seen, killed)
                    break
                fresh(killed, before)
                seen = {}
        run(command, killed)
        assert not differences(kept(seen, killed), contents(quiet)), stage
    show("\n".join(f"{count:>4} kills of {' '.join(stage)}" for stage, count in counts.items()))
    assert sum(counts.values()) >= kills * len(counts) - 5


@pytest.mark.parametrize(
    "times", [pytest.param(1, marks=pytest.mark.long), pytest.param(4, marks=pytest.mark.faults)]
)
def test_the_killed_pipeline_ends_with_the_same_bytes(tmp_path, show, times):
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    quiet.mkdir()
    killed.mkdir()
    seconds = run([*REPRODUCE, "--cores", "2", "--workspace", str(quiet)], quiet)
    command = [*REPRODUCE, "--cores", "2", "--workspace", str(killed)]
    rng, kills, seen = random.Random(times), 0, {}
    for _ in range(times):
        kills += kill(command, killed, rng.uniform(0.05, 0.3) * seconds, rng)
        seen = kept(seen, killed)
    run(command, killed)
    assert not differences(kept(seen, killed), contents(quiet))
    show(f"{kills:>4} kills of the pipeline")
    assert kills >= times - times // 4


@pytest.mark.long
def test_a_killed_kernel_gives_one_error_that_names_the_notebook(tmp_path):
    pipeline = subprocess.Popen(
        [*REPRODUCE, "--cores", "1", "--workspace", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        first_kernel(pipeline.pid, tmp_path).kill()
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
    end = time.monotonic() + 60
    while time.monotonic() < end:
        started = (workspace / "data" / "smoke" / "source" / "settings.json").is_file()
        for child in psutil.Process(pid).children(recursive=True) if started else ():
            if "ipykernel_launcher" in " ".join(child.cmdline()):
                return child
        time.sleep(0.1)
    raise AssertionError("No kernel has begun to work within a minute.")
