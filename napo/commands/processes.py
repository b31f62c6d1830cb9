"""The processes of a pipeline: started with a mark, ended together.

A killed pipeline cannot end what it started; the next one does. It holds the workspace's lock, so
every other process with the workspace's mark is an orphan.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

MARK = "NAPO_PIPELINE"  # environment variable of all that a pipeline starts, kernels included
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP has come; `code` is the exit code that a shell expects."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread for the first of `STOPS`; ignore those that follow.

    On leaving, the signals do again what they did before, so clean up inside. A SIGHUP that is
    ignored stays ignored: with `nohup` a run outlives its terminal.
    """

    def stop(number: int, _: object) -> None:
        for other in STOPS:  # cleaning up must not be cut short
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in STOPS}
    if before[signal.SIGHUP] == signal.SIG_IGN:
        del before[signal.SIGHUP]
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(
    command: Sequence[str], data: Path, environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Start a command with its output in one pipe of lines.

    It has a session of its own, so that Ctrl-C reaches only us. On Linux it dies with us. The
    profile's folder `data` marks all that the command starts.
    """

    def die_with_parent() -> None:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, see prctl(2)

    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment, MARK: str(data)},
        start_new_session=True,
        preexec_fn=die_with_parent if sys.platform == "linux" else None,
    )


def end(data: Path) -> int:
    """Kill every process with the mark of a profile's folder; return their number.

    It uses SIGKILL: no process can catch it, and every stage can resume.
    """
    ended = 0
    while processes := marked(data):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=5)
        ended += len(processes)
    return ended


def marked(data: Path) -> list[psutil.Process]:
    """The processes with the mark of a profile's folder, without this one and its parents."""
    family = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # it has ended, or is another user's
            if process.pid in family or process.status() == psutil.STATUS_ZOMBIE:
                continue
            # A job of SLURM on this machine has our variables. It is the scheduler's, not ours.
            variables = process.environ()
            same_job = variables.get("SLURM_JOB_ID") == os.environ.get("SLURM_JOB_ID")
            if variables.get(MARK) == str(data) and same_job:
                processes.append(process)
    return processes
