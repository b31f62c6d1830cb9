"""The processes of a pipeline: started with a mark, stopped together, none left behind.

A killed pipeline cannot stop what it started, so the next one does: whatever bears the mark of its
workspace while it holds the workspace's lock is an orphan.
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

MARK = "NAPO_PIPELINE"  # in the environment of all that a pipeline starts, kernels included
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


class Stopped(BaseException):
    """A signal that asks to stop has come.

    Attributes:
        code: what a shell expects as the exit code, 128 and the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raise `Stopped` in the main thread for SIGINT, SIGTERM and SIGHUP, which stay quiet after it.

    On leaving, the signals do what they did before; so what has to be done undisturbed is done
    inside. A SIGHUP that is ignored stays so: `nohup` means a run to outlive its terminal.
    """

    def stop(number: int, _: object) -> None:
        for each in STOPS:  # once is enough: what follows must not be cut short
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    hangs_on = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    taken = [each for each in STOPS if not (hangs_on and each == signal.SIGHUP)]
    before = {each: signal.signal(each, stop) for each in taken}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def start(
    command: Sequence[str], place: Path, environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    """Start a command whose output is one pipe of lines, with all that it starts marked by a place.

    It has a session of its own, so that Ctrl-C reaches us alone; on Linux it dies with us.
    """
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**environment, MARK: str(place)},
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )


def end(place: Path) -> int:
    """Kill whatever bears the mark of a place; how many there were.

    SIGKILL, not a request: every stage survives it, and none can put it off.
    """
    ended = 0
    while found := _marked(place):
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=5)
        ended += len(found)
    return ended


def _marked(place: Path) -> list[psutil.Process]:
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # ended meanwhile, or another user's
            if process.pid in ours or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(MARK) == str(place):
                found.append(process)
    return found


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
